"""Table 1 with a head of the paper's proportions: is the low-rankness of decay alone that of the untrained head?"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import POINT, VANILLA, beats, costs, decay, final, gain, grown, look, syre
from experiments.analysis.claims import Claim, Equivalence, Superiority, per_seed
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.summaries import Finding, table
from experiments.analysis.tables import estimate, points
from experiments.analysis.words import interval, percent, span
from experiments.figures.table1 import PUBLISHED

TITLE = "SimCLR with a head of 4 to 1: low-rankness and accuracy against an untrained network"

LAST, PENULTIMATE, LOW = "accuracy", "accuracy/penultimate", "low_rankness"
SHARE = 0.05  # of the eigenvalues: the smallest difference worth naming
MATRICES: dict[str, Any] = {"scope": "matrices"}

ALL: dict[str, tuple[str, Arm]] = {
    "relative-0.01": ("relative σ = 0.01", syre(sigma=0.01)),
    "relative-1": ("relative σ = 1", syre(sigma=1)),
    "absolute-0.01": ("absolute σ = 0.01", syre(sigma=0.01, unit="absolute")),
    "absolute-0.1": ("absolute σ = 0.1", syre(sigma=0.1, unit="absolute")),
}
BARE: dict[str, tuple[str, Arm]] = {
    f"matrices-absolute-{s:g}": (f"absolute σ = {s:g}, matrices alone", syre(sigma=s, unit="absolute", **MATRICES))
    for s in (0.01, 0.1)
}


@per_seed
def _untrained(results: Results, arm: Arm) -> pd.Series:
    """The low-rankness at step 0."""
    return results.curve(LOW, **arm).query("step == 0").set_index("seed")[LOW]


def _claims(key: str, words: str, treatment: Arm, control: Arm) -> list[Claim]:
    """What the paper's table says of syre, in one reading of it."""
    lower = f"syre ({words}) has a lower low-rankness than decay alone, by more than 5 points."
    better = f"syre ({words}) has a better last layer than decay alone, by more than a point."
    kept = f"syre ({words}) costs the penultimate layer less than two points against decay alone."
    none = f"syre ({words}) has a better last layer than no decay, by more than a point."
    return [
        beats(f"low-{key}", lower, "6.5", LOW, treatment, control, SHARE, paper="0 % < 70 %"),
        beats(f"last-{key}", better, "6.5", LAST, treatment, control, POINT, paper="~32 % > 22.2 %"),
        costs(f"penultimate-{key}", kept, "6.5", PENULTIMATE, treatment, control, 2 * POINT, paper="46.8 %, unchanged"),
        beats(f"no-decay-{key}", none, "ours", LAST, treatment, VANILLA, POINT),
    ]


GEOMETRY = "An untrained head of 4 to 1 has less than 5 % of low eigenvalues."
DECAYED = "Training with decay alone makes at least 5 points more of the eigenvalues low than they are untrained."
CLAIMS: tuple[Claim, ...] = (
    Equivalence("untrained", GEOMETRY, "ours", _untrained(decay()), margin=SHARE),
    Superiority("decay", DECAYED, "6.5", grown(LOW, decay()), margin=SHARE, paper="70 %"),
    *(claim for key, (words, arm) in ALL.items() for claim in _claims(key, words, arm, decay())),
    *(claim for key, (words, arm) in BARE.items() for claim in _claims(key, words, arm, decay(**MATRICES))),
)


def notes(results: Results) -> str:
    say = Numbers(results)
    low = say.final(LOW, times=100)
    made = say.interval(final(LOW, decay()), times=100)
    lowered = [say.mean(gain(LOW, ALL[f"{unit}-0.01"][1], decay()), times=100) for unit in ("relative", "absolute")]
    last = say.span((final(LAST, arm) for _, arm in ROWS.values()), 1, times=100)
    probes = say.span((final(metric, arm) for metric in (LAST, PENULTIMATE) for _, arm in ROWS.values()), times=100)
    return f"""
**The contradiction.** The paper's low-rankness (eigenvalues of the last layer's covariance below a threshold) is 70 %
with decay alone and 0 % with syre. In table1, whose head at `cpu` scale is 128-128-128, even an untrained network of
random weights has many low eigenvalues ([table1](../table1/report.md)): ReLU and a square matrix make them. The paper's
head is 512 to 128.

**What decides it.** A head 128-128-32, of the paper's 4 to 1; the untrained network (step 0) as a reference; absolute
σ = 0.01 and 0.1 beside relative 0.01 and 1, and norms and biases without decay. γ = 0.01, else as table1. An effect
worth naming: 5 points of low-rankness, one point of accuracy.

**What came of it** (three seeds). The head was the cause: untrained, one of 4 to 1 has
{say.mean(_untrained(decay()), times=100)} % of low eigenvalues, so that all low-rankness is the training's. Decay alone
makes {made} % (the paper: 70 %), no decay {low(VANILLA)} %. Relative σ = 1 and absolute σ = 0.1 end at
{low(ALL["relative-1"][1])} and {low(ALL["absolute-0.1"][1])} %, as the paper's syre; the recommended 0.01 lowers it by
{lowered[0]} and {lowered[1]} points (relative and absolute), neither surely by 5. The paper's gain in accuracy of the
last layer (22 % to about 32 %) does not appear: every arm has {last} %, no decay as high as any. These are short
trainings of a narrow network on a part of CIFAR-100, with probes at {probes} %, where the paper's have 47: that the
rank buys accuracy there is neither shown nor excluded. Which parameters decay makes no difference that three seeds
show.
"""


