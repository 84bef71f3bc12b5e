"""Figure 6 (section 6.6) to 10 million steps: PPO on Slippery Ant in MuJoCo, where the paper's arms part."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import SIGMA, VANILLA, arm, decay, look, minus
from experiments.analysis.claims import Claim, Equivalence, Samples, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, there
from experiments.analysis.stats import paired_differences
from experiments.analysis.summaries import Finding
from experiments.analysis.words import mean
from experiments.figures import fig6
from experiments.figures.fig6 import CONTROLS, PANELS, PAPER, STAYS, fifth, moved, shares

TITLE = "PPO on Slippery Ant in MuJoCo, 10 million steps: return, rank of the features and dead units"

RELATIVE, ABSOLUTE = ({"regularizer.unit": unit} for unit in ("relative", "absolute"))
SYRES = {
    "1": ("at σ = 1", arm("syre", RELATIVE, sigma=1)),
    "abs-0.1": ("at the absolute σ = 0.1", arm("syre", ABSOLUTE, sigma=0.1)),
    "0.01": ("at the recommended σ = 0.01", arm("syre", RELATIVE, sigma=0.01)),
}
UNITS = 5.0  # per cent of the units of a layer: a smaller difference of ranks is not worth naming
RETURN = 100.0  # of a return of some thousand


def end(results: Results, metric: str, arm: Arm, which: int = 5) -> pd.Series:
    """The last fifth, or another, one a seed; empty for an arm of which no run is there yet."""
    return fifth(_of(shares(results, metric), arm), metric, which).set_index("seed")[metric]


def _of(table: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The rows of an arm; none where no run sets one of its columns."""
    return there(table if SIGMA in table else table.assign(**{SIGMA: None}), arm)


def beyond(metric: str, treatment: Arm, control: Arm) -> Samples:
    """How much more the treatment has than the control in the last fifth."""
    return lambda results: paired_differences(*(end(results, metric, arm) for arm in (treatment, control)))


@per_seed
def collapsed(results: Results, arm: Arm) -> pd.Series:
    """Half of the best return that a fifth had, minus that of the last."""
    best = pd.concat([end(results, "return", arm, k) for k in range(1, 6)], axis=1).max(axis=1)
    return best / 2 - end(results, "return", arm)


MORE = {
    "rank/99": (f"a rank higher by more than {UNITS:g} % of the units", UNITS),
    "return": (f"a return higher by more than {RETURN:g}", RETURN),
}
PAPERS = {
    ("rank/99", "decay"): "91 % against 65 % at 9M",
    ("rank/99", "vanilla"): "91 % against 52 % at 9M",
    ("return", "decay"): "5200 against 4600 at 10M",
    ("return", "vanilla"): "5200 against 0 at 10.7M",
}


def _gain(key: str, metric: str, against: str) -> Superiority:
    (words, treatment), (who, control), (more, margin) = SYRES[key], CONTROLS[against], MORE[metric]
    text = f"Over the last fifth syre, {words}, has {more} than {who}."
    id, paper = f"{metric.replace('/', '-')}-{against}-{key}", PAPERS[metric, against]
    samples, arms = beyond(metric, treatment, control), (treatment, control)
    return Superiority(id, text, "6.6", samples, margin=margin, paper=paper, arms=arms)


def _stays(key: str) -> Equivalence:
    words, arm = SYRES[key]
    text = f"With syre, {words}, the rank over the last fifth is that over the first, within {STAYS:g} % of the units."
    samples, paper = moved("rank/99", arm, end), "about 91 % throughout"
    return Equivalence(f"rank-stays-{key}", text, "6.6", samples, margin=STAYS, paper=paper, arms=(arm,))


def _falls(key: str, paper: str) -> Superiority:
    who, arm = CONTROLS[key]
    text = f"The rank of {who} falls by more than {STAYS:g} % of the units from the first fifth to the last."
    samples = minus(moved("rank/99", arm, end))
    return Superiority(f"rank-falls-{key}", text, "6.6", samples, margin=STAYS, paper=paper, arms=(arm,))


HALF = "The return of vanilla PPO over the last fifth is less than half of that over its best fifth."
CLAIMS: tuple[Claim, ...] = (
    *(_gain(key, *pair) for key in SYRES for pair in PAPERS),
    *map(_stays, SYRES),
    _falls("decay", "90 % to 65 % at 9M"),
    _falls("vanilla", "92 % to 52 % at 9M"),
    Superiority(
        *("return-collapses-vanilla", HALF, "6.6", collapsed(VANILLA)),
        argued="the half is the smallest effect",
        paper="3050 at 2.3M, 0 at 10.7M",
        arms=(VANILLA,),
    ),
)


