"""Effect and cost of the anchor over its scale, in figures 2, 5, 9, 11 and 13 at once: at which sigma does syre act?"""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import ALPHA, GAMMA, SIGMA, decay, syre
from experiments.analysis.claims import Claim, Equivalence, Superiority
from experiments.analysis.plotting import Look
from experiments.analysis.results import Arm, Results, select

EXPERIMENT = ("fig2", "fig5", "fig9", "fig11", "fig13")
TITLE = "effect and cost of syre over the scale of its anchor, across figures"

GRID = [0.001, 0.01, 0.1, 0.3, 1, 3, 10]


NO_NOISE: Arm = {"model.activation": "tanh", "data.label_noise": 0, "data.input_noise": 0}
LOOKS = {
    "fig2": Look(label="fig. 2: symmetric neurons, 5 inputs", color="#E69F00", marker="o"),
    "fig5": Look(label="fig. 5: accuracy, γ = 0.3", color="#0072B2", marker="s"),
    "fig9": Look(label="fig. 9: rank of the encoder, γ = 1", color="#009E73", marker="D"),
    "fig11": Look(label="fig. 11: accuracy on task 10, γ = 0.15", color="#CC79A7", marker="^"),
    "fig13": Look(label="fig. 13: barrier, γ = 0.03", color="#D55E00", marker="v"),
}
# Metric and setting at which decay alone collapses, and the metric without any collapse: a number, or the setting in
# which decay alone has it.
EFFECTS: dict[str, tuple[str, Arm, float | Arm]] = {
    "fig2": ("symmetry/0.1", {"data.inputs": 5, **NO_NOISE}, 0),
    "fig5": ("accuracy", {GAMMA: 0.3, ALPHA: 1}, {GAMMA: 1e-4, ALPHA: 1}),
    "fig9": ("rank", {GAMMA: 1, "task.beta": 1, "task.images": "[]"}, 200),
    "fig11": ("accuracy", {GAMMA: 0.15}, {GAMMA: 0.05}),
    "fig13": ("barrier/loss", {GAMMA: 0.03, "model.shared": True}, 0),
}
# Where decay alone hardly collapses. Figure 9 has no runs where decay alone keeps the rank of the encoder.
COSTS: dict[str, Arm] = {
    "fig2": {"data.inputs": 20, **NO_NOISE},
    "fig5": {GAMMA: 1e-4, ALPHA: 1},
    "fig11": {GAMMA: 0.05},
    "fig13": {GAMMA: 0.03, "model.shared": True},
}


def _both(results: Results, experiment: str, metric: str, at: Arm) -> tuple[pd.DataFrame, pd.Series]:
    """The runs of syre with the final `value` of the metric, and beside each of them the value of decay alone."""
    rows = results.final(metric, **syre(at, {SIGMA: GRID, "experiment": experiment})).rename(columns={metric: "value"})
    return rows, rows["seed"].map(_decay(results, experiment, metric, at))


def _decay(results: Results, experiment: str, metric: str, at: Arm) -> pd.Series:
    return results.by_seed(metric, decay(at, {"experiment": experiment}))


def effects(results: Results, experiment: str) -> pd.DataFrame:
    """`(syre - decay) / (whole - decay)` for each sigma and seed: 0 is decay alone, 1 no collapse at all."""
    metric, at, best = EFFECTS[experiment]
    rows, alone = _both(results, experiment, metric, at)
    whole = best if isinstance(best, int | float) else rows["seed"].map(_decay(results, experiment, metric, best))
    return rows.assign(value=(rows["value"] - alone) / (whole - alone))


def costs(results: Results, experiment: str) -> pd.DataFrame:
    """The points of accuracy that syre loses against decay alone."""
    rows, alone = _both(results, experiment, "accuracy", COSTS[experiment])
    return rows.assign(value=100 * (alone - rows["value"]))


