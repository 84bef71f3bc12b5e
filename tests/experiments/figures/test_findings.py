"""What the figures show, in words: each has some, they are made of the committed results, and turn where these turn."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.analysis import pages
from experiments.analysis.arms import GAMMA, decay
from experiments.analysis.claims import NOT_TESTED, evaluate
from experiments.analysis.results import Results, ResultsError, combine, load, select

RESULTS = Path(__file__).parents[3] / "results"
FIGURES = pages.available(RESULTS)
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FIGURES]
# With an arm less readings and diagnostics count fewer, the claims of figure 4 raise, and fig4_scale names no decay.
WITHOUT_DECAY = {"readings", "diagnostics", "fig4", "fig4_scale"}
CHOSEN = {"rivals"}  # judged at settings that its results choose: by others than these nothing would be judged
LONGEST = {"front": 420}  # three sentences, which README.md begins with


@cache
def committed(name: str) -> Results:
    return combine([load(RESULTS, source) for source in pages.sources(pages.module_of(name), name)])


def found(name: str, results: Results) -> tuple[str, str, str]:
    """Finding, the paper's number and ours, as the README has them."""
    report = pages.Report(name=name, module=pages.module_of(name), results=results, verdicts=())
    return tuple(pages._finding(report).values())


def scaled(results: Results, rows: np.ndarray, by: float | np.ndarray) -> Results:
    """The results with some of the recorded values times a factor."""
    values = results.metrics["value"]
    return replace(results, metrics=results.metrics.assign(value=values.where(~rows, values * by)))


def of(results: Results, metric: str, **arm: object) -> np.ndarray:
    """Which records are of a metric, in the runs of an arm."""
    ids = select(results.runs, **arm)["id"]
    return ((results.metrics["metric"] == metric) & results.metrics["id"].isin(ids)).to_numpy()


@pytest.mark.parametrize("name", pages.names())
def test_every_figure_has_a_finding_or_says_what_was_learnt(name: str) -> None:
    assert hasattr(pages.module_of(name), "finding") or hasattr(pages.module_of(name), "learnt")


@pytest.mark.parametrize("name", GROUPED)
def test_it_is_a_sentence_or_two_made_of_the_results(name: str) -> None:
    results = committed(name)
    finding, _, ours = found(name, results)
    assert finding.endswith(".")
    assert len(finding) <= LONGEST.get(name, 260)
    assert ours or not hasattr(pages.module_of(name), "finding")
    assert not re.search(r"nan|inf\b|  |\{|−0\b(?!\.)", finding + ours)
    noise = np.random.default_rng(0).uniform(0.6, 1.4, len(results.metrics)) if name not in CHOSEN else 0.9
    other, _, theirs = found(name, scaled(results, np.ones(len(results.metrics), dtype=bool), noise))
    assert other not in ("", finding), "the control: other results, other words"
    assert theirs != ours


def test_with_a_seed_of_three_it_says_that_it_is_not_judged_yet() -> None:
    whole = pages.judge("gpt", RESULTS)
    runs = whole.results.runs[whole.results.runs["seed"] == 0]
    metrics = whole.results.metrics[whole.results.metrics["id"].isin(runs["id"])]
    few = replace(whole.results, runs=runs, metrics=metrics)
    untested = tuple(evaluate(claim, few) for claim in whole.module.CLAIMS)
    assert {verdict.verdict for verdict in untested} == {NOT_TESTED}
    said = {
        verdicts: pages._finding(replace(whole, results=few, verdicts=verdicts))["finding"]
        for verdicts in (untested, untested[:1] + whole.verdicts, whole.verdicts)
    }
    rest = "is judged yet: only some of its runs have ended."
    assert list(said.values()) == [f"Nothing {rest}", f"Not all {rest}", ""]
    assert "judged yet" not in pages._finding(whole)["finding"], "the control: with all of its runs"


@pytest.mark.parametrize("name", GROUPED)
def test_without_the_numbers_it_says_nothing(name: str) -> None:
    results = committed(name)
    none = replace(results, metrics=results.metrics.iloc[:0])
    assert found(name, none) == ("", "", "")
    if (arms := results.runs.get("regularizer.name")) is not None and name not in WITHOUT_DECAY:
        rest = replace(results, runs=results.runs[arms != "weight_decay"])
        assert found(name, rest) == ("", "", "") or "weight_decay" not in {*arms}


