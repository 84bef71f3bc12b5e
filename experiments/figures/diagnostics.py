"""How well `syre.diagnose` tells collapsed networks: hits and false alarms, on networks that chose no threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import ALPHA, IDENTICAL, NAME, SIGMA, START, UNIT
from experiments.analysis.claims import Claim, Rare, Samples, Superiority
from experiments.analysis.notes import MISSING, Numbers
from experiments.analysis.plotting import Look
from experiments.analysis.results import Results, ResultsError, without_provenance
from experiments.analysis.stats import auc, roc, wilson_interval
from experiments.analysis.summaries import Finding
from experiments.analysis.summaries import table as markdown
from experiments.analysis.words import span

TITLE = "telling collapsed networks: hits and false alarms of syre.diagnose"

# ---- which networks have collapsed: written down before any of them was trained --------------------------------------

# Of the way from the best arm without syre, on the same data at the same input scale, down to chance.
COLLAPSED, HEALTHY, LEARNED = 1 / 3, 0.05, 1 / 2
CHANCE = 0.1  # accuracy in ten classes
PLAIN = ("vanilla", "weight_decay")

MODEL, NETWORK, DATA = "model.name", "model.network", "data.name"
FIGURES = {
    **{"collapsed_mlp": "fig. 1", "mlp": "fig. 5", "beta_vae": "fig. 9"},
    **{"continual_cnn": "fig. 11", "vit": "fig. 12"},
}
STOCK, FRESH = "stock models", "never trained"
SOURCES = (*FIGURES.values(), STOCK, FRESH)
VAE, LOSS = "fig. 9", "reconstruction/mean"  # it has no accuracy; blind is the worst arm of decay alone

# How it is asked -> what the metrics begin with. A score that cannot be computed raises no alarm.
WAYS = {"with batches": "score/", "weights alone": "score/weights-alone/"}
UNKNOWN = -1.0
FEW = 0.05  # false alarms: mean of three shares, of our healthy runs, of stock models and of networks never trained
# The largest of several, as in `syre.diagnostics.advice`.
COMBINED = {
    "either": ("shrunk", "symmetric/mean"),
    "any": ("shrunk", "symmetric/mean", "narrow/last"),
    "state": ("shrunk", "rows"),
}


def networks(results: Results) -> pd.DataFrame:
    """A row for each network, trained or never trained.

    `source`; `lost`, as above; `collapsed`: 1, 0 or, if it is neither, NaN; `judged`: whether it is in the half that
    is judged, not in the half that chooses; and all its scores.
    """
    return results.table(_networks)


def _networks(results: Results) -> pd.DataFrame:
    runs = results.runs[results.runs["status"] == "done"].reset_index(drop=True)
    runs = runs.assign(source=runs[MODEL].map(FIGURES).fillna(STOCK))
    runs = runs.assign(judged=_judged(runs), lost=_lost(results, runs))
    runs = runs.assign(collapsed=[_label(*of) for of in zip(runs["source"], runs["lost"], strict=True)])
    fresh = runs[_first_of_each_start(runs)].assign(source=FRESH, lost=np.nan, collapsed=0.0)
    parts = ((runs, _values(results, "end")), (fresh, _values(results, "start")))
    return pd.concat([part.join(values, on="id") for part, values in parts], ignore_index=True)


def _column(runs: pd.DataFrame, name: str) -> pd.Series:
    """A setting; empty where no run has it."""
    return runs[name] if name in runs else pd.Series(np.nan, index=runs.index)


def _values(results: Results, when: str) -> pd.DataFrame:
    """Scores, and what says how well it has learnt, of each run at its start or its end; a column each."""
    rows = results.metrics[results.metrics["split"] == "test"]
    rows = rows[rows["metric"].str.startswith("score/") | rows["metric"].isin(["accuracy", LOSS])]
    steps = rows.groupby("id")["step"].transform("max" if when == "end" else "min")
    values = rows[rows["step"] == steps].pivot(index="id", columns="metric", values="value")
    for way in WAYS.values():
        for name, parts in COMBINED.items():
            known = [way + part for part in parts if way + part in values]
            if len(known) == len(parts):
                values[way + name] = values[known].max(axis=1)
    return values


def _judged(runs: pd.DataFrame) -> pd.Series:
    """Every second setting of each source, in the order of ids, which are hashes; its seeds stay together.

    So do the runs of a stock model, whatever the data.
    """
    columns = without_provenance(runs).drop(columns=["id", "seed", "status", "scale", "source"])
    settings = pd.Series(list(map(repr, columns.itertuples(index=False, name=None))), index=runs.index)
    settings = settings.where(runs["source"] != STOCK, _column(runs, NETWORK))
    first = runs["id"].groupby([runs["source"], settings]).transform("min")
    return first.groupby(runs["source"]).rank(method="dense") % 2 == 0


def _first_of_each_start(runs: pd.DataFrame) -> pd.Series:
    """Runs of which no earlier one starts with the same weights and sees the same images.

    None of those that start with copies of a neuron: such a network is collapsed before it is trained.
    """
    shifted = _column(runs, START) == "shift"
    start = {name: _column(runs, name) for name in ("seed", MODEL, NETWORK, DATA, ALPHA)}
    start |= {name: _column(runs, name).where(shifted) for name in (SIGMA, UNIT)}
    return ~pd.DataFrame(start).duplicated() & ~(_column(runs, IDENTICAL) > 0)


def _lost(results: Results, runs: pd.DataFrame) -> pd.Series:
    values = _values(results, "end").reindex(columns=["accuracy", LOSS])
    reached = runs["id"].map(values["accuracy"].fillna(-values[LOSS]))
    place = [runs["source"], _column(runs, DATA), _column(runs, ALPHA)]
    arm = [_column(runs, name) for name in (NAME, "regularizer.weight_decay", IDENTICAL, NETWORK)]
    plain = reached.where(runs[NAME].isin(PLAIN)).groupby([*place, *arm], dropna=False).transform("mean")
    best, worst = (plain.groupby(place, dropna=False).transform(extreme) for extreme in ("max", "min"))
    return (best - reached) / (best - worst.where(runs["source"] == VAE, CHANCE))


def _label(source: str, lost: float) -> float:
    """1 for a collapsed network, 0 for a healthy one, NaN between them, and for a stock model that did not learn."""
    if source == STOCK:
        return 0.0 if lost <= LEARNED else np.nan
    return 1.0 if lost > COLLAPSED else 0.0 if lost < HEALTHY else np.nan


# ---- score and threshold, chosen on one half -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The score with the most hits at few false alarms, in the half that chooses, and its threshold."""

    score: str
    threshold: float  # at or above which a network is called collapsed
    column: str


