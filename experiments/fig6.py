"""Figure 6 (section 6.6): PPO on Slippery Ant, return and rank of the policy's features, in MuJoCo and in PyBullet."""

import json
from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import plotting
from experiments.claims import Claim, Equivalence, Superiority
from experiments.results import Arm, Results, select
from experiments.stats import cross_fitted_best

TITLE = "PPO on Slippery Ant: return, rank of the features and dead units while the friction changes"

NAME, GAMMA, SIGMA, BACKEND = "regularizer.name", "regularizer.weight_decay", "regularizer.sigma", "data.backend"
EVERY, BETAS = "data.change_every", "optim.betas"
BACKENDS = {"mujoco": "MuJoCo", "pybullet": "PyBullet"}
MAIN = {"cpu": 93_000, "paper": 5_000_000}  # the schedule that is judged: steps between two changes of friction

VANILLA: Arm = {NAME: "vanilla"}
DECAY: Arm = {NAME: "weight_decay"}
SYRES: dict[str, tuple[str, Arm]] = {
    "": ("", {NAME: "syre"}),  # at the best sigma of the other seeds
    "-0.01": (", at the recommended σ = 0.01", {NAME: "syre", SIGMA: 0.01}),
    "-1": (", at σ = 1", {NAME: "syre", SIGMA: 1}),
}
SHARES = ("rank/99", "rank/effective", "dead")  # counts of units, shown in per cent of the layer
WINDOW = 0.2  # of the training, at its end (or its beginning), over which a run's records are averaged
STAYS = 10.0  # per cent of the units: a rank that moves by less stays
MILLION = 1e6


def shares(results: Results, metric: str) -> pd.DataFrame:
    """One row a record of a run; a count of units becomes per cent of the layer's width."""
    rows = results.curve(metric)
    width = rows["model.hidden"].map(lambda cell: json.loads(cell)[-1])
    return rows.assign(**{metric: 100 * rows[metric] / width}) if metric in SHARES else rows


def late(results: Results, metric: str, arm: Arm, *, early: bool = False) -> pd.Series:
    """Mean of a metric over the last (or first) fifth of the training, one a seed; NaN for a run that has failed.

    Where the arm leaves sigma open, each seed takes the one that is best on the other seeds.
    """
    rows = select(_judged(shares(results, metric)), **arm)
    end = rows["step"].max()
    rows = rows[rows["step"] <= WINDOW * end] if early else rows[rows["step"] > (1 - WINDOW) * end]
    rows = rows.assign(**{metric: rows[metric].where(rows["status"] == "done")})
    table = rows.groupby(["seed", rows[SIGMA].fillna(0)])[metric].mean().reset_index()
    if table[SIGMA].nunique() > 1:
        return cross_fitted_best(table, metric=metric, over=SIGMA, maximize=metric != "dead")[metric]
    return table.set_index("seed")[metric]


