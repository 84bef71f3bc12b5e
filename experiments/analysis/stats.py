"""Intervals over seeds, and the per-seed quantities that claims are made of: pure functions of arrays and tables."""

from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

# Student's t, the normal distribution and the binomial one; to import scipy.stats would take seconds.
from scipy.special import bdtr, ndtri, stdtr, stdtrit

MIN_LEVELS = 3
DIGITS = 1e-9  # the tables have nine: numbers that differ by less, relatively, are the same


class Interval(NamedTuple):
    """An estimate, its two-sided confidence limits and the number of samples behind it."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of the mean, m +- t_{n-1}((1 + level) / 2) s / sqrt(n); the limits are NaN for n < 2."""
    x = np.asarray(values, dtype=float).ravel()
    n = len(x)
    mean = float(x.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stdtrit(n - 1, (1 + level) / 2) * x.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def no_spread(values: ArrayLike) -> bool:
    """Whether all values are the same number, to the digits that tables have: then Student's t says nothing."""
    x = np.asarray(values, dtype=float).ravel()
    return len(x) > 0 and bool(np.ptp(x) <= DIGITS * np.abs(x).max())


def sign_test(values: ArrayLike, level: float = 0.0) -> float:
    """Exact one-sided p of a median <= level: the chance that n fair coins show as many heads as values exceed it.

    A value at the level counts against it; where all n exceed it, p = 2^-n.
    """
    x = np.asarray(values, dtype=float).ravel()
    above = int((x > level).sum())
    return sum(comb(len(x), k) for k in range(above, len(x) + 1)) / 2 ** len(x)


def p_above(values: ArrayLike, level: float = 0.0) -> float:
    """One-sided p of a mean <= level: Student's t or, where the values have no spread, the exact sign test.

    NaN for fewer than two values.
    """
    x = np.asarray(values, dtype=float).ravel()
    n = len(x)
    if n < 2:
        return float("nan")
    if no_spread(x):
        return sign_test(x, level)
    return float(stdtr(n - 1, (level - x.mean()) * np.sqrt(n) / x.std(ddof=1)))


def wilson_interval(events: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's interval of a share of which `events` in n were seen; it has a width also at 0 of n. NaN for n = 0."""
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    z, share = float(ndtri((1 + level) / 2)), events / n
    middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return Interval(share, max(0.0, float(low)) if events else 0.0, min(1.0, float(high)) if events < n else 1.0, n)


def p_rarer(events: int, n: int, share: float) -> float:
    """One-sided p of a probability >= share: the chance of at most so many events in n. NaN for n = 0."""
    return float(bdtr(events, n, share)) if n else float("nan")


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive score is above a negative one, ties half. NaN without either."""
    x, y = (np.asarray(values, dtype=float).ravel() for values in (positive, negative))
    if not len(x) or not len(y):
        return float("nan")
    return float((np.sign(np.subtract.outer(x, y)) + 1).mean() / 2)


def roc(positive: ArrayLike, negative: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, from above all scores down to the lowest, and the shares of either kind that are at or above each."""
    x, y = (np.asarray(values, dtype=float).ravel() for values in (positive, negative))
    levels = np.concatenate([[np.inf], np.unique(np.concatenate([x, y]))[::-1]])
    return levels, *((values >= levels[:, None]).mean(1) for values in (x, y))


def holm(p_values: ArrayLike, level: float = 0.05) -> list[bool]:
    """Which hypotheses Holm's step-down test rejects so that the chance of any false rejection is at most `level`.

    The k-th smallest of m is held against level / (m - k + 1), until one is above. NaN is a test that was not made:
    it is not rejected, and does not count.
    """
    p = np.asarray(p_values, dtype=float)
    made = np.flatnonzero(~np.isnan(p))
    rejected = np.zeros(len(p), dtype=bool)
    for left, place in zip(range(len(made), 0, -1), made[np.argsort(p[made], kind="stable")], strict=True):
        if p[place] > level / left:
            break
        rejected[place] = True
    return rejected.tolist()


def paired_differences(treatment: pd.Series, control: pd.Series) -> pd.Series:
    """treatment - control on the seeds (the index) that both have."""
    treatment, control = treatment.align(control, join="inner")
    return (treatment - control).sort_index()


def tost(values: ArrayLike, margin: float, alpha: float = 0.05) -> tuple[Interval, bool]:
    """Two one-sided t-tests of |mean| < margin: passed when the 1 - 2 alpha interval lies inside (-margin, margin)."""
    interval = t_interval(values, 1 - 2 * alpha)
    return interval, -margin < interval.low and interval.high < margin


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau of y against x: mean of sign(x_j - x_i) sign(y_j - y_i) over the pairs with x_i != x_j.

    1 is strictly increasing, -1 strictly decreasing; a tie in y counts 0 (Somers' D). NaN if y has one, or x no pair.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    i, j = np.triu_indices(len(x), k=1)
    i, j = i[x[i] != x[j]], j[x[i] != x[j]]
    if not len(i) or np.isnan(y).any():
        return float("nan")
    return float(np.mean(np.sign(x[j] - x[i]) * np.sign(y[j] - y[i])))


def monotonicity(df: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Kendall's tau of column y against column x, one a seed that has three levels of x: two are no trend."""
    taus = {seed: kendall(rows[x], rows[y]) for seed, rows in df.groupby("seed") if rows[x].nunique() >= MIN_LEVELS}
    return pd.Series(taus, dtype=float)


def loglog_slope(df: pd.DataFrame, x: str, y: str) -> pd.Series:
    """Least-squares slope of log y against log x, one a seed; NaN for a seed where some y is not positive.

    Raises: ValueError when an x is not positive (select the positive levels first).
    """
    if not (df[x] > 0).all():
        raise ValueError(f"a log-log slope needs {x} > 0")

    def slope(rows: pd.DataFrame) -> float:
        if rows[x].nunique() < 2 or not (rows[y] > 0).all():
            return float("nan")
        return float(np.polyfit(np.log(rows[x].astype(float)), np.log(rows[y].astype(float)), 1)[0])

    return pd.Series({seed: slope(rows) for seed, rows in df.groupby("seed")}, dtype=float)


def cross_fitted_best(df: pd.DataFrame, *, metric: str, over: str, by: str = "", maximize: bool = True) -> pd.DataFrame:
    """For each seed, the level of `over` that is best on average on the OTHER seeds, and `metric` there on this seed.

    Best is the largest mean of the column `by` (`metric` itself if not given), or the smallest unless `maximize`. The
    maximum over levels on the same seeds would be biased upwards by the noise it selects. A level with a NaN on the
    other seeds is not chosen; among equals the lowest level is. The index is the seed; columns are `over` and `metric`.
    Raises: ValueError when a seed has two rows at one level (select the other columns first).
    """
    wide = df.pivot(index="seed", columns=over, values=list({metric, by or metric})).sort_index(axis=1)
    deciding, table = wide[by or metric], wide[metric]
    best = {}
    for seed in table.index if len(table) > 1 else ():
        others = deciding.drop(index=seed).mean(skipna=False).dropna()
        level = (others.idxmax() if maximize else others.idxmin()) if len(others) else float("nan")
        best[seed] = (level, table.loc[seed].get(level, float("nan")))
    return pd.DataFrame.from_dict(best, orient="index", columns=[over, metric]).rename_axis("seed")


def at_best(df: pd.DataFrame, metric: str, over: str, *, by: str = "", maximize: bool = True) -> pd.Series:
    """`metric` of each seed; of several levels of `over`, at the one that is best (by `by`) on the other seeds."""
    if df[over].nunique() > 1:
        return cross_fitted_best(df, metric=metric, over=over, by=by, maximize=maximize)[metric]
    return df.set_index("seed")[metric]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Area that the points (n, 2), to be minimised, dominate, bounded by the worst corner `reference` (2,)."""
    p, corner = np.asarray(points, dtype=float).reshape(-1, 2), np.asarray(reference, dtype=float)
    area, height = 0.0, corner[1]
    for x, y in sorted(map(tuple, p[(p < corner).all(axis=1)])):
        area += (corner[0] - x) * max(height - y, 0.0)
        height = min(height, y)
    return float(area)
