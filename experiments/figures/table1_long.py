"""Table 1 trained twelve times as long, on all images: what the unused part of the last layer costs."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import (
    GAMMA,
    POINT,
    SAME_START,
    VANILLA,
    beats,
    costs,
    decay,
    difference,
    final,
    grown,
    look,
    minus,
    syre,
)
from experiments.analysis.claims import Claim, Equivalence, NonInferiority, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.results import Arm, Results, select
from experiments.analysis.summaries import Finding, table
from experiments.analysis.tables import estimate
from experiments.analysis.words import interval, percent
from experiments.figures.table1 import CLOSED, COLUMNS, LAST, LOW, PENULTIMATE, PUBLISHED, SHARE, gap

TITLE = "SimCLR on all of CIFAR-100, twelve times as long: low-rankness and accuracy over the decay"

PAPERS, ACTING = 1e-4, (1e-2, 1e-1)  # the decay that the paper is taken to have, and two that act in this training
SOURCES = {
    PAPERS: ("6.5", "; in the pilot 0 %"),
    1e-2: ("ours", "; in the pilot 25 %"),
    1e-1: ("ours", "; chosen by a pilot, with 72 %, for it to be so"),
}
WRITTEN = {1e-4: "1e-4", 1e-2: "0.01", 1e-1: "0.1"}
STRONG = ACTING[-1]

SYRES: dict[str, tuple[str, Arm]] = {
    f"{unit}-{sigma:g}": (f"{unit} σ = {sigma:g}", syre(sigma=sigma, unit=unit))
    for unit, sigmas in (("relative", (0.01, 1)), ("absolute", (0.01, 0.1)))
    for sigma in sigmas
}


KEEP = syre(sigma=1, gamma=STRONG, start="keep")


def at(arm: Arm, gamma: float) -> Arm:
    return {**arm, GAMMA: gamma}


def _closed(results: Results) -> pd.Series:
    """How much of the gap of decay alone the last layer gains at sigma = 0.01, less the paper's share."""
    alone = decay(gamma=PAPERS)
    gained = difference(LAST, at(SYRES["relative-0.01"][1], PAPERS), alone)(results)
    return gained / gap(alone)(results) - CLOSED


def _of_the_papers_decay() -> Iterator[Claim]:
    faint, where = at(SYRES["relative-0.01"][1], PAPERS), "(relative σ = 0.01, γ = 1e-4)"
    better = "With decay alone (γ = 1e-4) the penultimate layer is better than the last one, by more than a point."
    stays = f"With syre {where} the penultimate layer is better than the last one, by more than a point."
    closes = f"syre {where} closes 42 % of the gap between the layers (the text: about 50 %), within 15 points."
    yield Superiority("gap", better, "6.5", gap(decay(gamma=PAPERS)), margin=POINT, paper="46.8 % > 22.2 %")
    yield Superiority("gap-stays", stays, "6.5", gap(faint), margin=POINT, paper="46.8 % > 32.5 %")
    yield Equivalence("closed", closes, "6.5", _closed, margin=0.15, paper=f"{CLOSED:.0%}")


def _of_decay_alone() -> Iterator[Claim]:
    for gamma in (PAPERS, *ACTING):
        text = f"With decay alone (γ = {WRITTEN[gamma]}) most eigenvalues of the last layer are low."
        most, (source, argued) = final(LOW, decay(gamma=gamma), less=0.5), SOURCES[gamma]
        yield Superiority(f"most-{gamma:g}", text, source, most, paper="70 %", argued=f"most: over half{argued}")
    for gamma in ACTING:
        where = f"With decay alone (γ = {WRITTEN[gamma]})"
        text = f"{where} the low-rankness grows after a quarter of the training, by more than 5 points."
        yield Superiority(f"grows-{gamma:g}", text, "ours", grown(LOW, decay(gamma=gamma), after=0), margin=SHARE)


