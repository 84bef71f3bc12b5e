"""Figure 1 (section 4): training from a start at which a fraction of the hidden neurons are identical."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import GAMMA, IDENTICAL, NAME, SIGMAS, START, VANILLA, beats, falls, final, rises, same
from experiments.analysis.claims import Claim, Equivalence, Superiority
from experiments.analysis.results import Arm, Results

TITLE = "collapsed starts: loss, rank and distance of neurons that start identical"

DECAY = arms.decay(gamma=1e-3)
WHOLE, MOST = {IDENTICAL: 0}, {IDENTICAL: 0.9}
FIXED = {"vanilla": VANILLA, "weight_decay": DECAY, "l2_init": arms.arm("l2_init", gamma=1e-3)}


def syre(sigma: float | None = None, *at: Arm) -> Arm:
    """syre at the decay of the control and from its start; every sigma unless one is given."""
    return arms.syre(*at, sigma=sigma, gamma=1e-3, start="keep")


def stuck(id: str, text: str, source: str, arm: Arm) -> Equivalence:
    """Of the neurons that start identical the largest distance, anywhere in training, is 0."""
    furthest = lambda results: results.curve("distance", **arm).groupby("seed")["distance"].max()  # noqa: E731
    return Equivalence(id, text, source, furthest, margin=1e-6)


def free(id: str, text: str, source: str, arm: Arm) -> Superiority:
    """They end apart."""
    return Superiority(id, text, source, final("distance", arm), margin=0.5)


def _beats(metric: str, words: str, at: float, sigma: float | None) -> Superiority:
    """syre against decay alone from the same collapsed start."""
    key, end = arms.ends(sigma)
    text = f"From a start with a fraction {at:g} of identical neurons syre ends at a {words} than decay alone{end}"
    start = {IDENTICAL: at}
    return beats(f"{metric}-{at:g}{key}", text, "4", metric, syre(sigma, start), DECAY | start)


def _recovers(sigma: float | None, at: float, metric: str, words: str, margin: float, unit: str) -> Equivalence:
    key, end = arms.ends(sigma)
    whole = f"the {words} of a start without identical neurons, within {margin:g}{unit}"
    text = f"From a fraction {at:g} syre ends at {whole}{end}"
    one, other = syre(sigma, {IDENTICAL: at}), DECAY | WHOLE
    return same(f"recovers-{metric}-{at:g}{key}", text, "4", metric, one, other, margin)


def _stuck(name: str, at: float) -> Equivalence:
    text = f"With {arms.look(name).label} copies of a neuron stay equal (distance < 1e-6); fraction {at:g}."
    source = "ours" if name == "l2_init" else "4, Proposition 3"
    return stuck(f"stuck-{name}-{at:g}", text, source, FIXED[name] | {IDENTICAL: at})


WORSE = "Without syre the test loss grows with the fraction of neurons that start identical."
FREE = "From the same start syre takes them apart (final distance > 1/2); fraction 0.9, σ = {:g}."
L2 = "syre (σ = 0.01) ends at a lower test loss than decay towards the start itself, which is symmetric."
COST = "From a start without identical neurons σ = {:g} costs no accuracy (within 0.5 points)."
LOSS, RANK = ("loss", "lower test loss"), ("rank", "higher rank")
CLAIMS: tuple[Claim, ...] = (
    rises("worse", WORSE, "4", "loss", DECAY, IDENTICAL),
    falls("narrow", "Without syre the rank falls with that fraction.", "4", "rank", DECAY, IDENTICAL),
    *(_stuck(name, at) for name in FIXED for at in (0.9, 1)),
    *(free(f"free-{s:g}", FREE.format(s), "4", syre(s, MOST)) for s in SIGMAS),
    *(_beats(*LOSS, at, sigma) for at in (0.9, 1) for sigma in (None, 0.01)),
    *(_beats(*RANK, 0.9, sigma) for sigma in (None, 0.01)),
    _beats(*LOSS, 0.75, 0.01),
    *(_recovers(sigma, at, "loss", "test loss", 0.05, " nats") for at in (0.9, 1) for sigma in (None, 0.01)),
    _recovers(None, 0.9, "accuracy", "accuracy", 0.01, ""),
    beats("l2-init-0.9-0.01", L2, "ours", "loss", syre(0.01, MOST), FIXED["l2_init"] | MOST),
    *(same(f"cost-{s:g}", COST.format(s), "5.4", "accuracy", syre(s, WHOLE), DECAY | WHOLE, 0.005) for s in SIGMAS),
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

PANELS = {  # titles and limits
    "loss": ("final test loss", (0.05, 3)),
    "rank": ("final rank of the hidden layer (of 100)", (0, 105)),
    "distance": ("final distance of the identical neurons", (-0.05, 1.05)),
}
SHADES = ("#FDD0A2", "#FDAE6B", "#F16913", "#D94801", "#8C2D04", "#4A1486")


def _losses(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    """Test loss over training, a line for each fraction, the darker the larger."""
    for shade, (fraction, run) in zip(SHADES, rows.groupby(IDENTICAL), strict=False):
        mine = plotting.Look(label=f"identical at the start: {fraction:g}", color=shade, marker="")
        plotting.line_with_band(ax, run, "step", "loss", mine)
    ax.set(yscale="log", ylim=(0.05, 3), xlabel="step", title=title)


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(3, 2, width=3.2, height=2.6)
    _losses(axes[0], results.curve("loss", **DECAY), "weight decay")
    for ax, sigma in ((axes[1], 0.01), (axes[2], 1)):
        _losses(ax, results.curve("loss", **syre(sigma)), f"syre, σ = {sigma:g}, same start")
    axes[0].set_ylabel("test loss")
    table = results.final(*PANELS)
    weak = table[(table[GAMMA] == 1e-3) | (table[NAME] == "vanilla")]
    shifted = weak[START] == "shift"
    for ax, (metric, (title, limits)) in zip(axes[3:], PANELS.items(), strict=True):
        arms.curves(ax, arms.by_arm(weak[~shifted].dropna(subset=[metric])), IDENTICAL, metric)
        for look, rows in arms.by_arm(weak[shifted]):
            mine = replace(look, label=f"{look.label}, start of Eq. (6)", marker="x")
            plotting.line_with_band(ax, rows, IDENTICAL, metric, mine)
        ax.set(xlabel="fraction identical at the start", title=title, ylim=limits)
    axes[3].set_yscale("log")
    return plotting.with_legend(figure)
