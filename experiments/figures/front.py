"""The opening picture: the cliff of decay alone, and how large the anchor must be; drawn from other figures' runs."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import ALPHA, GAMMA, SIGMA, VANILLA, decay, final, look, syre
from experiments.analysis.claims import Claim
from experiments.analysis.results import Arm, Results, ResultsError, select
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean, percent, side, span
from experiments.figures import fig1, sigma_map

EXPERIMENT = ("fig1", *sigma_map.EXPERIMENT)
TITLE = "the cliff of weight decay alone, and the anchor that it takes"
CLAIMS: tuple[Claim, ...] = ()  # each of the figures it is drawn from has its own

RECOMMENDED = 0.01  # in 5.4
COLLAPSES = (
    "fig5",
    "fig9",
    "fig11",
)  # figure 2 counts neurons, figure 13 compares networks
WHOLE, TOLL = 0.8, 2.0  # of a collapse: undone; points of accuracy: a cost that harms
CLIFF: Arm = {"experiment": "fig5", ALPHA: 1}

NOTES = """
**What it shows.** Left, test accuracy on MNIST over weight decay (figure 5, α = 1; five seeds, 95 % intervals). Right,
over the scale σ of the anchor (relative, `start="shift"`): how much of the collapse of decay alone syre undoes in
figures 2, 5, 9, 11 and 13, and what it costs in accuracy where decay alone is mild (figures 2, 5, 11 and 13). Thin: one
figure; thick: their mean. Both are explained in sigma_map, which also has the absolute scale.

