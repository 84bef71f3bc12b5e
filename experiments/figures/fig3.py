"""Figure 3 (section 6.1), left and right: ridge regression through double descent; reparametrised linear regression."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import (
    GAMMA,
    NAME,
    SAME_START,
    SIGMA,
    SIGMAS,
    START,
    VANILLA,
    arm,
    beats,
    decay,
    final,
    look,
    width,
)
from experiments.analysis.claims import Claim, Equivalence, NonInferiority, Samples, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import at_best
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean, percent
from experiments.figures import fig3b_full

TITLE = "compatibility with standard training: ridge regression, and neurons that die in reparametrised regression"

FRACTION, KAPPA, DEPTH = "regularizer.fraction", "regularizer.kappa", "model.depth"
DIMS, GAMMAS = 100, (1e-3, 1e-2, 1e-1)  # left
BESIDE = ("fig3b_full",)  # the paper's middle panel, an experiment of its own
AFTER = ("fig3b",)  # what its command trains after it: the same, smaller
SAME = 0.05  # of the loss: curves closer than this cannot be told apart in the figure
TWICE, THRICE = (round(math.log10(times), 3) for times in (2, 3))  # of log10 of the loss
STRONG = {DEPTH: 2, GAMMA: 0.1}
BY = "rank"  # the neurons alive: of syre with an open sigma
SYRE, DECAY = arms.syre(STRONG, by=BY), decay(STRONG)
RIGHT, LESS = 200, 0.05  # neurons; of the loss, that falls from 0.5 to 0.4
W_FIX = arm("w_fix", {KAPPA: 0.07}, STRONG)
ANCHORS = 0.652  # of the products of two anchors, N(0, 1/d) each, this fraction is above 0.001 at d = 200


# ---- left: ridge regression ------------------------------------------------------------------------------------------


def losses(results: Results, gamma: float, sigma: float = 0, trained: bool = False) -> pd.DataFrame:
    """Test losses of the closed form, or of trained models: one row a seed, one column an N. sigma = 0 is ridge."""
    runs: Arm = {"task.name": "ridge", "task.weight_decay": gamma, "task.sigma": sigma}
    if trained:
        runs = {DEPTH: 1, GAMMA: gamma, NAME: "syre" if sigma else "weight_decay", SIGMA: sigma or None}
    rows = results.final("loss", **runs)
    return rows.pivot(index="seed", columns="data.samples" if trained else "task.samples", values="loss")


def _peak(loss: pd.DataFrame) -> pd.Series:
    """log10 of the loss at N = d over the larger of those at d/2 and 2d."""
    return (loss[DIMS] / loss[[DIMS // 2, 2 * DIMS]].max(axis=1)).pipe(np.log10)


def _gap(mine: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    return (mine / other[mine.columns] - 1).abs()


def _from_ridge(results: Results, gamma: float, sigma: float) -> pd.DataFrame:
    """Relative difference between the losses of syre and ridge."""
    return _gap(losses(results, gamma, sigma), losses(results, gamma))


def _largest(tables: Iterable[pd.DataFrame]) -> pd.Series:
    """The largest entry of all tables, one a seed."""
    return pd.concat(list(tables), axis=1).max(axis=1, skipna=False)


def _no_peak(gamma: float) -> NonInferiority:
    text = f"With syre (σ = 0.01, γ = {gamma:g}) the test loss at N = d is less than twice the larger at d/2 and 2d."
    samples: Samples = lambda results: -_peak(losses(results, gamma, 0.01))  # noqa: E731
    return NonInferiority(f"no-peak-{gamma:g}", text, "6.1", samples, margin=TWICE)


@per_seed
def _below_least_squares(results: Results) -> pd.Series:
    """log10 of how much larger the loss of least squares is at N = d than that of syre (sigma = 0.01, gamma = 0.01)."""
    return (losses(results, 0)[DIMS] / losses(results, 1e-2, 0.01)[DIMS]).pipe(np.log10)


@per_seed
def _ridge(results: Results, gammas: tuple[float, ...], sigma: float, samples: slice = slice(None)) -> pd.Series:
    return _largest(_from_ridge(results, gamma, sigma).loc[:, samples] for gamma in gammas)


RIDGE = "syre (σ = {:g}) is ridge regression: the test losses differ by less than 5 % at every N and γ."
OVER, UNDER = _ridge((1e-3,), 1, slice(2 * DIMS, None)), _ridge((1e-3,), 1, slice(None, DIMS // 2))
SMALL_GAMMA = "γ = 0.001 alone, at σ = 1, keeps the test loss of syre within 5 % of that of ridge regression at N"
OPEN = f"{SMALL_GAMMA} <= d/2, where the data leave half of w open."
PEAK = "Least squares, without decay, diverges at N = d: its test loss is more than three times that at d/2 and at 2d."
BELOW = "At N = d syre (σ = 0.01, γ = 0.01) has less than half of the test loss of least squares, without decay."
RIDGE_CLAIMS: tuple[Claim, ...] = (
    Superiority("peak", PEAK, "6.1", lambda results: _peak(losses(results, 0)), margin=THRICE),
    *map(_no_peak, GAMMAS[:2]),
    *(Equivalence(f"ridge-{s:g}", RIDGE.format(s), "6.1", _ridge(GAMMAS, s), margin=SAME) for s in SIGMAS),
    Equivalence("small-γ-over", f"{SMALL_GAMMA} >= 2d.", "6.1", OVER, margin=SAME),
    Equivalence("small-γ-under", OPEN, "6.1", UNDER, margin=SAME),
    Superiority("no-decay-peak", BELOW, "ours", _below_least_squares(), margin=TWICE),
)


# ---- right: reparametrised regression --------------------------------------------------------------------------------


def alive(results: Results, arm: Arm) -> pd.DataFrame:
    """Curves of the fraction of neurons that are alive, of those without an entry that W-fix holds fixed."""
    free = results.final("free").set_index("id")["free"]
    table = results.curve("rank/free", **{DEPTH: 2, **arm})
    return table.assign(alive=table["rank/free"] / table["id"].map(free))


WHERE = "In reparametrised regression"


def _fraction(results: Results, arm: Arm, of_training: str = "last") -> pd.Series:
    """Alive fraction at the end, or the lowest ("min") of training, one a seed.

    An open sigma is the one with which most neurons are alive at the end on the other seeds.
    """
    rows = alive(results, {column: value for column, value in arm.items() if column != arms.BY})
    of_run = rows[rows["step"] > 0].groupby(["seed", SIGMA], dropna=False)["alive"]
    return at_best(of_run.agg(alive=of_training, last="last").reset_index(), "alive", SIGMA, by="last")


def _than_w_fix(results: Results) -> pd.Series:
    return _fraction(results, SYRE) - _fraction(results, W_FIX | {FRACTION: 0.3})


def _collapse(key: str, who: str, arm: Arm, neurons: str = "neurons") -> Superiority:
    text = f"{WHERE} {who} kills more than half of the {neurons}."
    return Superiority(f"collapse-{key}", text, "6.1", lambda results: 1 - _fraction(results, arm), margin=0.5)


def _away(sigma: float | None) -> Superiority:
    key, who, arm = _syre(sigma)
    text = f"{WHERE} with {who} more than half of the neurons are alive throughout."
    return Superiority(f"away{key}", text, "6.1", lambda results: _fraction(results, arm, "min"), margin=0.5)


def _syre(sigma: float | None) -> tuple[str, str, Arm]:
    """How ids and sentences name sigma, and the arm."""
    if sigma is None:
        return "", "syre (best σ, γ = 0.1)", SYRE
    return f"-{sigma:g}", f"syre (σ = {sigma:g}, γ = 0.1)", arms.syre(STRONG, sigma=sigma)


def _more(id: str, who: str, source: str, treatment: Arm, control: Arm, than: str, c: float = 1e-3) -> Superiority:
    """More neurons alive at the end."""
    above = "" if c == 1e-3 else f" above c = {c:g}"
    text = f"{WHERE} {who} keeps more neurons alive{above} than {than}, by more than 10 of {RIGHT}."
    metric = "rank" if c == 1e-3 else f"rank/{c:g}"
    return beats(id, text, source, metric, treatment, control, width(RIGHT))


def _more_at(gamma: float) -> Superiority:
    at = {GAMMA: gamma}
    who = f"syre (best σ, γ = {gamma:g})"
    return _more(f"more-γ{gamma:g}", who, "ours", SYRE | at, DECAY | at, "decay alone")


def _loss(id: str, sigma: float | None, control: Arm, than: str) -> Superiority:
    key, who, arm = _syre(sigma)
    text = f"{WHERE} {who} ends at a test loss lower than {than}, by more than {LESS}."
    return beats(f"{id}{key}", text, "ours", "loss", arm, control, LESS)


def _no_decay(sigma: float | None) -> Superiority:
    key, who, arm = _syre(sigma)
    return _more(f"no-decay-alive{key}", who, "ours", arm, VANILLA | {DEPTH: 2}, "SGD without decay")


BEYOND = (
    f"{WHERE} syre (σ = 1, γ = 0.1) leads decay alone in neurons above c = 0.01 by more than the 12 of {RIGHT} that "
    "its anchors alone have there."
)
LARGER = (
    f"{WHERE} syre (best σ, γ = 0.1) keeps a larger share of its neurons alive than W-fix of 30 % of the entries keeps "
    "of those that are free, by more than 5 of 100."
)
KEEP = "syre (σ = 1, γ = 0.1), from the start of decay alone,"
BEST, MILD = _syre(None), _syre(0.01)
NEURON_CLAIMS: tuple[Claim, ...] = (
    _collapse("vanilla", "SGD without decay", VANILLA),
    _collapse("weight_decay", "SGD with decay (γ = 0.1)", DECAY),
    _collapse("w_fix-0.3", "SGD with W-fix of 30 % of the entries (γ = 0.1)", W_FIX | {FRACTION: 0.3}, "free neurons"),
    *map(_away, (None, 0.01)),
    *(_more(f"more{key}", who, "6.1", arm, DECAY, "decay alone") for key, who, arm in (BEST, MILD)),
    _more("more-keep", KEEP, "ours", arms.syre(STRONG, sigma=1, start="keep"), DECAY, "decay alone"),
    *map(_more_at, (0.05, 0.2)),
    _more("more-c0.0001", BEST[1], "ours", SYRE, DECAY, "decay alone", 1e-4),
    beats("beyond-anchors", BEYOND, "ours", "rank/0.01", arms.syre(STRONG, sigma=1), DECAY, 12.4),
    *(_loss("loss", sigma, DECAY, "decay alone") for sigma in (None, 0.01)),
    Superiority("w-fix", LARGER, "6.1", _than_w_fix, margin=0.05),
    _loss("w-fix-loss", None, W_FIX | {FRACTION: 0.1}, "W-fix of 10 % of the entries"),
    *map(_no_decay, (None, 0.01)),
    *(_loss("no-decay-loss", sigma, VANILLA | {DEPTH: 2}, "SGD without decay") for sigma in (None, 0.01)),
)

CLAIMS = RIDGE_CLAIMS + NEURON_CLAIMS

RETIRED = {
    "no-peak-0.1": "ridge has no peak there either: no-peak-0.01 is harder",
    **{f"trained-{n}": "moved to tests/tasks/test_regression.py: the minimum is reached" for n in ("ridge", "syre")},
    **{
        f"collapse-w_fix-{f}": "as collapse-w_fix-0.3: 84 % of the free neurons die at 0.1, 83 % at 0.5"
        for f in (0.1, 0.5)
    },
    "more-c0.01": "the numbers of beyond-anchors, which asks for more",
    "more-c1e-06": "as more-c0.0001: 155 of 200 more, too",
}


def notes(results: Results) -> str:
    say = Numbers(results)
    one, loss = arms.syre(STRONG, sigma=1), say.final("loss", 2)

    def alive_of(arm: Arm) -> str:
        return say.mean(lambda results: _fraction(results, arm), times=100)

    near, far = (say.mean(_ridge(GAMMAS, sigma), times=100) for sigma in (0.1, 1))
    frozen = W_FIX | {FRACTION: 0.3}
    ruined = say.mean(final("loss", frozen | {KAPPA: 1}))
    return f"""
