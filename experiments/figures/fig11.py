"""Figure 11 (section 6.6): accuracy and rank over ten tasks, MNIST and nine permutations of its pixels."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import arms, plotting
from experiments.analysis.arms import (
    BY,
    GAMMA,
    NAME,
    POINT,
    SIGMA,
    VANILLA,
    arm,
    beats,
    decay,
    final,
    gain,
    minus,
    syre,
    width,
)
from experiments.analysis.claims import Claim, Equivalence, Monotone, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import at_best, cross_fitted_best, monotonicity, paired_differences
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean, percent, span, word

TITLE = "plasticity over ten pixel-permuted MNIST tasks: accuracy and rank"

PERTURB, SHRINK, RATE = "regularizer.perturb", "regularizer.shrink", "regularizer.rate"
SETTINGS = [GAMMA, SIGMA, RATE, SHRINK, PERTURB]  # of the methods, of each of which seven are tried
STRONG, MILD = 0.15, 0.05
WIDTH = 128
SIMILAR = 0.02  # "remains similar": within two points of accuracy; a drop is more than that
LAST = {BY: "accuracy"}  # an open sigma is the one with the best accuracy at the last task, whatever is judged

DECAY, SYRE = decay(gamma=STRONG), syre(gamma=STRONG)
SYRES = (  # how ids end, and what claims say
    ("", "syre at its best σ", SYRE),
    ("-0.01", "syre at the recommended σ = 0.01", syre(gamma=STRONG, sigma=0.01)),
)
KEEP = ("-keep", "syre at σ = 1, from the start of weight decay alone,", syre(gamma=STRONG, sigma=1, start="keep"))


def by_task(results: Results, metric: str, arm: Arm) -> pd.DataFrame:
    """One row a run and task: the metric on the test set of the task just trained, at its end."""
    rows = results.curve(metric)
    task = rows["step"] * rows["data.tasks"] / rows["step"].max()
    return select(rows.assign(task=task.round().astype(int)).query("task > 0"), **arm)


@per_seed
def change(results: Results, metric: str, arm: Arm, since: int) -> pd.Series:
    """The metric at the last task minus that at task `since`, one a seed; an open sigma by last-task accuracy."""
    rows = by_task(results, metric, arm)
    table = rows[rows["task"] == rows["task"].max()].set_index("id").copy()
    table[metric] -= rows[rows["task"] == since].set_index("id")[metric]
    if table[SIGMA].nunique() > 1:
        best = cross_fitted_best(results.final("accuracy", **arm), metric="accuracy", over=SIGMA)[SIGMA]
        table = table[table[SIGMA] == table["seed"].map(best)]
    return table.set_index("seed")[metric]


@per_seed
def _trend(results: Results, gamma: float) -> pd.Series:
    return -monotonicity(by_task(results, "rank", decay(gamma=gamma)), "task", "rank")


def _drops(since: int, words: str, source: str, paper: str = "") -> Superiority:
    text = f"Weight decay alone (γ = 0.15) is more than two points less accurate on the last task than on {words}."
    fall = minus(change("accuracy", DECAY, since))
    return Superiority(f"accuracy-drops-{since}", text, source, fall, margin=SIMILAR, paper=paper)


def _stays(id: str, metric: str, since: int, words: str, source: str, margin: float) -> Iterator[Equivalence]:
    for key, who, treatment in SYRES:
        text = f"At γ = 0.15 {who} has on the last task the {metric} that it has on the {words}."
        yield Equivalence(id + key, text, source, change(metric, treatment, since), margin=margin)


def _beats_decay(id: str, metric: str, words: str, margin: float, *further: tuple[str, str, Arm]) -> Iterator[Claim]:
    for key, who, treatment in (*SYRES, *further):
        text = f"At γ = 0.15 {who} {words} on the last task than weight decay alone, by more than {_NAMED[margin]}."
        yield beats(id + key, text, "6.6", metric, {**treatment, **LAST}, DECAY, margin)


UNITS = width(WIDTH)
_NAMED = {POINT: "a point", UNITS: "5 % of the width"}


@per_seed
def _gain(results: Results, treatment: Arm, control: Arm) -> pd.Series:
    """Of the accuracy on the last task, each method at the settings that are best on the other seeds."""
    return paired_differences(*(_tuned(results, arm) for arm in (treatment, control)))


def _tuned(results: Results, arm: Arm) -> pd.Series:
    rows = results.final("accuracy", **arm)
    settings = rows.groupby([column for column in SETTINGS if column in rows], dropna=False).ngroup()
    return at_best(rows.assign(settings=settings), "accuracy", "settings")


STRENGTHS = ("weight_decay", "l2_init")  # of decay are what these are tuned over
RIVALS = {  # with as many settings as syre has sigma at its decay
    "weight_decay": "weight decay alone (its strength)",
    "l2_init": "L2 Init (its strength)",
    "dropout": "dropout (its rate)",
    "shrink_perturb": "shrink & perturb (both its numbers)",
}


def _equal(name: str, sigma: float | None = None) -> Superiority:
    """syre against one of the rivals at equal budgets."""
    who = f"syre at σ = {sigma}" if sigma else "syre (σ as the best of seven)"
    text = f"On the tenth task {who} is more accurate than {RIVALS[name]} as the best of seven"
    key = f"budget-{name}" + (f"-{sigma}" if sigma else "")
    more = _gain(syre(gamma=STRONG, sigma=sigma), _rival(name))
    return Superiority(key, f"{text}, by more than a point.", "ours", more, margin=POINT)


def _rival(name: str) -> Arm:
    return arm(name, gamma=None if name in STRENGTHS else STRONG)


def _mildly(metric: str, words: str, margin: float) -> Superiority:
    text = f"At γ = 0.05 syre at its best σ {words} on the last task than weight decay alone, by more than"
    pair = syre(LAST, gamma=MILD), decay(gamma=MILD)
    return beats(f"{metric}-decay-mild", f"{text} {_NAMED[margin]}.", "ours", metric, *pair, margin)


UNDECAYED = "On the tenth task syre (σ as the best of seven) is more accurate than no decay, by more than a point."
UNDECAYED_001 = "On the last task syre at σ = 0.01 (γ = 0.15) is more accurate than no decay, by more than a point."
PERTURBED = (
    "On the last task syre at its best σ (γ = 0.15) is more accurate than shrink & perturb (0.4, 0.1) without decay, "
    "by more than a point."
)
FALLS = "Weight decay alone (γ = {}) loses rank from task to task."
MORE, HIGHER, EFFECTIVE = "is more accurate", "has a higher rank", "has a higher effective rank"
CLAIMS: tuple[Claim, ...] = (
    Monotone("rank-falls", FALLS.format(STRONG), "6.6", _trend(STRONG)),
    Monotone("rank-falls-mild", FALLS.format(MILD), "ours", _trend(MILD)),
    _drops(1, "the first", "6.6", "breaks down after about task 6"),
    _drops(2, "the second, the first permuted one", "ours"),
    *_stays("accuracy-stays-1", "accuracy", 1, "first, within two points", "6.6", SIMILAR),
    *_stays("accuracy-stays-2", "accuracy", 2, "second (permuted, like the last), within two points", "ours", SIMILAR),
    *_stays("rank-stays", "rank", 1, "first, within 10 % of the width", "6.6", 0.1 * WIDTH),
    *_beats_decay("accuracy-decay", "accuracy", MORE, POINT, KEEP),
    *_beats_decay("rank-decay", "rank", HIGHER, UNITS),
    *_beats_decay("rank-effective-decay", "rank/effective", EFFECTIVE, UNITS, KEEP),
    _mildly("accuracy", MORE, POINT),
    _mildly("rank", HIGHER, UNITS),
    beats("accuracy-no-decay", PERTURBED, "ours", "accuracy", SYRE, arm("shrink_perturb", gamma=0), POINT),
    *(_equal(name, sigma) for sigma in (None, 0.01) for name in RIVALS),
    beats("no-decay", UNDECAYED, "ours", "accuracy", SYRE, VANILLA, POINT),
    beats("no-decay-0.01", UNDECAYED_001, "ours", "accuracy", syre(gamma=STRONG, sigma=0.01), VANILLA, POINT),
)

_START = "left out: accuracy-decay-keep and rank-effective-decay-keep say what the start does"
RETIRED = {
    "accuracy-stays-1-keep": _START,
    "accuracy-stays-2-keep": _START,
    "rank-stays-keep": _START,
    "rank-decay-keep": _START,
    "accuracy-vanilla": "repeats no-decay, which has a smallest effect",
    "accuracy-l2-init": "now budget-l2_init, against the best of seven strengths",
    "accuracy-dropout": "now budget-dropout, against the best of seven rates",
    "accuracy-shrink-perturb": "now budget-shrink_perturb, against the best of seven settings",
    "accuracy-restart": "one of the settings of budget-shrink_perturb",
}


def notes(results: Results) -> str:
    say = Numbers(results)
    rank, accuracy = say.final("rank"), say.final("accuracy", 2)

    def on(task: int) -> str:
        rows = by_task(results, "accuracy", DECAY)
        return say.mean(lambda _: rows[rows["task"] == task].set_index("seed")["accuracy"], 2)

    def at(gamma: float = STRONG, **settings: Any) -> str:
        return accuracy(syre(gamma=gamma, **settings))

    def best(name: str) -> str:
        return say.mean(lambda results: _tuned(results, _rival(name)), 2)

    def worse(name: str) -> str:
        return say.mean(_gain(SYRE, _rival(name)), times=100)

    def better(name: str) -> str:
        return say.interval(minus(_gain(SYRE, _rival(name))), 1, times=100)

    mild = say.mean(gain("accuracy", syre(gamma=MILD, sigma=1), decay(gamma=MILD)), times=100)
    lose = say.count(change("accuracy", VANILLA, BREAKS), below=-SIMILAR)
    ends = say.told(lambda results: span(results.by_seed("accuracy", VANILLA), 2))
    return f"""
