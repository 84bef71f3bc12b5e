"""A claim is a sentence of the paper that the results can contradict; its verdict rests on an interval over seeds.

Every claim reduces to one sample a seed, and to a question about the mean of these samples:

- `Superiority`: treatment beats control by more than `margin` (paired by seed, 95 % interval);
- `Equivalence`: treatment and control differ by less than `margin` (two one-sided tests, 90 % interval);
- `Monotone`: a metric rises or falls along a column (Kendall's tau of each seed, 95 % interval).

`samples=` replaces the arms by any function of the results with one number a seed, for composite quantities.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from experiments.analysis.results import SCALES, Arm, Results, ResultsError, select, without_provenance
from experiments.analysis.stats import Interval, cross_fitted_best, monotonicity, paired_differences, t_interval, tost
from experiments.analysis.summaries import VERDICTS

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED = VERDICTS
MIN_SEEDS = 3
MIN_LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What all claims share. `text` and `source` are the paper's sentence and section, `paper` its value if known.

    `worst`: the value of `metric` a failed or NaN run counts as; None: such a run makes the claim inconclusive.
    `scale`: the smallest scale that can decide the claim; below it the numbers are shown and the verdict is open.
    """

    id: str
    text: str
    source: str
    paper: str = ""
    metric: str = ""
    split: str = "test"
    worst: float | None = None
    scale: str = SCALES[0]
    samples: Callable[[Results], pd.Series] | None = None

    def __post_init__(self) -> None:
        if self.worst is not None and not np.isfinite(self.worst):
            raise ValueError(f"claim {self.id}: worst must be finite, not {self.worst}")
        if bool(self.metric) == bool(self.samples):
            raise ValueError(f"claim {self.id}: give either a metric with its arms, or samples")

    def measure(self, results: Results) -> pd.Series:
        """One number a seed; positive speaks for the claim (for an equivalence: the difference)."""
        raise NotImplementedError

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        """The interval of the mean of at least three finite samples, and the verdict on it."""
        raise NotImplementedError

    def swapped(self) -> "Claim":
        """The opposite claim."""
        raise NotImplementedError

    def _rows(self, results: Results, arm: Arm) -> pd.DataFrame:
        failed = float("nan") if self.worst is None else self.worst
        return select(results.final(self.metric, split=self.split, failed=failed), **arm)

    def _require_one_row(self, rows: pd.DataFrame, *per: str) -> None:
        """An arm that leaves a setting open would mix it into the seeds."""
        duplicates = rows[rows.duplicated(list(per), keep=False)]
        if len(duplicates):
            same = duplicates[(duplicates[list(per)] == duplicates[list(per)].iloc[0]).all(axis=1)]
            settings = without_provenance(same).drop(columns=["id", "status", self.metric])
            open_columns = [column for column in settings if settings[column].nunique(dropna=False) > 1]
            raise ResultsError(f"claim {self.id}: an arm leaves {', '.join(open_columns) or 'nothing'} open")


@dataclass(frozen=True, kw_only=True)
class _Paired(Claim):
    """Two arms compared seed by seed; where an arm leaves the column `tune` open, the other seeds choose its level."""

    treatment: Arm | None = None
    control: Arm | None = None
    margin: float = 0.0
    better: Literal["higher", "lower"] = "higher"
    tune: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is None and (self.treatment is None or self.control is None):
            raise ValueError(f"claim {self.id}: a comparison needs a treatment and a control")
        if self.margin < 0:
            raise ValueError(f"claim {self.id}: margin must be >= 0, not {self.margin}")

    def _difference(self, results: Results) -> pd.Series:
        return paired_differences(*(self._values(results, arm) for arm in (self.treatment, self.control)))

    def _values(self, results: Results, arm: Arm) -> pd.Series:
        rows = self._rows(results, arm)
        if self.tune and rows[self.tune].nunique() > 1:
            self._require_one_row(rows, "seed", self.tune)
            maximize = self.better == "higher"
            return cross_fitted_best(rows, metric=self.metric, over=self.tune, maximize=maximize)[self.metric]
        self._require_one_row(rows, "seed")
        return rows.set_index("seed")[self.metric]


