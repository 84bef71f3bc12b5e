"""Effect and cost of the anchor over its scale, in figures 2, 5, 9, 11 and 13 at once: at which sigma does syre act?"""

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import ALPHA, GAMMA, SIGMA, decay, minus, syre
from experiments.analysis.claims import Claim, NonInferiority, Samples, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.plotting import Look
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.summaries import Finding
from experiments.analysis.words import mean, percent, span

EXPERIMENT = ("fig2", "fig5", "fig9", "fig11", "fig13")
TITLE = "effect and cost of syre over the scale of its anchor, relative and absolute, across figures"

GRID = [0.001, 0.01, 0.1, 0.3, 1, 3, 10]
RECOMMENDED = 0.01  # in 5.4
# Of sigma: its name on the axis, and where arXiv 2606.04754 is: absolute 1, or √fan_in in its MLP 784-512-512-512-10.
UNITS = {
    "relative": ("σ relative, in units of 1/√fan_in", (512**0.5, 784**0.5)),
    "absolute": ("σ absolute, whatever the fan-in", (1.0, 1.0)),
}
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
# The settings in words.
COLLAPSED = {
    "fig2": "symmetric neurons with 5 inputs",
    "fig5": "accuracy at γ = 0.3",
    "fig9": "rank of the encoder at γ = 1, β = 1",
    "fig11": "accuracy on the tenth task at γ = 0.15",
    "fig13": "loss barrier at γ = 0.03",
}
WITHOUT = {
    "fig2": "20 inputs",
    "fig5": "γ = 1e-4",
    "fig11": "the tenth task, γ = 0.05",
    "fig13": "the two networks, γ = 0.03",
}
# Where decay alone hardly collapses. Figure 9 has no runs where decay alone keeps the rank of the encoder.
COSTS: dict[str, Arm] = {
    "fig2": {"data.inputs": 20, **NO_NOISE},
    "fig5": {GAMMA: 1e-4, ALPHA: 1},
    "fig11": {GAMMA: 0.05},
    "fig13": {GAMMA: 0.03, "model.shared": True},
}


def _both(results: Results, experiment: str, metric: str, at: Arm, unit: str) -> tuple[pd.DataFrame, pd.Series]:
    """The runs of syre with the final `value` of the metric, and beside each of them the value of decay alone."""
    runs = syre(at, {SIGMA: GRID, "experiment": experiment}, unit=unit)
    rows = results.final(metric, **runs).rename(columns={metric: "value"})
    return rows, rows["seed"].map(_decay(results, experiment, metric, at))


def _decay(results: Results, experiment: str, metric: str, at: Arm) -> pd.Series:
    return results.by_seed(metric, decay(at, {"experiment": experiment}))


def effects(results: Results, experiment: str, unit: str = "relative") -> pd.DataFrame:
    """`(syre - decay) / (whole - decay)` for each sigma and seed: 0 is decay alone, 1 no collapse at all."""
    metric, at, best = EFFECTS[experiment]
    rows, alone = _both(results, experiment, metric, at, unit)
    whole = best if isinstance(best, int | float) else rows["seed"].map(_decay(results, experiment, metric, best))
    return rows.assign(value=(rows["value"] - alone) / (whole - alone))


def costs(results: Results, experiment: str, unit: str = "relative") -> pd.DataFrame:
    """The points of accuracy that syre loses against decay alone."""
    rows, alone = _both(results, experiment, "accuracy", COSTS[experiment], unit)
    return rows.assign(value=100 * (alone - rows["value"]))


def _at(measure: Callable[[Results, str, str], pd.DataFrame], name: str, sigma: float, unit: str) -> Samples:
    return lambda results: select(measure(results, name, unit), **{SIGMA: sigma}).set_index("seed")["value"]


def _words(name: str, sigma: float, unit: str) -> tuple[str, str, str]:
    """How an id ends, the arm and the figure."""
    return (name if unit == "relative" else f"{name}-{unit}") + f"-{sigma:g}", f"syre (σ = {sigma:g} {unit})", name[3:]