**What it shows.** The picture of the paper: under strong decay (γ = 0.15) the rank of decay alone falls to
{rank(DECAY)} of 128 and its accuracy to {accuracy(DECAY)}, while syre at σ = 1 keeps
{rank(syre(gamma=STRONG, sigma=1))} and {at(sigma=1)}, from the same start too ({at(sigma=1, start="keep")}). L2 init
does nearly as well ({accuracy(arm("l2_init", gamma=STRONG))}), the others do not. Decay alone breaks down within the
first tasks here, not after task 6: it has {on(1)} on the first, then {on(2)}, {on(3)}, {on(4)} and, on the fifth,
{on(5)}. What breaks down after task 6 is training without any decay: {lose} seeds lose more than two points,
{say.count(final("accuracy", VANILLA), below=0.15)} end at chance. σ = 0.01 collapses with decay alone, σ = 0.1 keeps
the numerical rank ({rank(syre(gamma=STRONG, sigma=0.1))}) but neither the effective one nor the accuracy
({at(sigma=0.1)}); σ = 3 and 10 learn little at all. Under mild decay (γ = 0.05) nothing breaks, and σ = 1 is {mild}
points better than decay alone.

**Reading it.** Task 1 is MNIST itself, where convolutions help; on the others, whose pixels have no neighbours any
more, a CNN of this size has less accuracy whatever its regularizer. So "the accuracy falls" and "it stays" are asked
since task 1, as in the paper, and since task 2, the first of the nine that are alike. Every number is of the task just
trained, at its end, on its own test set: plasticity, not memory.

