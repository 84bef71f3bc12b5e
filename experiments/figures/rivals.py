"""Beyond the paper: syre beside what else promises to keep a network plastic, each tuned as well as the others."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import plotting
from experiments.analysis.arms import LOOKS, NAME, POINT, SIGMA, UNIT, look
from experiments.analysis.claims import Claim, Equivalence, Samples, Superiority
from experiments.analysis.notes import Numbers
from experiments.analysis.plotting import Look
from experiments.analysis.results import Arm, Results, ResultsError, select
from experiments.analysis.stats import holm, p_above, paired_differences, t_interval
from experiments.analysis.summaries import Finding, listed, table
from experiments.analysis.tables import estimate
from experiments.analysis.words import interval, mean, span

TITLE = "syre and its rivals at equal budgets, on two streams of ten tasks"

STREAM, NORM, RATE, CHANGE = "data.name", "model.norm", "optim.lr", "regularizer.change"
STREAMS = {"permuted_mnist": "permuted MNIST", "random_labels": "CIFAR-10 with random labels"}
TUNING, JUDGING = (5, 6, 7), (8, 9, 10, 11, 12)  # seeds: none of figure 11's, whose runs some grids have learnt from
BUDGET = 8  # settings of each method on each stream
SYMBOLS = {"weight_decay": "γ", "sigma": "σ"}
LAST = 5  # tasks, over whose ends the accuracy is averaged: a method is chosen, and judged, by that

METHODS: dict[str, Arm] = {  # in the order of ties
    "none": {NAME: "vanilla", NORM: "none"},
    "layer_norm": {NAME: "vanilla", NORM: "layer"},
    **{
        name: {NAME: name}
        for name in (
            *("weight_decay", "l2_init", "shrink_perturb", "redo", "continual_backprop", "self_normalized_resets"),
            *("weight_clipping", "spectral", "dropout", "noisy"),
        )
    },
    "syre": {NAME: "syre", UNIT: "relative"},
    "syre_absolute": {NAME: "syre", UNIT: "absolute"},
    "syre_redrawn": {NAME: "syre_changing", CHANGE: "redrawn"},
    "syre_annealed": {NAME: "syre_changing", CHANGE: "halved"},
}
WORDS = {
    "none": "no regularizer (its learning rate)",
    "layer_norm": "LayerNorm alone (its learning rate)",
    "weight_decay": "weight decay alone",
    "l2_init": "L2 Init",
    "shrink_perturb": "shrink & perturb",
    "redo": "ReDo",
    "continual_backprop": "continual backprop",
    "self_normalized_resets": "self-normalized resets",
    "weight_clipping": "weight clipping",
    "spectral": "spectral regularization",
    "dropout": "dropout",
    "noisy": "noise in the gradient",
    "syre": "syre",
    "syre_absolute": "syre, absolute σ",
    "syre_redrawn": "syre, anchors redrawn",
    "syre_annealed": "syre, anchors halved",
}
BRIEF = {method: words.removesuffix(" (its learning rate)") for method, words in WORDS.items()}  # in a sentence
BRIEF["none"] = "the network without a regularizer"
RIVALS = [name for name in METHODS if not name.startswith("syre")]
ABLATIONS = [name for name in METHODS if name.startswith("syre_")]  # of syre, no rivals
CHANGED = {"syre_redrawn": "redrawn at each task", "syre_annealed": "halved at each task"}
MEASURED = {"accuracy": "accuracy, last five tasks", "rank": "rank of 128, last task", "dead": "dead units of 128"}


def ends(results: Results) -> pd.DataFrame:
    """One row a run: its method, its settings as one text, accuracy over the last tasks, rank and dead units at last.

    The accuracy of a run that went NaN is NaN.
    """
    return results.table(_ends)


def _ends(results: Results) -> pd.DataFrame:
    runs = results.final("rank", "dead")
    at_ends = results.curve("accuracy").query("step > 0").sort_values("step", kind="stable")
    late = at_ends.groupby("id").tail(LAST).groupby("id")["accuracy"].mean()
    runs["accuracy"] = runs["id"].map(late).where(runs["status"] == "done")
    runs["method"] = ""
    for method, arm in METHODS.items():
        runs.loc[select(runs, **{column: arm[column] for column in arm}).index, "method"] = method
    runs["settings"] = ""
    for _, rows in runs.groupby([STREAM, "method"]):
        runs.loc[rows.index, "settings"] = [_settings(row) for _, row in rows[_tried(rows)].iterrows()]
    return runs


def _tried(runs: pd.DataFrame) -> list[str]:
    """The columns with the numbers that are tried of a method."""
    columns = [RATE, *(column for column in map(str, runs) if column.startswith("regularizer."))]
    return [c for c in columns if c in runs and runs[c].nunique() > 1]


def _settings(row: pd.Series) -> str:
    named = {str(column).split(".")[-1]: value for column, value in row.items()}
    return ", ".join(f"{SYMBOLS.get(name, name)} = {value:g}" for name, value in named.items())


def chosen(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(stream, method) -> the settings with the best mean accuracy over the tuning seeds; a NaN run rules them out."""
    rows = runs[runs["seed"].isin(TUNING) & (runs["method"] != "")].fillna({"accuracy": -np.inf})
    means = rows.groupby([STREAM, "method", "settings"], sort=False)["accuracy"].mean().reset_index()
    means = means.sort_values("accuracy", ascending=False, kind="stable").drop_duplicates([STREAM, "method"])
    finite = means[np.isfinite(means["accuracy"])]
    return dict(zip(zip(finite[STREAM], finite["method"], strict=True), finite["settings"], strict=True))


