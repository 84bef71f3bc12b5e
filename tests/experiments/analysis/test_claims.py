"""A verdict follows the data: it is right on clear data, silent on scarce data, and never survives swapped labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.analysis.arms import SIGMA, arm, beats, costs, difference, falls, final, minus, rises, same
from experiments.analysis.claims import (
    CONTRARY,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    Equivalence,
    Monotone,
    NonInferiority,
    Rare,
    Superiority,
    evaluate,
    per_seed,
)
from experiments.analysis.results import Results, ResultsError
from experiments.analysis.stats import p_above, p_rarer, t_interval, wilson_interval

SYRE, DECAY = arm("syre"), arm("weight_decay")
SAYS = ("C1", "syre is better", "6.2")
BETTER = beats(*SAYS, "accuracy", arm("syre", sigma=0.1), DECAY, margin=0.1)
SAME = same(*SAYS, "accuracy", arm("syre", sigma=0.1), DECAY, 0.5)
CHEAP = costs(*SAYS, "accuracy", arm("syre", sigma=0.1), DECAY, 0.1)
RISES, FALLS = (trend(*SAYS, "accuracy", SYRE, SIGMA) for trend in (rises, falls))


def table(*rows, metric="accuracy"):
    """Results of runs (name, sigma, seed, accuracy); None as the accuracy is a NaN run."""
    runs = pd.DataFrame(
        {
            "id": [f"{k:012x}" for k in range(len(rows))],
            "status": ["done" if row[3] is not None else "nan" for row in rows],
            "regularizer.name": [row[0] for row in rows],
            "regularizer.sigma": [row[1] for row in rows],
            "seed": [row[2] for row in rows],
            "seconds": np.arange(len(rows)),
        }
    )
    metrics = runs[["id"]].assign(step=10, split="test", metric=metric, value=[row[3] for row in rows])
    return Results(experiment="fig0", scale="cpu", runs=runs, metrics=metrics.astype({"value": float}))


def two_arms(syre, decay, metric="accuracy"):
    rows = [("syre", 0.1, seed, value) for seed, value in enumerate(syre)]
    rows += [("weight_decay", np.nan, seed, value) for seed, value in enumerate(decay)]
    return table(*rows, metric=metric)


def trend(matrix, sigmas=(0.01, 0.1, 1.0)):
    return table(
        *[("syre", s, seed, value) for seed, row in enumerate(matrix) for s, value in zip(sigmas, row, strict=True)]
    )


def test_a_clear_gain_is_reproduced_a_clear_loss_is_not_and_noise_is_inconclusive():
    verdict = evaluate(BETTER, two_arms([0.9, 0.91, 0.92], [0.5, 0.5, 0.5]))
    assert verdict.verdict == REPRODUCED
    assert 0.1 < verdict.low < verdict.effect < verdict.high
    assert (verdict.effect, verdict.n) == (pytest.approx(0.41), 3)
    assert evaluate(BETTER, two_arms([0.5, 0.5, 0.5], [0.9, 0.91, 0.92])).verdict == NOT_REPRODUCED
    assert evaluate(BETTER, two_arms([0.9, 0.1, 0.5], [0.5, 0.5, 0.1])).verdict == INCONCLUSIVE
    assert evaluate(BETTER, two_arms([0.5] * 3, [0.5] * 3)).verdict == NOT_REPRODUCED  # no difference is no gain


def test_a_gain_smaller_than_the_margin_is_not_reproduced():
    data = two_arms([0.55, 0.551, 0.552], [0.5, 0.5, 0.5])
    assert evaluate(BETTER, data).verdict == NOT_REPRODUCED
    assert evaluate(replace(BETTER, margin=0.01), data).verdict == REPRODUCED  # control


def test_where_less_is_better_the_gain_is_control_minus_treatment():
    lower = beats(*SAYS, "loss", arm("syre", sigma=0.1), DECAY, margin=0.1)
    assert evaluate(lower, two_arms([0.1, 0.11, 0.12], [0.5, 0.5, 0.5], "loss")).verdict == REPRODUCED
    assert evaluate(BETTER, two_arms([0.1, 0.11, 0.12], [0.5, 0.5, 0.5])).verdict == NOT_REPRODUCED


def test_seeds_are_paired_so_that_what_they_share_cancels():
    shared = np.array([0.0, 100.0, -50.0, 30.0])
    data = two_arms(shared + 0.5 + np.array([0, 0.01, 0, 0.01]), shared)
    assert evaluate(BETTER, data).verdict == REPRODUCED
    rng = np.random.default_rng(0)
    assert evaluate(BETTER, two_arms(rng.permutation(shared) + 0.5, shared)).verdict == INCONCLUSIVE  # control


def test_equivalence_needs_its_whole_interval_inside_the_margin():
    assert evaluate(SAME, two_arms([0.5, 0.6, 0.5], [0.5, 0.5, 0.6])).verdict == REPRODUCED
    assert evaluate(SAME, two_arms([5.5, 5.6, 5.5], [0.5, 0.5, 0.6])).verdict == NOT_REPRODUCED
    assert evaluate(SAME, two_arms([0.0, 2.0, 0.0], [0.5, 0.5, 0.6])).verdict == INCONCLUSIVE  # noise is no evidence


def test_what_costs_less_than_the_margin_may_as_well_gain():
    even = [0.5, 0.51, 0.5, 0.52]
    for gain, verdict in ((5, REPRODUCED), (0, REPRODUCED), (-0.05, REPRODUCED), (-0.2, NOT_REPRODUCED)):
        assert evaluate(CHEAP, two_arms([0.5 + gain, 0.5 + gain, 0.52 + gain, 0.51 + gain], even)).verdict == verdict
    noisy = two_arms([0.0, 1.0, 0.5, 0.4], even)
    assert evaluate(CHEAP, noisy).verdict == INCONCLUSIVE
    data = two_arms([5.5, 5.51, 5.52, 5.5], even)  # control: which two-sided tests did not reproduce
    assert evaluate(replace(SAME, margin=0.1), data).verdict == NOT_REPRODUCED


def test_one_sided_claims_have_one_sided_intervals():
    """90 %, whose lower end is at the one-sided 5 %: and so an interval that clears the bound has a p below that."""
    samples = np.array([-0.05, 0.02, -0.08, -0.02])
    interval, verdict, p = CHEAP.judge(samples)
    assert interval == t_interval(samples, 0.9)
    assert (verdict, p) == (REPRODUCED, p_above(samples, -0.1))
    edge = -interval.low
    assert (
        replace(CHEAP, margin=edge * 1.001).judge(samples).p
        < 0.05
        < replace(CHEAP, margin=edge * 0.999).judge(samples).p
    )
    assert replace(CHEAP, margin=edge * 0.999).judge(samples).verdict == INCONCLUSIVE
    assert BETTER.judge(samples).interval == t_interval(samples, 0.95)


@pytest.mark.parametrize("claim", [BETTER, CHEAP, SAME, RISES])
def test_without_spread_the_sign_test_decides_and_needs_five_seeds(claim):
    best = 1.0 if claim in (BETTER, RISES) else 0.0
    for n, verdict in ((3, INCONCLUSIVE), (4, INCONCLUSIVE), (5, REPRODUCED), (8, REPRODUCED)):
        assert claim.judge(np.full(n, best))[1:] == (verdict, 2.0**-n)
        nearly = best + 1e-15 * np.arange(n)  # not even rounding makes a spread
        assert claim.judge(nearly).verdict == verdict or not best
    assert claim.judge(np.full(5, -1.0))[1:] == (NOT_REPRODUCED, 1)
    assert claim.judge(best + np.array([0.0, 1e-3, -1e-3])).verdict == REPRODUCED  # control: with a spread t decides


def rare(events, n, margin=0.1):
    """A claim that something is rare, of n networks of which it happens to so many."""
    return Rare(*SAYS, lambda results: pd.Series([1.0] * events + [0.0] * (n - events), dtype=float), margin=margin)


@pytest.mark.parametrize(
    ("events", "n", "verdict", "swapped"),
    [
        (0, 30, REPRODUCED, NOT_REPRODUCED),
        (0, 20, INCONCLUSIVE, INCONCLUSIVE),  # none in twenty may well be one in ten
        (1, 60, REPRODUCED, NOT_REPRODUCED),
        (3, 30, INCONCLUSIVE, INCONCLUSIVE),
        (30, 30, NOT_REPRODUCED, REPRODUCED),
        (12, 40, NOT_REPRODUCED, REPRODUCED),
    ],
)
def test_what_is_rare_is_judged_by_the_interval_of_a_share(events, n, verdict, swapped):
    results = table(("syre", 0.1, 0, 1.0))
    claim = rare(events, n)
    found = evaluate(claim, results)
    assert found.verdict == verdict
    assert evaluate(replace(claim, opposite=True), results).verdict == swapped
    assert (found.effect, found.low, found.high, found.n) == wilson_interval(events, n, 0.9)
    assert claim.against == "< 0.1"
    assert found.p == p_rarer(events, n, 0.1)


def test_without_networks_nothing_is_rare():
    results = table(("syre", 0.1, 0, 1.0))
    assert evaluate(rare(0, 0), results).verdict == NOT_TESTED
    assert evaluate(rare(2, 2), results).verdict == NOT_TESTED  # too few
    with pytest.raises(ValueError, match="a share must state its margin"):
        rare(0, 30, margin=0.0)


def test_an_effect_at_the_margin_exactly_counts_against():
    assert BETTER.judge(np.full(8, 0.1))[1:] == (NOT_REPRODUCED, 1)
    assert CHEAP.judge(np.full(8, -0.1))[1:] == (NOT_REPRODUCED, 1)
    assert SAME.judge(np.full(8, 0.5))[1:] == (NOT_REPRODUCED, 1)


def test_every_kind_has_the_p_of_its_test():
    samples = np.array([0.3, 0.25, 0.4, 0.28])
    assert evaluate(BETTER, two_arms(samples, np.zeros(4))).p == pytest.approx(p_above(samples, 0.1))
    assert RISES.judge(samples).p == p_above(samples, 0.5)
    assert SAME.judge(samples).p == p_above(-samples, -0.5) > p_above(samples, -0.5)  # the larger of the two
    assert swapped(SAME).judge(samples + 0.5).p == pytest.approx(p_above(samples))
    assert swapped(BETTER).judge(-samples).p == BETTER.judge(samples).p


def test_the_interval_of_a_trend_stays_where_tau_can_be():
    samples = np.array([1.0, 1.0, 0.8, 1.0, 1.0])
    assert t_interval(samples).high > 1  # control
    interval = RISES.judge(samples).interval
    assert (interval.low, interval.high) == (t_interval(samples).low, 1)
    assert swapped(RISES).judge(samples).interval.low == -1
    assert evaluate(replace(RISES, scale="paper"), trend([[1, 2, 3], [1, 2, 3], [1, 3, 2]])).high == 1


def test_a_trend_must_hold_within_each_seed():
    up = np.add.outer([0, 50, -50], [1.0, 2.0, 3.0])
    up = np.concatenate([up, up[:2] + 1])
    assert evaluate(RISES, trend(up)).verdict == REPRODUCED
    assert evaluate(RISES, trend(up[:, ::-1])).verdict == NOT_REPRODUCED
    assert evaluate(FALLS, trend(up[:, ::-1])).verdict == REPRODUCED
    assert evaluate(RISES, trend(up * 0)).verdict == NOT_REPRODUCED
    assert evaluate(RISES, trend(up[:, :2], (0.1, 1.0))).verdict == NOT_TESTED  # two levels are no trend


def test_too_few_seeds_or_missing_rows_are_not_tested():
    verdict = evaluate(BETTER, two_arms([0.9, 0.91], [0.5, 0.5]))
    assert (verdict.verdict, verdict.n) == (NOT_TESTED, 2)
    assert evaluate(BETTER, two_arms([0.9, 0.91, 0.92], [])).verdict == NOT_TESTED
    assert evaluate(RISES, two_arms([], [0.5, 0.5, 0.5])).verdict == NOT_TESTED
    unpaired = table(
        *[("syre", 0.1, s, 0.9) for s in (0, 1, 2)], *[("weight_decay", np.nan, s, 0.1) for s in (7, 8, 9)]
    )
    assert evaluate(BETTER, unpaired).verdict == NOT_TESTED


def test_a_claim_that_only_a_larger_scale_can_decide_stays_open_and_shows_its_numbers():
    results = two_arms([0.9, 0.91, 0.92], [0.5, 0.5, 0.5])
    late = evaluate(replace(BETTER, scale="paper"), results)
    assert (late.verdict, late.n) == (NOT_TESTED, 3)
    assert late.effect == pytest.approx(0.41)
    for large in (replace(BETTER, scale="cpu"), BETTER):  # control
        assert evaluate(large, results).verdict == REPRODUCED
    assert evaluate(replace(BETTER, scale="paper"), replace(results, scale="paper")).verdict == REPRODUCED


def test_a_number_that_is_significantly_adverse_is_not_hidden_under_not_tested():
    late = {claim: replace(claim, scale="paper") for claim in (BETTER, CHEAP, SAME, RISES)}
    worse = two_arms([0.1, 0.11, 0.13], [0.5, 0.5, 0.5])
    for claim in (BETTER, CHEAP, replace(SAME, margin=0.3)):
        verdict = evaluate(replace(claim, scale="paper"), worse)
        assert (verdict.verdict, verdict.n) == (CONTRARY, 3)
        assert verdict.high < 0
        assert np.isnan(verdict.p)
    assert evaluate(late[RISES], trend([[3, 2, 1]] * 3 + [[3, 1, 2]])).verdict == CONTRARY
    small = two_arms([0.55, 0.551, 0.553], [0.5, 0.5, 0.5])
    assert evaluate(BETTER, small).verdict == NOT_REPRODUCED
    assert evaluate(late[BETTER], small).verdict == NOT_TESTED  # too small a gain is no loss ...
    assert evaluate(late[CHEAP], two_arms([0.45, 0.451, 0.453], [0.5] * 3)).verdict == NOT_TESTED  # ... nor a cheap one
    assert evaluate(late[BETTER], two_arms([0.1, 0.9, 0.2], [0.5] * 3)).verdict == NOT_TESTED  # noise
    assert evaluate(BETTER, two_arms([0.1, 0.11], [0.5, 0.5])).verdict == NOT_TESTED  # two seeds
    failed = two_arms([0.1, 0.11, 0.13, None], [0.5] * 4)
    assert evaluate(late[BETTER], failed).verdict == CONTRARY
    assert evaluate(BETTER, failed).verdict == INCONCLUSIVE  # at its scale a failed run leaves a claim open


@pytest.mark.parametrize(("syre", "decay"), [([0.9, None, 0.9, 0.9], [0.5] * 4), ([0.9] * 4, [0.5, 0.5, 0.5, None])])
def test_a_run_that_went_nan_makes_a_claim_inconclusive(syre, decay):
    verdict = evaluate(BETTER, two_arms(syre, decay))
    assert (verdict.verdict, verdict.n) == (INCONCLUSIVE, 3)
    assert verdict.effect == pytest.approx(0.4)


def test_a_run_that_went_nan_makes_a_trend_inconclusive():
    assert evaluate(RISES, trend([[None, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])).verdict == INCONCLUSIVE
    assert evaluate(RISES, trend([[1, 2, 3]] * 5)).verdict == REPRODUCED  # control


def test_an_open_level_is_tuned_on_the_other_seeds():
    rng = np.random.default_rng(1)
    noise = [("syre", s, seed, 0.5 + 0.1 * rng.normal()) for seed in range(8) for s in (0.01, 0.1, 0.3, 1.0, 3.0)]
    decay = [("weight_decay", np.nan, seed, 0.5) for seed in range(8)]
    tuned = beats(*SAYS, "accuracy", SYRE, DECAY)
    assert evaluate(tuned, table(*noise, *decay)).verdict != REPRODUCED
    best = Superiority(*SAYS, lambda r: r.final("accuracy").groupby("seed")["accuracy"].max() - 0.5)
    assert evaluate(best, table(*noise, *decay)).verdict == REPRODUCED  # control: the best sigma of each seed "wins"
    better = [(name, s, seed, value + (s == 0.3)) for name, s, seed, value in noise]
    assert evaluate(tuned, table(*better, *decay)).verdict == REPRODUCED


def test_an_arm_that_leaves_a_setting_open_is_refused_by_name():
    data = trend([[1, 2, 3]] * 3)
    more = replace(data, runs=pd.concat([data.runs, data.runs.assign(id=data.runs["id"] + "b")], ignore_index=True))
    more.runs["optim.lr"] = [0.1] * 9 + [0.2] * 9
    level = Superiority(*SAYS, final("accuracy", SYRE))
    with pytest.raises(ResultsError, match=r"claim C1: an arm leaves regularizer\.sigma open"):
        evaluate(level, data)
    for claim in (beats(*SAYS, "accuracy", SYRE, SYRE), RISES):
        evaluate(claim, data)  # control: sigma is chosen, or run over
        with pytest.raises(ResultsError, match=r"claim C1: an arm leaves optim\.lr open"):
            evaluate(claim, more)


def swapped(claim):
    return replace(claim, opposite=not claim.opposite)


def random_data(rng):
    """A seed count, level differences and noise of any size, now and then a NaN run, ties, or constants."""
    seeds, scale, noise = rng.integers(3, 8), 10 ** rng.uniform(-2, 1), 10 ** rng.uniform(-3, 1)
    values = scale * rng.normal(size=5) + noise * rng.normal(size=(seeds, 5))
    values = values.round(rng.integers(0, 4))
    values = np.sort(values, axis=1)[:, :: rng.choice([1, -1])] if rng.random() < 0.4 else values
    rows = [
        (*arm, seed, None if rng.random() < 0.01 else value)
        for seed, row in enumerate(values)
        for arm, value in zip(
            [*(("syre", s) for s in (0.01, 0.1, 1.0)), *(("weight_decay", x) for x in (1, 2))], row, strict=True
        )
    ]
    return table(*rows)


@pytest.mark.slow
def test_no_data_reproduce_a_claim_and_its_swap():
    rng, outcomes = np.random.default_rng(2), {}
    pair = arm("syre", sigma=0.1), arm("weight_decay", sigma=1)
    gain = difference("accuracy", *pair)
    claims = {
        "higher": beats(*SAYS, "accuracy", *pair, margin=0.1),
        "lower": Superiority(*SAYS, minus(gain)),
        "tuned": beats(*SAYS, "accuracy", SYRE, DECAY, margin=0.1),
        "same": same(*SAYS, "accuracy", *pair, 0.5),
        "cheap": costs(*SAYS, "accuracy", *pair, 0.1),
        "cheap and tuned": costs(*SAYS, "accuracy", SYRE, DECAY, 0.1),
        "rises": RISES,
        "falls": replace(FALLS, margin=0.0),
        "composite": Superiority(*SAYS, lambda r: r.final("accuracy").groupby("seed")["accuracy"].mean()),
        "slope": Monotone(*SAYS, lambda r: r.final("accuracy").groupby("seed")["accuracy"].sum(), margin=0.1),
    }
    for _ in range(40):
        data = random_data(rng)
        for name, claim in claims.items():
            pair = evaluate(claim, data).verdict, evaluate(swapped(claim), data).verdict
            assert pair != (REPRODUCED, REPRODUCED), name
            outcomes.setdefault(name, set()).add(pair)
    for name, pairs in outcomes.items():  # control: each claim, and each swap, is reproduced on some data
        assert {(REPRODUCED, NOT_REPRODUCED), (NOT_REPRODUCED, REPRODUCED)} <= pairs, name


def test_the_opposite_is_the_claim_with_its_arms_exchanged():
    syre, decay = [0.9, 0.91, 0.92], [0.5, 0.5, 0.5]
    exchanged = beats(*SAYS, "accuracy", DECAY, arm("syre", sigma=0.1), margin=0.1)
    for data in (two_arms(syre, decay), two_arms(decay, syre)):
        assert replace(evaluate(swapped(BETTER), data), claim=exchanged) == evaluate(exchanged, data)
    for data in (trend([[1, 2, 3]] * 5), trend([[3, 2, 1]] * 5)):
        assert replace(evaluate(swapped(RISES), data), claim=FALLS) == evaluate(FALLS, data)
    dear = two_arms([0.1, 0.11, 0.13], decay)  # the opposite of costing less than the margin is to cost more
    assert [evaluate(claim, dear).verdict for claim in (CHEAP, swapped(CHEAP), exchanged)] == [
        *(NOT_REPRODUCED, REPRODUCED, REPRODUCED)
    ]
    assert [evaluate(claim, two_arms(syre, decay)).verdict for claim in (replace(SAME, margin=0.1), swapped(SAME))] == [
        NOT_REPRODUCED
    ] * 2
    assert evaluate(swapped(replace(SAME, margin=0.1)), two_arms(syre, decay)).verdict == REPRODUCED


def test_settings_make_samples_of_a_measurement_each_its_own():
    @per_seed
    def above(results, level, *, sign=1):
        return sign * (results.by_seed("accuracy", DECAY) - level)

    results = two_arms([0.9, 0.9, 0.9], [0.5, 0.6, 0.7])
    below, half = above(1, sign=-1), above(0.5)  # the later one changes nothing of the earlier
    assert below(results).tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert half(results).tolist() == pytest.approx([0, 0.1, 0.2])


def test_a_claim_that_cannot_be_tested_is_refused_when_it_is_written():
    with pytest.raises(ValueError, match="margin must be >= 0"):
        replace(BETTER, margin=-0.1)  # a swapped claim could be reproduced too
    with pytest.raises(ValueError, match="must state its margin"):
        Equivalence(*SAYS, BETTER.samples)
    with pytest.raises(ValueError, match="a non-inferiority must state its margin"):
        NonInferiority(*SAYS, BETTER.samples)
