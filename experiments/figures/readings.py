"""The readings of the paper, over its figures at once: the unit of sigma and what decays. Which reproduces the most?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import ALPHA, GAMMA, IDENTICAL, POINT, beats, costs, decay, syre, width
from experiments.analysis.claims import (
    CONTRARY,
    INCONCLUSIVE,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    Claim,
    Verdict,
    evaluate,
)
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, ResultsError
from experiments.analysis.summaries import Finding

TABLES = ("table1", "table1_head")
EXPERIMENT = (
    "fig1",
    "fig2",
    "fig2_teacher",
    "fig3b",
    "fig5",
    "fig9",
    "fig9_long",
    "fig11",
    "fig12",
    "fig13",
    "fig13_gamma",
    *TABLES,
)
TITLE = "the readings of the paper, unit of sigma and scope of the decay, over its figures"


@dataclass(frozen=True)
class Reading:
    """How sigma and the decay are understood."""

    unit: str
    sigma: float
    scope: str = "all"

    @property
    def id(self) -> str:
        return f"{self.unit}-{self.sigma:g}" + ("" if self.scope == "all" else f"-{self.scope}")

    @property
    def words(self) -> str:
        return f"σ = {self.sigma:g} {self.unit}" + ("" if self.scope == "all" else ", matrices alone")


ALL = tuple(Reading(*of) for of in (("relative", 0.01), ("relative", 1), ("absolute", 0.01), ("absolute", 0.1)))
UNIT = Reading("absolute", 1)
MATRICES = tuple(Reading(reading.unit, reading.sigma, "matrices") for reading in ALL)
READINGS = (*ALL, UNIT, *MATRICES)


@dataclass(frozen=True)
class Row:
    """A sentence of the paper about one figure, which each reading may bear out against decay alone of its scope."""

    key: str
    label: str  # of its row
    text: str  # ends a sentence that begins with the reading
    source: str
    experiment: str
    metric: str
    margin: float
    at: Arm
    readings: tuple[Reading, ...] = READINGS
    costs: bool = False  # it is to be no worse by the margin, not better by it
    start: str = "shift"
    options: tuple[tuple[str, Any], ...] = ()

    def claim(self, reading: Reading) -> Claim:
        at = {"experiment": self.experiment, **self.at}
        treatment = syre(at, sigma=reading.sigma, unit=reading.unit, scope=reading.scope, start=self.start)
        control, text = decay(at, scope=reading.scope), f"syre with {reading.words} {self.text}."
        build = costs if self.costs else beats
        pair = (self.metric, treatment, control)
        return build(f"{self.key}-{reading.id}", text, self.source, *pair, self.margin, **dict(self.options))


CLEAN: Arm = {"model.activation": "tanh", "data.label_noise": 0, "data.input_noise": 0}
GAIN, NATS = "by more than a point", 0.02
RELATIVE = ALL[:2]
ROWS = (
    Row(
        "fig1",
        "Fig. 1: lower test loss (nats)",
        "ends figure 1 (90 % of the neurons identical) at a test loss lower by more than 0.05 nats",
        "4",
        "fig1",
        "loss",
        0.05,
        {IDENTICAL: 0.9, GAMMA: 1e-3},
        readings=(*ALL, UNIT),
        start="keep",
        options=(("argued", "5 % of a nat"),),
    ),
    Row(
        "fig2",
        "Fig. 2: fewer symmetric neurons (of 100)",
        "leaves fewer symmetric neurons in figure 2 (5 inputs), by more than 5 of 100",
        "5.3",
        "fig2",
        "symmetry/0.1",
        5,
        {"data.inputs": 5, **CLEAN},
        readings=(*ALL, UNIT),
    ),
    Row(
        "fig2-teacher",
        "Fig. 2, a small teacher: the same",
        "leaves fewer symmetric neurons with 20 inputs and a small teacher, by more than 5",
        "5.3",
        "fig2_teacher",
        "symmetry/0.1",
        5,
        {"data.inputs": 20, **CLEAN},
        readings=RELATIVE,
    ),
    Row(
        "fig3b",
        "Fig. 3: costs less than a point of accuracy",
        "costs less than a point of accuracy in figure 3, ResNet18 (γ = 0.005)",
        "6.1",
        "fig3b",
        "accuracy",
        POINT,
        {GAMMA: 0.005},
        readings=(*ALL, *MATRICES[:2]),
        costs=True,
    ),
    Row(
        "fig5",
        "Fig. 5, γ = 0.1: accuracy",
        f"is more accurate in figure 5 at γ = 0.1, {GAIN}",
        "6.3",
        "fig5",
        "accuracy",
        POINT,
        {GAMMA: 0.1, ALPHA: 1},
    ),
    Row(
        "fig5-rank",
        "Fig. 5, γ = 0.1: effective rank (of 300)",
        "has a higher effective rank in figure 5 at γ = 0.1, by more than 5 % of the width",
        "6.3",
        "fig5",
        "rank/effective",
        width(300),
        {GAMMA: 0.1, ALPHA: 1},
    ),
    Row(
        "fig5-alpha",
        "Fig. 5, α = 0.01: accuracy",
        f"is more accurate in figure 5 on small inputs (α = 0.01), {GAIN}",
        "6.3",
        "fig5",
        "accuracy",
        POINT,
        {GAMMA: 1e-3, ALPHA: 0.01},
    ),
    Row(
        "fig9-1",
        "Fig. 9, β = 1: rank (of 200)",
        "has a higher rank of the encoder in figure 9 (γ = 1, β = 1), by more than 5 % of it",
        "6.4",
        "fig9",
        "rank",
        width(200),
        {GAMMA: 1, "task.beta": 1, "task.images": "[]"},
    ),
    Row(
        "fig9-10",
        "Fig. 9, β = 10: rank (of 200)",
        "has a higher rank of the encoder in figure 9 (γ = 1, β = 10), by more than 5 % of it",
        "6.4",
        "fig9",
        "rank",
        width(200),
        {GAMMA: 1, "task.beta": 10, "task.images": "[]"},
    ),
    Row(
        "fig9-long",
        "Fig. 9, β = 10, six times as long: reconstruction (nats)",
        "reconstructs better in figure 9 (γ = 1, β = 10), six times as long, by more than 1 nat",
        "6.4",
        "fig9_long",
        "reconstruction",
        1.0,
        {GAMMA: 1, "task.beta": 10},
        readings=(ALL[1], ALL[3]),
        options=(("argued", "a collapsed decoder is at 35 nats"),),
    ),
    Row(
        "fig11",
        "Fig. 11: accuracy on task 10",
        f"is more accurate on the tenth task of figure 11 (γ = 0.15), {GAIN}",
        "6.6",
        "fig11",
        "accuracy",
        POINT,
        {GAMMA: 0.15},
    ),
    Row(
        "fig12",
        "Fig. 12, γ = 1: accuracy",
        f"is more accurate in figure 12 at γ = 1, {GAIN}",
        "B.5",
        "fig12",
        "accuracy",
        POINT,
        {GAMMA: 1, ALPHA: 1},
        readings=(*ALL, *MATRICES),
    ),
    Row(
        "fig12-alpha",
        "Fig. 12, α = 0.001: accuracy",
        f"is more accurate in figure 12 on small inputs (α = 0.001), {GAIN}",
        "B.5",
        "fig12",
        "accuracy",
        POINT,
        {GAMMA: 0.1, ALPHA: 1e-3},
        readings=(*ALL, *MATRICES),
    ),
    Row(
        "fig13",
        "Fig. 13, γ = 0.03: lower barrier (nats)",
        "leaves a lower barrier in figure 13 (γ = 0.03), by more than 0.02 nats",
        "B.7",
        "fig13",
        "barrier/loss",
        NATS,
        {GAMMA: 0.03, "model.shared": True},
    ),
    Row(
        "fig13-gamma",
        "Fig. 13, γ = 5, longer: lower barrier (nats)",
        "leaves a lower barrier in figure 13 at γ = 5, where the decay acts",
        "B.7",
        "fig13_gamma",
        "barrier/loss",
        NATS,
        {GAMMA: 5, "model.shared": True},
        readings=(MATRICES[1],),
    ),
    Row(
        "table1-low",
        "Table 1: lower low-rankness",
        "has a lower low-rankness in table 1 (γ = 0.01), by more than 5 points",
        "6.5",
        "table1",
        "low_rankness",
        0.05,
        {GAMMA: 0.01},
    ),
    Row(
        "table1-last",
        "Table 1: last layer, accuracy",
        f"has a better last layer in table 1 (γ = 0.01), {GAIN}",
        "6.5",
        "table1",
        "accuracy",
        POINT,
        {GAMMA: 0.01},
    ),
    Row(
        "table1-head-low",
        "Table 1, head 4 to 1: lower low-rankness",
        "has a lower low-rankness in table 1 with a head of 4 to 1, by more than 5 points",
        "6.5",
        "table1_head",
        "low_rankness",
        0.05,
        {GAMMA: 0.01},
        readings=(*ALL, *MATRICES[2:]),
    ),
    Row(
        "table1-head-last",
        "Table 1, head 4 to 1: last layer, accuracy",
        f"has a better last layer in table 1 with a head of 4 to 1, {GAIN}",
        "6.5",
        "table1_head",
        "accuracy",
        POINT,
        {GAMMA: 0.01},
        readings=(*ALL, *MATRICES[2:]),
    ),
)
CLAIMS: tuple[Claim, ...] = tuple(row.claim(reading) for row in ROWS for reading in row.readings)


def notes(results: Results) -> str:
    say, found = Numbers(results), _verdicts(results, READINGS)

    def borne(reading: Reading) -> str:
        return say.told(lambda _: _borne_out(found[reading]))

    faint, one, absolute, tenth = map(borne, ALL)
    bare = list(zip(ALL, MATRICES, strict=True))
    never = [row.label for row in ROWS if REPRODUCED not in {v[row.key] for v in found.values() if row.key in v}]
    ways = [{found[r][key], found[m][key]} for r, m in bare for key in found[r].keys() & found[m].keys()]
    turned = ways.count({REPRODUCED, NOT_REPRODUCED})
    return f"""
