"""Intervals cover what they promise, and per-seed quantities are exact where the answer is known."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.analysis import stats


def test_the_t_interval_is_that_of_scipy():
    x = np.random.default_rng(0).normal(size=7)
    interval = stats.t_interval(x, 0.9)
    expected = scipy.stats.t.interval(0.9, 6, loc=x.mean(), scale=scipy.stats.sem(x))
    assert interval[1:3] == pytest.approx(expected, rel=1e-12)
    assert (interval.mean, interval.n) == (pytest.approx(x.mean()), 7)
    assert np.isnan(stats.t_interval([1.0])[1:3]).all()


def test_intervals_cover_the_mean_at_their_level():
    rng = np.random.default_rng(1)
    samples = rng.normal(3.0, 2.0, size=(2000, 5))
    covered = [low <= 3 <= high for _, low, high, _ in map(stats.t_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
    too_small = [low <= 3 <= high for _, low, high, _ in (stats.t_interval(x, 0.8) for x in samples)]
    assert np.mean(too_small) < 0.9  # control


def test_the_sign_test_counts_heads_exactly():
    assert stats.sign_test([0.2] * 5) == 1 / 32
    assert stats.sign_test([0.2] * 3) == 1 / 8
    assert stats.sign_test([0.1, 0.2, 0.3, -1, 5]) == 6 / 32  # four or five heads of five: 5 + 1
    assert stats.sign_test([0.0] * 5) == 1  # none above: equal counts against
    assert stats.sign_test([0.2, 0.2, 0.1], 0.1) == 4 / 8
    x = np.random.default_rng(8).normal(0.3, size=11)
    expected = scipy.stats.binomtest(int((x > 0.1).sum()), 11, alternative="greater").pvalue
    assert stats.sign_test(x, 0.1) == pytest.approx(expected, rel=1e-12)


def test_the_p_of_a_mean_is_that_of_students_test_or_without_spread_of_the_sign_test():
    x = np.random.default_rng(9).normal(0.5, size=6)
    expected = scipy.stats.ttest_1samp(x, 0.2, alternative="greater").pvalue
    assert stats.p_above(x, 0.2) == pytest.approx(expected, rel=1e-9)
    assert stats.p_above(x, 0.2) + stats.p_above(-x, -0.2) == pytest.approx(1)
    assert stats.p_above([0.3] * 4, 0.2) == 1 / 16
    almost = [0.3 - 0.1, 0.4 - 0.2, 0.5 - 0.3, 1.2 - 1.0]  # 0.2 but for rounding: t would be 1e14
    assert np.ptp(almost) > 0
    assert stats.no_spread(almost)
    assert stats.p_above(almost) == 1 / 16
    assert not stats.no_spread([1, 1 + 1e-8])  # control
    assert stats.no_spread([0, 0, 0])
    assert not stats.no_spread([])
    assert np.isnan([stats.p_above([1.0]), stats.p_above([])]).all()


@pytest.mark.parametrize(("events", "n"), [(0, 20), (1, 20), (10, 20), (20, 20), (3, 1000)])
def test_the_interval_of_a_share_is_wilsons(events, n):
    for level in (0.9, 0.95):
        low, high = scipy.stats.binomtest(events, n).proportion_ci(level, method="wilson")
        assert stats.wilson_interval(events, n, level) == pytest.approx((events / n, low, high, n))
    assert np.isnan(stats.wilson_interval(0, 0)[:3]).all()


def test_the_p_of_a_share_is_the_exact_binomial_tail():
    for events, n, share in ((0, 20, 0.1), (3, 20, 0.25), (20, 20, 0.9)):
        expected = scipy.stats.binomtest(events, n, share, alternative="less").pvalue
        assert stats.p_rarer(events, n, share) == pytest.approx(expected)
    assert np.isnan(stats.p_rarer(0, 0, 0.1))


def test_the_area_under_the_curve_is_how_often_a_positive_is_above_a_negative():
    assert stats.auc([3, 4], [1, 2]) == 1
    assert stats.auc([1, 2], [3, 4]) == 0
    assert stats.auc([1, 1], [1]) == 0.5
    assert stats.auc([2, 4], [1, 3]) == 0.75
    assert np.isnan(stats.auc([], [1]))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30), rng.integers(0, 5, 40)
    assert stats.auc(x, y) == pytest.approx(scipy.stats.mannwhitneyu(x, y).statistic / (30 * 40))
    _, hits, alarms = stats.roc(x, y)
    assert np.trapezoid(hits, alarms) == pytest.approx(stats.auc(x, y))


def test_a_curve_starts_above_all_scores_and_ends_below_none():
    levels, hits, alarms = stats.roc([0.9, 0.5], [0.5, 0.1, 0.1])
    assert levels.tolist() == [np.inf, 0.9, 0.5, 0.1]
    assert hits.tolist() == [0, 0.5, 1, 1]
    assert alarms.tolist() == pytest.approx([0, 0, 1 / 3, 1])


def test_holm_rejects_step_by_step_as_worked_by_hand():
    # 0.001 <= 0.05 / 4; 0.012 <= 0.05 / 3; 0.03 > 0.05 / 2: it and what is above it stay
    assert stats.holm([0.03, 0.001, 0.04, 0.012]) == [False, True, False, True]
    assert stats.holm([0.03, 0.001, 0.04, 0.012], 0.2) == [True] * 4
    assert stats.holm([0.05]) == [True]
    assert stats.holm([0.026, 0.026]) == [False, False]  # each alone would be
    assert stats.holm([np.nan, 0.04, np.nan]) == [False, True, False]  # a test that was not made does not count
    assert stats.holm([]) == []
    rng = np.random.default_rng(10)
    wrong = [stats.holm(rng.uniform(size=20)) for _ in range(2000)]
    assert np.mean([any(each) for each in wrong]) == pytest.approx(0.05, abs=0.02)
    assert np.mean([(rng.uniform(size=20) < 0.05).any() for _ in range(2000)]) > 0.5  # control: without it


def test_differences_pair_seeds_not_positions():
    treatment = pd.Series([10.0, 20, 30], index=[2, 1, 0])
    control = pd.Series([1.0, 2, 3, 4], index=[0, 1, 2, 9])
    assert stats.paired_differences(treatment, control).to_dict() == {0: 29, 1: 18, 2: 7}


def test_equivalence_passes_inside_the_margin_and_fails_at_it():
    x = [-0.1, 0.0, 0.1, 0.05, -0.05]
    interval, inside = stats.tost(x, 0.2)
    assert inside
    assert not stats.tost(x, interval.high * 0.99)[1]
    assert interval == stats.t_interval(x, 0.9)


def test_tau_is_one_exactly_for_increasing_sequences_and_odd_under_reversal():
    rng = np.random.default_rng(3)
    x, y = rng.permutation(8), rng.normal(size=8)
    assert stats.kendall(x, np.exp(x)) == 1
    assert stats.kendall(x, -x) == -1
    assert stats.kendall(x, y) == -stats.kendall(x, -y) == pytest.approx(scipy.stats.kendalltau(x, y).statistic)
    assert stats.kendall([1, 2, 3], [0, 0, 0]) == 0
    assert stats.kendall([1, 1, 2], [5, 9, 10]) == 1  # a pair at one x says nothing
    assert np.isnan(stats.kendall([1, 2, 3], [0, np.nan, 1]))


def test_slopes_and_trends_are_taken_seed_by_seed():
    df = pd.DataFrame([{"seed": s, "x": x, "y": 10.0**s * x**2} for s in range(3) for x in (0.1, 1.0, 10.0)])
    assert stats.loglog_slope(df, "x", "y").to_dict() == pytest.approx({0: 2, 1: 2, 2: 2})
    assert stats.monotonicity(df, "x", "y").to_dict() == {0: 1, 1: 1, 2: 1}
    assert stats.monotonicity(df.iloc[1:], "x", "y").to_dict() == {1: 1, 2: 1}  # two levels are no trend
    df.loc[0, "y"] = 0.0
    assert stats.loglog_slope(df, "x", "y").isna().to_dict() == {0: True, 1: False, 2: False}
    df.loc[0, "x"] = 0.0
    with pytest.raises(ValueError, match="x > 0"):
        stats.loglog_slope(df, "x", "y")


def levels(table):
    """Rows (seed, level, score) of a matrix [seed, level]."""
    return pd.DataFrame([{"seed": s, "a": a, "m": v} for s, row in enumerate(table) for a, v in enumerate(row)])


def test_a_cross_fitted_level_is_chosen_without_the_seed_it_is_judged_on():
    best = stats.cross_fitted_best(levels([[0, 1, 2], [9, 1, 2], [0, 1, 2]]), metric="m", over="a")
    assert best["a"].tolist() == [0, 2, 0]  # the lucky 9 of seed 1 decides for seeds 0 and 2, not for its own
    assert best["m"].tolist() == [0, 2, 0]
    lowest = stats.cross_fitted_best(levels([[0, 1, 2]] * 3), metric="m", over="a", maximize=False)
    assert lowest["a"].tolist() == [0, 0, 0]


def test_a_level_may_be_chosen_by_another_column_than_the_one_it_is_judged_on():
    table = levels([[0, 1, 2]] * 3).assign(by=[5, 9, 0, 5, 9, 0, 5, 0, 9])
    best = stats.cross_fitted_best(table, metric="m", over="a", by="by")
    assert best["a"].tolist() == [0, 0, 1]
    assert best["m"].tolist() == [0, 0, 1]
    assert stats.cross_fitted_best(table, metric="m", over="a", by="by", maximize=False)["m"].tolist() == [1, 1, 2]
    assert stats.at_best(table, "m", "a", by="by").tolist() == [0, 0, 1]
    assert stats.at_best(table, "m", "a").tolist() == [2, 2, 2]  # control


def test_one_level_is_taken_as_it_is_and_several_are_chosen_from():
    several = levels([[0, 1], [np.nan, 1], [5, 1]])
    assert stats.at_best(several, "m", "a").equals(stats.cross_fitted_best(several, metric="m", over="a")["m"])
    one = several[several["a"] == 0]
    np.testing.assert_array_equal(stats.at_best(one, "m", "a"), [0, np.nan, 5])
    np.testing.assert_array_equal(stats.at_best(one.assign(a=np.nan), "m", "a"), [0, np.nan, 5])


def test_cross_fitting_does_not_profit_from_noise_but_taking_the_maximum_does():
    noise = np.random.default_rng(4).normal(size=(400, 10))
    fair = stats.cross_fitted_best(levels(noise), metric="m", over="a")["m"].mean()
    assert abs(fair) < 0.15
    assert noise.max(axis=1).mean() > 1.4  # control: the best sigma of each seed


def test_a_level_that_fails_on_another_seed_is_not_chosen():
    best = stats.cross_fitted_best(levels([[5, 1], [np.nan, 1], [5, 1]]), metric="m", over="a")
    assert best["a"].tolist() == [1, 0, 1]
    assert np.isnan(best["m"][1])


def test_the_hypervolume_is_the_dominated_area():
    assert stats.hypervolume([[0, 1], [1, 0]], [2, 2]) == 3
    assert stats.hypervolume([[0, 1], [1, 0], [1.5, 1.5], [3, 0]], [2, 2]) == 3  # dominated or beyond the corner
    assert stats.hypervolume([[0, 1], [0, 1]], [2, 2]) == 2
    assert stats.hypervolume(np.empty((0, 2)), [1, 1]) == 0
    p = np.random.default_rng(6).uniform(size=(20, 2))
    draws = np.random.default_rng(7).uniform(size=(20000, 1, 2))
    assert stats.hypervolume(p, [1, 1]) == pytest.approx((draws >= p).all(-1).any(-1).mean(), abs=0.015)