# ---- words turn where the results do: of each kind of word one -------------------------------------------------------


def first(name: str, results: Results) -> str:
    return found(name, results)[0]


def test_neurons_that_stay_together_are_not_said_to_be_parted() -> None:
    results = committed("fig1")
    assert "syre parts them at" in first("fig1", results)
    together = scaled(results, of(results, "distance", **{"regularizer.name": "syre"}), 0.0)
    assert "syre does not part them all at" in first("fig1", together)
    assert "parts neurons that start as copies" in first("front", committed("front"))
    alike = committed("front")
    alike = scaled(alike, of(alike, "distance", experiment="fig1"), 0.0)
    assert "does not part all copies of a neuron" in first("front", alike)


def test_a_dimension_that_does_not_help_is_not_said_to() -> None:
    results = committed("fig2")
    assert first("fig2", results).startswith("A high input dimension helps without syre too")
    few = of(results, "symmetry/0.1", **{**decay(), "data.inputs": 5})
    assert first("fig2", scaled(results, few, 0.1)).startswith("Without syre it hardly helps")


def test_a_rival_is_better_worse_or_neither() -> None:
    results = committed("fig11")
    rival = of(results, "accuracy", **{"regularizer.name": "l2_init"})
    assert "L2 Init is better" in first("fig11", results)
    assert "L2 Init is worse" in first("fig11", scaled(results, rival, 0.9))
    assert "weight decay alone is not clearly better" in first("fig11", results)


def test_a_barrier_that_is_there_is_not_said_to_be_gone() -> None:
    results = committed("fig13")
    assert "leaves no barrier" in first("fig13", results)
    rows = of(results, "barrier/loss", **{"regularizer.name": "syre", "regularizer.sigma": 1})
    assert "leaves a barrier" in first("fig13", scaled(results, rows, 100))


def test_an_effective_rank_that_falls_is_said_to_fall() -> None:
    results = committed("fig7")
    rows = of(results, "rank/effective", **{**decay(), "data.label_noise": 0.5})
    assert "its effective rank does not fall" in first("fig7", results)
    assert "its effective rank falls too" in first("fig7", scaled(results, rows, 0.5))


def test_a_symmetry_that_is_left_is_said_to_be_left() -> None:
    results = committed("theory")
    rows = of(results, "found", **{"task.name": "theorem1"})
    assert "both together leave none" in first("theory", results)
    assert "both together leave some" in first("theory", scaled(results, rows, 0.0))


def test_the_opening_names_the_sigma_that_acts_and_the_one_that_harms() -> None:
    front, results = pages.module_of("front"), committed("front")
    assert (front.acts(results), front.harms(results)) == (1, 3)
    assert "they take σ = 1 (" in first("front", results)
    weak = of(results, "rank", **{"experiment": "fig9", "regularizer.name": "syre", "regularizer.sigma": 1})
    less = scaled(results, weak, 0.5)
    assert front.acts(less) != 1
    costly = of(results, "accuracy", **{"experiment": "fig5", GAMMA: 1e-4, "regularizer.sigma": 0.3})
    assert front.harms(scaled(results, costly, 0.5)) == 0.3
    harmless = replace(results, runs=results.runs[~results.runs["regularizer.sigma"].isin([3, 10])])
    assert np.isnan(front.harms(harmless))
    assert first("front", harmless) == "", "no number, no sentence"
    assert first("front", replace(results, runs=results.runs[results.runs["regularizer.sigma"] != 0.01])) == ""


def test_a_finding_of_a_metric_that_is_not_there_is_empty_and_any_other_error_is_not_hidden(monkeypatch) -> None:
    module = pages.module_of("fig1")
    monkeypatch.setattr(module, "finding", lambda results: results.final("no such metric"))
    assert found("fig1", committed("fig1")) == ("", "", "")
    monkeypatch.setattr(module, "finding", lambda results: {}["typo"])
    with pytest.raises(KeyError, match="typo"):
        found("fig1", committed("fig1"))


def test_control_a_number_that_is_not_there_raises() -> None:
    from experiments.analysis.words import mean

    with pytest.raises(ResultsError, match="a number of the finding is not there"):
        mean(pd.Series(dtype=float))
