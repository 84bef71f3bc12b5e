"""Figure 6 (section 6.6): PPO on Slippery Ant, return and rank of the policy's features, in MuJoCo and in PyBullet."""

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import SIGMA, VANILLA, arm, by_arm, decay, look, minus
from experiments.analysis.claims import Claim, Equivalence, Samples, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.summaries import Finding
from experiments.analysis.words import interval, mean, span

TITLE = "PPO on Slippery Ant: return, rank of the features and dead units while the friction changes"

BACKEND, EVERY, BETAS = "data.backend", "data.change_every", "optim.betas"
BACKENDS = {"mujoco": "MuJoCo", "pybullet": "PyBullet"}
MAIN = {"cpu": 93_000, "paper": 5_000_000}  # the schedule that is judged: steps between two changes of friction

CONTROLS = {"decay": ("plain weight decay", decay()), "vanilla": ("vanilla PPO", VANILLA)}
SYRES = {
    "-0.01": ("syre at the recommended σ = 0.01", arm("syre", sigma=0.01)),
    "-1": ("syre at σ = 1", arm("syre", sigma=1)),
}
SHARES = ("rank/99", "rank/effective", "dead")  # counts of units, shown in per cent of the layer
STAYS = 10.0  # per cent of the units: a rank that moves by less stays
UNITS, RETURN = 5.0, 100.0  # the smallest differences worth naming: per cent of the units; of a return of some hundreds
MILLION = 1e6
FLOOR = -3000  # where the panels of returns are cut: an untrained ant on MuJoCo pays for its torques without limit


def shares(results: Results, metric: str) -> pd.DataFrame:
    """One row a record of a run, with its million steps; a count of units becomes per cent of the layer's width."""
    rows = results.curve(metric).assign(million=lambda row: row["step"] / MILLION)
    width = rows["model.hidden"].map({cell: json.loads(cell)[-1] for cell in rows["model.hidden"].unique()})
    return rows.assign(**{metric: 100 * rows[metric] / width}) if metric in SHARES else rows


def fifth(rows: pd.DataFrame, metric: str, which: int = 5) -> pd.DataFrame:
    """Mean of a metric over the records of one fifth of the training, of each seed and sigma; NaN for a failed run."""
    share = rows["step"] / rows["step"].max()
    rows = rows[(share > (which - 1) / 5) & (share <= which / 5)]
    values = rows[metric].where(rows["status"] == "done")
    return values.groupby([rows["seed"], rows[SIGMA].fillna(0)]).mean().reset_index()


def end(results: Results, metric: str, arm: Arm, which: int = 5) -> pd.Series:
    """The last fifth, or another, one a seed."""
    return fifth(select(_judged(shares(results, metric)), **arm), metric, which).set_index("seed")[metric]


