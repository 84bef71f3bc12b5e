"""What is said of figures in few words: costs, the paper's order, and the table of the README."""

import re
from pathlib import Path

import pytest

from experiments.analysis import overview, pages
from experiments.analysis.claims import MIN_SEEDS
from experiments.analysis.summaries import (
    core_time,
    figures_named,
    listed,
    place,
    seeds_of,
    summary_table,
    the_runs_of,
    training_time,
)

RESULTS = Path(__file__).parents[3] / "results"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "1 core-minute"),
        (89, "1 core-minute"),
        (91, "2 core-minutes"),
        (7000, "117 core-minutes"),
        (11820, "3.3 core-hours"),
        (10800, "3 core-hours"),
        (44580, "12 core-hours"),
    ],
)
def test_the_time_of_a_core_is_said_in_its_unit(seconds, said):
    assert core_time(seconds) == said


def test_the_time_of_a_gpu_is_not_that_of_a_core():
    assert training_time({"cpu": 7300.0}) == "2 core-hours"
    assert training_time({"NVIDIA H100": 2438.0}) == "41 minutes of one NVIDIA H100"
    assert training_time({"NVIDIA H100": 300.0, "cpu": 60.0}) == "1 core-minute and 5 minutes of one NVIDIA H100"


def test_the_seeds_are_those_that_claims_are_judged_on():
    assert [seeds_of([5, 3, 5]), seeds_of([1]), seeds_of({10})] == ["3 to 5 seeds", "1 seed", "10 seeds"]


def test_the_cost_of_a_figure_names_whose_runs_it_has_which_are_missing_and_what_trains_after_it():
    said = {name: pages.summary(pages.judge(name, RESULTS)) for name in ("fig3", "fig4_scale", "fig6b", "fig12")}
    assert said["fig3"]["cost"].endswith("core-minute and then fig3b")
    assert re.fullmatch(r"\d+ core-minutes? and the runs of fig4 \(\d+ core-minutes?\)", said["fig4_scale"]["cost"])
    assert said["fig12"]["judged_on"] == "3 to 5 seeds"  # of ten, for the tables have those of several blocks
    few = said["fig6b"]["seeds"] < MIN_SEEDS
    assert said["fig6b"]["cost"].endswith(" runs so far") == few


def test_what_make_trains_after_a_figure_is_what_its_cost_names():
    makefile = (RESULTS.parent / "Makefile").read_text()
    panels = {name: tuple(named.split()) for name, named in re.findall(r"^PANELS_(\w+) := (.*)$", makefile, re.M)}
    assert panels == {name: own for name in pages.names() if (own := getattr(pages.module_of(name), "AFTER", ()))}


def test_figures_stand_in_the_papers_order_and_what_goes_beyond_it_last():
    names = ["ablation", "fig10", "fig2", "fig2_teacher", "fig3", "fig3b", "fig3b_full", "fig6", "fig6b", "table1"]
    names += ["table1_head", "table2", "theory", "hurts"]
    ordered = ["fig2", "fig2_teacher", "fig3", "fig3b", "fig3b_full", "fig6", "fig6b", "fig10", "table1"]
    ordered += ["table1_head", "table2", "theory", "ablation", "hurts"]
    assert sorted(names, key=place) == ordered
    assert sorted(pages.names(), key=place)[0] == "fig1"  # every figure there is has a place


def test_figures_in_a_sentence():
    assert figures_named(["fig12", "table1", "fig3b_full", "fig2"]) == "figures 2, 3b full and 12, table 1"
    assert figures_named(["table1", "table2", "theory"]) == "tables 1 and 2, theory"
    assert figures_named(["fig5"]) == "figure 5"
    assert figures_named([]) == listed([]) == "none"
    assert the_runs_of(["fig2", "fig5"]) == "the runs of fig2, fig5"
    assert the_runs_of(["fig1"] * 13) == "the runs of 13 figures"


def summary(name, *verdicts, **more):
    finding = {"finding": f"{name} | shows", "paper": "70 %", "ours": "71 %"}
    judged = [{"id": str(k), "verdict": verdict} for k, verdict in enumerate(verdicts)]
    plain = {"name": name, "title": f'a "{name}"', "scale": "cpu", "judged_on": "10 seeds", "cost": "1 core-minute"}
    return plain | {"finding": finding, "verdicts": judged} | more


def test_a_row_has_picture_finding_both_numbers_verdicts_cost_and_command():
    verdicts = ["reproduced", "contrary at this scale", "reproduced", "not reproduced", "inconclusive"]
    lines = summary_table([summary("hurts", "reproduced", judged_on="1 seed"), summary("fig4", *verdicts)]).splitlines()
    assert lines[2] == (
        '| [<img src="results/fig4/figure.png" width="200" alt="a &quot;fig4&quot;">](results/fig4/report.md) '
        r"| fig4 \| shows | 70 % | 71 % | 2 ✓ 1 ✗ 1 ? 1 ! | cpu, 10 seeds, 1 core-minute "
        "| [`make fig4`](results/fig4/report.md) |"
    )
    assert "| 1 ✓ | cpu, 1 seed, 1 core-minute | [`make hurts`]" in lines[3]


def test_the_opening_picture_claims_nothing_and_has_no_row_but_the_first_sentences():
    opening = summary(overview.OPENING)
    assert len(summary_table([opening]).splitlines()) == 2  # the header
    assert overview.found([opening, summary("hurts")]) == "front | shows"
    assert overview.found([summary("hurts")]) == ""
