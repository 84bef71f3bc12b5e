"""How every figure looks: one colour, marker and label per regularizer, bands over seeds, reproducible files.

Plain `matplotlib.figure.Figure` objects: no pyplot, so no backend, window or global state. Functions take and return an
axes: `line_with_band(ax, df, x, y, look)`.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.analysis.stats import t_interval

DPI = 150
FEW = 3  # seeds, of which each is drawn instead of a band
Limits = tuple[float, float]
ANY: Limits = (-np.inf, np.inf)


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


def line_with_band(
    ax: Axes, df: pd.DataFrame, x: str, y: str, look: Look, *, within: Limits = ANY, wider: float = 0
) -> Axes:
    """Mean of y over the seeds at each x, with its t-band, cut where y cannot be (`within`).

    Of three seeds or fewer, whose bands say little, each is a thin line instead. Two points are not joined: what lies
    between them was not tried. A hollow marker: some seed has no value there, it failed. `wider` (0 to 1) draws a curve
    so that others on top of it leave its edge to be seen.
    """
    rows = [(at, *t_interval(group[y].dropna()), group[y].isna().any()) for at, group in df.groupby(x)]
    at, mean, low, high, seeds, holes = np.array(rows, dtype=float).reshape(-1, 6).T
    markers = len(at) <= 30  # a training curve needs none
    joined = len(at) > 2
    size: dict[str, Any] = {"linewidth": 1.3 + 1.5 * wider, "markersize": 4 + 3.5 * wider}
    drawn: dict[str, Any] = {"color": look.color, "linestyle": "-" if joined else "none", **size}
    ax.plot(at, mean, marker=look.marker if markers else None, label=look.label, **drawn)
    low, high = np.clip(low, *within), np.clip(high, *within)
    if len(at) and seeds.max() <= FEW:
        for _, own in df.groupby("seed") if seeds.max() > 1 else ():
            own = own.sort_values(x)
            ax.plot(own[x], own[y], "-" if joined else ".", color=look.color, linewidth=0.6, markersize=2, alpha=0.5)
    elif joined:
        ax.fill_between(at, low, high, color=look.color, alpha=0.18, linewidth=0)
    else:
        ax.vlines(at, low, high, color=look.color, linewidth=0.8, alpha=0.6)
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
    """One point per level of `by` (a strength, say), joined in that order: means of x and y with their t-intervals.

    The bars are pale: where an interval is long they must not outshine the points.
    """
    complete = df.dropna(subset=[x, y])
    points = [(t_interval(group[x]), t_interval(group[y])) for _, group in complete.groupby(by)]
    across, up = (np.array([pair[k] for pair in points], dtype=float).reshape(-1, 4) for k in (0, 1))
    yerr, xerr = (np.nan_to_num((p[:, 2] - p[:, 1]) / 2) for p in (up, across))
    pale = to_rgba(look.color, 0.35)
    ax.errorbar(across[:, 0], up[:, 0], yerr, xerr, lw=0.8, elinewidth=0.8, ecolor=pale, **vars(look))
    return ax


def level(ax: Axes, value: float, look: Look, lacks: str) -> Axes:
    """A dotted level: an arm that has no setting such as the axis is of, which the legend says."""
    ax.axhline(value, color=look.color, linewidth=1, linestyle=":", zorder=1.5, label=f"{look.label} (has no {lacks})")
    return ax


def papers(ax: Axes, x: ArrayLike, y: ArrayLike, color: str, of: str = "") -> Axes:
    """Numbers of the paper: hollow circles in the colour of an arm."""
    label = f"{of}, the paper's" if of else "the paper's"
    ax.plot(x, y, "o", color=color, markersize=8, markerfacecolor="none", label=label, zorder=3)
    return ax


def zero_apart(ax: Axes, at: float, ticks: Sequence[float]) -> Axes:
    """A logarithmic axis on which 0 stands, at `at`, left of a break and of the ticks."""
    ax.set(xscale="log", xticks=[at, *ticks], xticklabels=["0", *(f"{tick:g}" for tick in ticks)])
    ax.minorticks_off()
    between, white = (at * ticks[0]) ** 0.5, {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ax.text(between, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center", bbox=white, zorder=5)
    return ax


def with_legend(figure: Figure, empty: Axes | None = None, *, caption: str = "", **kwargs: Any) -> Figure:
    """The figure, with one legend for all panels that names each label once in the order drawn.

    It is right of the panels, or in one that is `empty` and then has no axes; a `caption` of a few words heads it.
    """
    if caption:
        kwargs = {"title": caption, "title_fontsize": 7.5, "alignment": "left", **kwargs}
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
