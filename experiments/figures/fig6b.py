"""Figure 6 (section 6.6) to 10 million steps: PPO on Slippery Ant in MuJoCo, where the paper's arms part."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.claims import Claim, Equivalence, Superiority
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.stats import paired_differences
from experiments.figures.fig6 import DECAY, FLOOR, MILLION, NAME, PANELS, PAPER, SIGMA, VANILLA, shares

TITLE = "PPO on Slippery Ant in MuJoCo, 10 million steps: return, rank of the features and dead units"

UNIT, START = "regularizer.unit", "regularizer.start"
SYRES: dict[str, tuple[str, Arm]] = {
    "1": ("at σ = 1", {NAME: "syre", SIGMA: 1, UNIT: "relative"}),
    "abs-0.1": ("at the absolute σ = 0.1", {NAME: "syre", SIGMA: 0.1, UNIT: "absolute"}),
    "0.01": ("at the recommended σ = 0.01", {NAME: "syre", SIGMA: 0.01, UNIT: "relative"}),
}
DRAWN_ONLY: dict[str, Arm] = {"syre, σ = 0.1": {NAME: "syre", SIGMA: 0.1, UNIT: "relative"}}
WINDOW = 0.2  # of the training: a fifth, which is the time between two changes of friction
UNITS = 5.0  # per cent of the units of a layer: a smaller difference of ranks is not worth naming
STAYS = 10.0  # per cent of the units: a rank that moves by less stays (as in figure 6)
RETURN = 100.0  # of a return of some thousand


def fifth(results: Results, metric: str, arm: Arm, which: int = 5) -> pd.Series:
    """Mean of a metric over the records of one fifth of the training, one a seed; NaN for a run that has failed.

    Empty for an arm of which no run is there yet. Ranks and dead units in per cent of the layer.
    """
    rows = _of(shares(results, metric), arm)
    end = rows["step"].max()
    rows = rows[(rows["step"] > (which - 1) * WINDOW * end) & (rows["step"] <= which * WINDOW * end)]
    return rows[metric].where(rows["status"] == "done").groupby(rows["seed"]).mean()


def _of(table: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The rows of an arm; none where no run sets one of its columns."""
    return select(table.assign(**{column: None for column in arm if column not in table}), **arm)


def beyond(metric: str, treatment: Arm, control: Arm) -> Callable[[Results], pd.Series]:
    """How much more the treatment has than the control in the last fifth."""
    return lambda results: paired_differences(*(fifth(results, metric, arm) for arm in (treatment, control)))


def moved(metric: str, arm: Arm) -> Callable[[Results], pd.Series]:
    """The metric in the last fifth minus that in the first."""
    return lambda results: fifth(results, metric, arm) - fifth(results, metric, arm, 1)


def fallen(metric: str, arm: Arm) -> Callable[[Results], pd.Series]:
    """How much the metric has fallen from the first fifth to the last."""
    return lambda results: -moved(metric, arm)(results)


def collapsed(arm: Arm) -> Callable[[Results], pd.Series]:
    """Half of the best return that a fifth had, minus that of the last."""

    def below(results: Results) -> pd.Series:
        best = pd.concat([fifth(results, "return", arm, k) for k in range(1, 6)], axis=1).max(axis=1)
        return best / 2 - fifth(results, "return", arm)

    return below


CLAIMS: tuple[Claim, ...] = (
    *(
        Superiority(
            id=f"{metric.replace('/', '-')}-{against}-{key}", source="6.6", paper=paper, margin=margin,
            text=f"Over the last fifth syre, {words}, has {more} than {name}.",
            samples=beyond(metric, arm, control),
        )
        for key, (words, arm) in SYRES.items()
        for metric, more, margin, against, name, control, paper in (
            ("rank/99", f"a rank higher by more than {UNITS:g} % of the units", UNITS, "decay", "plain weight decay",
             DECAY, "91 % against 65 % at 9M"),
            ("rank/99", f"a rank higher by more than {UNITS:g} % of the units", UNITS, "vanilla", "vanilla PPO",
             VANILLA, "91 % against 52 % at 9M"),
            ("return", f"a return higher by more than {RETURN:g}", RETURN, "decay", "plain weight decay",
             DECAY, "5200 against 4600 at 10M"),
            ("return", f"a return higher by more than {RETURN:g}", RETURN, "vanilla", "vanilla PPO",
             VANILLA, "5200 against 0 at 10.7M"),
        )
    ),
    *(
        Equivalence(
            id=f"rank-stays-{key}", source="6.6", paper="about 91 % throughout", margin=STAYS,
            text=f"With syre, {words}, the rank over the last fifth is that over the first, within {STAYS:g} % of the "
                 "units.",
            samples=moved("rank/99", arm),
        )
        for key, (words, arm) in SYRES.items()
    ),
    *(
        Superiority(
            id=f"rank-falls-{key}", source="6.6", paper=paper, margin=STAYS,
            text=f"The rank of {name} falls by more than {STAYS:g} % of the units from the first fifth to the last.",
            samples=fallen("rank/99", arm),
        )
        for key, name, arm, paper in (
            ("decay", "plain weight decay", DECAY, "90 % to 65 % at 9M"),
            ("vanilla", "vanilla PPO", VANILLA, "92 % to 52 % at 9M"),
        )
    ),
    Superiority(
        id="return-collapses-vanilla", source="6.6", paper="3050 at 2.3M, 0 at 10.7M", samples=collapsed(VANILLA),
        text="The return of vanilla PPO over the last fifth is less than half of that over its best fifth.",
    ),
)  # fmt: skip

NOTES = """
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
"""


def draw(results: Results) -> Figure:
    arms = {
        "vanilla": VANILLA,
        "weight decay": DECAY,
        "syre, σ = 0.01": SYRES["0.01"][1],
        **DRAWN_ONLY,
        "syre, σ = 1": SYRES["1"][1],
        "syre, absolute σ = 0.1": SYRES["abs-0.1"][1],
    }
    figure, axes = plotting.panels(len(PANELS), 1, width=3.4, height=2.8)
    for ax, (metric, label) in zip(axes, PANELS.items(), strict=True):
        table = shares(results, metric)
        table = table.assign(million=table["step"] / MILLION)
        for name, arm in arms.items():
            look = plotting.look(arm[NAME], arm.get(SIGMA) if arm.get(UNIT) == "relative" else None)
            if arm.get(UNIT) == "absolute":
                look = plotting.Look(label=name, color="#009E73", marker="h")
            if len(rows := _of(table, arm)):
                plotting.line_with_band(ax, rows, "million", metric, look)
        for name, points in PAPER.get(metric, {}).items():
            inside = {at: value for at, value in points.items() if at <= table["million"].max() * 1.1}
            ax.plot(inside.keys(), inside.values(), "--", color=plotting.look(name).color, linewidth=0.8, alpha=0.7)
        every = table["data.change_every"].max()
        for change in range(1, int(table["step"].max() // every) + 1):
            ax.axvline(change * every / MILLION, color="0.8", linewidth=0.6, zorder=0)
        ax.set(title=label, xlim=(0, None), xlabel="million steps; lines: changes of friction")
        if metric == "return":
            ax.set_ylim(max(ax.get_ylim()[0], FLOOR), None)
        else:
            ax.set_ylim(max(ax.get_ylim()[0], 0), min(ax.get_ylim()[1], 100))
    plotting.legend(figure, loc="outside lower center", ncols=6)
    return figure