def judged(results: Results, seeds: tuple[int, ...] = JUDGING) -> pd.DataFrame:
    """The runs of some seeds, by default those that nothing was chosen on, of each method at its chosen settings."""
    runs = ends(results)
    best = chosen(runs)
    own = [best.get(key) for key in zip(runs[STREAM], runs["method"], strict=True)]
    return runs[runs["seed"].isin(seeds) & (runs["settings"] == pd.Series(own, index=runs.index))]


def score(stream: str, method: str) -> Samples:
    """The accuracy of a method at its chosen settings, one number a judging seed."""
    return lambda results: _score(judged(results), stream, method)


def _score(rows: pd.DataFrame, stream: str, method: str) -> pd.Series:
    return rows[(rows[STREAM] == stream) & (rows["method"] == method)].set_index("seed")["accuracy"]


def gain(stream: str, treatment: str, control: str) -> Samples:
    """How much more accurate one method is than another, seed by seed, each at its chosen settings."""

    return lambda results: _gain(judged(results), stream, treatment, control)


def _gain(rows: pd.DataFrame, stream: str, treatment: str, control: str) -> pd.Series:
    return paired_differences(*(_score(rows, stream, method) for method in (treatment, control)))


def _beats(stream: str, treatment: str, control: str, words: str) -> Superiority:
    text = f"On {STREAMS[stream]} {words}, each at the best of eight settings, by more than a point."
    id = f"{treatment}-{control}-{stream.split('_')[0]}".replace("_", "-")
    return Superiority(id, text, "ours", gain(stream, treatment, control), margin=POINT)


CLAIMS: tuple[Claim, ...] = (
    *(
        _beats(stream, "syre", name, f"syre is more accurate than {WORDS[name]}")
        for stream in STREAMS
        for name in RIVALS
    ),
    *(
        _beats(stream, "syre", name, f"syre is more accurate than with anchors {words}")
        for stream in STREAMS
        for name, words in CHANGED.items()
    ),
    *(
        Equivalence(
            f"units-{stream.split('_')[0]}",
            f"On {STREAMS[stream]} syre with σ in absolute units is as accurate as in relative, within two points.",
            "ours",
            gain(stream, "syre_absolute", "syre"),
            margin=2 * POINT,
        )
        for stream in STREAMS
    ),
)