**The question.** Section 5.4 states σ = 0.01 in units of 1/√d, but the paper's figures look like those of a larger
bias, and an independent implementation takes σ as absolute. Nor does the paper say whether biases and the gains of
norms decay. Which of these readings bears out most of its figures at once?

**What is shown.** A row is a sentence of the paper about syre against weight decay alone, with the smallest effect
worth naming; a column is a reading. Weight decay alone is that of the same scope: all parameters, or the weight
matrices (two and more dimensions) alone. The start is that of Eq. (6), `start="shift"`; in figure 1 it is kept.
An empty cell was not run. The claims were committed before these runs were trained; relative σ = 0.01 and 1 on all
parameters were known.

**What came of it.** No reading bears out everything. Relative σ = 1 and absolute 0.1 bear out most, {one} and {tenth}
sentences; the recommended 0.01 bears out {faint} as relative (figures 1 and 2, the symmetric neurons) and {absolute} as
absolute. Absolute 1, as another implementation has it, harms in figures 1, 5 (small inputs), 9 (diverged), 11 and
table 1. What decays hardly matters: of the {len(ways)} cells that were run for all parameters and for the matrices
alone {turned or "none"} goes from reproduced to not reproduced or back. Length matters in figures 9 and 13, and there
not for the better of the claims in question. What no reading bears out: {"; ".join(never) or "nothing"}. So the paper's
figures were made, most likely, with a bias near the scale of the initial weights, whatever unit 5.4 means; which of the
two it is they do not say. Relative σ tells the choice in one number for layers of any width: it is the library's
default.

