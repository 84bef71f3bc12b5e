"""Figure 1 (section 4): training from a start at which a fraction of the hidden neurons are identical."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.claims import Claim, Equivalence, Monotone, Superiority
from experiments.analysis.results import Arm, Results, select

TITLE = "collapsed starts: loss, rank and distance of neurons that start identical"

FRACTION, GAMMA = "model.identical", "regularizer.weight_decay"
NAME, SIGMA, START = "regularizer.name", "regularizer.sigma", "regularizer.start"
SIGMAS = (0.01, 0.1, 1)
DECAY: Arm = {NAME: "weight_decay", GAMMA: 1e-3}
FIXED: dict[str, Arm] = {
    "vanilla": {NAME: "vanilla"},
    "weight_decay": DECAY,
    "l2_init": {NAME: "l2_init", GAMMA: 1e-3},
}


def syre(sigma: float | None = None, start: str = "keep") -> Arm:
    """syre at the decay of the control, from its start unless said otherwise; every sigma unless one is given."""
    return {NAME: "syre", START: start, GAMMA: 1e-3} | ({SIGMA: sigma} if sigma else {})


def furthest(arm: Arm) -> Callable[[Results], pd.Series]:
    """The largest distance, anywhere in training, of the neurons that start identical, one a seed."""
    return lambda results: select(results.curve("distance"), **arm).groupby("seed")["distance"].max()


def _distance(arm: Arm) -> Callable[[Results], pd.Series]:
    return lambda results: select(results.final("distance"), **arm).set_index("seed")["distance"]


def _beats(metric: str, at: float, sigma: float | None, better: str) -> Superiority:
    """syre against decay alone from the same collapsed start; sigma from the other seeds unless it is given."""
    return Superiority(
        id=f"{metric}-{at:g}" + (f"-{sigma:g}" if sigma else ""),
        text=f"From a start with a fraction {at:g} of identical neurons syre ends at a {better} "
        + {"loss": "test loss", "rank": "rank"}[metric]
        + " than decay alone"
        + (f"; σ = {sigma:g}." if sigma else "."),
        source="4",
        metric=metric,
        treatment={**syre(sigma), FRACTION: at},
        control={**DECAY, FRACTION: at},
        better=better,
        tune="" if sigma else SIGMA,
    )


def _recovers(sigma: float | None, at: float, metric: str = "loss", margin: float = 0.05) -> Equivalence:
    name, unit = {"loss": ("test loss", "nats"), "accuracy": ("accuracy", "")}[metric]
    return Equivalence(
        id=f"recovers-{metric}-{at:g}" + (f"-{sigma:g}" if sigma else ""),
        text=f"From a fraction {at:g} syre ends at the {name} of a start without identical neurons, within "
        f"{margin:g} {unit}".rstrip() + (f"; σ = {sigma:g}." if sigma else "."),
        source="4",
        metric=metric,
        treatment={**syre(sigma), FRACTION: at},
        control={**DECAY, FRACTION: 0},
        better="lower" if metric == "loss" else "higher",
        tune="" if sigma else SIGMA,
        margin=margin,
    )  # fmt: skip


LIMITS = {"loss": (0.05, 3), "rank": (0, 105), "distance": (-0.05, 1.05)}
TITLES = {
    "loss": "final test loss",
    "rank": "final rank of the hidden layer (of 100)",
    "distance": "final distance of the identical neurons",
}

CLAIMS: tuple[Claim, ...] = (
    Monotone(
        id="worse",
        text="Without syre the test loss grows with the fraction of neurons that start identical.",
        source="4",
        metric="loss",
        treatment=DECAY,
        over=FRACTION,
    ),
    Monotone(
        id="narrow",
        text="Without syre the rank falls with that fraction.",
        source="4",
        metric="rank",
        treatment=DECAY,
        over=FRACTION,
        direction="decreasing",
    ),
    *(
        Equivalence(
            id=f"stuck-{name}-{at:g}",
            text=f"With {plotting.look(name).label} copies of a neuron stay equal (distance < 1e-6); fraction {at:g}.",
            source="ours" if name == "l2_init" else "4, Proposition 3",
            samples=furthest({**arm, FRACTION: at}),
            margin=1e-6,
        )
        for name, arm in FIXED.items()
        for at in (0.9, 1)
    ),
    *(
        Superiority(
            id=f"free-{sigma:g}",
            text=f"From the same start syre takes them apart (final distance > 1/2); fraction 0.9, σ = {sigma:g}.",
            source="4",
            samples=_distance({**syre(sigma), FRACTION: 0.9}),
            margin=0.5,
        )
        for sigma in SIGMAS
    ),
    *(_beats("loss", at, sigma, "lower") for at in (0.9, 1) for sigma in (None, 0.01)),
    *(_beats("rank", 0.9, sigma, "higher") for sigma in (None, 0.01)),
    _beats("loss", 0.75, 0.01, "lower"),
    *(_recovers(sigma, at) for at in (0.9, 1) for sigma in (None, 0.01)),
    _recovers(None, 0.9, "accuracy", 0.01),
    replace(
        _beats("loss", 0.9, 0.01, "lower"),
        id="l2-init-0.9-0.01",
        text="syre (σ = 0.01) ends at a lower test loss than decay towards the start itself, which is symmetric.",
        source="ours",
        control={**FIXED["l2_init"], FRACTION: 0.9},
    ),
    *(
        Equivalence(
            id=f"cost-{sigma:g}",
            text=f"From a start without identical neurons σ = {sigma:g} costs no accuracy (within 0.5 points).",
            source="5.4",
            metric="accuracy",
            treatment={**syre(sigma), FRACTION: 0},
            control={**DECAY, FRACTION: 0},
            margin=0.005,
        )
        for sigma in SIGMAS
    ),
)

NOTES = """
**What it shows.** The paper's picture. Without syre the copies stay equal to the last bit, and the loss ends the worse
the more of them there were (0.09 without, 0.25 with 0.9, 1.75 with all of them); L2 init, whose centre is the start,
cannot part them either. syre parts them from exactly the same start, at the recommended σ = 0.01 too: at 0.9 the loss
falls to 0.15, with all of them from 1.75 to 0.11. In five epochs it does not quite come to that of a start without
copies. The smaller σ, the later a run leaves; rank at σ = 0.01 and 0.1 differs widely between seeds for that reason.