def _usual(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with Adam's usual betas."""
    return rows[rows[BETAS].map(lambda cell: json.loads(cell) == [0.9, 0.999])]


def _judged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the main schedule, with Adam's usual betas."""
    return _usual(rows[rows[EVERY] == rows["scale"].map(MAIN).fillna(rows[EVERY])])


def beyond(metric: str, treatment: Arm, control: Arm) -> Callable[[Results], pd.Series]:
    """How much more the treatment has than the control at the end; of dead units, how many fewer."""
    sign = -1 if metric == "dead" else 1
    return lambda results: sign * (late(results, metric, treatment) - late(results, metric, control))


def moved(metric: str, arm: Arm) -> Callable[[Results], pd.Series]:
    """The metric at the end minus that at the beginning."""
    return lambda results: late(results, metric, arm) - late(results, metric, arm, early=True)


def fallen(metric: str, arm: Arm) -> Callable[[Results], pd.Series]:
    """How much the metric has fallen from the beginning to the end."""
    return lambda results: -moved(metric, arm)(results)


def _claims(backend: str) -> tuple[Claim, ...]:
    where, on = BACKENDS[backend], {BACKEND: backend}
    versus = {"decay": ("plain weight decay", DECAY), "vanilla": ("vanilla PPO", VANILLA)}
    return (
        *(
            Superiority(
                id=f"{backend}-{metric.replace('/', '-')}-{name}{key}",
                text=f"{where}: at the end syre has {'fewer' if metric == 'dead' else 'a higher'} {words} than "
                     f"{versus[name][0]}{which}.",
                source=source, paper=paper, scale=scale,
                samples=beyond(metric, {**arm, **on}, {**versus[name][1], **on}),
            )
            for metric, words, name, source, paper, scale in (
                ("rank/99", "rank", "decay", "6.6", "91 % against 67 to 75 % at 25M", "smoke"),
                ("rank/99", "rank", "vanilla", "6.6", "91 % against < 25 % at 16M", "smoke"),
                ("rank/effective", "effective rank", "decay", "ours", "", "smoke"),
                ("dead", "dead units", "decay", "ours", "", "smoke"),
                ("dead", "dead units", "vanilla", "ours", "", "smoke"),
                ("return", "return", "decay", "6.6", "3950 against 3150 at 25M", "paper"),
                ("return", "return", "vanilla", "6.6", "3950 against 0 at 25M", "paper"),
            )
            for key, (which, arm) in SYRES.items()
        ),
        *(
            Equivalence(
                id=f"{backend}-rank-stays{key}",
                text=f"{where}: with syre the rank at the end is that of the beginning, within {STAYS:g} % of the "
                     f"units{which}.",
                source="6.6", paper="about 91 % throughout", margin=STAYS, samples=moved("rank/99", {**arm, **on}),
            )
            for key, (which, arm) in SYRES.items()
        ),
        *(
            # the paper's ranks fall between 2 and 16 million steps: a shorter run cannot decide
            Superiority(
                id=f"{backend}-rank-falls-{name}", source="6.6", paper=paper, margin=STAYS, scale="paper",
                text=f"{where}: the rank of {versus[name][0]} falls by more than {STAYS:g} % of the units.",
                samples=fallen("rank/99", {**versus[name][1], **on}),
            )
            for name, paper in (("decay", "90 % to 65 % at 9M"), ("vanilla", "92 % to < 25 % at 16M"))
        ),
    )  # fmt: skip


CLAIMS: tuple[Claim, ...] = (*_claims("mujoco"), *_claims("pybullet"))

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

NOTES = """
Not written yet.
"""

PANELS = {"return": "return", "rank/99": "rank, % of the units", "dead": "dead units, %"}


def draw(results: Results) -> Figure:
    tables = {metric: _usual(shares(results, metric)) for metric in PANELS}
    runs = _usual(results.runs)
    rows = [(b, every) for b in BACKENDS for every in sorted(runs[runs[BACKEND] == b][EVERY].unique(), reverse=True)]
    figure, axes = plotting.panels(len(PANELS), 1 + len(rows), width=3.1, height=2.2)
    grid = axes.reshape(-1, len(PANELS))
    for column, (metric, label) in enumerate(PANELS.items()):
        _paper(grid[0, column], metric, label)
        for ax, (backend, every) in zip(grid[1:, column], rows, strict=True):
            table = tables[metric]
            table = table[(table[BACKEND] == backend) & (table[EVERY] == every)]
            table = table.assign(million=table["step"] / MILLION)
            for look, arm in plotting.arms(table):
                plotting.line_with_band(ax, arm, "million", metric, look)
            for change in range(1, int(table["step"].max() // every) + 1):
                ax.axvline(change * every / MILLION, color="0.8", linewidth=0.6, zorder=0)
            ax.set(title=f"{label}: {BACKENDS[backend]}", xlim=(0, None))
            if metric == "rank/99":
                ax.set_ylim(0, 100)
        grid[-1, column].set_xlabel("million steps; lines: changes of friction")
    plotting.legend(figure, loc="outside lower center", ncols=4)
    return figure


def _paper(ax: Axes, metric: str, label: str) -> None:
    """The paper's curves, where it has them."""
    if metric not in PAPER:
        ax.set_axis_off()
        return
    for name, points in PAPER[metric].items():
        ax.plot(points.keys(), points.values(), "--", color=plotting.look(name).color, marker="o", markersize=3)
    ax.set(title=f"{label}: the paper, read off", xlim=(0, 26), ylim=(0, 100 if metric == "rank/99" else None))
