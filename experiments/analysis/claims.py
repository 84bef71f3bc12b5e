"""A claim is a sentence of the paper that the results can contradict; its verdict rests on an interval over seeds.

Every claim is a function of the results that has one number a seed, and a question about the mean of these samples:

- `Superiority`: it exceeds `margin`, the smallest effect worth naming (95 % interval);
- `NonInferiority`: it exceeds -`margin`: costs less than that, and gaining is fine (one-sided 5 %, so 90 % interval);
- `Equivalence`: it differs from 0 by less than `margin` (two one-sided tests, 90 % interval);
- `Monotone`: it is Kendall's tau of each seed, a rise or fall along a column, and exceeds `margin` (95 % interval);
- `Rare`: the samples are networks, 1 where something happens and 0 where not: it happens to a smaller share than
  `margin` (one-sided 5 %, so Wilson's 90 % interval, and the exact binomial test).

Where the samples have no spread an interval has no width, however few they are. What it then says is reproduced only
if the exact sign test has p <= 0.05 too, so from five seeds on; the burden of proof is the claim's.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Concatenate, NamedTuple, ParamSpec

import numpy as np
import pandas as pd

from experiments.analysis.results import SCALES, Arm, Results, ResultsError
from experiments.analysis.stats import Interval, p_above, p_rarer, t_interval, tost, wilson_interval
from experiments.analysis.summaries import VERDICTS

REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED, CONTRARY = VERDICTS
MIN_SEEDS = 3
LEVEL = 0.05  # of the one-sided tests

P = ParamSpec("P")
Samples = Callable[[Results], pd.Series]  # one number a seed, the index


def per_seed(measure: Callable[Concatenate[Results, P], pd.Series]) -> Callable[P, Samples]:
    """Decorates a function of the results and some settings: called with the settings it gives the samples there."""
    return lambda *args, **kwargs: lambda results: measure(results, *args, **kwargs)


class Judgement(NamedTuple):
    """What samples say of a claim: the interval of their mean, the verdict, and the one-sided p of the opposite."""

    interval: Interval
    verdict: str
    p: float


@dataclass(frozen=True)
class Claim:
    """What all claims share. `text` and `source` are the paper's sentence and section, `paper` its value if known.

    `samples`: positive numbers speak for the claim (for an equivalence: the difference); NaN is a run that failed.
    `margin`: see the module; `argued`: why it is what it is, in one short sentence, where it is not a usual one.
    `scale`: the smallest scale that can decide the claim; below it the numbers are shown and the verdict is open.
    `arms`: those that the samples are made of, where the report is to say what would decide the claim (remaining.py).
    `opposite`: the same claim with its labels exchanged, which no data that reproduce the claim may reproduce.
    """

    confidence: ClassVar[float] = 1 - 2 * LEVEL  # of the interval

    id: str
    text: str
    source: str
    samples: Samples
    _: KW_ONLY
    margin: float = 0.0
    argued: str = ""
    paper: str = ""
    scale: str = SCALES[0]
    arms: tuple[Arm, ...] = field(default=(), compare=False)
    opposite: bool = False

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise ValueError(f"claim {self.id}: margin must be >= 0, not {self.margin}")

    @property
    def against(self) -> str:
        """What the interval is held against, as in `> 0.05`."""
        raise NotImplementedError

    def interval(self, samples: np.ndarray) -> Interval:
        """The mean of finite samples, and its interval."""
        return t_interval(samples, self.confidence)

    def judge(self, samples: np.ndarray) -> Judgement:
        """The interval of at least three finite samples, the verdict on it, and its p."""
        raise NotImplementedError

    def adverse(self, judged: Judgement) -> bool:
        """Whether samples say significantly that the contrary holds."""
        return judged.verdict == NOT_REPRODUCED


@dataclass(frozen=True)
class OneSided(Claim):
    """The mean exceeds `bound`. The opposite: that of the samples with the other sign exceeds `margin`."""

    @property
    def bound(self) -> float:
        return self.margin

    @property
    def against(self) -> str:
        return f"> {self.bound:g}"

    def interval(self, samples: np.ndarray) -> Interval:
        return super().interval(-samples if self.opposite else samples)

    def judge(self, samples: np.ndarray) -> Judgement:
        interval, bound = self.interval(samples), self.margin if self.opposite else self.bound
        p = p_above(-samples if self.opposite else samples, bound)
        return Judgement(interval, _verdict(interval.low > bound, interval.high <= bound, p), p)


@dataclass(frozen=True)
class Superiority(OneSided):
    """The mean exceeds `margin`: what a treatment gains over its control, say."""

    confidence = 0.95

    def adverse(self, judged: Judgement) -> bool:
        return judged.interval.high < 0  # a gain that is too small is not yet a loss


@dataclass(frozen=True)
class NonInferiority(OneSided):
    """The mean exceeds -`margin`: a treatment costs less than that. Its opposite is that it costs more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _needs_margin(self, "a non-inferiority")

    @property
    def bound(self) -> float:
        return -self.margin