def notes(results: Results) -> str:
    say = Numbers(results)
    one, absolute = SYRES["1"][1], SYRES["abs-0.1"][1]

    def over(metric: str) -> Callable[..., str]:
        """A function of an arm, and of a fifth of the training: the mean of the metric over that fifth."""
        return lambda arm, which=5: say.mean(lambda results: end(results, metric, arm, which))

    rank, gets, dead = over("rank/99"), over("return"), over("dead")
    seeds = say.told(lambda results: _counted(min(len(end(results, "return", arm)) for _, arm in DRAWN[:2])))
    return f"""
**What it is for.** Figure 6 at `cpu` scale ends after a million steps, before anything parts; the paper's arms part
between 2 and 16 million. Here a run has 10 million, with a change of friction every 2 million: half of the schedule of
the code that the paper borrows from (Dohare et al.: 20 million), and four changes, the last fifth being the time after
the fourth. The paper has a change every 5 million in 25 million. Everything else is as in figure 6 (its report says
what is known and what is chosen), MuJoCo alone, whose returns the paper's are.

**Arms.** No decay; decay at the paper's γ = 0.002; and syre at the same γ with four scales of the anchor: σ = 1, where
it acts in other figures, in units of 1/sqrt(fan_in); σ = 0.1 as an absolute std (1.6 of that unit in the hidden
layers), since the paper's unit is in doubt; and the recommended 0.01, and 0.1. At the first two the training starts
from the initial draw (`start: keep`): a start shifted by so large an anchor acts with large torques, which MuJoCo makes
cost without limit, and in figure 6 two of three such ants had not recovered after a million steps. Each claim is about
one σ; none is chosen by the results.

**Claims** were committed before the first run. They ask for differences worth naming: 5 % of the units in rank, 100 in
return. Means are over the last fifth of the training, three seeds, paired: a seed has the same frictions in every arm.

**The picture.** Right, at the same axes, is what was read off the paper's figure, within 3 %: points, with straight
lines between them that say nothing of what the curves do there. Its friction changes every 5 million steps, ours every
2 million. It shows no dead units. Returns below 0, or below the worst after a tenth of the training, are cut off.

**So far.** Runs are collected as they end, seed by seed; with fewer than three seeds of an arm nothing is tested.
These are means over the seeds that there are ({seeds} of vanilla and of decay). Vanilla's rank is {rank(VANILLA, 1)}
% of the units over the first fifth and {rank(VANILLA)} % over the last, with {dead(VANILLA)} % of them dead; its
return is {gets(VANILLA, 4)} over the fourth fifth and {gets(VANILLA)} over the last. Decay's rank goes from
{rank(decay(), 1)} to {rank(decay())} %, with {dead(decay())} % dead, at a return of {gets(decay(), 4)}, then
{gets(decay())}. With syre at σ = 1 it goes from {rank(one, 1)} to {rank(one)} %, with {dead(one)} % dead, at a return
of {gets(one, 4)}, then {gets(one)}; at the absolute σ = 0.1 from {rank(absolute, 1)} to {rank(absolute)} %, with
{dead(absolute)} % dead, at {gets(absolute, 4)}, then {gets(absolute)}. In the
paper's figure, at 9 to 11 million steps, the ranks are 91, 65 and 52 %, and the returns 5,200, 4,600 and 0, with syre,
decay and neither.

**Costs.** The recorded seconds count pauses and a core that was shared: alone it takes 1,400 steps a second.
Vanilla's status was first "nan", for PPO's approximate KL overflows in the last record; it is that of its losses,
which are finite, by the rule that all runs are judged by since.
"""


DRAWN = (
    (look("vanilla"), VANILLA),
    (look("weight_decay"), decay()),
    *((look("syre", sigma), arm("syre", RELATIVE, sigma=sigma)) for sigma in (0.01, 0.1, 1)),
    (look("syre", 0.1, unit="absolute"), SYRES["abs-0.1"][1]),
)


def draw(results: Results) -> Figure:
    """A row a metric: ours, and the paper's curves at the same axes; the legend where the paper has no curves."""
    figure, axes = plotting.panels(2, len(PANELS), height=2.3, sharex=True, sharey="row")
    pairs = axes.reshape(len(PANELS), 2)
    for (ours, its), (metric, label) in zip(pairs, PANELS.items(), strict=True):
        table = shares(results, metric)
        for own, settings in DRAWN:
            if len(rows := _of(table, settings)):
                plotting.seed_lines(ours, rows, "million", metric, own)
        steps = table["step"].max()
        fig6.mark_changes(ours, table[fig6.EVERY].max(), steps)
        if metric in PAPER:
            fig6.papers(its, metric, steps)
        late = table[table["step"] > steps / 10][metric].min()  # an untrained ant would take half of the panel
        fig6.limits(ours, metric, max(fig6.FLOOR, min(late, 0)))
        ours.set(ylabel=label, xlim=(0, 1.03 * steps / fig6.MILLION))
    for ax, title in zip(pairs[0], ("ours", fig6.READ_OFF), strict=True):
        ax.set_title(title)
    for ax in pairs[1:].flat:
        ax.set_xlabel("million steps")
        ax.tick_params(labelbottom=True)  # also above the legend, and left of it
    return plotting.with_legend(figure, pairs[-1, -1], **fig6.IN_LINES)


def _counted(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def finding(results: Results) -> Finding:
    """Ranks and returns over the last fifth, of as many seeds as there are so far."""
    named = {"with no decay": VANILLA, "with decay alone": decay()}
    named |= {"with syre at σ = 0.01": SYRES["0.01"][1], "at σ = 1": SYRES["1"][1]}
    ranks, returns = ({who: end(results, m, arm) for who, arm in named.items()} for m in ("rank/99", "return"))
    seeds = _counted(min(map(len, ranks.values())))
    said = ", ".join(f"{mean(ranks[who])} % {who} (return {mean(returns[who])})" for who in named)
    steps = mean(results.metrics["step"].max() / fig6.MILLION)
    return Finding(
        f"Over the last fifth of {steps} million steps in MuJoCo the features' rank, of the units, is {said}; "
        f"{seeds} of each so far.",
        "rank 91, 65 and 52 % with syre, decay and neither, at 9M steps",
        "{} at σ = 1, {} at 0.01, {} and {} %".format(*(mean(ranks[who]) for who in reversed(named))),
    )
