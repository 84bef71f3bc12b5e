"""A claim is a sentence of the paper that the results can contradict; its verdict rests on an interval over seeds.

Every claim is a function of the results that has one number a seed, and a question about the mean of these samples:

- `Superiority`: it exceeds `margin` (95 % interval);
- `Equivalence`: it differs from 0 by less than `margin` (two one-sided tests, 90 % interval);
- `Monotone`: it is Kendall's tau of each seed, a rise or fall along a column, and exceeds `margin` (95 % interval).
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Concatenate, ParamSpec

import numpy as np
import pandas as pd

from experiments.analysis.results import SCALES, Results, ResultsError
from experiments.analysis.stats import Interval, t_interval, tost
from experiments.analysis.summaries import VERDICTS

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED = VERDICTS
MIN_SEEDS = 3

P = ParamSpec("P")
Samples = Callable[[Results], pd.Series]  # one number a seed, the index


def per_seed(measure: Callable[Concatenate[Results, P], pd.Series]) -> Callable[P, Samples]:
    """Decorates a function of the results and some settings: called with the settings it gives the samples there."""
    return lambda *args, **kwargs: lambda results: measure(results, *args, **kwargs)


@dataclass(frozen=True)
class Claim:
    """What all claims share. `text` and `source` are the paper's sentence and section, `paper` its value if known.

    `samples`: positive numbers speak for the claim (for an equivalence: the difference); NaN is a run that failed.
    `scale`: the smallest scale that can decide the claim; below it the numbers are shown and the verdict is open.
    `opposite`: the same claim with its labels exchanged, which no data that reproduce the claim may reproduce.
    """

    id: str
    text: str
    source: str
    samples: Samples
    _: KW_ONLY
    margin: float = 0.0
    paper: str = ""
    scale: str = SCALES[0]
    opposite: bool = False

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"claim {self.id}: margin must be >= 0, not {self.margin}")

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        """The interval of the mean of at least three finite samples, and the verdict on it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Superiority(Claim):
    """The mean exceeds `margin`: what a treatment gains over its control, say."""

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        interval = t_interval(-samples if self.opposite else samples)
        if interval.low > self.margin:
            return interval, REPRODUCED
        return interval, NOT_REPRODUCED if interval.high <= self.margin else INCONCLUSIVE


@dataclass(frozen=True)
class Monotone(Superiority):
    """A metric rises or falls along a column: the mean Kendall tau exceeds `margin`.

    The default margin of 1/2 asks that three pairs of levels in four are in the claimed order, not merely most.
    """

    _: KW_ONLY
    margin: float = 0.5


@dataclass(frozen=True)
class Equivalence(Claim):
    """The absolute mean is below `margin`. It is symmetric in its arms, so its opposite is that they differ by more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin == 0:
            raise ValueError(f"claim {self.id}: an equivalence must state its margin")

    def judge(self, samples: np.ndarray) -> tuple[Interval, str]:
        interval, inside = tost(samples, self.margin)
        outside = interval.low >= self.margin or interval.high <= -self.margin
        if not (inside or outside):
            return interval, INCONCLUSIVE
        return interval, REPRODUCED if inside != self.opposite else NOT_REPRODUCED


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

    Fewer than three seeds, or a scale below the claim's: not tested at this scale. A failed or NaN run: inconclusive,
    and the interval is that of the remaining seeds.
    Raises: `ResultsError` for an unknown column or metric, or an arm that does not determine one run a seed.
    """
    try:
        samples = claim.samples(results).to_numpy(dtype=float)
    except ResultsError as error:
        raise ResultsError(f"claim {claim.id}: {error}") from error
    finite = samples[np.isfinite(samples)]
    if len(samples) < MIN_SEEDS or SCALES.index(results.scale) < SCALES.index(claim.scale):
        interval, verdict = t_interval(finite), NOT_TESTED
    elif len(finite) < len(samples):
        interval, verdict = t_interval(finite), INCONCLUSIVE
    else:
        interval, verdict = claim.judge(samples)
    return Verdict(claim=claim, verdict=verdict, effect=interval[0], low=interval[1], high=interval[2], n=interval[3])
