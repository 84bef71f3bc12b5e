"""Figure 2 (section 5.3): how symmetric a student network becomes, against the dimension of its inputs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import (
    NAME,
    POINT,
    SIGMA,
    SIGMAS,
    START,
    VANILLA,
    beats,
    costs,
    decay,
    difference,
    falls,
    final,
    minus,
    same,
    syre,
    width,
)
from experiments.analysis.claims import Claim, Monotone, NonInferiority, Samples, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import monotonicity
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, less, mean, side, span

TITLE = "symmetric neurons of a student network against its input dimension"

INPUTS, ACTIVATION, LABELS, NOISE = "data.inputs", "model.activation", "data.label_noise", "data.input_noise"
CLEAN = {LABELS: 0, NOISE: 0}
TANH, RELU = {ACTIVATION: "tanh", **CLEAN}, {ACTIVATION: "relu", **CLEAN}
NAMES = {"tanh": "tanh", "relu": "ReLU"}
SYMMETRY = "symmetry/0.1"
WIDTH = 100


def _fixed(rows: pd.DataFrame) -> pd.DataFrame:
    """syre with the bias of sigma = 0.01 at 5 inputs in every dimension: sigma = 0.01 sqrt(inputs / 5)."""
    rows = select(rows, **syre())
    return rows[np.isclose(rows[SIGMA], 0.01 * (rows[INPUTS] / 5) ** 0.5, rtol=1e-3)]


LAW: dict[str, tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "0.01": ("with σ = 0.01", lambda rows: select(rows, **syre(sigma=0.01))),
    "fixed": ("with a bias of fixed size, σ_0 = 0.01/√5,", _fixed),
}


@per_seed
def _steadily(results: Results, arm: Callable[[pd.DataFrame], pd.DataFrame], share: bool) -> pd.Series:
    """How steadily (Kendall's tau) an arm's symmetry, or its share of that of decay alone, rises with the dimension."""
    rows = results.final(SYMMETRY, **TANH)
    alone = select(rows, **decay()).set_index(["seed", INPUTS])[SYMMETRY]
    left = arm(rows).set_index(["seed", INPUTS])[SYMMETRY]
    return monotonicity((left / alone.clip(lower=1) if share else left).reset_index(name="y"), INPUTS, "y")


def _falls(name: str, share: bool) -> Monotone:
    words, arm = LAW[name]
    text = f"The number of symmetric neurons (tanh, γ = 0.01) that syre leaves {words} falls as inputs are added."
    if share:
        text = (
            f"The share of decay alone's symmetric neurons (tanh) that syre leaves {words} falls as inputs are added."
        )
    falling = minus(_steadily(arm, share))
    return Monotone(f"{'share' if share else 'law'}-{name}", text, "ours" if share else "5.3", falling)


def _syre(sigma: float | None) -> tuple[str, str, Arm]:
    """How ids and sentences name sigma, and the arm: without one that of `SIGMAS` with the fewest symmetric neurons."""
    if sigma is None:
        return "", "syre (best σ)", syre({SIGMA: SIGMAS}, by=SYMMETRY)
    return f"-{sigma:g}", f"syre (σ = {sigma:g})", syre(sigma=sigma)


def _fewer(inputs: int, sigma: float | None = None, tolerance: float = 0.1, at: Arm = TANH) -> Superiority:
    """syre against decay alone."""
    end, who, arm = _syre(sigma)
    at, key = {INPUTS: inputs, **at}, ("" if tolerance == 0.1 else f"-t{tolerance}") + end
    where = f"With {inputs} inputs ({NAMES[str(at[ACTIVATION])]}, γ = 0.01)"
    text = f"{where} {who} leaves fewer neurons symmetric to {tolerance:.0%} than decay alone, by more than 5 of 100."
    id, metric = f"fewer-{at[ACTIVATION]}-{inputs}{key}", f"symmetry/{tolerance}"
    return beats(id, text.replace("%", " %"), "5.3", metric, {**arm, **at}, decay(at), width(WIDTH))


def _rank(metric: str) -> Superiority:
    kind, words = ("effective", "an effective") if metric == "rank/effective" else ("numerical", "a numerical")
    text = (
        f"With 20 inputs (tanh, γ = 0.01) syre (σ = 0.01) has {words} rank of the hidden layer higher than decay alone"
    )
    one, other = syre(AT_20, sigma=0.01), decay(AT_20)
    return beats(f"{kind}-rank-20-0.01", f"{text}, by more than 5 of 100.", "B.1", metric, one, other, width(WIDTH))


def _cost(sigma: float) -> NonInferiority:
    text = (
        f"With 20 inputs (tanh, γ = 0.01) syre (σ = {sigma:g}) costs less than a point of accuracy against decay alone."
    )
    return costs(f"cost-{sigma:g}", text, "5.4", "accuracy", syre(AT_20, sigma=sigma), decay(AT_20), POINT)


def _no_decay(metric: str, sigma: float | None) -> Superiority:
    """syre against no decay at all."""
    key, who, arm = _syre(sigma)
    better, margin = BETTER[metric]
    text = f"With 20 inputs (tanh) {who.replace(')', ', γ = 0.01)')} {better}."
    id = f"no-decay-{metric.split('/')[0]}-20{key}"
    return beats(id, text, "ours", metric, {**arm, **AT_20}, VANILLA | AT_20, margin)


AT_20 = TANH | {INPUTS: 20}
BETTER = {
    SYMMETRY: ("leaves fewer symmetric neurons than no decay at all, by more than 5 of 100", width(WIDTH)),
    "accuracy": ("is more accurate than no decay at all, by more than a point", POINT),
}
FLAT = "Decay alone (tanh, γ = 0.01) has as many symmetric neurons with 5 inputs as with 300, within 10 of 100."
LAW_RELU = "The number of symmetric neurons (ReLU, γ = 0.01) that syre leaves with σ = 0.01 falls as inputs are added."
CLAIMS: tuple[Claim, ...] = (
    *(_falls(name, share) for share in (False, True) for name in LAW),
    same("decay-flat", FLAT, "5.3", SYMMETRY, decay(TANH, {INPUTS: 5}), decay(TANH, {INPUTS: 300}), 10),
    falls("law-relu-0.01", LAW_RELU, "5.3", SYMMETRY, syre(RELU, sigma=0.01), INPUTS),
    *(_fewer(inputs, sigma) for inputs in (5, 20, 100) for sigma in (None, 0.01)),
    *(_fewer(inputs, 0.01, tolerance=0.01) for inputs in (20, 100)),
    *(_fewer(5, sigma, at=RELU) for sigma in (None, 0.01)),
    *map(_rank, ("rank", "rank/effective")),
    *map(_cost, SIGMAS),
    *(_no_decay(metric, sigma) for metric in (SYMMETRY, "accuracy") for sigma in (None, 0.01)),
)

RETIRED = {
    "fewer-tanh-5-t0.01-0.01": "as fewer-tanh-20-t0.01-0.01, with 5 inputs: syre leaves no neuron symmetric to 1 %",
    "keep-5": "the numbers of fewer-tanh-5: no neuron is symmetric at σ = 1, from either start",
    "keep-20": "the numbers of fewer-tanh-20: no neuron is symmetric at σ = 1, from either start",
    "numerical-rank-5-0.01": "as numerical-rank-20-0.01, with 5 inputs",
    "effective-rank-5-0.01": "as effective-rank-20-0.01, with 5 inputs: 1.6 of 100 is not worth naming",
}

FIXED = replace(arms.look("syre", 0.01 / 5**0.5, unit="absolute"), label="syre, bias fixed at 0.01/√5")


def notes(results: Results) -> str:
    say = Numbers(results)
    count = say.final(SYMMETRY)

    def at(inputs: int) -> dict[str, Any]:
        return TANH | {INPUTS: inputs}

    def one(inputs: int, sigma: float, unit: str = "") -> Arm:
        return syre(at(inputs), sigma=sigma, unit=unit)

    def takes(inputs: int, sigma: float, unit: str = "") -> str:
        return say.interval(difference(SYMMETRY, decay(at(inputs)), one(inputs, sigma, unit)))

    def loses(inputs: int, sigma: float, unit: str = "") -> Samples:
        return difference("accuracy", decay(at(inputs)), one(inputs, sigma, unit))

    def points(inputs: int, sigma: float) -> str:
        return say.mean(loses(inputs, sigma, "absolute"), times=100)

    def close(inputs: int, sigma: float) -> str:
        return say.interval(loses(inputs, sigma, "absolute"), 1, times=100)

    many = (20, 50, 100, 200, 300)
    few, most = (decay(at(inputs)) for inputs in (5, 300))
    left = say.span(final(SYMMETRY, one(inputs, 0.01, "absolute")) for inputs in many)
    none_left = say.span(final("symmetry/0.01", one(inputs, 0.01)) for inputs in (5, 20))
    cost = say.span((loses(inputs, 1) for inputs in many), times=100)
    worth = say.mean(difference("accuracy", decay(AT_20), VANILLA | AT_20), times=100)
    return f"""
**What it shows.** As in the paper, syre's student is less symmetric the more inputs it has, with tanh and with ReLU,
and here the recommended σ = 0.01 is enough: with 5 and 20 inputs it leaves fewer symmetric neurons than decay alone
({none_left} at a tolerance of 1 %), at no cost in accuracy. Not as in the paper, decay alone falls with the dimension
as well, from {count(few)} to {count(most)} of 100: the high dimension helps without a bias too, and with 100 inputs
little is left to remove. That it helps syre *more* is clear only where the bias of a weight keeps its size as the
inputs grow (Theorem 5's σ_0, not the units of 5.4). σ = 1 raises the effective rank most and, with 20 inputs and more,
costs {cost} points of accuracy. Without any decay no neuron is symmetric: decay makes the symmetry that syre removes.
With 20 inputs decay, with syre or alone, is {worth} points more accurate than none.

**The unit of σ** (5.4 has it relative to 1/√fan_in; others take it as absolute; n = 5, tanh, tolerance 10 %). Absolute
σ = 0.01 takes {takes(5, 0.01, "absolute")} of the {count(few)} symmetric neurons of decay alone with 5 inputs, and
leaves {left} with 20 and more; relative 0.01 takes {takes(5, 0.01)} with 5 and {takes(20, 0.01)} with 20. It costs
nothing (with 20 inputs {close(20, 0.01)} points). Absolute 0.1 takes all, and costs nothing with 20 inputs
({close(20, 0.1)}), {points(100, 0.1)} points with 100 and {points(300, 0.1)} with 300. Absolute 1 costs {points(5, 1)}
points with 5 inputs and {points(20, 1)} with 20. So of the figures here this one, with its small fan-ins, is borne out
by 0.01 in either unit, by absolute 0.01 more clearly.

**Why decay alone falls too**, by {say.interval(difference(SYMMETRY, few, most))}, is asked in
[fig2_teacher](../fig2_teacher/report.md), with 10,000 samples and a teacher of 5 neurons, which leave nothing to
overfit: there it falls by less than half of that, and not before 100 inputs.

**σ and the margins.** The best σ of a seed leaves the fewest symmetric neurons on the other seeds, the smallest of
equals; accuracy is judged at that σ too. With 20 inputs it is {say.best(SYMMETRY, syre(AT_20, {SIGMA: SIGMAS}))}. 5
neurons or ranks of 100 and 1 point of accuracy were set as smallest effects when the results were known; the 10 neurons
of decay-flat before.

**What counts as symmetric.** A hidden neuron on a mirror plane of the permutations: its incoming weights, bias and
outgoing weights are those of another within 10 % (or 1 %) of their length, or it is dead, all of them within that of 0.
Two neurons that decay would merge settle, under syre, about their anchors' distance apart. A tolerance below that
distance finds none in any dimension; to see the law at σ = 0.01 it takes 10 %. With tanh, (w, a) and (−w, −a) are the
same neuron; counting these too gives decay alone 96 instead of 93 (5 inputs) and 71 instead of 52 (20 inputs, both at
1 %, seed 101), and the same order of the arms.

**Which σ_0 is fixed.** By Theorem 5 the force against a symmetry is γσ_0√rank(P), and rank(P) = n_in + 11 for the swap
of two neurons here, so it grows with the dimension at a fixed σ_0. In the units of 5.4, σ_0 = σ/√n_in, that growth
cancels. The paper turns to these units after this figure; both readings are run: σ = 0.01 in every dimension, and σ =
0.01·√(n_in/5), which holds the bias of the first layer at that of 5 inputs (in the second, of fixed width, it grows by
the same factor). Decay alone, too, merges fewer neurons in higher dimension; hence the claims on syre's share of them.

**Unknown, and chosen.** Two layers, ten outputs, Gaussian inputs, Adam at 0.01 and weight decay 0.01 (for "vanilla"
too: here weight_decay) are the paper's. It names ReLU in 5.3 and tanh in B.1: both are run. Not printed:
- 100 hidden units in teacher and student, 1000 training and 1000 test samples, 5 to 300 inputs.
- Teacher: torch's default initialisation. As it is, up to three of the ten classes do not occur with 5 inputs; so the
  output biases make the mean of each output 0, and a teacher with a class below 1 % is drawn again.
- 3000 full-batch steps: merging is slow, and slower with minibatches (of decay alone, 5 inputs, seed 100, 73 neurons
  are equal to 1 % after 2000 full batches of 1000, and 11 after 3000 batches of 500 from 5000). From step 3000 to 4000
  the counts at 10 % go from 100 to 100 (5 inputs), 71 to 73 (20), 20 to 19 (100), 21 to 21 (300) on seed 101, signs
  counted; the loss is level from step 2000.
- With 1000 samples and many inputs a student overfits, in every arm (test accuracy 0.64 with 100 inputs, 0.47 with
  300, decay alone, seed 102).
"""


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(2, 2, width=3.8, height=2.7)
    table = results.final(SYMMETRY, "symmetry/0.01", "rank/effective")
    views = (
        (TANH, SYMMETRY, "tanh, tolerance 10 %", "symmetric neurons (of 100)"),
        (TANH, "symmetry/0.01", "tanh, tolerance 1 %", ""),
        (RELU, SYMMETRY, "ReLU, tolerance 10 %", "symmetric neurons (of 100)"),
        (TANH, "rank/effective", "tanh, rank of the hidden layer", "effective rank"),
    )
    for ax, (at, metric, title, label) in zip(axes, views, strict=True):
        rows = select(table, **at)
        plain = rows[(rows[NAME] != "syre") | (rows[SIGMA].isin(SIGMAS) & (rows[START] == "shift"))]
        further = [(FIXED, _fixed(rows)), (arms.SAME_START, rows[rows[START] == "keep"])] if at is TANH else []
        arms.curves(ax, [*arms.by_arm(plain), *further], INPUTS, metric, within=(0, WIDTH), nested=True)
        ax.set(xscale="log", title=title, ylabel=label, ylim=(-4, 104), xlabel="input dimension")
        levels = sorted(rows[INPUTS].unique())
        ax.set_xticks(levels, [str(level) if level != 200 else "" for level in levels])  # 300 stands too near
        ax.minorticks_off()
    return plotting.with_legend(figure, loc="outside lower center", ncols=4)


def finding(results: Results) -> Finding:
    """How many neurons become symmetric, with few inputs and with many."""

    def symmetric(*inputs: int, arm: Arm) -> list[pd.Series]:
        return [final(SYMMETRY, {**arm, **TANH, INPUTS: n})(results) for n in inputs]

    few, many = symmetric(5, 300, arm=decay())
    some, fewer = symmetric(5, 300, arm=syre(sigma=0.01))
    none = symmetric(5, 20, 100, 300, arm=VANILLA)
    fall = less(few, many)
    too = "A high input dimension helps without syre too" if side(fall, 10) > 0 else "Without syre it hardly helps"
    return Finding(
        f"{too}: decay alone makes {mean(few)} of 100 neurons symmetric with 5 inputs and {mean(many)} with 300. "
        f"syre at σ = 0.01 leaves {mean(some)} and {mean(fewer)}; no decay makes {span([n.mean() for n in none])}.",
        "decay alone gains little from the dimension",
        f"decay alone falls by {interval(fall)} of 100",
    )
