"""Figure 8 (section B.2): the spectrum of the representation, and the floor that syre puts under it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.claims import Claim, Equivalence, Superiority
from experiments.analysis.results import Results, select
from experiments.analysis.stats import loglog_slope

TITLE = "eigenvalue spectrum of the representation (the runs of figure 5)"
EXPERIMENT = "fig5"

GAMMA, ALPHA, NAME, SIGMA = "regularizer.weight_decay", "data.input_scale", "regularizer.name", "regularizer.sigma"
START = "regularizer.start"
SHIFT = {START: "shift"}  # the start of Eq. (6)
FLOOR = "eigenvalue/150"  # the median eigenvalue of the 300: inside the tail, far from the ten class directions
INDICES = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 250, 300)
GAMMAS = (1e-3, 1e-2, 3e-2, 1e-1)


def _excess_slope(gamma: float, below: float = np.inf):
    """Slope of log floor against log sigma minus 2, one a seed: 0 is a floor proportional to sigma^2."""

    def samples(results: Results) -> pd.Series:
        rows = select(results.final(FLOOR), **{NAME: "syre", GAMMA: gamma, ALPHA: 1.0}, **SHIFT)
        return loglog_slope(rows[rows[SIGMA] <= below], SIGMA, FLOOR) - 2

    return samples


CLAIMS: tuple[Claim, ...] = (
    *(
        Superiority(
            id=f"shift-{sigma:g}",
            text=f"At γ = 0.01, σ = {sigma:g} raises the floor (median eigenvalue) of decay alone.",
            source="B.2" if sigma != 0.01 else "5.4",
            metric=FLOOR,
            treatment={NAME: "syre", SIGMA: sigma, GAMMA: 1e-2, ALPHA: 1.0, **SHIFT},
            control={NAME: "weight_decay", GAMMA: 1e-2, ALPHA: 1.0},
        )
        for sigma in (0.01, 0.1, 1)
    ),
    *(
        Equivalence(
            id=f"slope-{gamma:g}",
            text=f"The floor is proportional to σ²: log-log slope 2 within 0.5, at γ = {gamma:g}, over all σ.",
            source="B.2",
            paper="2 (or 1: its sentence lost its symbol)",
            samples=_excess_slope(gamma),
            margin=0.5,
        )
        for gamma in (1e-2, 1e-1)
    ),
    Equivalence(
        id="slope-small",
        text="The same at γ = 0.1 for σ ≤ 1 alone, before the anchor outweighs the initial weights.",
        source="ours",
        samples=_excess_slope(1e-1, below=1.0),
        margin=0.5,
    ),
)

NOTES = """
**What it shows.** syre lifts the whole tail of the spectrum, the more the larger σ, and most where decay has
flattened it. The recommended σ = 0.01 lifts it only at γ = 0.1, and there to 1e-7. "Proportional to σ²" holds
piecewise: the slope is 2.1 from σ = 0.01 to 0.1 at γ = 0.1, and 2.0 from 0.1 to 1 at γ = 0.01. Below that the floor
that the task itself leaves hides the anchor (slope 0.2), above it three layers of anchors multiply (slopes 3.3 to
3.8). The 1.5 fitted over all σ at γ = 0.01 is an average over these bends: inside the margin, but no proportionality.

**Chosen.** The floor is the 150th of 300 eigenvalues of the covariance of the last hidden layer (test set). Units
that are dead make the last eigenvalues exactly 0: the curves end there. Same runs, settings and unknowns as figure 5.
"""


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, 1, width=3.4, height=3.0)
    names = [f"eigenvalue/{index}" for index in INDICES]
    table = results.final(*names)
    for ax, gamma in zip(axes, (1e-2, 1e-1), strict=False):
        rows = select(table, **{GAMMA: gamma, ALPHA: 1.0, NAME: ["weight_decay", "syre"], START: [None, "shift"]})
        for look, arm in plotting.arms(rows):
            long = arm.melt(id_vars="seed", value_vars=names, var_name="index", value_name="eigenvalue")
            long["index"] = long["index"].str.removeprefix("eigenvalue/").astype(int)
            plotting.line_with_band(ax, long, "index", "eigenvalue", look)
        ax.set(xscale="log", yscale="log", title=f"γ = {gamma:g}", xlabel="index", ylim=(1e-16, None))
    axes[0].set_ylabel("eigenvalue of the covariance")
    floors = select(results.final(FLOOR), **{NAME: "syre", ALPHA: 1.0}, **SHIFT)
    for gamma, shade in zip(GAMMAS, ("0.75", "0.55", "0.35", "0.0"), strict=True):
        mine = plotting.Look(label=f"floor at γ = {gamma:g}", color=shade, marker="o")
        plotting.line_with_band(axes[2], select(floors, **{GAMMA: gamma}), SIGMA, FLOOR, mine)
    axes[2].plot([0.01, 3], [1e-7, 9e-3], "k:", label="slope 2")
    axes[2].set(xscale="log", yscale="log", xlabel="σ", title="floor: the 150th eigenvalue")
    plotting.legend(figure)
    return figure