**How it is judged.** "Its best σ" is, for each seed, the one of seven with the best mean accuracy at the last task on
the other seeds, and the same for every metric: σ = {say.best("accuracy", SYRE)} at γ = 0.15,
and {say.best("accuracy", syre(gamma=MILD))} at 0.05. The smallest effects worth naming (a point of accuracy, 5 % of the
width) were set after the results were known, but for the claims of equal budgets and of no decay at the best σ
(`budget-*`, `no-decay`), which were committed before the runs of the budgets. No decay ends its seeds at so different
accuracies ({ends}) that {say.mean(gain("accuracy", SYRE, VANILLA), times=100)} points in favour of syre are not
significant.

**At equal budgets** (n = 5; seven settings of each, the best chosen on the other seeds; accuracy on task 10). syre's
seven σ at γ = 0.15 have {say.mean(lambda results: _tuned(results, SYRE), 2)} at the best. L2 Init, over its strength,
has {best("l2_init")}, and is better by {better("l2_init")} points; weight decay alone, over γ, has
{best("weight_decay")}, a difference of {better("weight_decay")} points that is open; dropout ({best("dropout")}) and
shrink & perturb ({best("shrink_perturb")}) are worse by {worse("dropout")} and {worse("shrink_perturb")}. So the
paper's comparison at one γ, at which decay alone breaks down, holds, and its advantage over decay goes once decay may
choose its γ. With the milder γ = 0.05, which is outside that budget, syre at σ = 1 has {at(MILD, sigma=1)}, the most in
the table, and decay alone there {accuracy(decay(gamma=MILD))}.

**The unit, and what decays** (n = 5; task 10, γ = 0.15; decay alone {accuracy(DECAY)}). Absolute σ = 0.01 has
{at(sigma=0.01, unit="absolute")}, 0.1 {at(sigma=0.1, unit="absolute")}, where relative 1 has {at(sigma=1)}, and 1 is at
chance: with fan-ins of 25 to 512 absolute 0.1 is relative 0.5 to 2.3. With the weight matrices alone decaying it is the
same: {at(sigma=1, scope="matrices")} (relative 1), {at(sigma=0.1, unit="absolute", scope="matrices")} (absolute 0.1),
decay alone {accuracy(decay(gamma=STRONG, scope="matrices"))}.

**Unknown, and chosen.** Two convolutions and two fully connected layers, MNIST with nine pixel permutations, SGD with
weight decay and "breaks down after about task 6" are known. The paper's text has lost its widths, learning rate and
decay; not printed are epochs, batch size and σ. Pilot seeds 100 and 101, one run an arm, chose:
- 16 and 32 channels, 5 × 5 without padding, 128 hidden units (32 and 64 channels at `paper` scale); 10,000 training
  images a task for one epoch of batches of 64, 2,000 test images (all of them at `paper` scale).