def _at_sigma(stream: str, sigma: float) -> Samples:
    """The accuracy of syre at one σ on the seeds that choose, at the decay that is best there."""

    def samples(results: Results) -> pd.Series:
        runs = ends(results)
        rows = runs[(runs[STREAM] == stream) & (runs["method"] == "syre") & runs["seed"].isin(TUNING)]
        rows = rows[rows[SIGMA] == sigma]
        means = rows.groupby("settings")["accuracy"].mean()
        if means.dropna().empty:
            raise ResultsError("it was not tried")
        return rows[rows["settings"] == means.idxmax()].set_index("seed")["accuracy"]

    return samples


def _at_the_ceiling(rows: pd.DataFrame) -> str:
    """How many methods learn all but a hundredth of the random labels."""
    means = _means(rows[rows[STREAM] == "random_labels"])
    if len(means) < len(METHODS):
        raise ResultsError("a method is not judged")
    return f"{(means > 1 - POINT).sum()} of the {len(METHODS)}"


def _plain(results: Results) -> str:
    """Without a regularizer on permuted MNIST: at the learning rate of the others, and at its own."""
    runs = ends(results)
    rows = runs[(runs[STREAM] == "permuted_mnist") & (runs["method"] == "none") & runs["seed"].isin(TUNING)]
    means = rows.groupby(RATE)["accuracy"].mean()
    if 0.01 not in means:
        raise ResultsError("it was not tried")
    return f"{means[0.01]:.3f} at 0.01, and {means.max():.3f} at its own"