def _effect(name: str, sigma: float, unit: str = "relative") -> Superiority:
    key, arm, figure = _words(name, sigma, unit)
    text = f"{arm} undoes more than a tenth of the collapse in figure {figure}: {COLLAPSED[name]}."
    source = "5.4" if (sigma, unit) == (RECOMMENDED, "relative") else "ours"
    return Superiority(f"effect-{key}", text, source, _at(effects, name, sigma, unit), margin=0.1)


def _cost(name: str, sigma: float, unit: str = "relative") -> NonInferiority:
    key, arm, figure = _words(name, sigma, unit)
    text = f"{arm} costs less than a point of accuracy where decay alone is mild in figure {figure}: {WITHOUT[name]}."
    paper = "negligible below 0.2" if (sigma, unit) == (0.1, "relative") else ""
    gained = minus(_at(costs, name, sigma, unit))
    return NonInferiority(f"cost-{key}", text, "6.1" if paper else "ours", gained, margin=1.0, paper=paper)


CLAIMS: tuple[Claim, ...] = (
    *(_effect(name, sigma) for name in EXPERIMENT for sigma in (0.01, 1)),
    *(_cost(name, sigma) for name in COSTS for sigma in (0.1, 1)),
    *(_effect(name, sigma, "absolute") for name in EXPERIMENT for sigma in (0.01, 0.1)),
    *(_cost(name, sigma, "absolute") for name in COSTS for sigma in (0.01, 0.1)),
)


def notes(results: Results) -> str:
    say = Numbers(results)

    def part(name: str) -> str:
        return say.interval(_at(effects, name, 0.01, "absolute"), 2)

    def won(sigma: float, unit: str) -> str:
        """In figure 11, the only one in which a mild sigma is better than decay alone."""
        return say.mean(minus(_at(costs, "fig11", sigma, unit)), 1)

    def most(sigmas: Sequence[float], unit: str) -> str:
        """The largest mean cost."""
        return say.told(
            lambda results: mean(max(_at(costs, name, s, unit)(results).mean() for name in COSTS for s in sigmas), 1)
        )

    parted = [say.mean(_at(effects, "fig2", sigma, "relative"), times=100) for sigma in (0.01, 0.1)]
    harm = say.span(_at(costs, name, 1, "absolute") for name in ("fig2", "fig5", "fig13"))
    nearly = say.span((_at(effects, name, 0.1, "absolute") for name in EXPERIMENT), 2)
    return f"""
**What it shows.** In relative units, where the paper's effects appear: between σ = 0.1 and 1, in figures 5, 9, 11 and
13 alike, and they are whole at σ = 1. Only the symmetric neurons of figure 2 are parted sooner, {parted[0]} %
of the collapse undone at σ = 0.01, {parted[1]} % at 0.1. The recommended 0.01 costs nothing and, outside figure 2,
does nothing. Up to σ = 0.3 the cost is at most {most([s for s in GRID if s <= 0.3], "relative")} points, at 1 at most
{most([1], "relative")} (in figure 11 a gain of {won(1, "relative")}), at 3 and above it grows large. So the choice is σ
near 1, or 0.3 to be careful; the paper's figures were most likely made near there, whatever unit 5.4 states. In figure
9 the runs at relative σ = 10 diverged.

**In absolute units** (n = 5) the effects appear a decade lower, since a fan-in of 784 makes 28 of 1. At 0.01 a part is
undone: {part("fig2")} in figure 2, {part("fig13")} in 13, {part("fig11")} in 11, {part("fig9")} in 9,
nothing in 5. At 0.1 nearly all is, {nearly} in all five, and it costs at most
{most([0.1], "absolute")} points (figure 5, {say.interval(_at(costs, "fig5", 0.1, "absolute"), 1)}; in figure 11 a gain
of {won(0.1, "absolute")}). At 1 it costs {harm} points, figure 11 does not
learn, and figure 9 diverges. So 0.01 as 5.4 recommends it is too small for the paper's own figures in either unit, less
so as absolute; relative 1 and absolute 0.1 do what the paper shows, with little to choose between them; and the use of
others, absolute 1, is past the point where it harms these networks.

**The two units.** Relative is the std of the bias in units of 1/√fan_in, the scale of the initial weights, as 5.4
states it; absolute is the std itself, the same for all layers. The purple marks are where others use it: an independent
implementation (vuenc/neuron-identifiability, of arXiv 2606.04754) adds κ N(0, 1) with κ = 1 to the weight matrices
alone, without 1/√fan_in. That is absolute σ = 1, and in its MLP 784-512-512-512-10 relative σ = 22.6 (√512) to 28
(√784). The runs drawn here anchor all parameters.

Drawn from the tables of figures 2, 5, 9, 11 and 13; nothing is trained for it. In each of them one setting in which
decay alone collapses gives the effect, and one in which it does not, or least, the cost:

- Fig. 2: neurons on a mirror plane (tolerance 10 %) with 5 inputs; accuracy with 20 inputs.
- Fig. 5: accuracy at γ = 0.3, between that of decay alone there and at γ = 1e-4; accuracy at γ = 1e-4.
- Fig. 9: rank of the encoder (of 200) at γ = 1, β = 1.
- Fig. 11: accuracy on the tenth task at γ = 0.15, between that of decay alone there and at γ = 0.05; at γ = 0.05.
- Fig. 13: loss barrier half-way; accuracy of the two networks themselves.

The picture has costs as points lost; the effect of `cost-*` is the points gained.

**Written after** figures 5 and 13 were known over relative σ, and before 2, 9 and 11 were: there the claims are a
summary, here a prediction. Those on absolute σ were committed before its runs were. `start="shift"` throughout, so
effect and cost include the larger start.
"""


