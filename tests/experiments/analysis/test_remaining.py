"""What would decide an open claim: as many seeds as its own test takes, and the runs of its arms that are not there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from experiments.analysis.arms import NAME, SIGMA, arm, difference, final
from experiments.analysis.claims import (
    INCONCLUSIVE,
    NOT_TESTED,
    Equivalence,
    Monotone,
    NonInferiority,
    Rare,
    Superiority,
    evaluate,
)
from experiments.analysis.remaining import MOST, NO_VALUE, needed, seeds_to_decide, still_open
from experiments.analysis.results import Results

SYRE, DECAY = arm("syre"), arm("weight_decay")
BOTH = difference("rank", SYRE, DECAY)
MORE = Superiority("more", "syre has more rank", "6", BOTH, margin=5, arms=(SYRE, DECAY))
SAME = Equivalence("same", "as much", "6", BOTH, margin=5, arms=(SYRE, DECAY))
HIGH = Superiority("high", "a high rank", "6", final("rank", DECAY), margin=5, arms=(DECAY,))


def results(syre, decay, hours=2.0, scale="cpu"):
    """Of each arm a value a seed; None is a run that failed. The later a run the longer it took, from `hours` on."""
    rows = [("syre", seed, value) for seed, value in enumerate(syre)]
    rows += [("weight_decay", seed, value) for seed, value in enumerate(decay)]
    runs = pd.DataFrame(rows, columns=[NAME, "seed", "value"])
    runs = runs.assign(**{SIGMA: None}, id=[f"{k:012x}" for k in range(len(rows))], status="done")
    runs["status"] = runs["status"].mask(runs["value"].isna(), "failed")
    runs["seconds"] = np.where(runs["status"] == "done", 3600 * (hours + np.arange(len(runs))), 1.0)
    metrics = runs[["id", "value"]].assign(step=1, split="test", metric="rank").astype({"value": float})
    return Results(experiment="fig0", scale=scale, runs=runs.drop(columns="value"), metrics=metrics)


def section(data, *claims):
    return still_open([evaluate(claim, data) for claim in claims], data)


def lines(data, *claims):
    """The cells of the table, and what is said of all together."""
    _, _, table, *together = section(data, *claims)
    cells = [tuple(line.strip("| ").replace("**", "").split(" | ")) for line in table.splitlines()[2:]]
    return cells, *together


def test_a_claim_that_cannot_be_tested_needs_three_seeds_of_each_arm():
    cells, together = lines(results([90], [40, 41]), MORE, SAME, HIGH)
    assert cells == [("more, same", "3 seeds", "3", "6"), ("high", "3 seeds", "1", "2")]
    assert together == "Together, each run counted once: 3 runs, 6 core-hours."  # 2 of syre, 1 of decay
    cells, _ = lines(results([], [40]), MORE)
    assert cells == [("more", "3 seeds", "5", "10")]
    assert evaluate(MORE, results([], [40])).verdict == NOT_TESTED


def test_a_run_costs_what_the_shortest_did_that_has_not_failed():
    _, said, *_ = section(results([None, 1.0], [2.0], hours=3.0), MORE)
    assert said.startswith("A run is taken to cost 4 core-hours")
    data = results([None], [None])
    _, said, table, _ = section(replace(data, runs=data.runs.assign(seed=[0, 1])), MORE)
    assert said.startswith("No run has ended")
    assert table.splitlines()[2] == "| **more** | 3 seeds | 6 | ? |"


def half_width(samples, n, level):
    return stdtrit(n - 1, (1 + level) / 2) * np.std(samples, ddof=1) / np.sqrt(n)


@pytest.mark.parametrize("mean", [-9.0, -3.0, 0.0, 3.0, 7.0, 12.0])
@pytest.mark.parametrize(
    ("claim", "level", "distance"),
    [
        (MORE, 0.95, lambda mean: abs(mean - 5)),
        (SAME, 0.90, lambda mean: abs(abs(mean) - 5)),
        (NonInferiority("cheap", "costs less", "6", BOTH, margin=5), 0.90, lambda mean: abs(mean + 5)),
    ],
)
def test_an_inconclusive_one_needs_so_many_that_the_interval_would_end_before_the_margin(claim, level, distance, mean):
    samples = mean + 4 * np.array([-1.0, 0.0, 1.0])
    n = seeds_to_decide(claim, samples)
    assert half_width(samples, n, level) < distance(mean)
    assert n == 3 or half_width(samples, n - 1, level) >= distance(mean)
    wider = seeds_to_decide(claim, mean + 16 * np.array([-1.0, 0.0, 1.0]))
    assert wider is None or wider > n  # control


def test_no_number_of_seeds_decides_an_effect_at_the_margin():
    assert seeds_to_decide(MORE, np.array([4.0, 5.0, 6.0])) is None
    cells, *together = lines(results([44, 45, 46], [40, 40, 40]), MORE)
    assert cells == [("more", f"more than {MOST} seeds", "–", "–")]
    assert not together  # no runs to be added up


def test_samples_without_spread_need_what_the_sign_test_takes_and_shares_and_trends_their_own_tests():
    assert seeds_to_decide(MORE, np.full(3, 7.0)) == 5
    assert seeds_to_decide(Monotone("up", "rises", "6", BOTH), np.array([0.4, 1.0, 1.0])) > 3
    rare = Rare("rare", "seldom", "6", BOTH, margin=0.1)
    n = seeds_to_decide(rare, np.zeros(3))
    assert rare.judge(np.zeros(n)).verdict != INCONCLUSIVE == rare.judge(np.zeros(n - 1)).verdict


def test_runs_that_serve_several_claims_are_counted_once():
    data = results([50, 58, 70], [40, 44, 52])
    assert evaluate(MORE, data).verdict == INCONCLUSIVE
    n = seeds_to_decide(MORE, np.array([10.0, 14.0, 18.0]))
    other = replace(MORE, id="much more", margin=8)
    m = seeds_to_decide(other, np.array([10.0, 14.0, 18.0]))
    assert 3 < n < m
    cells, together = lines(data, MORE, other)
    assert [cell[:3] for cell in cells] == [
        ("more", f"{n} seeds", str(2 * (n - 3))),
        ("much more", f"{m} seeds", str(2 * (m - 3))),
    ]
    assert f" {2 * (m - 3)} runs," in together


def test_where_more_seeds_decide_nothing_it_says_what_does():
    at_paper_scale = replace(MORE, scale="paper")
    assert lines(results([90], [40]), at_paper_scale)[0] == [("more", "runs of `paper` scale", "–", "–")]
    data = results([90, 91, 92, None], [40, 41, 42, 43])
    assert evaluate(MORE, data).verdict == INCONCLUSIVE
    assert lines(data, MORE)[0] == [("more", NO_VALUE, "–", "–")]
    lost = data.metrics["id"].isin(data.runs["id"][1:4])  # runs that are there, and a metric that they do not have
    data = replace(data, metrics=data.metrics[~lost])
    few = replace(MORE, samples=lambda results: BOTH(results).dropna())
    assert evaluate(few, data).verdict == NOT_TESTED
    assert lines(replace(data, runs=data.runs.assign(status="done")), few)[0] == [("more", NO_VALUE, "–", "–")]


def test_nothing_is_said_of_what_is_decided_or_does_not_state_its_arms():
    data = results([90, 93, 92], [40, 41, 42])
    assert section(data, MORE, SAME) == []
    few = results([90], [40])
    assert section(few, replace(MORE, arms=())) == []
    assert needed(evaluate(MORE, few), few) is not None  # control