def notes(results: Results) -> str:
    say, rows = Numbers(results), judged(results)
    permuted, random = STREAMS

    def accuracy(stream: str, method: str) -> str:
        return say.mean(lambda _: _score(rows, stream, method), 3)

    def points(stream: str, method: str) -> str:
        return say.interval(lambda _: _gain(rows, stream, "syre", method), 1, times=100)

    def seeds(stream: str, method: str) -> str:
        return say.told(lambda _: span(_score(rows, stream, method), 3))

    def at(method: str) -> str:
        """How accurate it is on the one stream and the other."""
        return " and ".join(accuracy(stream, method) for stream in STREAMS)

    def more(method: str) -> str:
        """How many points more syre has."""
        return " and ".join(points(stream, method) for stream in STREAMS)

    def by_holm(method: str) -> str:
        """On which streams that is significant among all of the stream."""

        def told(_: Results) -> str:
            if any(method not in of for of in gains.values()):
                raise ResultsError("it is not judged")
            where = [STREAMS[stream] for stream, of in gains.items() if of[method].kept]
            return "on both streams" if len(where) > 1 else f"on {where[0]} only" if where else "on neither stream"

        return say.told(told)

    def ahead(stream: str) -> str:
        """On how many seeds syre has more than decay alone."""
        return say.count(lambda _: _gain(rows, stream, "syre", "weight_decay"), above=0)

    gains = {stream: differences(rows[rows[STREAM] == stream]) for stream in STREAMS}
    weaker, stronger = (
        " and ".join(say.mean(_at_sigma(stream, sigma), 3) for stream in STREAMS) for sigma in (0.01, 1)
    )

    return f"""
**What it is for.** syre is not the only cure for lost plasticity, and a comparison at one strength of one rival says
little. Here each method has eight settings, the best of which is chosen on three seeds, by the accuracy at the ends of
the last five of ten tasks, and then judged on five others. None of the eight seeds is one of figure 11's, whose results
are known. A method with one number has eight values of it, one with two has four times two; nothing at all, and
LayerNorm alone, have eight learning rates. The momentum is 0.9. The others keep the common learning rate, at which
plain training does worse than at its own: on permuted MNIST it has {say.told(_plain)} (on the seeds that choose), so
that it is less to be better than dropout and noise, which start from the former.

**Two streams.** The ten tasks of figure 11 in its own setting (learning rate 0.01, batches of 64, one epoch of 10,000
images a task). And ten tasks of memorising: 480 images of CIFAR-10, the same in each, with labels drawn anew at random
(as in Lyle et al. 2023 and Kumar et al. 2023), 25 epochs of batches of 16 at learning rate 0.004, the accuracy being
that on these images. Pilots of seeds 100 and 101 chose this setting, of several: without any regularizer all labels of
the first tasks are learnt, and few of the last. They also ran, one seed each: weight decay and syre (σ = 1) at γ =
0.001, which lost their plasticity too, and at 0.01, where syre kept it and decay died on the tenth task; L2 Init at
0.01, which kept it; and syre with redrawn anchors, which there did not. The grids had been settled before, and stayed.

**Claims** were committed before the first run: that syre is better than each of the others by more than a point of
accuracy. With so many claims some would hold by chance: the table above says which differences are still significant
when all of a stream are asked about at once (Holm). *time* is that of a run over that of one without any regularizer,
on cores that other work shared; `make bench ARGS="--only rivals"` times a step alone.

**What it shows** (five seeds; permuted MNIST first, then random labels). syre ends at {at("syre")}, which is
{more("weight_decay")} points more than decay alone: more on {ahead(permuted)} and on
{ahead(random)} seeds, and after Holm's correction significant {by_holm("weight_decay")}. On random
labels what decay alone keeps depends on the seed, from {seeds(random, "weight_decay")}; of syre it is from
{seeds(random, "syre")}. But most of the others that are made for plasticity keep it as well: ReDo ends at {at("redo")},
self-normalized resets at {at("self_normalized_resets")}, shrink & perturb at {at("shrink_perturb")}, and LayerNorm,
which is no regularizer, at {at("layer_norm")}. Random labels do not tell the best of them apart:
{say.told(lambda _: _at_the_ceiling(rows))} methods learn more than 99 % of them, so that the places there say little.
Many settings tie at 1.000 there on the seeds that choose too, and the first of them is judged.

**Strength and anchors.** A large σ is better: on the seeds that choose, each at its best decay, syre has {weaker} at
0.01, the paper's advice, and {stronger} at 1. Anchors that stay have {more("syre_redrawn")} points more than anchors
drawn anew at each task (after Holm's correction significant {by_holm("syre_redrawn")}), and {more("syre_annealed")}
more than anchors that are halved (significant {by_holm("syre_annealed")}); those that are redrawn end at
{at("syre_redrawn")}. Anchors in absolute units end {more("syre_absolute")} points below those in relative ones
(significant {by_holm("syre_absolute")}), within the two points that the claims allow.
"""


# ---- the table of the report -----------------------------------------------------------------------------------------


def further(results: Results) -> str:
    """For the report: each method at its chosen settings, and its difference from syre."""
    rows = judged(results)
    here = [stream for stream in STREAMS if (rows[STREAM] == stream).any()]
    parts = [
        f"### {STREAMS[stream]}\n\n" + "\n".join(_standings(rows, stream)) + "\n\n" + _edges(results, stream)
        for stream in here
    ]
    parts += [_ended(results, stream) for stream in STREAMS if stream not in here]
    return "\n\n".join(["## Each method at its best of eight settings", *parts]) if here else ""


def _ended(results: Results, stream: str) -> str:
    """How far a stream has come of which nothing is judged yet."""
    tuned = results.runs[(results.runs[STREAM] == stream) & results.runs["seed"].isin(TUNING)]
    whole = len(METHODS) * BUDGET * len(TUNING)
    return f"On {STREAMS[stream]} {len(tuned)} of the {whole} runs that choose have ended; nothing of it is judged yet."