@dataclass(frozen=True, kw_only=True)
class Superiority(_Paired):
    """The gain of treatment over control exceeds `margin`; the gain is t - c, or c - t where `better="lower"`."""

    def measure(self, results: Results) -> pd.Series:
        if self.samples is not None:
            return self.samples(results)
        return self._difference(results) * (1 if self.better == "higher" else -1)

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        return _judge_above(samples, self.margin)

    def swapped(self) -> "Superiority":
        if self.samples is not None:
            return replace(self, samples=_negated(self.samples))
        return replace(self, treatment=self.control, control=self.treatment)


@dataclass(frozen=True, kw_only=True)
class Equivalence(_Paired):
    """|treatment - control| is below `margin`. Symmetric in its arms, so its opposite is `differ`: above `margin`."""

    differ: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin == 0:
            raise ValueError(f"claim {self.id}: an equivalence must state its margin")

    def measure(self, results: Results) -> pd.Series:
        return self._difference(results) if self.samples is None else self.samples(results)

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        interval, inside = tost(samples, self.margin)
        outside = interval.low >= self.margin or interval.high <= -self.margin
        if not (inside or outside):
            return interval, INCONCLUSIVE
        return interval, REPRODUCED if inside != self.differ else NOT_REPRODUCED

    def swapped(self) -> "Equivalence":
        return replace(self, differ=not self.differ)


@dataclass(frozen=True, kw_only=True)
class Monotone(Claim):
    """`metric` rises (or falls) along the column `over` within the arm `treatment`: mean Kendall tau above `margin`.

    The default margin of 1/2 asks that three pairs of levels in four are in the claimed order, not merely most.
    """

    treatment: Arm | None = None
    over: str = ""
    direction: Literal["increasing", "decreasing"] = "increasing"
    margin: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is None and (self.treatment is None or not self.over):
            raise ValueError(f"claim {self.id}: a trend needs a treatment and the column it runs over")
        if self.margin < 0:
            raise ValueError(f"claim {self.id}: margin must be >= 0, not {self.margin}")

    def measure(self, results: Results) -> pd.Series:
        if self.samples is not None:
            return self.samples(results)
        rows = self._rows(results, self.treatment).dropna(subset=[self.over])
        self._require_one_row(rows, "seed", self.over)
        rows = rows[rows.groupby("seed")[self.over].transform("nunique") >= MIN_LEVELS]
        return monotonicity(rows, self.over, self.metric) * (1 if self.direction == "increasing" else -1)

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        return _judge_above(samples, self.margin)

    def swapped(self) -> "Monotone":
        if self.samples is not None:
            return replace(self, samples=_negated(self.samples))
        return replace(self, direction="decreasing" if self.direction == "increasing" else "increasing")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome: `effect` and its interval [low, high] (NaN where there is none) over n seeds."""

    claim: Claim
    verdict: str
    effect: float
    low: float
    high: float
    n: int


def evaluate(claim: Claim, results: Results) -> Verdict:
    """Test `claim` on `results`.

    Fewer than three seeds, or a scale below the claim's: not tested at this scale. A failed or NaN run that has no
    `worst` value: inconclusive, and the interval is that of the remaining seeds.
    Raises: `ResultsError` for an unknown column or metric, or an arm that does not determine one run a seed.
    """
    samples = claim.measure(results).to_numpy(dtype=float)
    finite = samples[np.isfinite(samples)]
    if len(samples) < MIN_SEEDS or SCALES.index(results.scale) < SCALES.index(claim.scale):
        interval, verdict = t_interval(finite), NOT_TESTED
    elif len(finite) < len(samples):
        interval, verdict = t_interval(finite), INCONCLUSIVE
    else:
        interval, verdict = claim.judge(samples)
    return Verdict(claim=claim, verdict=verdict, effect=interval[0], low=interval[1], high=interval[2], n=interval[3])


def swapped(claim: Claim) -> Claim:
    """The claim with its labels exchanged, which no data that reproduce `claim` may reproduce."""
    return claim.swapped()


def _judge_above(samples: np.ndarray, margin: float) -> tuple[Interval, str]:
    interval = t_interval(samples)
    if interval.low > margin:
        return interval, REPRODUCED
    return interval, NOT_REPRODUCED if interval.high <= margin else INCONCLUSIVE


def _negated(samples: Callable[[Results], pd.Series]) -> Callable[[Results], pd.Series]:
    return lambda results: -samples(results)