@dataclass(frozen=True)
class Monotone(Superiority):
    """A metric rises or falls along a column: the mean Kendall tau, in [-1, 1], exceeds `margin`.

    The default margin of 1/2 asks that three pairs of levels in four are in the claimed order, not merely most.
    """

    _: KW_ONLY
    margin: float = 0.5

    def interval(self, samples: np.ndarray) -> Interval:
        mean, low, high, n = super().interval(samples)
        return Interval(mean, float(np.clip(low, -1, 1)), float(np.clip(high, -1, 1)), n)


@dataclass(frozen=True)
class Equivalence(Claim):
    """The absolute mean is below `margin`. It is symmetric in its arms, so its opposite is that they differ by more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _needs_margin(self, "an equivalence")

    @property
    def against(self) -> str:
        return f"≈ 0 ± {self.margin:g}"

    def judge(self, samples: np.ndarray) -> Judgement:
        interval, inside = tost(samples, self.margin, LEVEL)
        outside = interval.low >= self.margin or interval.high <= -self.margin
        if self.opposite:
            p = min(p_above(samples, self.margin), p_above(-samples, self.margin))
            return Judgement(interval, _verdict(outside, inside, p), p)
        p = max(p_above(samples, -self.margin), p_above(-samples, -self.margin))
        return Judgement(interval, _verdict(inside, outside, p), p)


@dataclass(frozen=True)
class Rare(Claim):
    """What happens to a share of all networks, 1 or 0 each, happens to fewer than `margin`; the opposite: to more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _needs_margin(self, "a share")

    @property
    def against(self) -> str:
        return f"< {self.margin:g}"

    def interval(self, samples: np.ndarray) -> Interval:
        return wilson_interval(int(samples.sum()), len(samples), self.confidence)

    def judge(self, samples: np.ndarray) -> Judgement:
        interval, (n, events) = self.interval(samples), (len(samples), int(samples.sum()))
        fewer, more = interval.high < self.margin, interval.low >= self.margin
        if self.opposite:
            p = p_rarer(n - events, n, 1 - self.margin)
            return Judgement(interval, _verdict(more, fewer, p), p)
        p = p_rarer(events, n, self.margin)
        return Judgement(interval, _verdict(fewer, more, p), p)


def _verdict(holds: bool, fails: bool, p: float) -> str:
    if holds and p <= LEVEL:  # which an interval with a width implies
        return REPRODUCED
    return NOT_REPRODUCED if fails else INCONCLUSIVE


def _needs_margin(claim: Claim, kind: str) -> None:
    if claim.margin == 0:
        raise ValueError(f"claim {claim.id}: {kind} must state its margin")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome: `effect`, its interval [low, high] over n seeds, and the p of its test; NaN where there is none."""

    claim: Claim
    verdict: str
    effect: float
    low: float
    high: float
    n: int
    p: float


def evaluate(claim: Claim, results: Results) -> Verdict:
    """Test `claim` on `results`.

    Fewer than three seeds, or a scale below the claim's: not tested at this scale; but contrary at this scale where
    three seeds say significantly that the contrary holds. A failed or NaN run: inconclusive, and the interval is that
    of the remaining seeds.
    Raises: `ResultsError` for an unknown column or metric, or an arm that does not determine one run a seed.
    """
    try:
        samples = claim.samples(results).to_numpy(dtype=float)
    except ResultsError as error:
        raise ResultsError(f"claim {claim.id}: {error}") from error
    finite = samples[np.isfinite(samples)]
    judged = Judgement(claim.interval(finite), NOT_TESTED, float("nan"))
    if len(finite) >= MIN_SEEDS:
        judged = claim.judge(finite)
    (effect, low, high, n), verdict, p = judged
    if len(samples) < MIN_SEEDS or SCALES.index(results.scale) < SCALES.index(claim.scale):
        verdict, p = CONTRARY if verdict != NOT_TESTED and claim.adverse(judged) else NOT_TESTED, float("nan")
    elif len(finite) < len(samples):
        verdict, p = INCONCLUSIVE, float("nan")
    return Verdict(claim=claim, verdict=verdict, effect=effect, low=low, high=high, n=n, p=p)