def scores(table: pd.DataFrame, way: str) -> dict[str, str]:
    """The candidates of a way of asking: name -> column."""
    others = [prefix for prefix in WAYS.values() if len(prefix) > len(WAYS[way])]
    mine = [c for c in map(str, table) if c.startswith(WAYS[way]) and not c.startswith(tuple(others))]
    return {column.removeprefix(WAYS[way]): column for column in mine}


def parted(table: pd.DataFrame, column: str) -> tuple[pd.Series, pd.Series]:
    """A score of the collapsed networks, and of the healthy ones."""
    known = table[column].fillna(UNKNOWN)
    return known[table["collapsed"] == 1], known[table["collapsed"] == 0]


def choose(table: pd.DataFrame, way: str) -> Choice | None:
    """The most hits in the half that chooses, at no more than `FEW` false alarms; between equals the larger area.

    Of the scores that see more than one kind of collapse, where there are any (`COMBINED`).
    The threshold is half-way between two scores that were seen: of several with these hits, where the gap is widest.
    None where one kind of network is missing, or no score finds any that is collapsed.
    """
    half, found, candidates = table[~table["judged"]], [], scores(table, way)
    for name, column in {n: c for n, c in candidates.items() if n in COMBINED}.items() or candidates.items():
        collapsed, healthy = parted(half, column)
        if len(collapsed) and len(healthy):
            levels, hits, _ = roc(collapsed, healthy)
            alarms, lower = _alarms(half, healthy, levels).round(9), np.append(levels[1:], UNKNOWN).clip(min=0)
            allowed = (alarms <= FEW) & np.isfinite(levels)
            best = hits[allowed].max(initial=0.0)
            gaps = np.where(allowed & (hits == best), levels - lower, -1)
            threshold = float((levels + lower)[gaps.argmax()] / 2)
            if best > 0:
                area = auc(collapsed, healthy)
                found.append((round(best, 9), area, Choice(score=name, threshold=threshold, column=column)))
    return max(found, key=lambda each: each[:2])[2] if found else None