def _of_syre(key: str, gamma: float) -> Iterator[Claim]:
    """What the paper's table says of syre, in one reading of it and at one decay; and against no decay."""
    words, arm = SYRES[key]
    treatment, control, id = at(arm, gamma), decay(gamma=gamma), f"{key}-{gamma:g}"
    where = f"At γ = {WRITTEN[gamma]} syre ({words})"
    lower = f"{where} has a lower low-rankness than decay alone, by more than 5 points."
    better = f"{where} has a better last layer than decay alone, by more than a point."
    kept = f"{where} costs the penultimate layer less than two points against decay alone."
    none = f"{where} has a better last layer than no decay, by more than a point."
    yield beats(f"low-{id}", lower, "6.5", LOW, treatment, control, SHARE, paper="0 % < 70 %")
    yield beats(f"last-{id}", better, "6.5", LAST, treatment, control, POINT, paper="~32 % > 22.2 %")
    yield costs(f"penultimate-{id}", kept, "6.5", PENULTIMATE, treatment, control, 2 * POINT, paper="46.8 %, unchanged")
    yield beats(f"no-decay-{id}", none, "ours", LAST, treatment, VANILLA, POINT)
    if gamma == STRONG:
        yield _none_unused(treatment, f"At γ = {WRITTEN[gamma]} with syre ({words})", f"none-{id}")


def _none_unused(arm: Arm, where: str, id: str) -> Claim:
    text = f"{where} fewer than 5 % of the eigenvalues of the last layer are low."
    return NonInferiority(id, text, "6.5", minus(final(LOW, arm)), margin=SHARE, paper="0 %")


def _of_the_start() -> Iterator[Claim]:
    """sigma = 1 from the start of decay alone: is it the anchor, or the larger weights to begin with?"""
    where, alone = (
        f"At γ = {WRITTEN[STRONG]} syre (relative σ = 1), from the start of decay alone,",
        decay(gamma=STRONG),
    )
    lower = f"{where} has a lower low-rankness than decay alone, by more than 5 points."
    better = f"{where} has a better last layer than decay alone, by more than a point."
    yield beats("low-keep", lower, "ours", LOW, KEEP, alone, SHARE)
    yield beats("last-keep", better, "ours", LAST, KEEP, alone, POINT)


CLAIMS: tuple[Claim, ...] = (
    *_of_the_papers_decay(),
    *_of_decay_alone(),
    *(claim for gamma in ACTING for key in SYRES for claim in _of_syre(key, gamma)),
    *_of_the_start(),
)


# ---- the table and the picture ---------------------------------------------------------------------------------------

LINES: dict[plotting.Look, Arm] = {
    look("weight_decay"): decay(),
    **{look("syre", float(key.split("-")[1]), unit=key.split("-")[0]): arm for key, (_, arm) in SYRES.items()},
    SAME_START: syre(sigma=1, start="keep"),
}
# What the paper has, at its own decay and with its own network.
PAPER = {look("weight_decay"): PUBLISHED["decay"], look("syre", 0.01): PUBLISHED["0.01"]}


def paper_table(results: Results) -> str:
    """The columns of table 1, over the decay."""
    found = results.final(*COLUMNS.values())
    header = ["method", "γ", *(word for name in COLUMNS for word in (f"{name}, %", "the paper's"))]
    arms = [(own, g, at(rows, g)) for g in (PAPERS, *ACTING) for own, rows in LINES.items()]
    lines = []
    for own, gamma, rows in [(look("vanilla"), 0.0, VANILLA), *arms]:
        runs = select(found, **rows)
        if len(runs):
            known = PAPER.get(own, ()) if gamma == PAPERS else ()
            theirs = [f"{number:g}" for number in known] or [""] * len(COLUMNS)
            ours = [estimate(runs[metric], times=100) for metric in COLUMNS.values()]
            lines.append([own.label, f"{gamma:g}", *(cell for pair in zip(ours, theirs, strict=True) for cell in pair)])
    return "\n".join([*table(header, lines), "", "Mean and 95 % interval over seeds."])


def draw(results: Results) -> Figure:
    figure, axes = plotting.panels(4, width=2.9, height=2.8)
    found = results.final(*COLUMNS.values())
    for place, (ax, (name, metric)) in enumerate(zip(axes, COLUMNS.items(), strict=False)):
        percents = found.assign(**{metric: 100 * found[metric]})
        none = plotting.t_interval(select(percents, **VANILLA)[metric].dropna())
        ax.axhline(none.mean, color=look("vanilla").color, ls=":", label=look("vanilla").label)
        ax.axhspan(none.low, none.high, color=look("vanilla").color, alpha=0.12, lw=0)
        for own, rows in LINES.items():
            plotting.line_with_band(ax, select(percents, **rows), GAMMA, metric, own)
        for own, known in PAPER.items():
            plotting.papers(ax, PAPERS, known[place], own.color, own.label)
        ax.set(xscale="log", xlabel="weight decay γ", title=f"{name}, %")
    curves = results.curve(LOW)
    curves = curves.assign(**{LOW: 100 * curves[LOW]})
    plotting.line_with_band(axes[3], select(curves, **VANILLA), "step", LOW, look("vanilla"))
    for own, rows in LINES.items():
        plotting.line_with_band(axes[3], select(curves, **at(rows, STRONG)), "step", LOW, own)
    axes[3].set(xlabel="step", title=f"low-rankness over training, %, γ = {STRONG:g}")
    return plotting.with_legend(figure, loc="outside lower center", ncols=4)


