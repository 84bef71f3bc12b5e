"""Figure 3, middle (section 6.1): the accuracy of a ResNet18 on CIFAR-10 over the scale of the static bias."""

from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import GAINS, POINT, SIGMA, VANILLA, beats, costs, decay, final, gain, same, syre
from experiments.analysis.claims import Claim, Equivalence, NonInferiority, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, less, mean, percent

TITLE = "what the bias costs: ResNet18 on CIFAR-10 over sigma"

USUAL, STRONG = 5e-4, 5e-3  # weight decay as in the literature, and ten times that, for a short run
SMALL = (0.01, 0.05, 0.1, 0.2)
HALF = 0.005  # half a point of accuracy: what counts as no cost after a full training
SAME_START = " from the start of decay alone"


def _free(sigma: float) -> NonInferiority:
    text = f"syre (σ = {sigma:g}, γ = 0.0005) costs less than half a point of accuracy against decay alone."
    one, other = syre(sigma=sigma, gamma=USUAL), decay(gamma=USUAL)
    options = {"paper": "negligible below 0.2", "scale": "paper"}
    return costs(f"free-{sigma:g}", text, "6.1", "accuracy", one, other, HALF, **options)


def _free_short(sigma: float, start: str = "shift", key: str = "", words: str = "") -> NonInferiority:
    text = f"syre (σ = {sigma:g}, γ = 0.005){words} costs less than a point of accuracy against decay alone."
    one, other = syre(sigma=sigma, gamma=STRONG, start=start), decay(gamma=STRONG)
    return costs(f"free-short-{sigma:g}{key}", text, "ours", "accuracy", one, other, POINT)


def _drops(gamma: float, start: str = "shift", key: str = "", words: str = "") -> Superiority:
    text = f"syre (σ = 1, γ = {gamma:g}){words} costs more than half a point of accuracy against decay alone."
    source, paper = ("ours", "") if key else ("6.1", "flat, then drops")
    one, other = decay(gamma=gamma), syre(sigma=1, gamma=gamma, start=start)
    return beats(f"drops-{gamma:g}{key}", text, source, "accuracy", one, other, margin=HALF, paper=paper)


def _no_decay(sigma: float | None) -> Superiority:
    """syre against no decay at all, at the sigma with the highest accuracy unless it is given."""
    key, at = (f"-{sigma:g}", f"σ = {sigma:g}") if sigma else ("", "best σ")
    text = f"syre ({at}, γ = 0.005) is more accurate than no decay at all, by more than a point."
    return beats(f"no-decay{key}", text, "ours", "accuracy", syre(sigma=sigma, gamma=STRONG), VANILLA, POINT)


def _matters(sigma: float) -> Equivalence:
    """Where the gains of norms are anchored."""
    text = f"With norm gains anchored around 1, not 0, σ = {sigma:g} has the same accuracy within a point (γ = 0.005)."
    one, other = (syre({GAINS: at}, sigma=sigma, gamma=STRONG) for at in (1, 0))
    return same(f"gains-{sigma:g}", text, "ours", "accuracy", one, other, POINT)


def _bare(sigma: float) -> NonInferiority:
    text = f"With decay and anchors of the kernels alone σ = {sigma:g} costs less than a point of accuracy (γ = 0.005)."
    one, other = syre(sigma=sigma, gamma=STRONG, scope="matrices"), decay(gamma=STRONG, scope="matrices")
    return costs(f"matrices-{sigma:g}", text, "6.1", "accuracy", one, other, POINT)


def _absolute(sigma: float) -> NonInferiority:
    text = f"In absolute units σ = {sigma:g} costs less than a point of accuracy (γ = 0.005)."
    one = syre(sigma=sigma, gamma=STRONG, unit="absolute")
    return costs(f"absolute-{sigma:g}", text, "6.1", "accuracy", one, decay(gamma=STRONG), POINT)


