"""Figure 14 (appendix C): ranks of the tangent kernel and of the gradient against the number of collapsed neurons."""

import json
from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.claims import Claim, Equivalence, Monotone, Superiority
from experiments.analysis.results import Arm, Results, select

TITLE = "rank of the tangent kernel and of the gradient against the number of identical neurons"

FRACTION, ACTIVATION, HIDDEN = "model.identical", "model.activation", "model.hidden"
NAME, SIGMA = "regularizer.name", "regularizer.sigma"
SIGMAS = (0.01, 0.1, 1)
CLASSES = 10
TANH: Arm = {ACTIVATION: "tanh"}
VANILLA: Arm = {NAME: "vanilla", **TANH}
DECAY: Arm = {NAME: "weight_decay", **TANH}
KINDS = {"ntk": "tangent kernel", "gradient": "gradient second moment"}


def syre(sigma: float | None = None) -> Arm:
    return {NAME: "syre", **TANH} | ({SIGMA: sigma} if sigma else {})


def with_counts(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with m inputs, n neurons, k of them identical, and d parameters of the last two layers."""
    m, n = (rows[HIDDEN].map(lambda text, i=i: json.loads(text)[i]) for i in (-2, -1))
    k = (rows[FRACTION] * n).round()
    return rows.assign(m=m, n=n, k=k, d=n * (m + 1 + CLASSES) + CLASSES)


def bound(rows: pd.DataFrame, kind: str) -> pd.Series:
    """The largest rank that k identical neurons leave: what the parameters of distinct neurons span.

    A softmax takes one direction off the outgoing weights of each neuron (and off the biases), the scale that the two
    layers of ReLU may exchange one off each neuron.
    """
    lost = (kind == "gradient") + (rows[ACTIVATION] == "relu").astype(int)
    distinct = rows["n"] - rows["k"].clip(lower=1) + 1
    return distinct * (rows["m"] + 1 + CLASSES - lost) + CLASSES - (kind == "gradient")


def at_start(results: Results, kind: str) -> pd.DataFrame:
    curve = results.curve(f"rank/{kind}")
    return with_counts(curve[curve["step"] == 0])


def _excess(kind: str, activation: str) -> Callable[[Results], pd.Series]:
    """Rank at the start minus the bound, as a fraction of d: the furthest from 0 over all k, one a seed."""

    def samples(results: Results) -> pd.Series:
        rows = select(at_start(results, kind), **{NAME: "vanilla", ACTIVATION: activation})
        excess = (rows[f"rank/{kind}"] - bound(rows, kind)) / rows["d"]
        return excess.groupby(rows["seed"]).agg(lambda e: e.loc[e.abs().idxmax()])

    return samples


def _share(metric: str, arm: Arm, of: Arm) -> Callable[[Results], pd.Series]:
    """`metric` at the end of one arm, relative to that of another, minus 1; one a seed."""

    def samples(results: Results) -> pd.Series:
        one, other = (select(results.final(metric), **a).set_index("seed")[metric] for a in (arm, of))
        return one / other - 1

    return samples


def _growth(kind: str, arm: Arm, tolerance: str = "") -> Callable[[Results], pd.Series]:
    """The largest rank in training minus the bound of the start, as a fraction of d; one a seed."""

    def samples(results: Results) -> pd.Series:
        rank = f"rank/{kind}{tolerance}"
        rows = select(with_counts(results.curve(rank)), **{FRACTION: 0.9, **arm})
        return ((rows[rank] - bound(rows, kind)) / rows["d"]).groupby(rows["seed"]).max()

    return samples


CLAIMS: tuple[Claim, ...] = (
    *(
        Monotone(
            id=f"falls-{kind}",
            text=f"The more neurons start identical, the lower the rank of the {name} that vanilla ends with.",
            source="C",
            metric=f"rank/{kind}",
            treatment=VANILLA,
            over=FRACTION,
            direction="decreasing",
        )
        for kind, name in KINDS.items()
    ),
    *(
        Equivalence(
            id=f"count-{kind}-{activation}",
            text=f"At the start the rank of the {name} is what distinct neurons can span, at every k, within "
            f"{margin:.0%} of d; {activation}.",
            source="C, Propositions 2 and 3",
            samples=_excess(kind, activation),
            margin=margin,
        )
        for kind, name in KINDS.items()
        for activation, margin in (("tanh", 0.01), ("relu", 0.1))
    ),
    *(
        Equivalence(
            id=f"stuck-{kind}-{arm[NAME]}",
            text=f"With {plotting.look(str(arm[NAME])).label} the rank of the {name} stays at its bound, "
            "within 1 % of d; fraction 0.9.",
            source="4, Proposition 3",
            samples=_growth(kind, arm),
            margin=0.01,
        )
        for kind, name in KINDS.items()
        for arm in (VANILLA, DECAY)
    ),
    *(
        Superiority(
            id=f"free-{kind}-{sigma:g}" + tolerance.replace("/", "-"),
            text=f"syre (σ = {sigma:g}) takes the rank of the {name} above that bound by over half of d; fraction 0.9"
            + (", singular values above 1e-6 of the largest." if tolerance else "."),
            source="ours" if tolerance else "4",
            samples=_growth(kind, syre(sigma), tolerance),
            margin=0.5,
        )
        for kind, name in KINDS.items()
        for tolerance in ("", "/1e-06")
        for sigma in SIGMAS
    ),
    *(
        Superiority(
            id=f"effective-{kind}" + (f"-{sigma}" if sigma else ""),
            text=f"The effective rank of the {name} ends higher than with decay alone (fraction 0.9)"
            + (f"; σ = {sigma}." if sigma else "."),
            source="4",
            metric=f"rank/{kind}/effective",
            treatment={**syre(sigma), FRACTION: 0.9},
            control={**DECAY, FRACTION: 0.9},
            tune="" if sigma else SIGMA,
        )
        for kind, name in KINDS.items()
        for sigma in (None, 0.01)
    ),
    *(
        Equivalence(
            id=f"recovers-{sigma:g}",
            text="The effective rank of the tangent kernel ends where it does without identical neurons, within 10 %; "
            f"σ = {sigma:g}, fraction 0.9.",
            source="4",
            samples=_share("rank/ntk/effective", {**syre(sigma), FRACTION: 0.9}, {**DECAY, FRACTION: 0}),
            margin=0.1,
        )
        for sigma in (0.01, 1)
    ),
)

NOTES = """
**What it shows.** The paper's picture: both ranks fall in a straight line as more neurons are identical, and meet the
bound for distinct neurons exactly (tanh). Over training nothing moves them without syre, with or without decay. With
syre, σ = 0.01 included, both are whole by the end, soon as counts, later above 1e-6 of the largest singular value. The
effective rank rises, too, but in five epochs to half (σ = 0.01) or four fifths (σ = 1) of that of a start without
copies.

**How ranks are counted.** The last two layers have m inputs, n neurons, c = 10 outputs and d = n (m + 1 + c) + c
parameters, the biases among them. J [images · c, d] is the Jacobian of the outputs, so that the tangent kernel is
J Jᵀ; the gradients g = Jᵀ(softmax − onehot) are those of the single losses, of as many images as J has rows, so that
it is never the number of samples that bounds a rank. Both ranks are read off the singular values of J, and of the
matrix of the g, in float64 (products such as J Jᵀ would square them), at the tolerance of `matrix_rank`. That
tolerance is 4e-13 of the largest: the least difference between two neurons counts, and a rank is whole again at the
first evaluation after the start. Hence also the singular values above 1e-6 of the largest, and the effective rank.

**The bound.** k equal neurons act as one, so n − k + 1 distinct ones are left, and with tanh the kernel has rank
(n − k + 1)(m + 1 + c) + c, exactly. The gradients of a softmax sum to 0 over the classes, which takes off one more a
neuron and one in all. ReLU takes off one a neuron: a scale that the two layers may exchange, a symmetry that is no
reflection; neurons active on every image take off a little more. The paper's d − k rank(P), rank(P) = m + c, counts
k projections where k equal neurons are k − 1, and no biases. Read to the letter it is crossed, by no more than the
parameters of one neuron; with k − 1 and the biases it is the bound above.

**Unknown, and chosen.** The digits of n and of the number of images are lost; 100 inputs, 100 neurons and 1000 images
would fit what is left. Here an MLP 784-20-30-10 (100 and 100, and 1200 images, at `paper` scale) on MNIST, the first
200 training images and 2000 gradients; a fraction of the last hidden layer starts as copies of its first neuron. tanh,
as it has no symmetry beside reflections and permutations; vanilla with ReLU for comparison. SGD at 0.1, batch 64, 5
epochs, γ = 0.001. syre starts at the same weights as the other arms (`start="keep"`), exactly on the symmetric point:
from the start of Eq. (6) every rank is whole at step 0.
"""


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, 2, width=3.4, height=2.6)
    for row, (kind, name) in enumerate(KINDS.items()):
        count, along, effective = axes[3 * row : 3 * row + 3]
        rank = f"rank/{kind}"
        rows = with_counts(results.final(rank))
        limits = rows[rows[ACTIVATION] == "tanh"].drop_duplicates("k").sort_values("k")
        count.plot(limits["k"], bound(limits, kind), color="0", lw=0.8, ls=":", label="bound: distinct neurons")
        printed = limits["d"] - limits["k"] * (limits["m"] + CLASSES)
        count.plot(limits["k"], printed, color="0.5", lw=0.8, ls="--", label="d − k rank(P), as printed")
        start = select(at_start(results, kind), **{NAME: "vanilla", ACTIVATION: "relu"})
        relu = plotting.Look(label="vanilla at the start, ReLU", color="#777777", marker="x")
        plotting.line_with_band(count, start, "k", rank, relu)
        for look, arm in plotting.arms(rows[rows[ACTIVATION] == "tanh"]):
            plotting.line_with_band(count, arm, "k", rank, look)
        count.set(xlabel="neurons identical at the start", ylabel=f"rank of the {name}", title="after training")
        for ax, way, title in (
            (along, "1e-06", "rank, above 1e-6 of the largest"),
            (effective, "effective", "effective rank"),
        ):
            for look, arm in plotting.arms(select(results.curve(f"{rank}/{way}"), **{FRACTION: 0.9, **TANH})):
                plotting.line_with_band(ax, arm, "step", f"{rank}/{way}", look)
            ax.set(xlabel="step, from k = 0.9 n", title=title, ylim=(0, None))
    plotting.legend(figure)
    return figure
