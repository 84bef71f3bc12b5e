"""Numbers of the results in the notes of a report: made where they stand, so that none is typed and none goes stale.

    def notes(results: Results) -> str:
        say = Numbers(results)
        rank = say.final("rank")
        return f"... the rank of decay alone falls to {rank(DECAY)} of 128, that of syre is {rank(SYRE)} ..."

What is typed is what no table can change: settings, the paper's numbers, pilots. Of a table that has not all runs (yet)
the paragraphs whose numbers are there are printed, and the others left out. Intervals are of 95 %.
"""

import re
import textwrap
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from experiments.analysis import arms, words
from experiments.analysis.claims import Samples
from experiments.analysis.results import Arm, Results, ResultsError
from experiments.analysis.stats import cross_fitted_best
from experiments.analysis.summaries import listed

MISSING = "(not measured)"


class Numbers:
    """Numbers of some results in words; `MISSING` where one is not there."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def mean(self, samples: Samples, digits: int = 0, *, times: float = 1) -> str:
        """The mean of samples (claims.py), one a seed."""
        return self.told(lambda results: words.mean(samples(results), digits, times=times))

    def interval(self, samples: Samples, digits: int = 0, *, times: float = 1) -> str:
        """The mean and its 95 % interval, `0.31 [0.2, 0.42]`."""
        return self.told(lambda results: words.interval(samples(results), digits, times=times))

    def span(self, several: Iterable[Samples], digits: int = 0, *, times: float = 1) -> str:
        """From the smallest to the largest of some means, `2 to 5`."""

        def means(results: Results) -> str:
            values = [_finite(samples(results)).mean() for samples in several]
            return words.span(values, digits, times=times)

        return self.told(means)

    def final(self, metric: str, digits: int = 0, *, times: float = 1) -> Callable[[Arm], str]:
        """A function of an arm: the mean of its metric at the end of training."""
        return lambda arm: self.mean(arms.final(metric, arm), digits, times=times)

    def best(self, metric: str, arm: Arm) -> str:
        """The sigma that is best on the other seeds: `1 for every seed`, or `0.1 for 2 seeds and 1 for 3 seeds`."""

        def chosen(results: Results) -> str:
            rows, most = results.final(metric, **{**arm, arms.BY: None}), not arms.less_is_better(metric)
            if rows.empty:
                raise ResultsError("an arm is not there")
            best = cross_fitted_best(rows, metric=metric, over=arms.SIGMA, maximize=most)[arms.SIGMA]
            seeds = _finite(best).value_counts().sort_index()
            if len(seeds) == 1:
                return f"{seeds.index[0]:g} for every seed"
            return listed([f"{sigma:g} for {n} seed{'s' * (n > 1)}" for sigma, n in seeds.items()])

        return self.told(chosen)

    def count(self, samples: Samples, *, above: float = -np.inf, below: float = np.inf) -> str:
        """How many samples lie above or below a level: `2 of 5`, `all 5`."""

        def counted(results: Results) -> str:
            values = _finite(samples(results))
            number, of = int(((values > above) & (values < below)).sum()), len(values)
            return f"all {of}" if number == of else f"{number or 'none'} of {of}"

        return self.told(counted)

    def told(self, of: Callable[[Results], str]) -> str:
        """Whatever else is told of the results."""
        try:
            return of(self.results)
        except ResultsError:
            return MISSING


def _finite(samples: pd.Series) -> pd.Series:
    """Raises: `ResultsError` where there are none, or one of them is not a number."""
    if not len(samples) or not np.isfinite(samples).all():
        raise ResultsError("a number of the notes is not there")
    return samples


def written(said: str) -> str:
    """The notes as they are printed: paragraphs are filled anew, lists and tables are not.

    A paragraph, or an item of a list, in which a number is `MISSING` is left out.
    """
    parts = (re.split(r"\n(?=- )", part) for part in textwrap.dedent(said).strip().split("\n\n"))
    there = ("\n".join(item for item in items if MISSING not in item) for items in parts)
    return "\n\n".join(part if re.search(r"^([-|]|\s)", part, re.M) else _filled(part) for part in there if part)


def _filled(paragraph: str) -> str:
    """In lines of 120, none of which begins as an item of a list in Markdown does, with `+ 1` or `1. `."""
    kept = re.sub(r"\s(?=([-+*]|\d+[.)])\s)", "\N{NO-BREAK SPACE}", paragraph)
    return textwrap.fill(kept, 120, break_on_hyphens=False).replace("\N{NO-BREAK SPACE}", " ")
