"""Tables of the paper with ours: how an estimate stands in a cell, and how a table is drawn as points."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from experiments.analysis.plotting import Look
from experiments.analysis.stats import no_spread, t_interval

NONE = "–"  # in a cell


def estimate(values: pd.Series, digits: int = 1, times: float = 1) -> str:
    """`49.2 [44.1, 54.3]`: mean and 95 % interval over seeds, `times` a factor; the mean alone if all are equal."""
    found = (times * values).dropna()
    mean, low, high, seeds = t_interval(found)
    if not seeds:
        return NONE
    if seeds == 1 or no_spread(found):
        return f"{mean:z.{digits}f}"
    return f"{mean:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]"


def points(ax: Axes, rows: Sequence[tuple[float, Look, pd.Series]], names: Sequence[str], legend: bool = False) -> None:
    """From top to bottom: the mean of some values, with their interval. The places have names; the arms are in the
    legend where the names do not say it.
    """
    for place, own, values in rows:
        look = vars(own) | ({} if legend else {"label": ""})
        mean, low, high, _ = t_interval(values.dropna())
        ax.errorbar(mean, place, xerr=[[mean - low], [high - mean]], capsize=2, linestyle="none", **look)
    last = max(round(place) for place, *_ in rows)
    ax.set_ylim(last + 0.6, -0.6)
    ax.set_yticks(range(last + 1), names or [""] * (last + 1))