The runs are those of the figures named, at `cpu` scale.
"""


COLOURS = {
    REPRODUCED: "#7FBF7B",
    NOT_REPRODUCED: "#F1A58A",
    CONTRARY: "#F1A58A",
    INCONCLUSIVE: "#E8E8E8",
    NOT_TESTED: "#FFFFFF",
}


def _verdicts(results: Results, readings: Sequence[Reading]) -> dict[Reading, dict[str, str]]:
    """Of each reading the verdict on each sentence that it was run for."""
    rows = {reading: [row for row in ROWS if reading in row.readings] for reading in readings}
    return {r: {row.key: evaluate(row.claim(r), results).verdict for row in of} for r, of in rows.items()}


def _borne_out(verdicts: Mapping[str, str]) -> str:
    """How many sentences a reading bears out, of those that are tested."""
    tested = [verdict for verdict in verdicts.values() if verdict != NOT_TESTED]
    if not tested:
        raise ResultsError("a reading has not been tested")
    return f"{tested.count(REPRODUCED)} of {len(tested)}"


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(1, width=10.5, height=0.3 * (len(ROWS) + 5))
    ax = axes[0]
    found: dict[Reading, list[str]] = {reading: [] for reading in READINGS}
    for place, row in enumerate(ROWS):
        for reading in row.readings:
            verdict = evaluate(row.claim(reading), results)
            found[reading].append(verdict.verdict)
            _cell(ax, place, READINGS.index(reading), verdict)
    for column, verdicts in enumerate(found.values()):
        judged = [verdict for verdict in verdicts if verdict != NOT_TESTED]
        borne_out = f"{judged.count(REPRODUCED)} of {len(judged)}"
        ax.text(column, len(ROWS), borne_out, ha="center", va="center", fontsize=8, weight="bold")
    names = {"all": "", "matrices": "\nmatrices"}
    ax.set(xlim=(-0.5, len(READINGS) - 0.5), ylim=(len(ROWS) + 0.5, -0.5))
    ax.set_xticks(range(len(READINGS)), [f"σ = {r.sigma:g}\n{r.unit}{names[r.scope]}" for r in READINGS])
    ax.set_yticks(range(len(ROWS) + 1), [*(row.label for row in ROWS), "borne out"])
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelsize=8)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for word in (REPRODUCED, INCONCLUSIVE, NOT_REPRODUCED):
        ax.fill_between([], [], color=COLOURS[word], label=word)
    return plotting.with_legend(figure, loc="outside lower center", ncols=3)


def _cell(ax: Axes, row: int, column: int, verdict: Verdict) -> None:
    """One cell: the effect, on the colour of its verdict; without one every run of the reading went NaN."""
    ax.fill_between([column - 0.48, column + 0.48], row - 0.45, row + 0.45, color=COLOURS[verdict.verdict], lw=0)
    digits = 0 if abs(verdict.effect) >= 10 else 3
    said = f"{verdict.effect:+.{digits}f}" if verdict.n else "diverged"
    ax.text(column, row, said, ha="center", va="center", fontsize=8)


def finding(results: Results) -> Finding:
    """How many sentences of the paper each reading of sigma bears out."""
    said = {reading.id: _borne_out(verdicts) for reading, verdicts in _verdicts(results, ALL).items()}
    return Finding(
        "Of the paper's sentences on syre and decay alone the recommended σ = 0.01 bears out "
        f"{said['relative-0.01']} in relative units and {said['absolute-0.01']} in absolute ones; relative σ = 1 "
        f"bears out {said['relative-1']}, absolute 0.1 {said['absolute-0.1']}.",
        "σ = 0.01 (5.4)",
        f"{said['relative-0.01']} at 0.01, {said['relative-1']} at 1",
    )