- Learning rate 0.01 with momentum 0.9. Without momentum an epoch leaves the network half trained (accuracy 0.80 on
  task 1, about 0.5 on the others, at γ = 0.03 to 0.07), and no rank moves.
- γ = 0.15, at which decay alone breaks down as in the paper: rank 106, 85, 77, 64, 56, 34, 14, 8, 4, 2 over the tasks
  (seed 100). At γ = 0.03, 0.05 and 0.1 its rank falls, to 85, 76 and 68, with no loss of accuracy after task 2; at
  γ = 0.2 it is at chance from task 2 on. So it takes strong decay for the accuracy to break down; γ = 0.05 is shown
  beside it. That *some* γ breaks decay alone was thus chosen, what syre and the others do there was not.
- Permutations and images are drawn from the run's seed, the same for every arm; the permutations are independent, not
  composed; the momentum is kept from task to task.

**Arms.** All have the decay of their panel but vanilla and "shrink & perturb, no decay", which are in both. Shrink &
perturb: w ← 0.4 w + 0.1 ε between tasks (Ash & Adams), or 0.4 w + ε, nearly a fresh start; ε has std 1/√fan_in.
Dropout 0.1 after every activation. γ is torch's `weight_decay`.
"""


RESTART = replace(arms.look("shrink_perturb"), label="shrink & perturb, 0.4, 1", marker="h", color="#999933")
NO_DECAY = replace(RESTART, label="shrink & perturb, no decay", marker="d", color="#1B9E9E")
METRICS = {"accuracy": "test accuracy", "rank": f"rank (of {WIDTH}), numerical", "rank/effective": "effective rank"}
THE_PAPER = "decay alone breaks down after it, the paper says"
BREAKS = 6  # the task after which decay alone breaks down, as the paper says


def draw(results: Results) -> Figure:
    results = arms.usual(results)
    figure, axes = plotting.panels(len(METRICS), 2, width=3.1, height=2.5)
    for k, (metric, label) in enumerate(METRICS.items()):
        table = by_task(results, metric, {})
        table = table[~table[SIGMA].isin([0.001, 0.3, 3, 10])]  # these only in the map over sigma
        table = table[(table[NAME] != "l2_init") | (table[GAMMA] == STRONG)]
        table = select(table, **{RATE: [0.1, None], SHRINK: [0.4, None], PERTURB: [0.1, 1, None]})  # not the budgets'
        for row, gamma in enumerate((STRONG, MILD)):
            ax, rows = axes[row * len(METRICS) + k], table[table[GAMMA].fillna(0).isin([gamma, 0])]
            within = (0, 1 if metric == "accuracy" else WIDTH)
            none = rows[NAME] == "vanilla"
            plotting.seed_lines(ax, rows[none], "task", metric, arms.look("vanilla"))  # some seeds break down
            rows = rows[~none]
            further = {RESTART: rows[PERTURB] == 1, NO_DECAY: rows[GAMMA] == 0}
            arms.curves(ax, arms.with_same_start(rows, further), "task", metric, within=within)
            if metric == "accuracy":
                ax.axvline(BREAKS, color=arms.look("weight_decay").color, lw=0.8, ls="--", label=THE_PAPER)
            ax.set(xticks=sorted(table["task"].unique()), xlabel="task" if row else "", title=f"γ = {gamma}: {label}")
            ax.set_ylim(0, 1 if metric == "accuracy" else None)
    return plotting.with_legend(figure, loc="outside lower center", ncols=5, caption="of vanilla each seed, thin")


def finding(results: Results) -> Finding:
    """The tenth task: at one decay, and with every method at the best of seven settings."""
    alone, kept, faint, none = (
        final("accuracy", arm)(results) for arm in (DECAY, *(syre(gamma=STRONG, sigma=s) for s in (1, 0.01)), VANILLA)
    )
    leads = {name: _gain(SYRE, arm(name))(results) for name in STRENGTHS}
    said = ", ".join(
        f"{RIVALS[name].split(' (')[0]} is {word(-lead, ('worse', 'not clearly better', 'better'))} "
        f"({mean(-lead, 1, times=100, signed=True)} points)"
        for name, lead in leads.items()
    )
    return Finding(
        f"On the tenth task (γ = {STRONG}) decay alone has {percent(alone)} accuracy, syre {percent(kept)} (at σ = "
        f"0.01 {percent(faint)}), no decay {percent(none)}. Each at its best of seven settings, {said} than syre.",
        "decay alone breaks down after about task 6, syre stays",
        f"{interval(kept, times=100)} % against {interval(alone, times=100)} %",
    )
