"""The notes of the reports: what they tell of our results is made of the tables, and what is typed is not of them."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis import pages
from experiments.analysis.arms import IDENTICAL, NAME, SCOPE, SIGMA, START, UNIT, VANILLA, decay, syre
from experiments.analysis.notes import MISSING, Numbers
from experiments.analysis.results import Results, select
from experiments.analysis.statements import STATEMENTS
from experiments.figures.fig2 import TANH
from tests.experiments.figures.test_figures import TRAINING
from tests.experiments.figures.test_findings import FIGURES, committed, of, scaled

ROOT = Path(__file__).parents[3]
MADE = [name for name in FIGURES if hasattr(pages.module_of(name), "notes")]
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MADE]
AN_INTERVAL = re.compile(r"\d [%\w]* ?\[[−-]?[\d.,]+, [−-]?[\d.,]+\]")  # of our results, for the paper has none
IN_NO_TABLE = {"fig3b": ["5 [−1.2, 2.3]"]}  # runs of a GPU that were repeated on a CPU


def notes(name: str, results: Results) -> str:
    return pages.notes(pages.Report(name=name, module=pages.module_of(name), results=results, verdicts=()))


def places(name: str, results: Results, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told in each place of the notes."""
    filled: list[str] = []
    told = Numbers.told
    monkeypatch.setattr(Numbers, "told", lambda say, words: filled.append(told(say, words)) or filled[-1])
    pages.module_of(name).notes(results)
    monkeypatch.undo()
    return filled


def typed(module: Path) -> str:
    """The texts of a module, without what stands in the places of its notes."""
    texts = (node.value for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant))
    return "\n".join(text for text in texts if isinstance(text, str))


@pytest.mark.parametrize("name", GROUPED)
def test_each_place_is_filled_from_the_committed_results_and_changes_with_them(name: str, monkeypatch) -> None:
    results = committed(name)
    # what has no number yet is not printed; of what has ended, every number is there
    assert MISSING not in (notes(name, results) if name in TRAINING else pages.module_of(name).notes(results))
    filled = places(name, results, monkeypatch)
    assert filled or name in TRAINING  # which may have too few seeds to say anything
    assert not re.search(r"nan|inf\b|\{", "".join(filled))
    others = []
    for seed in (0, 1):  # a number of three digits may be what it was by chance, in one of them
        factors = np.random.default_rng(seed).uniform(0.02, 0.2, len(results.metrics))
        others.append(places(name, scaled(results, np.ones(len(factors), dtype=bool), factors), monkeypatch))
    # 0 stays 0; how many seeds, and which sigma is best, may stay
    numbers = re.compile(r"(?=.*[1-9])[−\d.,e]+( to [−\d.,]+| \[.*\])?")
    assert not [one for one, *two in zip(filled, *others, strict=True) if {one} == {*two} and numbers.fullmatch(one)]


@pytest.mark.parametrize("name", GROUPED)
def test_without_some_of_the_runs_there_are_notes_all_the_same(name: str) -> None:
    results = committed(name)
    arms = results.runs.get("regularizer.name", results.runs["id"])
    left = notes(name, replace(results, runs=results.runs[arms != "weight_decay"]))
    assert left
    assert MISSING not in left


def test_a_paragraph_that_needs_them_is_left_out() -> None:
    results = committed("fig1")
    first, *rest = notes("fig1", results).split("\n\n")
    alone = results.runs["regularizer.name"] == "weight_decay"
    assert "the loss ends the worse" in first
    assert notes("fig1", replace(results, runs=results.runs[~alone])).split("\n\n") == rest


def test_a_sentence_has_the_numbers_of_its_arm() -> None:
    results = committed("fig1")
    assert "(0.09 without, 0.25 with 0.9, 1.73 with all of them)" in " ".join(notes("fig1", results).split())
    none = scaled(results, of(results, "loss", **{**decay(gamma=1e-3), IDENTICAL: 0.9}), 0)
    assert "(0.09 without, 0.00 with 0.9, 1.73 with all of them)" in " ".join(notes("fig1", none).split())


@pytest.mark.parametrize("name", pages.names())
def test_no_interval_is_typed_in_a_figure(name: str) -> None:
    found = AN_INTERVAL.findall(typed(Path(str(pages.module_of(name).__file__))))
    assert found == IN_NO_TABLE.get(name, [])


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_no_interval_is_typed_in_a_page(page: Path) -> None:
    by_hand = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", page.read_text(), flags=re.S)
    assert not AN_INTERVAL.findall(by_hand)


