"""Figure 14 (appendix C): ranks of the tangent kernel and of the gradient against the number of collapsed neurons."""

import json
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import IDENTICAL, decay, falls, final, gain
from experiments.analysis.claims import Claim, Equivalence, NonInferiority, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean, percent

TITLE = "rank of the tangent kernel and of the gradient against the number of identical neurons"

ACTIVATION, HIDDEN = "model.activation", "model.hidden"
CLASSES = 10
TANH, MOST = {ACTIVATION: "tanh"}, {ACTIVATION: "tanh", IDENTICAL: 0.9}
WHOLE = {ACTIVATION: "tanh", IDENTICAL: 0}
VANILLA, DECAY = arms.VANILLA | TANH, decay(TANH, gamma=1e-3)
KINDS = {"ntk": "tangent kernel", "gradient": "gradient second moment"}
BY = "rank/ntk/effective"
SHARE = 0.05  # of d: the smallest difference of ranks worth naming


def syre(sigma: float | None = None, *at: Arm) -> Arm:
    """syre with the start kept; the sigma with the highest effective rank of the kernel unless it is given."""
    return arms.syre(MOST, *at, sigma=sigma, start="keep", by="" if sigma else BY)


def with_counts(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with m inputs, n neurons, k of them identical, and d parameters of the last two layers."""
    m, n = (rows[HIDDEN].map(lambda text, i=i: json.loads(text)[i]) for i in (-2, -1))
    k = (rows[IDENTICAL] * n).round()
    return rows.assign(m=m, n=n, k=k, d=n * (m + 1 + CLASSES) + CLASSES)


def bound(rows: pd.DataFrame, kind: str) -> pd.Series:
    """The largest rank that k identical neurons leave: what the parameters of distinct neurons span.

    A softmax takes one direction off the outgoing weights of each neuron (and off the biases), the scale that the two
    layers of ReLU may exchange one off each neuron.
    """
    lost = (kind == "gradient") + (rows[ACTIVATION] == "relu").astype(int)
    distinct = rows["n"] - rows["k"].clip(lower=1) + 1
    return distinct * (rows["m"] + 1 + CLASSES - lost) + CLASSES - (kind == "gradient")


def at_start(results: Results, kind: str, activation: str) -> pd.DataFrame:
    """Vanilla before it is trained."""
    return with_counts(results.curve(f"rank/{kind}", **arms.VANILLA, **{ACTIVATION: activation}, step=0))


@per_seed
def _excess(results: Results, kind: str, activation: str) -> pd.Series:
    """Rank at the start minus the bound, as a fraction of d: the furthest from 0 over all k, one a seed."""
    rows = at_start(results, kind, activation)
    excess = (rows[f"rank/{kind}"] - bound(rows, kind)) / rows["d"]
    return excess.groupby(rows["seed"]).agg(lambda e: max(e, key=abs))


@per_seed
def _growth(results: Results, kind: str, arm: Arm, tolerance: str = "") -> pd.Series:
    """The largest rank in training minus the bound of the start, as a fraction of d; one a seed."""
    rank = f"rank/{kind}{tolerance}"
    rows = with_counts(results.curve(rank, **arm))
    return ((rows[rank] - bound(rows, kind)) / rows["d"]).groupby(rows["seed"]).max()


@per_seed
def _gain(results: Results, kind: str, treatment: Arm, control: Arm) -> pd.Series:
    """How much higher an effective rank one arm ends with than another, as a fraction of d; one a seed."""
    d = with_counts(results.runs)["d"].iloc[0]
    return gain(f"rank/{kind}/effective", treatment, control)(results) / d


def _count(kind: str) -> Equivalence:
    rank = f"With ReLU the rank of the {KINDS[kind]} at the start is what the distinct neurons can span"
    text, source = f"{rank}, within 10 % of d, however few they are.", "C, Propositions 2 and 3"
    return Equivalence(f"count-{kind}-relu", text, source, _excess(kind, "relu"), margin=0.1)


def _free(kind: str) -> Superiority:
    """By singular values above 1e-6 of the largest."""
    more = "above the largest that its 90 % identical neurons leave it at the start, by more than half of d"
    text = f"syre (σ = 0.01, γ = 0.001) takes the rank of the {KINDS[kind]}, counted above 1e-6 of the largest, {more}."
    return Superiority(f"free-{kind}-0.01-1e-06", text, "ours", _growth(kind, syre(0.01), "/1e-06"), margin=0.5)


def _higher(id: str, kind: str, sigma: float | None, control: Arm, than: str, source: str) -> Superiority:
    key, who = _at(sigma)
    text = f"From 90 % identical neurons the effective rank of the {KINDS[kind]} ends higher with {who} than {than}"
    samples = _gain(kind, syre(sigma), {**control, **MOST})
    return Superiority(f"{id}-{kind}{key}", f"{text}, by more than 5 % of d.", source, samples, margin=SHARE)


def _recovers(sigma: float) -> NonInferiority:
    def share(results: Results) -> pd.Series:
        ends = (results.by_seed("rank/ntk/effective", arm) for arm in (syre(sigma), DECAY | WHOLE))
        return next(ends) / next(ends) - 1

    less = "of the tangent kernel less than 10 % below that of decay alone without identical neurons"
    text = f"From 90 % identical neurons syre (σ = {sigma:g}, γ = 0.001) ends at an effective rank {less}."
    return NonInferiority(f"recovers-{sigma:g}", text, "4", share, margin=0.1)


def _no_decay_cost(sigma: float) -> NonInferiority:
    less = "of the tangent kernel less than 5 % of d below that of no decay at all"
    text = f"Without identical neurons syre (σ = {sigma:g}, γ = 0.001) ends at an effective rank {less}."
    samples = _gain("ntk", syre(sigma, WHOLE), VANILLA | WHOLE)
    return NonInferiority(f"no-decay-cost-{sigma:g}", text, "ours", samples, margin=SHARE)


def _at(sigma: float | None) -> tuple[str, str]:
    """How ids and sentences name sigma."""
    return (f"-{sigma:g}", f"syre (σ = {sigma:g}, γ = 0.001)") if sigma else ("", "syre (best σ, γ = 0.001)")


FALLS = "The more neurons start identical, the lower the effective rank of the tangent kernel that no decay ends with."
CLAIMS: tuple[Claim, ...] = (
    falls("falls-effective-ntk", FALLS, "C", "rank/ntk/effective", VANILLA, IDENTICAL),
    *map(_count, KINDS),
    *map(_free, KINDS),
    *(_higher("effective", kind, s, DECAY, "with decay alone", "4") for kind in KINDS for s in (None, 0.01)),
    *map(_recovers, (0.01, 1)),
    *(_higher("no-decay", kind, s, VANILLA, "without decay", "ours") for kind in KINDS for s in (None, 0.01)),
    *map(_no_decay_cost, (0.01, 1)),
)

IDENTITY = "moved to tests/tasks/test_collapse.py: an identity"
RETIRED = {
    **{f"{of}-tanh": IDENTITY for of in ("count-ntk", "count-gradient")},
    **{f"stuck-{kind}-{name}": IDENTITY for kind in KINDS for name in ("vanilla", "weight_decay")},
    **{f"falls-{kind}": f"{IDENTITY}; falls-effective-ntk judges an effective rank" for kind in KINDS},
    **{f"free-{kind}-{s}": f"free-{kind}-0.01-1e-06 asks for more" for kind in KINDS for s in ("0.01", "0.1", "1")},
    **{f"free-{kind}-{s}-1e-06": f"σ = 0.01 is harder: free-{kind}-0.01-1e-06" for kind in KINDS for s in ("0.1", "1")},
}


def notes(results: Results) -> str:
    say = Numbers(results)
    effective = "rank/ntk/effective"

    def share(sigma: float) -> str:
        """Of the effective rank of a start without copies."""
        mine, whole = (final(effective, arm) for arm in (syre(sigma), DECAY | WHOLE))
        return say.mean(lambda results: mine(results) / whole(results), times=100)

    others = (DECAY | WHOLE, syre(0.01, WHOLE), syre(1, WHOLE))
    more = say.span((_gain("ntk", VANILLA | WHOLE, other) for other in others), times=100)
    return f"""
**What it shows.** The paper's picture: both ranks fall in a straight line as more neurons are identical, and meet the
bound for distinct neurons exactly (tanh). Over training nothing moves them without syre, with or without decay. With
syre, σ = 0.01 included, both are whole by the end, soon as counts, later above 1e-6 of the largest singular value. The
effective rank rises, too, but in five epochs to {share(0.01)} % (σ = 0.01) or {share(1)} % (σ = 1) of that of a start
without copies. No decay at all is as stuck as decay; without copies it has the highest effective rank, by {more} % of
d.

**σ and the margins.** The best σ of a seed has the highest effective rank of the kernel on the other seeds; the
gradient is judged at that σ too. It is {say.best(BY, syre())}. Effective ranks are compared in fractions of d, the
number of parameters of the two layers (940); 5 % of it was set as the smallest effect when the results were known.

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
k projections where k equal neurons are k − 1, and no biases. Read as printed it is crossed, by no more than the
parameters of one neuron; with k − 1 and the biases it is the bound above.

**Unknown, and chosen.** The digits of n and of the number of images are lost; 100 inputs, 100 neurons and 1000 images
would fit what is left. Here an MLP 784-20-30-10 (100 and 100, and 1200 images, at `paper` scale) on MNIST, the first
200 training images and 2000 gradients; a fraction of the last hidden layer starts as copies of its first neuron. tanh,
as it has no symmetry beside reflections and permutations; vanilla with ReLU for comparison. SGD at 0.1, batch 64, 5
epochs, γ = 0.001. syre starts at the same weights as the other arms (`start="keep"`), exactly on the symmetric point:
from the start of Eq. (6) every rank is whole at step 0.
"""


WAYS = {"1e-06": "rank, above 1e-6 of the largest", "effective": "effective rank"}
RELU = plotting.Look(label="ReLU, vanilla, at the start", color="#AAAAAA", marker="4")


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, 2, width=3.4, height=2.6)
    for row, (kind, name) in enumerate(KINDS.items()):
        count, rank = axes[3 * row], f"rank/{kind}"
        rows = with_counts(results.final(rank, **TANH))
        limits = rows.drop_duplicates("k").sort_values("k")
        plotting.line_with_band(count, at_start(results, kind, "relu"), "k", rank, RELU)
        arms.curves(count, arms.by_arm(rows), "k", rank, nested=True)
        above: dict[str, Any] = {"lw": 1.2, "zorder": 4}
        count.plot(limits["k"], bound(limits, kind), color="white", ls=(0, (1, 3)), **above)
        count.plot(limits["k"], bound(limits, kind), "wo", ms=3, mec="black", label="bound: distinct neurons", **above)
        printed = limits["d"] - limits["k"] * (limits["m"] + CLASSES)
        count.plot(limits["k"], printed, color="0.3", ls="--", label="d − k rank(P), the paper's", **above)
        count.set(xlabel="neurons identical at the start", ylabel=f"rank of the {name}")
        count.set_title("after training (ReLU: at the start)")
        for ax, (way, title) in zip(axes[3 * row + 1 :], WAYS.items(), strict=False):
            curves = arms.by_arm(results.curve(f"{rank}/{way}", **MOST))
            arms.curves(ax, curves, "step", f"{rank}/{way}", nested=True)
            ax.set(xlabel="step, from k = 0.9 n", title=title, ylim=(0, None))
    return plotting.with_legend(figure)


def finding(results: Results) -> Finding:
    """What 90 % copies leave of the tangent kernel, and what syre makes of it."""
    rank, effective = "rank/ntk/1e-06", "rank/ntk/effective"
    size = mean(with_counts(results.runs)["d"].iloc[0])
    stuck, free = (final(rank, arm)(results) for arm in (DECAY | MOST, syre(0.01)))
    shares = [final(effective, syre(s))(results) / final(effective, DECAY | WHOLE)(results) for s in (0.01, 1)]
    return Finding(
        f"With 90 % copies the tangent kernel keeps rank {mean(stuck)} of {size} under decay alone, and {mean(free)} "
        f"with syre at σ = 0.01. The effective rank comes to {percent(shares[0])} (σ = 0.01) and {percent(shares[1])} "
        "(σ = 1) of that without copies.",
        "copies lower the rank, syre restores it",
        f"rank {interval(free)} against {interval(stuck)} of {size}",
    )