def notes(results: Results) -> str:
    say = Numbers(results)
    mild = ACTING[0]
    low, last, deep = (say.final(LOW, times=100), *(say.final(metric, 1, times=100) for metric in (LAST, PENULTIMATE)))

    def three(arm: Arm) -> str:
        return f"{low(arm)}, {last(arm)} and {deep(arm)}"

    def of_syre(key: str, gamma: float = STRONG) -> str:
        return three(at(SYRES[key][1], gamma))

    apart = say.interval(gap(decay(gamma=PAPERS)), 1, times=100)
    more = say.interval(grown(LOW, decay(gamma=STRONG), after=0), times=100)
    return f"""
**The question.** table1 sees 80,000 images at `cpu` scale: its layers end near 10 %, a point or two apart where the
paper's are 25 apart, and the paper's decay (taken to be 1e-4) does not act. So neither the paper's accuracies nor
whether the unused part of the last layer costs any can be seen there.

**What decides it.** All 50,000 images for 20 epochs of batches of 256 (a million images), tested and probed on all; the
head 128-128-32 of table1_head; else as table1 at `cpu` scale (ResNet18 of 16 channels, Adam 1e-3). γ = 1e-4, and two
that act, chosen by a pilot of six epochs (seed 100, with which 9 % are low before training; decay alone only): at 0.1
it has the paper's 70 % (`experiments.run experiment=table1_long seed=100 regularizer=weight_decay
regularizer.weight_decay=0.1 model.width=16 model.hidden=128 model.out=32 optim.lr=1e-3 train.epochs=6`).

| γ | low-rankness, % | penultimate, % | last layer, % |
| --- | --- | --- | --- |
| 0.0001 | 0 | 14.8 | 10.1 |
| 0.001 | 0 | 15.0 | 10.9 |
| 0.01 | 25 | 14.3 | 10.8 |
| 0.1 | 72 | 11.6 | 8.7 |

An effect worth naming: 5 points of low-rankness, one point of accuracy, two of the penultimate layer's.

**What came of it** (low-rankness, last and penultimate layer, in per cent). With decay alone at 1e-4 the layers are
{apart} points apart. At γ = {WRITTEN[mild]} decay alone has {three(decay(gamma=mild))}, and syre
{of_syre("relative-0.01", mild)} at σ = 0.01, {of_syre("relative-1", mild)} at σ = 1. At γ = {WRITTEN[STRONG]} decay
alone has {three(decay(gamma=STRONG))}, no decay {three(VANILLA)}. syre has {of_syre("relative-0.01")} at σ = 0.01,
{of_syre("relative-1")} at σ = 1, and from the start of decay alone {three(KEEP)}; {of_syre("absolute-0.01")} at
absolute σ = 0.01 and {of_syre("absolute-0.1")} at 0.1. There the low-rankness of decay alone changes by {more} points
after the first quarter of the training.
"""


def finding(results: Results) -> Finding:
    """Low-rankness and accuracy of the last layer where the decay is strong."""
    arms = [decay(gamma=STRONG), *(at(SYRES[f"relative-{s}"][1], STRONG) for s in ("1", "0.01")), VANILLA]
    low, last = ([percent(final(m, arm)(results), digits) for arm in arms] for m, digits in ((LOW, 0), (LAST, 1)))
    rows = [final(LOW, arm)(results) for arm in arms[:2]]
    return Finding(
        f"After a million images decay alone (γ = {STRONG:g}) leaves {low[0]} of the last layer unused, syre {low[1]} "
        f"at σ = 1 and {low[2]} at σ = 0.01, no decay {low[3]}; its accuracy is {last[0]}, {last[1]}, {last[2]} and "
        f"{last[3]}.",
        "70 % unused against 0 %; last layer 22.2 against 32.5 %",
        f"{interval(rows[0], times=100)} % against {interval(rows[1], times=100)} % (σ = 1)",
    )