**What it shows.** Left, as in the paper: least squares diverges at N = d, and with decay syre at σ up to 0.1 lies on
ridge regression (within {near} % of its loss everywhere), no peak left at γ = 0.01; gradient descent ends on the closed
forms. The paper's "either a small γ or a small θ₀" holds only for N > d: for N < d, σ = 1 raises the loss at every γ,
by up to {far} %. Right, half as in the paper: with decay, SGD and W-fix fall to {alive_of(DECAY)} and
{alive_of(frozen)} % of the neurons, and syre at σ = 1 keeps {alive_of(one)} %, from the same start too, with a lower
loss. But SGD without decay does not collapse at all and has the lowest loss of all, {loss(VANILLA | {DEPTH: 2})}
against {loss(one)} with syre at σ = 1: the collapse is the decay's, and no decay at all beats syre; and σ = 0.01 cannot
be told from decay alone. At N = d, left, any decay is much better than none, syre's too.

**σ and the margins.** Right, the best σ of a seed keeps most neurons alive on the other seeds, and the loss is judged
at that σ too; it is {say.best(BY, SYRE)}. 10 of 200 neurons and 0.05 of a loss that runs from {loss(one)} to
{loss(DECAY)} were set as smallest effects when the results were known. W-fix's loss is that of the fraction with the
lowest, 0.1.