Nothing is trained for it, and it claims nothing: each of the figures it is drawn from has claims of its own.
"""


def cliff(results: Results, arm: Arm, gamma: float | None = None) -> pd.Series:
    """Accuracy in figure 5 by seed."""
    return final("accuracy", {**arm, **CLIFF} | ({GAMMA: gamma} if gamma else {}))(results)


def over_sigma(results: Results, what: str) -> pd.DataFrame:
    """What is undone, in per cent, or lost, in points: the mean over seeds, a row a sigma and a column a figure."""
    effects = what == "undone"
    measure, names = (sigma_map.effects, sigma_map.EFFECTS) if effects else (sigma_map.costs, sigma_map.COSTS)
    of = {name: measure(results, name).groupby(SIGMA)["value"].mean() for name in names}
    return pd.DataFrame(of).reindex(sigma_map.GRID) * (100 if effects else 1)


def acts(results: Results) -> float:
    """The smallest sigma that undoes most of each collapse; NaN if none does."""
    enough = (over_sigma(results, "undone")[[*COLLAPSES]] >= 100 * WHOLE).all(axis=1)
    return float(enough.idxmax()) if enough.any() else float("nan")


def harms(results: Results) -> float:
    """The smallest sigma with a cost that is surely there in some figure, and harms; NaN if none has."""
    costs = {name: sigma_map.costs(results, name) for name in sigma_map.COSTS}
    at = [s for rows in costs.values() for s, of in rows.groupby(SIGMA)["value"] if side(of, TOLL) > 0]
    return float(min(at, default=float("nan")))


def finding(results: Results) -> Finding:
    """The cliff, and at which sigma it is undone; README.md begins with it."""
    gammas = select(results.runs, **decay(CLIFF))[GAMMA]
    mild, strong = (cliff(results, decay(), float(gamma)) for gamma in (gammas.min(), gammas.max()))
    kept, none = cliff(results, syre(sigma=1), float(gammas.max())), cliff(results, VANILLA)
    enough, much, lost = acts(results), harms(results), over_sigma(results, "lost")
    undone = over_sigma(results, "undone")[[*COLLAPSES]]
    copies = final("distance", {**fig1.syre(RECOMMENDED, fig1.MOST), "experiment": "fig1"})(results)
    apart = "parts neurons that start as copies" if copies.min() > 0.1 else "does not part all copies of a neuron"
    if not np.isfinite([enough, much]).all():
        raise ResultsError("no sigma undoes the collapses, or none harms")
    most = mean(undone.loc[RECOMMENDED].max())
    little = "none" if float(most.replace("−", "-")) <= 0 else f"at most {most} %"
    return Finding(
        f"On MNIST weight decay alone goes from {percent(mild)} accuracy to {percent(strong)} as it grows; syre at "
        f"σ = 1 keeps {percent(kept)}, and no decay at all has {percent(none)}. The recommended σ = {RECOMMENDED:g} "
        f"{apart}, but undoes {little} of the collapses in figures 5, 9 and 11: they take σ = {enough:g} "
        f"({span(undone.loc[enough])} % undone), and σ = {much:g} costs up to {mean(lost.loc[much].max())} points "
        f"of accuracy where decay is mild.",
        "σ = 0.01; no cost below 0.2",
        f"accuracy {interval(kept, times=100)} % against {interval(strong, times=100)} %",
    )


# ---- the picture -----------------------------------------------------------------------------------------------------

BIG, SMALL = 13, 11.5  # points: legible where the picture is 800 pixels wide
EFFECT, COST = look("syre").color, "#B2182B"


def draw(results: Results) -> Figure:
    figure, (left, right) = plotting.panels(2, width=4.9, height=3.9)
    _cliff(left, results)
    _map(right, results)
    for ax in (left, right):
        ax.set_ylim(-4, 106)
        ax.minorticks_off()
        ax.tick_params(labelsize=SMALL)
        for words in (ax.xaxis.label, ax.yaxis.label, ax.title):
            words.set_size(BIG)
    return figure


def _cliff(ax: Axes, results: Results) -> None:
    """Accuracy over the decay, each line with its name at its end."""
    table = results.final("accuracy", **CLIFF)
    table = table.assign(accuracy=100 * table["accuracy"])
    end = select(table, **decay())[GAMMA].max()
    for arm, own, name, shift in (
        (decay(), look("weight_decay"), "weight decay\nalone", (-12, 4)),
        (syre(sigma=1), look("syre", 1), "syre\nσ = 1", (9, 0)),
    ):
        rows = select(table, **arm)
        plotting.line_with_band(ax, rows, GAMMA, "accuracy", own)
        ax.lines[-2].set(linewidth=2.6, markersize=7)
        last = rows[rows[GAMMA] == end]["accuracy"].mean()
        place = {"ha": "right" if shift[0] < 0 else "left", "va": "center", "weight": "bold", "color": own.color}
        ax.annotate(name, (end, last), shift, textcoords="offset points", fontsize=BIG, **place)
    none = select(table, **VANILLA)["accuracy"].mean()
    ax.axhline(none, color=look("vanilla").color, lw=2, ls=":")
    ax.annotate(
        "no decay at all", (1e-4, none), (0, -6), textcoords="offset points", fontsize=BIG, va="top", weight="bold"
    )
    ax.set(xscale="log", xlim=(7e-5, 1.6), xlabel="weight decay γ", ylabel="test accuracy on MNIST, %")
    ax.set_xticks([1e-4, 1e-3, 1e-2, 1e-1], ["0.0001", "0.001", "0.01", "0.1"])
    ax.set_title("Accuracy as weight decay grows")


def _map(ax: Axes, results: Results) -> None:
    """What is undone and what is lost over sigma: a thin line a figure, a thick one for their mean."""
    enough, much = acts(results), harms(results)
    if np.isfinite([enough, much]).all():  # where it acts, and does not harm yet
        ax.axvspan(enough / (much / enough) ** 0.5, (enough * much) ** 0.5, color=EFFECT, alpha=0.12, lw=0, zorder=0)
    for what, color, marker in (("undone", EFFECT, "D"), ("lost", COST, "o")):
        of = over_sigma(results, what)
        for name in of:
            ax.plot(of.index, of[name], color=color, lw=0.9, alpha=0.35)
        label = {"undone": "collapse undone, %", "lost": "accuracy lost, points"}[what]
        ax.plot(of.index, of.mean(axis=1), color=color, marker=marker, lw=2.6, ms=7, label=label)
    ax.axvline(RECOMMENDED, ymax=0.7, color="0.35", lw=1.3, ls="--", zorder=0)
    plain = {"fontsize": SMALL, "color": "0.3", "va": "center"}
    ax.text(0.85 * RECOMMENDED, 45, "recommended", rotation=90, ha="right", **plain)
    ax.text(8e-4, 79, "thin: one figure each", **plain)
    names = ax.legend(loc="upper left", fontsize=BIG, handlelength=0, handletextpad=0, borderaxespad=0.1)
    for words in names.get_texts():
        words.set(weight="bold", color=EFFECT if "undone" in words.get_text() else COST)
    for handle in names.legend_handles:
        handle.set_visible(False)
    ax.set(xscale="log", xlabel="σ, the scale of the anchor", title="What the anchor undoes, and what it costs")
    ax.set_xticks([1e-3, 1e-2, 1e-1, 1, 10], ["0.001", "0.01", "0.1", "1", "10"])
