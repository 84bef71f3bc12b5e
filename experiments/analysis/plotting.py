"""How every figure looks: one colour, marker and label per regularizer, bands over seeds, reproducible files.

Plain `matplotlib.figure.Figure` objects: no pyplot, so no backend, window or global state. Functions take and return an
axes: `line_with_band(ax, df, x, y, look("syre"))`.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from experiments.analysis.stats import t_interval

DPI = 150


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one arm is drawn and what the legend calls it."""

    label: str
    color: str
    marker: str


# Okabe and Ito's palette, told apart with any colour vision. Vanilla and weight decay are different arms.
LOOKS = {
    "vanilla": Look(label="vanilla", color="#000000", marker="o"),
    "weight_decay": Look(label="weight decay", color="#D55E00", marker="s"),
    "syre": Look(label="syre", color="#0072B2", marker="D"),
    "syre_advanced": Look(label="syre, advanced", color="#009E73", marker="P"),
    "syre_layers": Look(label="syre, some layers", color="#332288", marker="d"),
    "w_fix": Look(label="W-fix", color="#E69F00", marker="^"),
    "w_asym": Look(label="W-asym", color="#7FBC41", marker=">"),
    "dropout": Look(label="dropout", color="#CC79A7", marker="v"),
    "l2_init": Look(label="L2 init", color="#777777", marker="X"),
    "offset": Look(label="offset start", color="#8B5A2B", marker="<"),
    "shrink_perturb": Look(label="shrink & perturb", color="#7B3294", marker="p"),
    "sigma_asym": Look(label="σ-asym", color="#E7298A", marker="*"),
}
SIGMA_SHADES = LinearSegmentedColormap.from_list("sigma", ["#9CCBE8", LOOKS["syre"].color, "#00263F"])


def look(name: str, sigma: float | None = None) -> Look:
    """The look of the regularizer `name`; a sigma (relative, darker is larger, 0.01 to 10) shades the colour of syre.

    Raises: ValueError for a name that has no look.
    """
    if name not in LOOKS:
        raise ValueError(f"no look for regularizer {name!r}; there are: {', '.join(LOOKS)}")
    plain = LOOKS[name]
    if sigma is None:
        return plain
    shade = np.clip((math.log10(sigma) + 2) / 3, 0, 1) if sigma > 0 else 0.0  # the same shade in every figure
    color = to_hex(SIGMA_SHADES(shade)) if name == "syre" else plain.color
    return Look(label=f"{plain.label}, σ = {sigma:g}", color=color, marker=plain.marker)


def arms(df: pd.DataFrame, *, sigmas: bool = True) -> Iterator[tuple[Look, pd.DataFrame]]:
    """The rows of each regularizer, with their look, in the order of `LOOKS`; one arm a sigma unless `sigmas=False`."""
    for name in sorted(df["regularizer.name"].unique(), key=[*LOOKS, *df["regularizer.name"]].index):
        rows = df[df["regularizer.name"] == name]
        levels = sorted(rows["regularizer.sigma"].dropna().unique()) if "regularizer.sigma" in rows else []
        if not (sigmas and levels):
            yield look(name), rows
        for sigma in levels if sigmas else ():
            yield look(name, sigma), rows[rows["regularizer.sigma"] == sigma]


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


def panels(columns: int = 1, rows: int = 1, *, width: float = 3.6, height: float = 2.8) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels, each `width` x `height` inches, and its axes as a flat array."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def line_with_band(ax: Axes, df: pd.DataFrame, x: str, y: str, look: Look, *, level: float = 0.95) -> Axes:
    """Mean of y over the seeds at each x, with its t-band. A hollow marker: some seed has no value there, it failed."""
    rows = [(at, *t_interval(group[y].dropna(), level), group[y].isna().any()) for at, group in df.groupby(x)]
    at, mean, low, high, _, holes = np.array(rows, dtype=float).reshape(-1, 6).T
    few = len(at) <= 30  # a training curve needs no markers
    ax.plot(at, mean, color=look.color, marker=look.marker if few else None, label=look.label)
    ax.fill_between(at, low, high, color=look.color, alpha=0.18, linewidth=0)
    hollow = holes.astype(bool)
    ax.plot(at[hollow], mean[hollow], look.marker, color=look.color, markerfacecolor="white")
    return ax


def scatter_with_bars(
    ax: Axes, df: pd.DataFrame, x: str, y: str, by: str | list[str], look: Look, *, level: float = 0.95
) -> Axes:
    """One point per level of `by` (a strength, say), joined in that order: means of x and y with their t-intervals."""
    complete = df.dropna(subset=[x, y])
    points = [(t_interval(group[x], level), t_interval(group[y], level)) for _, group in complete.groupby(by)]
    across, up = (np.array([pair[k] for pair in points], dtype=float).reshape(-1, 4) for k in (0, 1))
    bars = {name: np.nan_to_num((p[:, 2] - p[:, 1]) / 2) for name, p in (("xerr", across), ("yerr", up))}
    ax.errorbar(
        *(across[:, 0], up[:, 0]),
        **bars,
        color=look.color,
        marker=look.marker,
        label=look.label,
        lw=0.8,
        elinewidth=0.8,
    )
    return ax


def spectrum(ax: Axes, eigenvalues: ArrayLike, look: Look, *, level: float = 0.95) -> Axes:
    """Rank curve: eigenvalues (seeds, k), sorted, against their index from 1; band and mean over seeds in the log."""
    values = -np.sort(-np.atleast_2d(np.asarray(eigenvalues, dtype=float)), axis=1)
    logs = np.log(np.where(values > 0, values, np.nan))
    mean, low, high, _ = np.exp(np.array([t_interval(column, level) for column in logs.T])).T
    index = np.arange(1, values.shape[1] + 1)
    ax.plot(index, mean, color=look.color, label=look.label)
    ax.fill_between(index, low, high, color=look.color, alpha=0.18, linewidth=0)
    ax.set_yscale("log")
    return ax


def legend(figure: Figure, **kwargs: object) -> None:
    """One legend for all panels, right of them, that names each label once in the order drawn."""
    named = [ax.get_legend_handles_labels() for ax in figure.axes]
    handles = {label: handle for pair in reversed(named) for handle, label in reversed(list(zip(*pair, strict=True)))}
    order = list(dict.fromkeys(label for _, labels in named for label in labels))
    figure.legend([handles[label] for label in order], order, **{"loc": "outside right upper", **kwargs})


def files(figure: Figure, folder: Path) -> dict[Path, bytes]:
    """folder/figure.pdf and figure.png: the same bytes for the same figure."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is solved once for both files, not twice for each
    png, pdf = io.BytesIO(), io.BytesIO()
    # Not by savefig, which goes through the whole figure once more before it draws it.
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})  # it goes on with another dpi
    return {Path(folder) / "figure.pdf": pdf.getvalue(), Path(folder) / "figure.png": png.getvalue()}