**Left.** The closed forms are w = (A + γI)⁻¹ b (ridge) and w = (A + γI)⁻¹ (b + γθ₀) (syre, Eq. (13)) with A = XᵀX/N,
b = Xᵀy/N, in float64, with the anchor θ₀ that training would draw for the same seed. With the loss as half the mean
squared error, γ is torch's `weight_decay`. γ = 0 is the least-squares solution of least norm. The trained models (N =
50, 100, 200) took 3000 full-batch steps of SGD, learning rate 0.1 and momentum 0.98. Where N < d the data say nothing
about a part of w, and there the minimum is θ₀ itself for every γ > 0: so a small γ alone cannot make the difference
small, a small θ₀ must. Ridge itself keeps a bump at N = d when γ is as small as 0.001.

**Right.** A neuron x_i u_i w_i is alive where |u_i w_i| > c, with c = 0.001, about a hundredth of a teacher's typical
coefficient (1/√200 = 0.07); 0.01, 1e-4 and 1e-6 are recorded, the first two judged. Half of the neurons are above c at
the start: "throughout" is from the first evaluation on, after a twentieth of the steps. W-fix holds entries of u and w
fixed, each drawn on its own; a neuron is free if neither is, and claims and curves are about the fraction of free
neurons alive, as a frozen entry cannot die whatever the data say. The same is true, more softly, of syre: at σ = 1 the
anchors alone (γ = ∞) have 65 % of the neurons above c = 0.001 (the dotted line) and 6 % above 0.01. So `away` asks
less than it seems, and what speaks for learning are `beyond-anchors` and `loss`.

