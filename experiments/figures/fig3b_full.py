"""Figure 3, middle (section 6.1), at 90 % accuracy: what the static bias costs, ResNet18 on CIFAR-10."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import SIGMA, VANILLA, beats, costs, decay, difference, final, look, syre
from experiments.analysis.claims import Claim, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Results, select
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, less, mean, percent, span
from experiments.figures.fig3b import SEEDS, ZERO, negligible

TITLE = "what the bias costs at 90 % accuracy: ResNet18 on CIFAR-10 over sigma"

NONE = 0.005  # of accuracy: the most that is no cost, half a point

FREE = "σ = {:g} costs less than half a point of accuracy against weight decay alone."
DROPS = "σ = 1 costs more than half a point of accuracy against weight decay alone."
LEVEL = "Weight decay alone reaches 90 % accuracy."
NO_DECAY = "syre at the recommended σ = 0.01 is more accurate than no decay, by more than half a point."
CLAIMS: tuple[Claim, ...] = (
    *(
        costs(f"free-{s:g}", FREE.format(s), "6.1", "accuracy", syre(sigma=s), decay(), NONE, paper="none below 0.2")
        for s in (0.01, 0.1, 0.2)
    ),
    beats("drops", DROPS, "6.1", "accuracy", decay(), syre(sigma=1), NONE, paper="flat, then drops"),
    Superiority("level", LEVEL, "ours", final("accuracy", decay(), less=0.9), argued="a level, not a difference"),
    beats("no-decay", NO_DECAY, "ours", "accuracy", syre(sigma=0.01), VANILLA, NONE),
)


def notes(results: Results) -> str:
    say = Numbers(results)
    percents = say.final("accuracy", 1, times=100)
    flat = [percents(syre(sigma=sigma)) for sigma in (0.01, 0.1, 0.2, 0.5)]

    def costs_of(sigma: float, digits: int) -> str:
        return say.mean(difference("accuracy", decay(), syre(sigma=sigma)), digits, times=100)

    worth = say.span((difference("accuracy", arm, VANILLA) for arm in (decay(), syre(sigma=0.01))), 1, times=100)
    return f"""
**The setting.** fig3b is too short for the paper's sentence (negligible below σ = 0.2): it ends far below this
accuracy, and two seeds differ by more than half a point. Here torchvision's ResNet18 with 32 channels and the stem for
small images, all 50,000 images, cropped and flipped, SGD with Nesterov momentum 0.9, a rate that rises to 0.1 over a
fifth of 20 epochs and falls linearly to 0, γ = 5e-4, batches of 128. Three seeds; σ relative, `start="shift"`. The
learning rate times γ times steps, with momentum, is 2: the decay acts.

**What came of it** (three seeds). Flat up to σ = 0.5, then a drop, as the paper says: {percents(decay())} % without a
bias, {", ".join(flat[:3])} and {flat[3]} % for σ from 0.01 to 0.5, {percents(syre(sigma=1))} % for σ = 1. At σ = 0.2 a
cost of half a point is excluded; at 0.01 and 0.1 the means differ by {costs_of(0.01, 2)} and {costs_of(0.1, 1)} points,
and three seeds do not exclude it, as they do not prove the drop of {costs_of(1, 1)} at σ = 1. No decay has
{percents(VANILLA)} %: decay, with syre or alone, is worth {worth} points.

**Settled before any run**: the schedule is the literature's for short trainings; the epochs were raised until decay
alone reached 90 % on a pilot with seed 100, which is in no table: 12 epochs 89.7 %, 20 epochs 91.6 %. Nothing else was
tried for it but, beside the 20 epochs, a rate of 0.2 (92.1 %) and 64 channels (92.6 % in 16 epochs), which are not
used.
"""


def draw(results: Results) -> Figure:
    figure, (ax,) = plotting.panels(1, width=4.2, height=3.0)
    panel(ax, results)
    return plotting.with_legend(figure, loc="outside lower center", ncols=2, caption=SEEDS)


def panel(ax: Axes, results: Results) -> None:
    """The accuracy over sigma, as the paper has it; sigma = 0 is decay alone."""
    table = results.final("accuracy")
    zero = select(table, **decay()).assign(**{SIGMA: ZERO})
    for name, rows in (("weight_decay", zero), ("syre", select(table, **syre()))):
        plotting.line_with_band(ax, rows, SIGMA, "accuracy", look(name))
    plotting.level(ax, select(table, **VANILLA)["accuracy"].mean(), look("vanilla"), "γ, no σ")
    ax.set(xlabel="σ (0: decay alone)", ylabel="test accuracy")
    plotting.zero_apart(ax, ZERO, (0.01, 0.1, 1))
    negligible(ax)


def finding(results: Results) -> Finding:
    """What sigma costs, beside what no decay at all has."""
    alone, none = (final("accuracy", arm)(results) for arm in (decay(), VANILLA))
    costly = {s: less(alone, final("accuracy", syre(sigma=s))(results)) for s in (0.01, 0.1, 0.2, 0.5, 1)}
    small = [costly[s].mean() for s in (0.01, 0.1, 0.2, 0.5)]
    return Finding(
        f"Decay alone has {percent(alone, 1)}; against it σ from 0.01 to 0.5 costs {span(small, 1, times=100)} "
        f"points of accuracy, and σ = 1 costs {mean(costly[1], 1, times=100)}. No decay at all has "
        f"{percent(none, 1)}.",
        "no cost below σ = 0.2",
        f"{interval(costly[0.2], 1, times=100)} points at σ = 0.2",
    )