def _at(measure: Callable[[Results, str], pd.DataFrame], name: str, sigma: float) -> Callable[[Results], pd.Series]:
    return lambda results: select(measure(results, name), **{SIGMA: sigma}).set_index("seed")["value"]


def _effect(name: str, sigma: float) -> Superiority:
    text = f"At σ = {sigma:g} syre undoes at least a tenth of the collapse in figure {name.removeprefix('fig')}."
    source = "5.4" if sigma == 0.01 else "ours"
    return Superiority(f"effect-{name}-{sigma:g}", text, source, _at(effects, name, sigma), margin=0.1)


def _cost(name: str, sigma: float) -> Equivalence:
    where = f"where decay alone is mild, in the setting of figure {name.removeprefix('fig')}"
    text = f"At σ = {sigma:g} syre costs less than 1 point of accuracy {where}."
    source, paper = ("6.1", "negligible below 0.2") if sigma == 0.1 else ("ours", "")
    return Equivalence(f"cost-{name}-{sigma:g}", text, source, _at(costs, name, sigma), margin=1.0, paper=paper)


CLAIMS: tuple[Claim, ...] = (
    *(_effect(name, sigma) for name in EXPERIMENT for sigma in (0.01, 1)),
    *(_cost(name, sigma) for name in COSTS for sigma in (0.1, 1)),
)

NOTES = """
**What it shows.** Where the paper's effects appear: between σ = 0.1 and 1, in figures 5, 9, 11 and 13 alike, and they
are whole at σ = 1. Only the symmetric neurons of figure 2 are parted sooner, a quarter of them at σ = 0.01, all at 0.1.
The recommended 0.01 costs nothing and, outside figure 2, does nothing. Up to σ = 0.3 no cost is seen, at 1 at most two
points (in figure 11 a gain of five), at 3 and above it grows large. So the choice is σ near 1, or 0.3 to be careful;
the paper's figures were most likely made near there, whatever unit 5.4 states. In figure 9 the runs at σ = 10 diverged.

Drawn from the tables of figures 2, 5, 9, 11 and 13; nothing is trained for it. In each of them one setting in which
decay alone collapses gives the effect, and one in which it does not, or least, the cost:

- Fig. 2: neurons on a mirror plane (tolerance 10 %) with 5 inputs; accuracy with 20 inputs.
- Fig. 5: accuracy at γ = 0.3, between that of decay alone there and at γ = 1e-4; accuracy at γ = 1e-4.
- Fig. 9: rank of the encoder (of 200) at γ = 1, β = 1.
- Fig. 11: accuracy on the tenth task at γ = 0.15, between that of decay alone there and at γ = 0.05; at γ = 0.05.
- Fig. 13: loss barrier half-way; accuracy of the two networks themselves.

**Written after** figures 5 and 13 were known over σ, and before 2, 9 and 11 were: there the claims are a summary, here
a prediction. σ is in units of 1/√fan_in, `start="shift"` throughout, so effect and cost include the larger start.
"""


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, (left, right) = plotting.panels(2, width=4.4, height=3.2)
    arms.curves(left, [(look, effects(results, name)) for name, look in LOOKS.items()], SIGMA, "value")
    arms.curves(right, [(LOOKS[name], costs(results, name)) for name in COSTS], SIGMA, "value")
    left.set(title="effect: part of the collapse undone", ylim=(-0.15, 1.1))
    right.set(title="cost where decay alone is mild", ylabel="points of accuracy")
    right.set_yscale("symlog", linthresh=1)
    for ax in (left, right):
        ax.axhline(0, color="0.5", lw=0.8, zorder=0)
        ax.axvline(0.01, color="0.5", lw=0.8, ls=":", zorder=0)  # recommended in 5.4
        ax.set(xscale="log", xlabel="σ, in units of 1/√fan_in (dotted: recommended)")
    return plotting.with_legend(figure, loc="outside lower center", ncols=2)