**Unknown, and chosen.** The paper prints no setting of either problem. Both: x ~ N(0, I), teacher of norm about 1,
noise of std 0.5 on the targets of training and test (so no expected test loss is below 0.125), 1000 test samples.
- Left d = 100; right d = 200, N = 1000, SGD with one sample a step, learning rate 0.01, 20000 steps, u and w started
  as torch starts linear layers. "Standard SGD" may mean without decay or with it: both are arms.
- Decay, on pilot seeds 100 and 101: after 20000 steps decay alone had 88, 36 and 2 of 200 neurons alive at γ = 0.05,
  0.1, 0.2, SGD without decay 186. γ = 0.1 is drawn, the others are judged. Without decay a larger learning rate hardly
  helps a collapse: 186, 186 and 175 alive at 0.01, 0.02, 0.04.
- W-fix: κ = 0.07 = 1/√d, the scale of the start and of the anchors at σ = 1. With Lim et al.'s largest, κ = 1, it ruins
  the loss ({ruined} instead of {loss(frozen)}) at learning rate 0.01, and diverged at 0.02: hence 0.01.
- "Collapse" is read as fewer than half of the neurons alive, "essentially identical" as within 5 % of the test loss.

**What was seen before.** The right panel's γ, learning rate, κ and c were chosen on seeds 100 and 101 with all arms in
view, before its claims were written; the first draft of all claims was then tried on seeds 100 to 102, after which
`beyond-anchors` (its margin from theory: 12.4 of 200 products of two anchors are above 0.01) and c = 1e-6 were added.
Verdicts rest on seeds 0 to 9, which no choice has used.

**Middle.** ResNet18 on CIFAR-10 is an experiment of its own, fig3b_full, which judges it; fig3b is shorter.
"""


# ---- the picture: a column each --------------------------------------------------------------------------------------

TICKS = (0.2, 0.5, 1, 2, 5)
TRAINED = plotting.Look(label="trained (line: closed form)", color="0.2", marker="o")
SMALL = replace(look("syre", 1), label="syre, σ = 1, γ = 0.001", marker="x")
FREE = replace(look("w_fix"), label="W-fix 0.3, its free neurons")
FROZEN = replace(FREE, label="W-fix 0.3, all its neurons", color="#7A5200", marker="v")


def draw(results: Results, middle: Results | None = None) -> Figure:
    """A column each; between them the paper's middle panel, where it has results, and the legend."""
    columns = 3 if middle else 2
    figure, axes = plotting.panels(columns, 2, width=3.7, height=2.7)
    above, below = axes[:columns], axes[columns:]
    _draw_ridge(above[0], below[0], results)
    _draw_neurons(above[-1], below[-1], results)
    if middle is None:
        return plotting.with_legend(figure)
    fig3b_full.panel(above[1], middle)
    above[1].set_title("ResNet18 on CIFAR-10, γ = 0.0005")
    return plotting.with_legend(figure, below[1], caption=f"middle: {fig3b_full.SEEDS}")