def _edges(results: Results, stream: str) -> str:
    """Of which methods the best number is the smallest or the largest that was tried, and of which several are best."""
    runs, at, tied = ends(results), [], []
    for method in (m for of, m in chosen(runs) if of == stream):
        tuned = runs[(runs[STREAM] == stream) & (runs["method"] == method) & runs["seed"].isin(TUNING)]
        means = _means(tuned, "settings")
        best = tuned[tuned["settings"].isin(_first(means))]
        for column in (c for c in _tried(tuned) if tuned[c].nunique() > 2):
            ends_of = (tuned[column].min(), tuned[column].max())
            if best[column].isin(ends_of).all():
                at.append(f"{BRIEF[method]} ({_settings(best.iloc[0][[column]])})")
        if (several := best["settings"].nunique()) > 1:
            tied.append(f"{BRIEF[method]} ({several} of {means.size})")
    said = (
        "The best number is the smallest or the largest of more than two that were tried, so that others may do better"
    )
    first = f" Several settings are best on the seeds that choose, and the first was taken, of {listed(tied)}."
    return f"{said}, of {listed(at)}." + first * bool(tied)


def learnt(results: Results) -> str:
    """Where syre stands, and what it beats and what beats it, of all that is still significant by Holm."""
    rows = judged(results)
    return " ".join(_place(rows, stream) for stream in STREAMS if (rows[STREAM] == stream).any())


def _place(rows: pd.DataFrame, stream: str) -> str:
    some = rows[rows[STREAM] == stream]
    order, gains = [m for m in _order(some) if m not in ABLATIONS], differences(some)
    means = _means(some)
    beaten, beats = ([BRIEF[m] for m in order if m in gains and gains[m].kept and sign * gains[m].mean > 0]
                     for sign in (-1, 1))  # fmt: skip
    best = _first(means[order])
    first = f", behind {listed([BRIEF[m] for m in best])} ({means[best[0]]:.3f})" if "syre" not in best else ""
    if (high := int((means > 1 - POINT).sum())) > 1:
        first += f", where {high} of all {len(means)} that were tried have more than {1 - POINT:.2f}"
    return (
        f"On {STREAMS[stream]}, each method at its best of eight settings, syre is number {order.index('syre') + 1} of "
        f"{len(order)} ({means['syre']:.3f}){first}; after Holm's correction it is beaten by {listed(beaten)}, "
        f"and beats {listed(beats)}."
    )


def finding(results: Results) -> Finding:
    """Which place syre has on each stream, and its difference from the best of the others, in points."""
    rows = judged(results)
    here = [rows[rows[STREAM] == stream] for stream in STREAMS if (rows[STREAM] == stream).any()]
    places, ours = [], []
    for some in here:
        order = [method for method in _order(some) if method not in ABLATIONS]
        if not {*RIVALS, "syre"} <= {*order}:
            raise ResultsError("a method is not judged")
        best = _first(_means(some)[[method for method in order if method != "syre"]])
        other, who = best[0], BRIEF[best[0]] if len(best) == 1 else f"{len(best)} others"
        scores = {method: some[some["method"] == method].set_index("seed")["accuracy"] for method in ("syre", other)}
        own, theirs = (mean(scores[method], 3) for method in ("syre", other))
        stream = STREAMS[some[STREAM].iloc[0]]
        places.append(f"number {order.index('syre') + 1} of {len(order)} on {stream} ({own}; {who} {theirs})")
        difference = paired_differences(scores["syre"], scores[other])
        ours.append(interval(difference, 1, times=100))
    if not here:
        raise ResultsError("nothing is judged")
    return Finding(
        f"In accuracy, each method at its best of eight settings, syre is {listed(places)}.",
        "",
        f"{listed(ours)} points against the best of the others",
    )


def _means(rows: pd.DataFrame, by: str = "method") -> pd.Series:
    """The mean accuracies; NaN where one of the runs has failed: none is judged by those that it survived."""
    return rows.groupby(by)["accuracy"].agg(lambda seeds: seeds.mean(skipna=False))


def _first(means: pd.Series) -> list[str]:
    """Those that have the largest mean."""
    return means.index[np.isclose(means, means.max(), rtol=0, atol=1e-9)].tolist()


class Gain(NamedTuple):
    """By how much syre is more accurate than a method, its interval and two-sided p; kept: significant by Holm."""

    mean: float
    low: float
    high: float
    p: float
    kept: bool