**The start.** The first neuron of the hidden layer is copied onto a fraction of the layer: incoming weights, bias and
outgoing weights. syre keeps the start of the other arms (`start="keep"`), exactly on the fixed point of the copies'
permutations; with Eq. (6)'s own start, w_0 = init + b, the copies differ at step 0 (crosses). L2 init decays towards
the start itself, which is symmetric. The distance is |P v| / |v| over the copies v, where P takes off their mean:
exactly 0 while they are equal, and 1 for neurons that have nothing in common.

**Unknown, and chosen.** "Two-layer ReLU" and "a fraction of the hidden neurons are identical" are the paper's. Not
printed: the data (here MNIST, 784-100-10), the fractions, optimizer and decay (SGD at 0.1, γ = 0.001) and the length
(5 epochs of batches of 32). At γ = 0.001 a symmetric point is left slowly, and how far a run has come is a matter of
steps: pilots on other seeds (100 and 101), fraction 0.9, test loss of decay alone and of σ = 0.01, 0.1 and 1:

| learning rate, batch, epochs | decay | σ = 0.01 | 0.1 | 1 |
| --- | --- | --- | --- | --- |
| 0.03, 64, 5 | 0.260 | 0.260 | 0.260 | 0.259 |
| 0.1, 64, 5 | 0.242 | 0.242 | 0.224 | 0.178 |
| 0.1, 64, 15 | 0.216 | 0.120 | 0.153 | 0.084 |
| 0.3, 64, 5 | 0.257 | 0.154 | 0.163 | 0.109 |
| 0.1, 32, 5 (chosen; two seeds) | 0.233 | 0.140 | 0.145 | 0.108 |

(0.07 to 0.08 without copies.) k copies move as one neuron with a k-fold learning rate, so that the largest rates are
no fair test of a fraction 1. Half the batch gives as many steps in half the time.

**Exactness.** Copies stay equal to the last bit on a CPU, alone and in the batched matrix products of an ensemble
(tested); the claims allow 1e-6.
"""

SHADES = ("#FDD0A2", "#FDAE6B", "#F16913", "#D94801", "#8C2D04", "#4A1486")


def _curves(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    """Test loss over training, a line for each fraction, the darker the larger."""
    for shade, (fraction, run) in zip(SHADES, rows.groupby(FRACTION), strict=False):
        mine = plotting.Look(label=f"identical at the start: {fraction:g}", color=shade, marker="")
        plotting.line_with_band(ax, run, "step", "loss", mine)
    ax.set(yscale="log", ylim=(0.05, 3), xlabel="step", title=title)


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, 2, width=3.2, height=2.6)
    curves = results.curve("loss")
    _curves(axes[0], select(curves, **DECAY), "weight decay")
    for ax, sigma in ((axes[1], 0.01), (axes[2], 1)):
        _curves(ax, select(curves, **syre(sigma)), f"syre, σ = {sigma:g}, same start")
    axes[0].set_ylabel("test loss")
    table = results.final("loss", "rank", "distance")
    weak = table[(table[GAMMA] == 1e-3) | (table[NAME] == "vanilla")]
    same = weak[weak[START] != "shift"]
    for ax, (metric, title) in zip(axes[3:], TITLES.items(), strict=True):
        for look, arm in plotting.arms(same):
            plotting.line_with_band(ax, arm.dropna(subset=[metric]), FRACTION, metric, look)
        for look, arm in plotting.arms(weak[weak[START] == "shift"]):
            mine = replace(look, label=f"{look.label}, start of Eq. (6)", marker="x")
            plotting.line_with_band(ax, arm, FRACTION, metric, mine)
        ax.set(xlabel="fraction identical at the start", title=title, ylim=LIMITS[metric])
    axes[3].set_yscale("log")
    plotting.legend(figure)
    return figure