def _draw_ridge(above: Axes, below: Axes, results: Results, gamma: float = 1e-2) -> None:
    _over_samples(above, losses(results, 0), look("vanilla"))
    for sigma in SIGMAS:
        _over_samples(above, losses(results, gamma, sigma), look("syre", sigma))
        _over_samples(below, _from_ridge(results, gamma, sigma), look("syre", sigma))
    _over_samples(above, losses(results, gamma), look("weight_decay"))  # last, or sigma = 0.01 hides it
    _over_samples(below, _from_ridge(results, 1e-3, 1), SMALL)
    for sigma in (0, 1):
        mean = losses(results, gamma, sigma, trained=True).pipe(np.log10).mean()
        at = np.log10(mean.index / DIMS)
        above.plot(at, mean, TRAINED.marker, color=TRAINED.color, mfc="none", ms=8, label=TRAINED.label)
    below.axhline(np.log10(SAME), color="0.4", lw=0.8, ls=":")
    below.text(np.log10(5), np.log10(SAME), "5 %: the same", ha="right", va="bottom", fontsize=7)
    above.set(title=f"ridge regression, γ = {gamma:g}", ylabel="test loss", ylim=(-1, 1))
    below.set(xlabel="N / d", ylabel="|syre / ridge − 1|", ylim=(-6, 0.5))
    above.set_yticks(np.log10(TICKS), list(map(str, TICKS)))
    below.set_yticks(range(-6, 1, 2), ["1e−6", "1e−4", "0.01", "1"])
    for ax in (above, below):
        ax.set_xticks(np.log10(TICKS), list(map(str, TICKS)))


def _over_samples(ax: Axes, table: pd.DataFrame, look: plotting.Look) -> None:
    """A table seed x N in the log, where the mean of heavy-tailed losses means something."""
    logs = pd.DataFrame(np.log10(table.rename(columns=lambda n: np.log10(n / DIMS))))
    long = logs.rename_axis("seed").reset_index().melt("seed", var_name="n", value_name="value")
    plotting.line_with_band(ax, long, "n", "value", look)


def _draw_neurons(above: Axes, below: Axes, results: Results) -> None:
    table = alive(results, {}).merge(results.curve("loss")[["id", "step", "loss"]], on=["id", "step"])
    strong = {**STRONG, NAME: ["weight_decay", "syre"], START: [None, "shift"]}
    drawn = [(look("vanilla"), select(table, **VANILLA)), *arms.by_arm(select(table, **strong))]
    drawn += [(SAME_START, select(table, **{START: "keep"})), (FREE, select(table, **W_FIX, **{FRACTION: 0.3}))]
    drawn.sort(key=lambda arm: arm[0].label == "weight decay")
    arms.curves(above, drawn, "step", "alive")
    arms.curves(below, drawn, "step", "loss")
    ranks = results.curve("rank", **W_FIX, **{FRACTION: 0.3})
    plotting.line_with_band(above, ranks.assign(alive=ranks["rank"] / ranks["data.dims"]), "step", "alive", FROZEN)
    above.axhline(ANCHORS, color="0.4", lw=0.8, ls=":", label="anchors of σ = 1 alone")
    above.set(title="reparametrised regression, γ = 0.1", ylabel="fraction of neurons alive", ylim=(0, 1))
    below.set(xlabel="step", ylabel="test loss", ylim=(0, None))


def finding(results: Results) -> Finding:
    """Left, how near syre is to ridge regression; right, how many neurons are alive, and at what loss."""
    gap, syre_1 = _ridge(GAMMAS, 0.1)(results), arms.syre(STRONG, sigma=1)
    alone, kept, none = (_fraction(results, arm) for arm in (DECAY, syre_1, VANILLA))
    losses_of = [mean(results.by_seed("loss", arm), 2) for arm in (VANILLA | {DEPTH: 2}, syre_1)]
    return Finding(
        f"Left: up to σ = 0.1 syre has ridge regression's test loss within {percent(gap)}. Right: of its neurons "
        f"decay alone keeps {percent(alone)} alive, syre at σ = 1 {percent(kept)}, and no decay {percent(none)}, at "
        f"a loss of {losses_of[0]} where syre has {losses_of[1]}.",
        "SGD and W-fix kill the neurons, syre does not",
        f"{interval(alone, times=100)} % alive with decay, {interval(kept, times=100)} % with syre (σ = 1)",
    )
