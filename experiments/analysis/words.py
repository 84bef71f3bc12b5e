"""Numbers of the results in words: what findings (pages.py) are made of.

A finding types no number, and no word that a number could make false: `side` and `word` choose it. A number that is not
there, of a run that is missing or has failed, is an error that leaves the finding empty.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from experiments.analysis.results import ResultsError
from experiments.analysis.stats import t_interval


def mean(values: ArrayLike, digits: int = 0, *, times: float = 1, unit: str = "", signed: bool = False) -> str:
    """The mean of some numbers, one a seed; `signed`: `+3.7`. Raises: `ResultsError` without a number."""
    centre = t_interval(np.asarray(values, dtype=float) * times).mean
    if not np.isfinite(centre):
        raise ResultsError("a number of the finding is not there")
    return "+" * (signed and centre > 0) + _written(centre, digits) + unit


def percent(values: ArrayLike, digits: int = 0) -> str:
    """The mean of some shares, in per cent."""
    return mean(values, digits, times=100, unit=" %")


def interval(values: ArrayLike, digits: int = 0, *, times: float = 1, unit: str = "") -> str:
    """The mean and its 95 % interval, `0.31 [0.2, 0.42]`; of one seed the mean alone."""
    said = mean(values, digits, times=times)
    _, low, high, seeds = t_interval(np.asarray(values, dtype=float) * times)
    return (f"{said} [{_written(low, digits)}, {_written(high, digits)}]" if seeds > 1 else said) + unit


def span(values: ArrayLike, digits: int = 0, *, times: float = 1, unit: str = "") -> str:
    """From the smallest to the largest of some numbers, `2 to 5`; once where the two are written alike."""
    numbers = np.asarray(values, dtype=float)
    ends = [mean([end], digits, times=times) for end in (numbers.min(initial=np.inf), numbers.max(initial=-np.inf))]
    return " to ".join(dict.fromkeys(ends)) + unit


def _written(number: float, digits: int) -> str:
    said = f"{number:,.{digits}f}".replace("-", "−")
    return said.removeprefix("−") if not set("123456789") & set(said) else said  # no minus zero


def less(one: pd.Series, other: pd.Series) -> pd.Series:
    """One minus the other, on the seeds of both."""
    one, other = one.align(other, join="inner")
    return one - other


def side(difference: ArrayLike, least: float = 0.0) -> int:
    """1 or −1 where a difference is surely above or below 0 (95 %), and larger than the least worth naming; else 0."""
    centre, low, high, _ = t_interval(difference)
    return 1 if low > 0 and centre > least else -1 if high < 0 and centre < -least else 0


def word(difference: ArrayLike, words: Sequence[str], least: float = 0.0) -> str:
    """One of three words: for a difference below 0, for none that is sure and worth naming, and for one above 0."""
    return words[1 + side(difference, least)]
