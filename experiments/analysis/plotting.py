"""How every figure looks: one colour, marker and label per regularizer, bands over seeds, reproducible files.

Plain `matplotlib.figure.Figure` objects: no pyplot, so no backend, window or global state. Functions take and return an
axes: `line_with_band(ax, df, x, y, look)`.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from experiments.analysis.stats import t_interval

DPI = 150


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one arm is drawn and what the legend calls it."""

    label: str
    color: str
    marker: str


def style() -> None:
    """The shared settings, from matplotlib's own defaults, so that a user's matplotlibrc changes no file."""
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(
        {
            "font.family": "DejaVu Sans",  # ships with matplotlib: the same on every machine
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.5,
            "legend.fontsize": 7.5,
            "legend.frameon": False,
            "lines.linewidth": 1.3,
            "lines.markersize": 4,
        }
    )


def panels(
    columns: int = 1, rows: int = 1, *, width: float = 3.6, height: float = 2.8, **share: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels, each `width` x `height` inches, and its axes as a flat array.

    `share`: as of `Figure.subplots`, which axes are one (`sharey="row"`).
    """
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share).ravel()


def line_with_band(ax: Axes, df: pd.DataFrame, x: str, y: str, look: Look) -> Axes:
    """Mean of y over the seeds at each x, with its t-band. A hollow marker: some seed has no value there, it failed."""
    rows = [(at, *t_interval(group[y].dropna()), group[y].isna().any()) for at, group in df.groupby(x)]
    at, mean, low, high, _, holes = np.array(rows, dtype=float).reshape(-1, 6).T
    few = len(at) <= 30  # a training curve needs no markers
    ax.plot(at, mean, color=look.color, marker=look.marker if few else None, label=look.label)
    ax.fill_between(at, low, high, color=look.color, alpha=0.18, linewidth=0)
    hollow = holes.astype(bool)
    ax.plot(at[hollow], mean[hollow], look.marker, color=look.color, markerfacecolor="white")
    return ax


def seed_lines(ax: Axes, df: pd.DataFrame, x: str, y: str, look: Look) -> Axes:
    """A thin line each seed and, of two or more, a thicker one: their mean, as far as all of them have a value.

    For few seeds, whose t-bands would cover the panel. Markers tell the arms apart where colours do not.
    """
    wide = df.pivot(index=x, columns="seed", values=y)
    color, every, arms = look.color, max(1, len(wide) // 8), len(ax.get_legend_handles_labels()[1])
    start = every * (arms % 6) // 6  # beside those of the arms before it
    marked: dict[str, Any] = {
        "label": look.label,
        "marker": look.marker,
        "markevery": (start, every),
        "markersize": 3.5,
    }
    alone: dict[str, Any] = marked if wide.shape[1] == 1 else {"alpha": 0.6}
    for values in wide.to_numpy(dtype=float).T:
        ax.plot(wide.index, values, color=color, linewidth=0.7, **alone)
    if wide.shape[1] > 1:
        ax.plot(wide.index, wide.mean(axis=1, skipna=False), color=color, linewidth=1.7, **marked)
    return ax


def scatter_with_bars(ax: Axes, df: pd.DataFrame, x: str, y: str, by: str, look: Look) -> Axes:
    """One point per level of `by` (a strength, say), joined in that order: means of x and y with their t-intervals."""
    complete = df.dropna(subset=[x, y])
    points = [(t_interval(group[x]), t_interval(group[y])) for _, group in complete.groupby(by)]
    across, up = (np.array([pair[k] for pair in points], dtype=float).reshape(-1, 4) for k in (0, 1))
    yerr, xerr = (np.nan_to_num((p[:, 2] - p[:, 1]) / 2) for p in (up, across))
    ax.errorbar(across[:, 0], up[:, 0], yerr, xerr, lw=0.8, elinewidth=0.8, **vars(look))
    return ax


def with_legend(figure: Figure, empty: Axes | None = None, **kwargs: Any) -> Figure:
    """The figure, with one legend for all panels that names each label once in the order drawn.

    It is right of the panels, or in one that is `empty` and then has no axes.
    """
    named = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles = {label: handle for pair in reversed(named) for handle, label in reversed(list(zip(*pair, strict=True)))}
    order = list(dict.fromkeys(label for _, labels in named for label in labels))
    if empty is not None:
        empty.set_axis_off()
        empty.legend([handles[label] for label in order], order, **{"loc": "center", **kwargs})
    else:
        figure.legend([handles[label] for label in order], order, **{"loc": "outside right upper", **kwargs})
    return figure


def files(figure: Figure, folder: Path) -> dict[Path, bytes]:
    """folder/figure.pdf and figure.png: the same bytes for the same figure."""
    drawn, pdf = png(figure, folder), io.BytesIO()
    FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})  # it goes on with another dpi
    return {Path(folder) / "figure.pdf": pdf.getvalue(), **drawn}


def png(figure: Figure, folder: Path) -> dict[Path, bytes]:
    """folder/figure.png: the same bytes for the same figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is solved once for every file, not twice for each
    content = io.BytesIO()
    # Not by savefig, which goes through the whole figure once more before it draws it.
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(content, metadata={"Software": None})
    return {Path(folder) / "figure.png": content.getvalue()}