def _usual(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with Adam's usual betas."""
    usual = [cell for cell in rows[BETAS].unique() if json.loads(cell) == [0.9, 0.999]]
    return rows[rows[BETAS].isin(usual)]


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main schedule, with Adam's usual betas."""
    return _usual(rows[rows[EVERY] == rows["scale"].map(MAIN).fillna(rows[EVERY])])


def beyond(metric: str, treatment: Arm, control: Arm) -> Samples:
    """How much more the treatment has than the control at the end; of dead units, how many fewer."""
    sign = -1 if metric == "dead" else 1
    return lambda results: sign * (end(results, metric, treatment) - end(results, metric, control))


def moved(metric: str, arm: Arm, end: Callable[..., pd.Series] = end) -> Samples:
    """The metric at the end minus that at the beginning; `end` gives the means of a fifth."""
    return lambda results: end(results, metric, arm) - end(results, metric, arm, 1)


# metric, its name, control, source, the paper's value, and the smallest scale that can decide
GAINS = (
    ("rank/99", "a higher rank", "decay", "6.6", "91 % against 67 to 75 % at 25M", "smoke"),
    ("rank/99", "a higher rank", "vanilla", "6.6", "91 % against < 25 % at 16M", "smoke"),
    ("rank/effective", "a higher effective rank", "decay", "ours", "", "smoke"),
    ("dead", "fewer dead units", "vanilla", "ours", "", "smoke"),
    ("return", "a higher return", "decay", "6.6", "3950 against 3150 at 25M", "paper"),
    ("return", "a higher return", "vanilla", "6.6", "3950 against 0 at 25M", "paper"),
)


def _gain(backend: str, key: str, metric: str, words: str, name: str, source: str, paper: str, scale: str) -> Claim:
    (against, control), (who, treatment), at = CONTROLS[name], SYRES[key], {BACKEND: backend}
    margin, more = (RETURN, "100") if metric == "return" else (UNITS, "5 % of the units")
    text = f"{BACKENDS[backend]}: at the end of training {who} has {words} than {against}, by more than {more}."
    samples = beyond(metric, treatment | at, control | at)
    id = f"{backend}-{metric.replace('/', '-')}-{name}{key}"
    return Superiority(id, text, source, samples, margin=margin, paper=paper, scale=scale)


def _stays(backend: str, key: str) -> Claim:
    who, arm = SYRES[key]
    where = f"{BACKENDS[backend]}: at the end of training {who} has the rank that it has at the beginning"
    text = f"{where}, within {STAYS:g} % of the units."
    samples, paper = moved("rank/99", arm | {BACKEND: backend}), "about 91 % throughout"
    return Equivalence(f"{backend}-rank-stays{key}", text, "6.6", samples, margin=STAYS, paper=paper)


def _falls(backend: str, name: str, paper: str) -> Claim:
    """The paper's ranks fall between 2 and 16 million steps: a shorter run cannot decide."""
    who, arm = CONTROLS[name]
    text = f"{BACKENDS[backend]}: the rank of {who} falls by more than {STAYS:g} % of the units."
    fallen = minus(moved("rank/99", arm | {BACKEND: backend}))
    return Superiority(f"{backend}-rank-falls-{name}", text, "6.6", fallen, margin=STAYS, paper=paper, scale="paper")


def _claims(backend: str) -> tuple[Claim, ...]:
    return (
        *(_gain(backend, key, *gain) for gain in GAINS for key in SYRES),
        *(_stays(backend, key) for key in SYRES),
        _falls(backend, "decay", "90 % to 65 % at 9M"),
        _falls(backend, "vanilla", "92 % to < 25 % at 16M"),
    )


CLAIMS: tuple[Claim, ...] = (*_claims("mujoco"), *_claims("pybullet"))

_OPEN = "repeats {0}-0.01 or {0}-1: the better of two σ on the other seeds, for each metric by itself"
_DEAD = "left out: hardly a unit dies with decay, with syre or without it, but in PyBullet, where the seeds differ"
RETIRED = {
    **{
        id: _OPEN.format(id)
        for backend in BACKENDS
        for id in (
            *(f"{backend}-{metric.replace('/', '-')}-{name}" for metric, _, name, *_ in GAINS),
            f"{backend}-rank-stays",
        )
    },
    **{f"{backend}-dead-decay{key}": _DEAD for backend in BACKENDS for key in ("", *SYRES)},
}

# Read off the paper's figure by eye, within 3 %: million steps -> return, and rank in per cent.
PAPER: dict[str, dict[str, dict[float, float]]] = {
    "return": {
        "vanilla": {2.3: 3050, 10.7: 0, 25: 0},
        "weight_decay": {5: 2900, 10: 4600, 14: 3000, 20: 4500, 25: 3150},
        "syre": {5: 4050, 10: 5200, 14: 4000, 20: 5400, 25: 3950},
    },
    "rank/99": {
        "vanilla": {0.7: 92, 5: 72, 9: 52, 16: 25},
        "weight_decay": {0.1: 90, 2: 76, 9: 65, 25: 71},
        "syre": {0.1: 91, 25: 91},
    },
}


def notes(results: Results) -> str:
    say = Numbers(results)
    alone, one, faint, none = decay(), SYRES["-1"][1], SYRES["-0.01"][1], VANILLA

    def ends(backend: str, metric: str, digits: int = 0) -> Callable[..., str]:
        """A function of an arm: the mean of a metric over the last fifth of the training, or over another."""

        def of(arm: Arm, which: int = 5) -> str:
            return say.mean(lambda results: end(results, metric, {**arm, BACKEND: backend}, which), digits)

        return of

    metrics = ("rank/99", "rank/effective", "dead", "return")
    rank, effective, dead, gets = (ends("pybullet", metric) for metric in metrics)
    calm, full, lost, paid = (ends("mujoco", metric) for metric in metrics)

    def mujoco(metric: str, arm: Arm) -> Samples:
        return lambda results: end(results, metric, {**arm, BACKEND: "mujoco"})

    decayed = say.span(mujoco("rank/99", arm) for arm in (alone, faint, one))
    live = say.span(mujoco("return", arm) for arm in (alone, faint))
    short = say.count(mujoco("length", one), below=100)
    return f"""
**What it shows.** In PyBullet the paper's picture in small, at σ = 1: after a million steps decay alone has lost rank
({rank(alone)} % of the units, from {rank(alone, 1)} % at the beginning; effective rank {effective(alone)} %) while syre
has gained it ({rank(one)} %, from {rank(one, 1)} %; {effective(one)} %). But so has PPO without any decay ({rank(none)}
%, {effective(none)} %), which has the highest return of all ({gets(none)}; syre {gets(one)}, decay alone
{gets(alone)}): at this length it is the decay that costs rank and return, and syre that gives some of it back, too
little of the return for three seeds to tell. σ = 0.01 does not, its rank ({rank(faint)} %) is a little below that of
decay alone; it has the fewest dead units ({dead(faint)} % against {dead(alone)} % on average, with seeds that differ).
In MuJoCo nothing collapses yet: every arm with decay has {decayed} % of its units in rank, as the paper's arms have at
that time (so "the rank stays" says little there), but PPO without decay begins to lose them ({calm(none)} %, and
{lost(none)} % of dead units against {ends("mujoco", "dead", 1)(alone)} %); the effective rank is higher at σ = 1 than
with decay alone ({full(one)} % against {full(alone)} %). σ = 1 is a bad start there: the larger weights act with larger
torques, which cost (return {paid(one, 1)} over the first fifth, against {paid(alone, 1)}; the panel is cut at −3,000),
and after a million steps {short} ants still end their episodes within 100 steps, where the others have learnt to
live (return {live} with decay or σ = 0.01, {paid(none)} without decay). Which arm is the better one at 25 million steps
this cannot say.

**How far it goes.** A run of the paper has 25 million steps and a change of friction every 5 million; a run of `cpu`
scale has 1.024 million and a change every 93,000, ten in all. The paper's curves part between 2 and 16 million steps,
so what is said of returns and of ranks that fall is `not tested at this scale`, and the paper's curves, which have
hardly begun by then, are beside ours in figure 6b (results/fig6b), at 10 million; what can be told is which arm has the
more rank and the fewer dead units after a million steps ("at the end" and "at the beginning" are means over the last
and the first fifth of the training).

**PyBullet or MuJoCo.** The paper's text says PyBullet; its returns, above 5000, are those of MuJoCo, whose ant the
code that it borrows from has. Both are run. PyBullet's ant hardly ever falls, so that nearly all its episodes last a
thousand steps; MuJoCo's first learns to end its episodes early, which costs the least, and only then to live.

**Known, and chosen.** γ = 0.002 for decay and syre alike (coupled, torch's `weight_decay`), the change every 5
million steps and five seeds are known; σ is not. σ = 0.01 is recommended (5.4), σ = 1 is where syre acts in the other
figures (results/sigma_map); both were chosen before any run of these seeds, as were the claims. A pilot (seed 100,
MuJoCo, 0.2 million steps) showed that decay alone and σ = 1 learn, and that the rank of decay alone does not move in
so short a time, as in the paper; the claims that ranks fall were marked for the paper's scale then. Afterwards the
smallest effects worth naming were added (5 % of the units, a return of 100; results were known), and the claims were
left out that took the better of the two σ: each claim is about one σ. Everything else is from the code of Dohare et
al.: policy and value networks of two layers of 256 ReLUs, LeCun's initialisation, biases and log std 0; one
environment, rollouts of 2048 steps, 10 epochs of 16 batches, Adam 1e-4, discount 0.99, λ 0.95, clip 0.2; the value's
squared error with weight 1, no entropy bonus, no clipping of gradients, no normalisation but of the advantages over a
rollout; actions unclipped; the time limit is an end. Decay and anchors act on every parameter, biases and log std
included. Adam's betas are (0.9, 0.999) as in the borrowed code's standard agent; its regularized ones have (0.99,
0.99), and it is not known which the paper took: at `paper` scale both are run, and also the borrowed schedule, 20
million steps with a change every 2 million.

**What differs from the borrowed code.** Ant-v4 instead of Ant-v3 (no contact forces, which were about 0); frictions
are drawn from the run's seed, log-uniform in [0.02, 2], not read from its table; the standardised advantages are
divided by std + 1e-8. An earlier PyBullet variant of that benchmark (Dohare et al. 2021, arXiv 2108.06325) has
frictions in [1e-4, 1e4] and tanh networks; here both ants have the range and the ReLUs of the MuJoCo code. Rank and
dead units are measured on the last 1000 steps of a rollout, before its update: rank is the number of singular values of
the last hidden features of the policy that hold 99 % of their sum (unsquared; the borrowed code calls it stable rank),
a dead unit is positive on at most 1 % of the steps. In PyBullet the floor has the coefficient and the ant 1, for Bullet
multiplies; in MuJoCo all have it, for it takes the larger. A push slides as far as Coulomb says (tested).

**Cost.** 3,000 (MuJoCo) and 2,600 (PyBullet) steps a second and core; a run of `paper` scale takes about two and a
half hours of a core, 80 runs two days on four. The recorded seconds are upper bounds, cores being shared.
"""


PANELS = {"return": "return", "rank/99": "rank, % of the units", "dead": "dead units, %"}
READ_OFF = "the paper, read off at the marks"
PART = 2.0  # million steps, from which on the paper's arms part: a shorter run has nothing to be put beside them


def draw(results: Results) -> Figure:
    """A row a metric, a column a schedule of each ant, and the paper's where it reaches that far."""
    runs = _usual(results.runs)
    columns = [(b, every) for b in BACKENDS for every in sorted(runs[runs[BACKEND] == b][EVERY].unique(), reverse=True)]
    further = bool(results.metrics["step"].max() > PART * MILLION)
    figure, axes = plotting.panels(len(columns) + further, len(PANELS), height=2.3, sharex="col")
    grid = axes.reshape(len(PANELS), -1)
    for row, (metric, label) in zip(grid, PANELS.items(), strict=True):
        table = _usual(shares(results, metric))
        for ax, (backend, every) in zip(row, columns, strict=False):
            rows = select(table, **{BACKEND: backend, EVERY: every})
            for own, of_arm in by_arm(rows):
                plotting.seed_lines(ax, of_arm, "million", metric, own)
            mark_changes(ax, every, rows["step"].max())
            limits(ax, metric, FLOOR)
        row[0].set_ylabel(label)
        if further and metric in PAPER:
            papers(row[-1], metric, max(PAPER[metric]["syre"]) * MILLION)
            limits(row[-1], metric, FLOOR)
            row[-1].tick_params(labelbottom=True)  # below it is none
    titles = [f"{BACKENDS[backend]}, a change every {every:,} steps" for backend, every in columns]
    for ax, title in zip(grid[0], [*titles, *[READ_OFF] * further], strict=True):
        ax.set_title(title)
    for ax in grid[-1]:
        ax.set(xlabel="million steps", xlim=(0, None))
    if further:
        return plotting.with_legend(figure, grid[-1, -1], **IN_LINES)
    return plotting.with_legend(figure, loc="outside lower center", ncols=4, title=THIN, title_fontsize=7.5)


THIN = "thin: a seed; thick: the mean of the seeds; grey: changes of friction"
# of a legend in a panel
IN_LINES: dict[str, Any] = {"title": THIN.replace("; ", "\n"), "title_fontsize": 7.5, "alignment": "left"}


def mark_changes(ax: Axes, every: float, steps: float) -> None:
    """A line at each change of friction."""
    for change in range(1, int(steps // every) + 1):
        ax.axvline(change * every / MILLION, color="0.8", linewidth=0.6, zorder=0)


def limits(ax: Axes, metric: str, floor: float) -> None:
    """Ranks end at 100 and begin at 80 or below, dead units begin at 0, returns no lower than at the floor."""
    low, high = ax.get_ylim()
    if metric == "return" and low < floor:
        top = max(other.dataLim.y1 for other in ax.get_shared_y_axes().get_siblings(ax))
        low, high = floor, top + 0.05 * (top - floor)  # what is cut off below gives no margin above
    ends = {"return": (low, high), "rank/99": (max(0, min(low, 80)), 100), "dead": (0, min(high, 100))}
    ax.set_ylim(*ends[metric])


def papers(ax: Axes, metric: str, steps: float) -> None:
    """The paper's curves, straight lines between the points that were read off, and its changes of friction."""
    mark_changes(ax, MAIN["paper"], steps)
    for name, points in PAPER[metric].items():
        own = look(name) if name != "syre" else PAPERS_SYRE
        ax.plot(list(points), list(points.values()), "--", linewidth=0.9, **vars(own))


PAPERS_SYRE = plotting.Look(label="syre, the paper's σ", color=look("syre").color, marker=look("syre").marker)


def finding(results: Results) -> Finding:
    """What a million steps do to the rank of the features, in both physics."""
    named = {"decay alone": decay(), "syre at σ = 1": SYRES["-1"][1], "no decay": VANILLA}

    def ends(metric: str, backend: str) -> dict[str, pd.Series]:
        return {who: end(results, metric, arm | {BACKEND: backend}) for who, arm in named.items()}

    ranks, returns, calm = ends("rank/99", "pybullet"), ends("return", "pybullet"), ends("rank/99", "mujoco")
    said = ", ".join(f"{mean(ranks[who])} % with {who} (return {mean(returns[who])})" for who in named)
    steps = results.metrics["step"].max() / MILLION
    return Finding(
        f"After {mean(steps)} million steps in PyBullet the features' rank, of the units, is {said}. In MuJoCo, "
        f"where the paper's arms part after {mean(PART)} million, it is "
        f"{span([rank.mean() for rank in calm.values()])} %.",
        "rank 91 % against 67 to 75 % with decay, at 25M steps",
        f"PyBullet, at {mean(steps)}M: {interval(ranks['syre at σ = 1'])} against {interval(ranks['decay alone'])} %",
    )