def _alarms(half: pd.DataFrame, healthy: pd.Series, levels: np.ndarray) -> np.ndarray:
    """The share of healthy networks at or above each level: the mean over our runs, stock models, and never trained."""
    kinds = half["source"].where(half["source"].isin([STOCK, FRESH]), "runs")[healthy.index]
    rates = [(known.to_numpy() >= levels[:, None]).mean(1) for _, known in healthy.groupby(kinds)]
    return np.mean(rates, axis=0)


def called(table: pd.DataFrame, choice: Choice) -> pd.Series:
    """1 for each network that is called collapsed, 0 for each other."""
    return (table[choice.column].fillna(UNKNOWN) >= choice.threshold).astype(float)


def calibrations(results: Results) -> dict[str, dict[str, Any] | None]:
    """For each way of asking the score, its threshold, and what they do on the half that did not choose them."""
    table = networks(results)
    return {way: _calibration(table, choose(table, way)) for way in WAYS}


def _calibration(table: pd.DataFrame, choice: Choice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    half = table[table["judged"]]
    collapsed, healthy = (called(half[half["collapsed"] == label], choice) for label in (1, 0))
    said = {"score": choice.score, "threshold": choice.threshold, "collapsed": len(collapsed), "healthy": len(healthy)}
    return said | {"hits": int(collapsed.sum()), "false_alarms": int(healthy.sum())}


def groups(half: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The collapsed networks of a half, and the three kinds of healthy ones."""
    healthy = half[half["collapsed"] == 0]
    return {
        "hits": half[half["collapsed"] == 1],
        "false alarms: our runs": healthy[healthy["source"].isin(FIGURES.values())],
        STOCK: healthy[healthy["source"] == STOCK],
        FRESH: healthy[healthy["source"] == FRESH],
    }


def rates(results: Results) -> str:
    """A table in markdown for docs/diagnose.md: what the chosen scores do on the half that did not choose them."""
    table, rows = networks(results), []
    parts = groups(table[table["judged"]])
    for way in WAYS:
        if choice := choose(table, way):
            counted = [(int(called(part, choice).sum()), len(part)) for part in parts.values()]
            limits = [wilson_interval(*of) for of in counted]
            cells = [f"{k} of {n} ({i.low:.0%} to {i.high:.0%})" for (k, n), i in zip(counted, limits, strict=True)]
            rows.append([way, f"`{choice.score}` ≥ {choice.threshold:.2g}", *cells])
    names = [name if name in ("hits", "false alarms: our runs") else f"false alarms: {name}" for name in parts]
    return "\n".join(markdown(["asked", "score", *names], rows))


# ---- claims, of the half that is judged ------------------------------------------------------------------------------


def _area(way: str) -> Samples:
    """The area under the ROC curve, one a seed."""

    def samples(results: Results) -> pd.Series:
        table = networks(results)
        if (choice := choose(table, way)) is None:
            return pd.Series(dtype=float)
        seeds = table[table["judged"]].groupby("seed")
        return pd.Series({seed: auc(*parted(rows, choice.column)) for seed, rows in seeds}, dtype=float)

    return samples


def _wrong(way: str, label: int, sources: Sequence[str]) -> Samples:
    """1 for each network of some sources that is called what it is not, 0 for each other."""

    def samples(results: Results) -> pd.Series:
        table = networks(results)
        if (choice := choose(table, way)) is None:
            return pd.Series(dtype=float)
        rows = table[table["judged"] & (table["collapsed"] == label) & table["source"].isin(sources)]
        return (called(rows, choice) - label).abs()

    return samples


MISSES, ALARMS, ALARMS_FRESH, AREA = 0.25, 0.1, 0.05, 0.9


def _claims(way: str) -> tuple[Claim, ...]:
    key, asked = way.split()[-1], {"with batches": "With batches", "weights alone": "By the weights alone"}[way]
    figures, scale = tuple(FIGURES.values()), "cpu"
    area = f"{asked} the area under the ROC curve of the chosen score is above {AREA:g}."
    missed = f"{asked} fewer than one collapsed network in four is missed."
    false = f"{asked} fewer than one in {{}} is called collapsed of {{}}."
    own, stock = false.format("ten", "our healthy runs"), false.format("ten", "the healthy stock models")
    fresh, argued = false.format("twenty", "the networks never trained"), "an area of 0.5 is chance"
    return (
        Superiority(f"area-{key}", area, "ours", _area(way), margin=AREA, argued=argued, scale=scale),
        Rare(f"misses-{key}", missed, "ours", _wrong(way, 1, figures), margin=MISSES, scale=scale),
        Rare(f"alarms-runs-{key}", own, "ours", _wrong(way, 0, figures), margin=ALARMS, scale=scale),
        Rare(f"alarms-stock-{key}", stock, "ours", _wrong(way, 0, [STOCK]), margin=ALARMS, scale=scale),
        Rare(f"alarms-fresh-{key}", fresh, "ours", _wrong(way, 0, [FRESH]), margin=ALARMS_FRESH, scale=scale),
    )


CLAIMS: tuple[Claim, ...] = tuple(claim for way in WAYS for claim in _claims(way))


def notes(results: Results) -> str:
    say, table = Numbers(results), networks(results)
    choices = {way: choose(table, way) for way in WAYS}
    said = {way: _calibration(table, choice) for way, choice in choices.items()}
    half, choice = table[table["judged"]], choices["with batches"]

    def counted(way: str, key: str, of: str) -> str:
        """How many are called collapsed, and of how many."""
        found = said[way]
        return f"{found[key]} of {found[of]}" if found else MISSING

    def wrong(label: int) -> pd.DataFrame:
        """The collapsed networks, or the healthy ones, that are called what they are not."""
        return half[(half["collapsed"] == label) & (called(half, choice) != label)] if choice else half.iloc[:0]

    def twentieth(source: str) -> str:
        """The points of accuracy that a network of a figure may lose and be healthy, over its input scales."""
        rows = table[(table["source"] == source) & (table["lost"] < LEARNED)]
        best = (rows["accuracy"] - CHANCE) / (1 - rows["lost"])  # of the arms without syre, less chance
        return say.told(lambda _: span(HEALTHY * best, 1, times=100))

    hits, alarms = (counted("with batches", *of) for of in (("hits", "collapsed"), ("false_alarms", "healthy")))
    bare, false = (counted("weights alone", *of) for of in (("hits", "collapsed"), ("false_alarms", "healthy")))
    late, faint = (wrong(1).query("source == @source") for source in ("fig. 11", "fig. 12"))
    near = say.told(lambda _: span(late[choice.column] if choice else late["lost"], 2))
    areas = [say.mean(_area(way), 2) for way in WAYS]
    return f"""
**What it shows.** With batches syre.diagnose finds {hits} collapsed networks that are judged, and calls {alarms}
healthy ones collapsed (area {areas[0]}); by the weights alone {bare} and {false} (area {areas[1]}). Of those that it
misses {len(late)} are of figure 11 at γ = 0.15, with scores of {near} where the threshold is
{f"{choice.threshold:.2g}" if choice else MISSING}, and {len(faint)} of figure 12 on inputs of 0.001, under syre at
absolute σ = 0.1: they do not learn, and their weights and features are those of networks that do. The {len(wrong(0))}
false alarms are networks of figure 1 of whose neurons 90 % are copies: the rest is enough for MNIST. The area of the
weights alone and the misses are inconclusive at this number of networks.

Of figure 1, planted copies are counted exactly at every fraction, before training and after it without syre; under syre
no twins are left at its end (three seeds each; the column `units/twins`).

**What is asked.** A network is given to `syre.diagnose`, with 512 test images or without any; it says how collapsed it
is, in several scores. One score and one threshold are chosen on half of the networks, and judged on the other half.

**Collapsed or not** is said by what a network can do, not by its weights or ranks; the rule was committed before any of
these networks was trained. For each data set and input scale, `lost` is the part of the way from the best arm without
syre (no decay, or decay alone; the mean over seeds) down to chance that a network has lost:

- accuracy, and chance is 10 %: figures 1, 5, 11 and 12. Figure 9: the reconstruction loss at the mean code, at β = 1,
  and "chance" is the worst arm of decay alone, whose decoder is blind to its input.
- Collapsed: more than a third of the way. Healthy: less than a twentieth, which is {twentieth("fig. 5")} points of
  accuracy on MNIST and {twentieth("fig. 12")} on CIFAR-10. What lies between is neither, and is left out of all counts.
- A stock model is healthy if it has lost no more than half of the way from the best stock model on its data, else it
  did not learn and is left out; it is never called collapsed.
- Never trained: the same networks before their first step, each start once, without those that begin with copies of a
  neuron. They are healthy.

Accuracy is lost in other ways than by a collapse: at anchors that are too strong for so short a training (figure 12 at
γ = 1), or to the tasks before (figure 11 without decay). Such a network counts as collapsed here, and as a miss if its
weights and features are those of a healthy one.

**Halves.** Every second setting of each source, in the order of its run ids, is judged; all seeds of a setting are in
one half, and so are all runs of a stock model. Of the scores the one is chosen that finds most collapsed networks at no
more than 5 % false alarms, the mean of the shares of our healthy runs, of stock models and of networks never trained;
between equals by the area under its ROC curve. The threshold lies half-way between two scores that were seen. A score
that cannot be computed raises no alarm. Before the results the rule was another one, Youden's J (hits less false
alarms). It was given up when two seeds had been seen, for it chose 28 % false alarms: half of the networks that count
as collapsed in that half are figure 12 under syre, which lose accuracy and no rank, and whatever finds them, finds
healthy ones.

`either` and `any`, the largest of two and of three scores, are no scores of before the first results: they were added
when the runs of seed 0 had been seen, and since then only they are chosen from. `shrunk`, which was chosen until then,
is blind to copies of a neuron, and called a network whose neurons are all the same (figure 1) healthy. The half that is
judged holds runs of that seed too.

**How to read it.** Where a claim counts networks, the interval is Wilson's and the column of seeds has the number of
networks. Networks of one setting, or of one stock model, are no independent draws, so these intervals are too narrow.

**The runs** of figures 1, 5, 9, 11 and 12 are trained again at `cpu` scale, a choice of their arms, for tables keep no
weights. Stock models: 12 of torchvision and 8 of timm from random weights, AdamW with its decay of 0.01, without
dropout, for 3 or 4 epochs on the digits of scikit-learn enlarged to 32 x 32 (two transformers of timm see them at 64 x
64), and six of them for 4 epochs on 4,000 images of CIFAR-10. Models whose BatchNorm averages over more steps than
there are (torchvision's MobileNetV3 and MNASNet) are at chance in evaluation after so short a training, and were
exchanged for others before the first run. `paper` scale is the same. Of the runs of figures 1, 5, 9, 11 and 12, 38 of
66, 26 of 57, 45 of 45, 27 of 45 and 47 of 54 end within 0.001 of those in their tables: they were stacked with others
there, or trained on another CPU, and at the edge of a collapse rounding decides.
"""


# ---- picture ---------------------------------------------------------------------------------------------------------

LABELS = {
    1.0: Look(label="collapsed", color="#D55E00", marker="X"),
    0.0: Look(label="healthy", color="#0072B2", marker="o"),
}
NEITHER = Look(label="between, left out", color="#999999", marker=".")
ASKED = {
    "with batches": Look(label="with batches", color="#000000", marker="s"),
    "weights alone": Look(label="weights alone", color="#009E73", marker="D"),
}


def draw(results: Results) -> Figure:
    table = networks(results)
    choices = {way: choose(table, way) for way in WAYS}
    half = table[table["judged"]]
    figure, axes = plotting.panels(2, 2, width=4.6, height=3.4)
    for ax, way in zip(axes, WAYS, strict=False):
        _curves(ax, half, way, choices[way])
    _points(axes[2], half, choices["with batches"])
    _rates(axes[3], half, choices)
    return plotting.with_legend(figure, loc="outside lower center", ncols=4)


def _curves(ax: Axes, half: pd.DataFrame, way: str, choice: Choice | None) -> None:
    """The ROC curve of each candidate, and of the chosen one its threshold."""
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls=":", zorder=0)
    for name, column in scores(half, way).items():
        mine = choice if choice and name == choice.score else None
        collapsed, healthy = parted(half, column)
        if not len(collapsed) or not len(healthy):
            continue
        _, hits, alarms = roc(collapsed, healthy)
        color, label = (ASKED[way].color, f"chosen {way}: {name}") if mine else ("0.75", "other scores")
        ax.plot(alarms, hits, color=color, lw=1.8 if mine else 0.7, zorder=3 if mine else 1, label=label)
        if mine:
            at = [float((known >= mine.threshold).mean()) for known in (healthy, collapsed)]
            ax.plot(*at, ASKED[way].marker, color=color, ms=6, zorder=4)
            ax.set_title(f"{way}: {name}, area {auc(collapsed, healthy):.2f}")
    ax.set(xlabel="false alarms", ylabel="hits", xlim=(-0.02, 1), ylim=(0, 1.02))


def _points(ax: Axes, half: pd.DataFrame, choice: Choice | None) -> None:
    """The chosen score of every network by its source."""
    if choice is None:
        return
    shown = half.assign(score=half[choice.column], place=half["source"].map(SOURCES.index))
    for own, rows in (
        (NEITHER, shown[shown["collapsed"].isna()]),
        *((look, shown[shown["collapsed"] == label]) for label, look in LABELS.items()),
    ):
        # spread over the width of their place by their rank in it: the same picture every time
        order = rows.groupby("place")["score"].rank(method="first")
        spread = (order * 0.618) % 1 - 0.5
        side = {NEITHER.label: 0.0, "collapsed": 0.22, "healthy": -0.22}[own.label]
        ax.plot(rows["place"] + side + 0.3 * spread, rows["score"], own.marker, color=own.color, ms=3.5, alpha=0.6,
                mew=0, label=own.label)  # fmt: skip
    ax.axhline(choice.threshold, color="0.3", lw=0.8, ls="--", label="threshold")
    ax.set_xticks(range(len(SOURCES)), [*FIGURES.values(), *(source.replace(" ", "\n") for source in (STOCK, FRESH))])
    ax.set(ylabel=f"score with batches: {choice.score}", ylim=(-0.03, 1.03), title="the networks that are judged")


def _rates(ax: Axes, half: pd.DataFrame, choices: dict[str, Choice | None]) -> None:
    """Hits, and false alarms by source, with Wilson's intervals."""
    parts = groups(half)
    for side, (way, choice) in zip((-0.12, 0.12), choices.items(), strict=True):
        for place, rows in enumerate(parts.values()):
            if choice is None or rows.empty:
                continue
            share, low, high, _ = wilson_interval(int(called(rows, choice).sum()), len(rows))
            own = ASKED[way]
            ax.errorbar(place + side, share, [[share - low], [high - share]], fmt=own.marker, color=own.color, ms=5,
                        elinewidth=1, label=way)  # fmt: skip
    names = [f"{name.replace(': ', chr(10))}\n(n = {len(rows)})" for name, rows in parts.items()]
    ax.set_xticks(range(len(parts)), names)
    ax.set(ylabel="share called collapsed", ylim=(-0.03, 1.03), title="hits and false alarms, 95 %")


def finding(results: Results) -> Finding:
    """Hits and false alarms on the networks that chose no threshold."""
    said = {}
    for way, found in calibrations(results).items():
        if found is None:
            raise ResultsError("no score tells collapsed networks")
        said[way] = f"{found['hits']} of {found['collapsed']}", f"{found['false_alarms']} of {found['healthy']}"
    (hits, alarms), (bare, false) = said["with batches"], said["weights alone"]
    return Finding(
        f"Given a few batches, syre.diagnose finds {hits} collapsed networks, and calls {alarms} healthy ones "
        f"collapsed; by the weights alone it finds {bare}, and calls {false} collapsed.",
        "",
        f"{hits} hits, {alarms} false alarms",
    )