TOWARD_1 = "Decay of norm gains toward 1, not 0, changes the accuracy by less than a point (σ = 0, γ = 0.005)."
SCOPE_COST = "Decay of the weights alone, not of norms and biases, costs less than a point of accuracy (γ = 0.005)."
CLAIMS: tuple[Claim, ...] = (
    *map(_free, (0.01, 0.2)),
    *map(_free_short, SMALL),
    _free_short(0.2, "keep", "-keep", SAME_START),
    _drops(USUAL),
    _drops(STRONG),
    _drops(STRONG, "keep", "-keep", SAME_START),
    *map(_no_decay, (None, 0.01)),
    *map(_matters, (0.2, 1)),
    same("gains-0", TOWARD_1, "ours", "accuracy", syre({GAINS: 1}, sigma=0, gamma=STRONG), decay(gamma=STRONG), POINT),
    costs("scope", SCOPE_COST, "ours", "accuracy", decay(gamma=STRONG, scope="matrices"), decay(gamma=STRONG), POINT),
    *map(_bare, (0.01, 0.2, 1)),
    *map(_absolute, (0.01, 0.1)),
)

RETIRED = {f"free-{sigma}": "lies between free-0.01 and free-0.2" for sigma in ("0.05", "0.1")}


def notes(results: Results) -> str:
    say = Numbers(results)
    share, rank = say.final("accuracy", 3), say.final("rank/effective")
    percents = say.final("accuracy", 1, times=100)
    alone, bare = decay(gamma=STRONG), decay(gamma=STRONG, scope="matrices")

    def at(sigma: float, **settings: Any) -> Arm:
        return syre(sigma=sigma, gamma=STRONG, **settings)

    def around_1(sigma: float) -> Arm:
        return syre({GAINS: 1}, sigma=sigma, gamma=STRONG)

    def gained(one: Arm, other: Arm) -> str:
        return say.interval(gain("accuracy", one, other), 1, times=100)

    def points(one: Arm, other: Arm) -> str:
        return say.mean(gain("accuracy", one, other), 1, times=100)

    flat = say.span((final("accuracy", arm) for arm in (alone, *(at(s) for s in (*SMALL, 0.5)))), 3)
    tight = [percents(arm) for arm in (bare, *(at(s, scope="matrices") for s in (0.2, 1)))]
    kept = [percents(around_1(s)) for s in (0, 0.2, 1)]
    return f"""
**What it shows.** Flat, then a drop, as the paper says: at γ = 0.005 the mean accuracy is {flat} from σ = 0 to 0.5 and
{share(at(1))} at σ = 1 ({share(at(1, start="keep"))} from the start of decay alone, so most of the drop is the anchored
decay's and not the start's). A cost of a point is excluded at σ = 0.1 and 0.2, not at 0.01 and 0.05, where three seeds
differ more. Half a point, the paper's "negligible" as we read it, cannot be told in so short a run. Where the accuracy
falls the effective rank rises, from {rank(alone)} to {rank(at(1))} of 128: more rank is not more accuracy here, and
less decay (γ = 5e-4, rank {rank(decay(gamma=USUAL))}) has less. There σ = 1 costs nothing that three seeds show. No
decay at all is the least accurate of all, at {share(VANILLA)}: decay helps here, with syre or alone.

**What decays, and around what** (6.1 does not say; n = 3, γ = 0.005). Decay alone of all parameters has
{percents(alone)} %, of the kernels alone {percents(bare)} % ({gained(bare, alone)} points), and with norm gains that
decay towards 1 {percents(around_1(0))} % ({gained(around_1(0), alone)}): here it helps, on average, that decay shrinks
the gains. Anchors around 1 therefore cost {gained(at(0.2), around_1(0.2))} points at σ = 0.2; at σ = 1 they change
nothing ({gained(around_1(1), at(1))}), since there the drop is gone: with gains anchored around 1 the accuracy is
{kept[0]}, {kept[1]} and {kept[2]} % for σ = 0, 0.2 and 1, with the kernels alone {tight[0]}, {tight[1]} and {tight[2]}
%. So the drop at σ = 1 is what random gains and biases do, and both ways of sparing them also lose what their decay
brings. The library keeps 0, what weight decay does, as the default of `gains`; Table 1, the other figure that decides
it, shows nothing for 1 either.

**The unit** (n = 3, γ = 0.005). In absolute units σ = 0.01 costs {gained(alone, at(0.01, unit="absolute"))} points, σ =
0.1 {gained(alone, at(0.1, unit="absolute"))}: with fan-ins of 27 to 1,152 absolute 0.1 is relative 0.5 to 3.4.

**Two machines.** The runs over scope, gains and unit were trained on a GPU (bfloat16, an H100), all others on a CPU
(float32). Three of them (σ = 0, gains around 1) were repeated on the CPU and are better there by 0.5 [−1.2, 2.3] points
(64.5 %): noise of the size of two seeds, but a difference of {points(at(0.2), around_1(0.2))} or {points(alone, bare)}
points between arms of the two machines may hold half a point of it.

**σ and the margins.** The best σ of a seed is the most accurate one on the other seeds. The earlier claims on a short
training allowed two points, since two seeds differ by more than half a point; noise is no reason for a margin, and it
is now the usual point, set when the results were known. Half a point is as it was.

**Unknown, and chosen.** ResNet18, CIFAR-10, ten trials, a band of one std, and "negligible for σ below 0.2" are known;
no training recipe is printed. torchvision's ResNet18 with the stem for small images, cropped and flipped images, SGD
0.1 with momentum 0.9 and a cosine, batches of 128. σ = 0 is plain decay at the same γ, from the same initial draw;
each trial draws its own bias. At `cpu` scale: 16 channels instead of 64, 20,000 images drawn from the seed, four
epochs, the whole test set, three trials. Such a run is far from converged and two seeds differ by more than half a
point, so the paper's sentence itself is `not tested at this scale`; "ours" asks for a point instead.

A short run at γ = 5e-4 hardly decays (learning rate times γ times steps is 0.02), so that syre differs from decay alone
by its start only. γ = 0.005 acts in 600 steps as the usual one does in 6,000. Pilot (seed 100, decay alone, 5,000 test
images): accuracy 0.626 at γ = 5e-4, 0.669 at 0.005.
"""