def _look(key: str, scope: str) -> plotting.Look:
    """That of a reading of syre, by how its key ends: `absolute-0.1`."""
    unit, sigma = key.split("-")[-2:]
    return look("syre", float(sigma), unit=unit, scope=scope)


# What the paper has for these arms, at its own decay and with its own network.
PAPER = {"weight decay": PUBLISHED["decay"], "syre, relative σ = 0.01": PUBLISHED["0.01"]}
COLUMNS = {"low-rankness": LOW, "penultimate": PENULTIMATE, "last layer": LAST}
ROWS: dict[str, tuple[plotting.Look, Arm]] = {
    "no decay": (look("vanilla"), VANILLA),
    "weight decay": (look("weight_decay"), decay()),
    **{f"syre, {words}": (_look(key, "all"), arm) for key, (words, arm) in ALL.items()},
    "weight decay, matrices alone": (look("weight_decay", scope="matrices"), decay(**MATRICES)),
    **{f"syre, {words}": (_look(key, "matrices"), arm) for key, (words, arm) in BARE.items()},
}


def paper_table(results: Results) -> str:
    """The columns of table 1, for this head."""
    found = results.final(*COLUMNS.values())
    header = ["method", *(word for name in COLUMNS for word in (f"{name}, %", "the paper's"))]
    lines = []
    for name, (_, own) in ROWS.items():
        theirs = [f"{number:g}" for number in PAPER.get(name, ())] or [""] * len(COLUMNS)
        ours = [estimate(select(found, **own)[metric], times=100) for metric in COLUMNS.values()]
        lines.append([name, *(cell for pair in zip(ours, theirs, strict=True) for cell in pair)])
    return "\n".join([*table(header, lines), "", "Mean and 95 % interval over seeds, at γ = 0.01."])


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(3, width=3.3, height=3.0)
    found = results.final(*COLUMNS.values())
    start = results.curve(LOW).query("step == 0")[LOW].mean()
    for place, (ax, (name, metric)) in enumerate(zip(axes, COLUMNS.items(), strict=True)):
        drawn = [(float(k), own, 100 * select(found, **arm)[metric]) for k, (own, arm) in enumerate(ROWS.values())]
        points(ax, drawn, list(ROWS) if not place else [])
        for row, known in PAPER.items():
            plotting.papers(ax, known[place], list(ROWS).index(row), "0.3")
        ax.set(title=f"{name}, %", xlim=(-4 if metric == LOW else 0, None))
    axes[0].axvline(100 * start, color="0.5", ls=":", label="untrained")
    return plotting.with_legend(figure)


def finding(results: Results) -> Finding:
    """Low-rankness against that of an untrained network, and the accuracy that comes of it."""
    shown = [decay(), ALL["relative-1"][1], ALL["relative-0.01"][1], VANILLA]
    low = [final(LOW, arm)(results) for arm in shown]
    said = [percent(values) for values in (_untrained(decay())(results), *low)]
    last = span([final(LAST, arm)(results).mean() for _, arm in ROWS.values()], 1, times=100)
    return Finding(
        f"With a head of the paper's shape {said[0]} of its directions are unused before training; decay alone "
        f"makes that {said[1]}, syre {said[2]} at σ = 1 and {said[3]} at σ = 0.01, no decay {said[4]}. The last "
        f"layer's accuracy is {last} % in all arms.",
        "70 % unused against 0 %; last layer 22.2 against 32.5 %",
        f"{interval(low[0], times=100)} % against {interval(low[1], times=100)} % (σ = 1)",
    )