def test_control_a_typed_interval_is_seen(tmp_path: Path) -> None:
    said = 'f"costs {x} points, 0.3 [−0.1, 0.5] more, 16 % [13, 20] of it; on [−2, 2], in [0, 1]"'
    (tmp_path / "figure.py").write_text(said)
    assert AN_INTERVAL.findall(typed(tmp_path / "figure.py")) == ["3 [−0.1, 0.5]", "6 % [13, 20]"]


# ---- what is said in words of numbers that stand elsewhere -----------------------------------------------------------


def text_of(name: str) -> str:
    return " ".join((ROOT / name).read_text().split())


def test_the_sigmas_that_the_pages_advise_are_those_of_the_map() -> None:
    front, results = pages.module_of("front"), committed("front")
    acts, harms = front.acts(results), front.harms(results)
    assert f"| {acts:g}, or 0.3 to be careful | 0.1 | | to be sure" in text_of("docs/choose_sigma.md")
    assert f"| never | {harms:g} and above |" in text_of("docs/choose_sigma.md")
    assert f"Take {acts:g}, or 0.3 to be careful, against a collapse" in text_of("README.md")
    for name in ("README.md", "docs/PYPI.md"):
        assert f"never {harms:g} or more" in text_of(name)
    lost, undone = (front.over_sigma(results, what) for what in ("lost", "undone"))
    assert lost.loc[0.01].max() < 0.5, "at no cost"
    assert lost.loc[0.1].max() < 0.5, "to be sure to lose little: at most 0.1"
    assert undone.loc[0.3].mean() > 40, "or 0.3 to be careful"


def test_where_the_right_solution_is_symmetric_a_third_begins_to_cost_and_one_does() -> None:
    assert "a sigma of 0.3 begins to cost, and 1 does" in text_of("docs/choose_sigma.md")
    hurts, results = pages.module_of("hurts"), committed("hurts")
    points = {s: hurts.cost(results, hurts.PLACES["student"], syre(sigma=s)).mean() for s in (0.1, 0.3, 1)}
    assert points[0.1] < 0.005 < points[0.3] < 0.02 < points[1]


def test_no_sigma_brings_back_more_than_a_part_in_the_transformer() -> None:
    assert "no sigma brings back more than a part of what strong decay takes" in text_of("docs/choose_sigma.md")
    fig12, rows = pages.module_of("fig12"), committed("fig12").final("accuracy")
    mean = {
        key: select(rows, **arm).groupby([SIGMA, UNIT, SCOPE, START], dropna=False)["accuracy"].mean()
        for key, arm in {
            "syre": {NAME: "syre", **fig12.STRONG},
            "decay": decay(fig12.STRONG),
            "none": VANILLA | fig12.WHOLE,
        }.items()
    }
    assert (mean["syre"].max() - mean["decay"].item()) / (mean["none"].item() - mean["decay"].item()) < 0.5


def test_in_most_figures_no_decay_is_as_good() -> None:
    counted = re.search(r"in (\d+) \([^)]*\) of the (\d+) figures where the two", text_of("README.md"))
    assert counted
    assert int(counted[1]) > int(counted[2]) / 2
    for name in ("docs/choose_sigma.md", "docs/diagnose.md"):
        assert re.search(r"[Ii]n most of the (paper's )?figures no decay at all", text_of(name))


def test_the_statements_are_counted() -> None:
    assert f"All {len(STATEMENTS)} statements of the paper" in text_of("README.md")


def test_notes_that_speak_of_another_table_hold_for_it() -> None:
    falls = {
        name: [results.by_seed("symmetry/0.1", decay({**at, "data.inputs": n})).mean() for n in (5, 300)]
        for name, at in (("fig2", TANH), ("fig2_teacher", {}))
        for results in [committed(name)]
    }
    assert falls["fig2"][0] > 90 > 20 > falls["fig2"][1], "from nearly all neurons symmetric to few"
    assert falls["fig2_teacher"][0] - falls["fig2_teacher"][1] < (falls["fig2"][0] - falls["fig2"][1]) / 2
    untrained = committed("table1").curve("low_rankness", **VANILLA).query("step == 0")["low_rankness"]
    assert untrained.min() > 0.3, "many low eigenvalues, before training"
    short, full = (committed(name).final("accuracy")["accuracy"].max() for name in ("fig3b", "fig3b_full"))
    assert short < full - 0.2, "far below"