OTHERS = "arXiv 2606.04754: absolute 1, on weight matrices"


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(2, 2, width=4.4, height=2.9)
    for row, unit in zip(axes.reshape(2, 2), UNITS, strict=True):
        left, right = row
        arms.curves(left, [(look, effects(results, name, unit)) for name, look in LOOKS.items()], SIGMA, "value")
        arms.curves(right, [(LOOKS[name], costs(results, name, unit)) for name in COSTS], SIGMA, "value")
        for ax in row:
            _marks(ax, unit)
        left.set(ylabel="part of the collapse undone", ylim=(-0.15, 1.1))
        right.set(ylabel="points of accuracy lost")
    axes[0].set_title("effect")
    axes[1].set_title("cost where decay alone is mild")
    for ax in (axes[1], axes[3]):
        ax.set_yscale("symlog", linthresh=1)
    axes[3].sharey(axes[1])
    return plotting.with_legend(figure, loc="outside lower center", ncols=2)


def _marks(ax: Axes, unit: str) -> None:
    """Zero, the recommended sigma and that of others, on the axis of a unit."""
    name, (least, most) = UNITS[unit]
    ax.axhline(0, color="0.5", lw=0.8, zorder=0)
    ax.axvline(RECOMMENDED, color="0.5", lw=0.8, ls=":", zorder=0, label="recommended in 5.4: 0.01")
    ax.axvspan(least, most, color="#7B3294", lw=2, alpha=0.4, zorder=0, label=OTHERS)
    ax.set(xscale="log", xlabel=name, xlim=(6e-4, 45))


def finding(results: Results) -> Finding:
    """What is undone at the recommended sigma and at 1, and what it costs."""
    undone = {s: {name: _at(effects, name, s, "relative")(results).mean() for name in EXPERIMENT} for s in (0.01, 1)}
    paid = {s: [_at(costs, name, s, "relative")(results).mean() for name in COSTS] for s in (1, 3)}
    others = [share for name, share in undone[0.01].items() if name != "fig2"]
    ends = span(list(undone[1].values()), times=100)
    return Finding(
        f"The recommended σ = 0.01 undoes {percent(undone[0.01]['fig2'])} of the collapse in figure 2 and at most "
        f"{percent(max(others))} in figures 5, 9, 11 and 13; σ = 1 undoes {ends} %. Where decay is mild σ = 1 costs "
        f"at most {mean(max(paid[1]), 1)} points of accuracy, σ = 3 up to {mean(max(paid[3]))}.",
        "σ = 0.01; no cost below 0.2",
        f"{span(list(undone[0.01].values()), times=100)} % undone at 0.01, {ends} % at 1",
    )