def differences(rows: pd.DataFrame) -> dict[str, Gain]:
    """Of the judged runs of a stream: syre's difference from each other method, paired by seed."""
    scores = {m: rows[rows["method"] == m].set_index("seed")["accuracy"] for m in set(rows["method"])}
    if "syre" not in scores:
        return {}
    pairs = {m: paired_differences(scores["syre"], scores[m]) for m in sorted(scores) if m != "syre"}
    p = {m: 2 * min(p_above(d, 0), p_above(-d, 0)) if len(d) > 1 else np.nan for m, d in pairs.items()}
    kept = dict(zip(p, holm(list(p.values())), strict=True))
    return {m: Gain(*t_interval(d)[:3], min(p[m], 1.0), kept[m]) for m, d in pairs.items()}


def _standings(rows: pd.DataFrame, stream: str) -> list[str]:
    header = ["method", "chosen", "accuracy", "rank", "dead units", "time", "syre minus it", "p", "Holm"]
    some = rows[rows[STREAM] == stream]
    gains, cells = differences(some), []
    seconds = some.groupby("method")["seconds"].median()
    for m in _order(some):
        own = some[some["method"] == m]
        means = [estimate(own[k], digits) for k, digits in (("accuracy", 3), ("rank", 0), ("dead", 0))]
        time = f"{seconds[m] / seconds['none']:.2f}" if "none" in seconds else ""
        gain = gains.get(m)
        against = ["", "", ""]
        if gain:
            difference = f"{gain.mean:z.3f} [{gain.low:z.3f}, {gain.high:z.3f}]"
            against = [difference, f"{gain.p:.2g}", "yes" if gain.kept else "no"]
        cells.append([WORDS[m], own["settings"].iloc[0], *means, time, *against])
    return table(header, cells)


# ---- the picture -----------------------------------------------------------------------------------------------------


def _look(method: str) -> Look:
    if method.startswith("syre"):
        return Look(label=WORDS[method], color=LOOKS["syre"].color, marker=LOOKS["syre"].marker)
    return look({"none": "vanilla"}.get(method, method))


def _order(rows: pd.DataFrame) -> list[str]:
    """The methods, the most accurate first."""
    means = _means(rows).fillna(-np.inf)
    return sorted(means.index, key=lambda m: (-means[m], list(METHODS).index(m)))


def draw(results: Results) -> Figure:
    rows = judged(results)
    if rows.empty:  # nothing is judged yet
        rows = judged(results, TUNING)
    streams = [stream for stream in STREAMS if (rows[STREAM] == stream).any()]
    figure, axes = plotting.panels(len(MEASURED), len(streams), width=2.9, height=3.6)
    for of_stream, stream in zip(axes.reshape(len(streams), -1), streams, strict=True):
        some = rows[rows[STREAM] == stream]
        order = _order(some)[::-1]
        for ax, (metric, words) in zip(of_stream, MEASURED.items(), strict=True):
            _dots(ax, some, order, metric)
            ax.set(title=STREAMS[stream] if ax is of_stream[0] else "", xlabel=words)
            labels: Callable[..., object] = partial(ax.set_yticks, range(len(order)))
            labels([WORDS[m] for m in order] if ax is of_stream[0] else [])
    return figure


def _dots(ax: Axes, rows: pd.DataFrame, order: list[str], metric: str) -> None:
    """A row a method: its seeds as dots, their mean with its interval."""
    for at, method in enumerate(order):
        values, own = rows.loc[rows["method"] == method, metric].dropna(), _look(method)
        centre, low, high, _ = t_interval(values)
        ax.plot(values, [at] * len(values), ".", color=own.color, alpha=0.4, markersize=3)
        ax.errorbar(centre, at, xerr=[[np.nan_to_num(centre - low)], [np.nan_to_num(high - centre)]], color=own.color,
                    marker=own.marker, lw=0.9)  # fmt: skip
    ax.grid(axis="y", visible=False)
