"""The claims and the picture of the longer table 1, on results made up for its runs: each can hold and can fail."""

from dataclasses import replace

import pytest

from experiments.analysis import pages
from experiments.analysis.claims import NOT_REPRODUCED, REPRODUCED, evaluate
from experiments.figures import table1_long as figure

METRICS = (figure.LOW, figure.LAST, figure.PENULTIMATE)
STEPS = (0, 975, 3900)


def as_published(metric, step, arm):
    """The paper's table at every decay, which grows to it; no decay is as decay alone."""
    syre, end = arm["name"] == "syre", step == STEPS[-1]
    if metric == figure.LOW:
        return 0.7 * (end and not syre)
    return 0.468 if metric == figure.PENULTIMATE else 0.222 + 0.42 * 0.246 * syre


def contrary(metric, step, arm):
    """syre unlearns, and leaves unused what decay alone uses, in the end; the last layer is the better one."""
    syre, end = arm["name"] == "syre", step == STEPS[-1]
    if metric == figure.LOW:
        return 0.7 if syre else 0.3 - 0.2 * end
    return (0.05 if syre else 0.2) if metric == figure.PENULTIMATE else (0.1 if syre else 0.222)


@pytest.fixture
def made(made_up):
    return lambda value: made_up("table1_long", METRICS, STEPS, value)


def verdicts(results):
    return {claim.id: evaluate(claim, results).verdict for claim in figure.CLAIMS}


def test_every_claim_holds_in_the_papers_table_and_fails_in_the_contrary_one(made):
    found = verdicts(made(as_published))
    assert len(found) == len(figure.CLAIMS)  # ids of their own
    assert set(found.values()) == {REPRODUCED}
    wrong = {name for name, verdict in verdicts(made(contrary)).items() if verdict != NOT_REPRODUCED}
    assert wrong == set()


def test_no_claim_survives_swapped_labels(made):
    results = made(as_published)
    assert not [c.id for c in figure.CLAIMS if evaluate(replace(c, opposite=True), results).verdict == REPRODUCED]


def test_every_arm_of_the_experiment_is_in_the_table_and_in_the_picture(made):
    results = made(as_published)
    rows = figure.paper_table(results).splitlines()[2:-2]
    arms = results.runs.groupby(results.runs.filter(like="regularizer.").columns.tolist(), dropna=False).ngroups
    assert len({tuple(row.split("|")[1:3]) for row in rows}) == len(rows) == arms
    assert (
        "| weight decay | 0.0001 | 70.0 [70.0, 70.0] | 70 | 46.8 [46.8, 46.8] | 46.8 | 22.2 [22.2, 22.2] | 22.2 |"
        in rows
    )
    drawn = figure.draw(results)
    assert [ax.get_title() for ax in drawn.axes[:3]] == ["low-rankness, %", "penultimate, %", "last layer, %"]
    named = set(drawn.axes[0].get_legend_handles_labels()[1])
    assert {own.label for own in figure.LINES} < named


def test_what_is_said_is_made_of_the_results(made):
    said, other = (figure.finding(made(value)).finding for value in (as_published, contrary))
    assert "leaves 70 % of the last layer unused, syre 0 % at σ = 1" in said
    assert "leaves 10 % of the last layer unused, syre 70 %" in other
    told = " ".join(
        pages.notes(pages.Report(name="table1_long", module=figure, results=made(as_published), verdicts=())).split()
    )
    assert "the layers are 24.6 [24.6, 24.6] points apart" in told
    assert "changes by 70 [70, 70] points" in told