ZERO = 3e-3  # where sigma = 0 stands on the logarithmic axis
SEEDS = "thin lines and dots are seeds"
LOOKS = {
    (STRONG, "shift"): plotting.Look(label="γ = 0.005", color="#0072B2", marker="D"),
    (USUAL, "shift"): plotting.Look(label="γ = 0.0005", color="#56B4E9", marker="o"),
    (STRONG, "keep"): replace(arms.SAME_START, label="γ = 0.005, start kept"),
}
TITLES = {"accuracy": "test accuracy", "rank/effective": "effective rank of the features"}


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(2, 1, width=3.4, height=2.8)
    table = results.final(*TITLES)
    for ax, (metric, title) in zip(axes, TITLES.items(), strict=True):
        for (gamma, start), look in LOOKS.items():
            plotting.line_with_band(ax, select(table, **syre(gamma=gamma, start=start)), SIGMA, metric, look)
            if start == "shift":
                zero = select(table, **decay(gamma=gamma)).assign(**{SIGMA: ZERO})
                plotting.line_with_band(ax, zero, SIGMA, metric, replace(look, marker="s", label=""))
        plotting.level(ax, select(table, **VANILLA)[metric].mean(), arms.look("vanilla"), "γ, no σ")
        ax.set(xlabel="σ (square at 0: decay alone)", title=title)
        plotting.zero_apart(ax, ZERO, (0.01, 0.1, 1))
    negligible(axes[0])
    return plotting.with_legend(figure, loc="outside lower center", ncols=3, caption=SEEDS)


def negligible(ax: Axes) -> None:
    """What the paper says of the cost: the grey part of the axis."""
    ax.axvspan(0.006, 0.2, color="0.94", lw=0, zorder=0, label="negligible cost, the paper says")


def finding(results: Results) -> Finding:
    """What sigma costs, beside what no decay at all has."""
    alone, none = (final("accuracy", arm)(results) for arm in (decay(gamma=STRONG), VANILLA))
    fifth, whole = (less(alone, final("accuracy", syre(sigma=s, gamma=STRONG))(results)) for s in (0.2, 1))
    return Finding(
        f"In a short training (decay alone: {percent(alone, 1)}) σ = 0.2 costs {mean(fifth, 1, times=100)} points "
        f"of accuracy and σ = 1 costs {mean(whole, 1, times=100)}; no decay at all has {percent(none, 1)}.",
        "no cost below σ = 0.2",
        f"{interval(fifth, 1, times=100)} points at σ = 0.2",
    )
