"""What was measured, part by part, as sections of the page of a diagnosis: pictures first, all numbers to unfold."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from syre.diagnostics import charts, words
from syre.diagnostics.charts import Panel, Series, Strip, escaped
from syre.diagnostics.markup import (
    DRAWN,
    LISTED,
    SHOWN,
    Entry,
    facts,
    figure,
    grid,
    paragraph,
    section,
    small_figure,
    table,
    unfold,
)
from syre.diagnostics.words import counted, finite, number, part, percent, ratio

PLACES = 400  # layers of a picture over the layers at most


def worst_first(diagnosis: Mapping[str, Any], name: str) -> list[Entry]:
    """The entries of one list, the most symmetric or lowest in rank first."""
    entries = words.rows(diagnosis, name)
    return [entries[place] for place in words.worst(name, entries, len(entries))]


def absent(key: str, title: str, why: str) -> str:
    return section(key, title, paragraph(f"Not looked at: {why}.", "quiet"))


def value(*keys: str, show: Callable[[Any], str] = number) -> Callable[[Entry], str]:
    """A cell: the entry of an entry, as text."""

    def cell(entry: Entry) -> str:
        for key in keys[:-1]:
            entry = part(entry, key)
        return show(entry.get(keys[-1]))

    return cell


def share(part: Any) -> str:
    return percent(finite(part))


def sets(groups: Any) -> str:
    """{0, 3}; {1, 2, 7}."""
    return "; ".join("{" + ", ".join(map(str, group)) + "}" for group in groups or ()) or "none"


# ---- over the layers -------------------------------------------------------------------------------------------------


def overview(diagnosis: Mapping[str, Any]) -> str:
    weights, units = words.rows(diagnosis, "weights"), words.rows(diagnosis, "units")
    labels = [str(entry.get("name")) for entry in weights or units]
    if not labels:
        return absent("overview", "All layers", "there is nothing to show layer by layer")
    panels = [_rank_panel(weights)] if weights else []
    panels += [_symmetry_panel(units, labels, places=bool(weights))] if units else []
    note, labels, panels = thinned(labels, panels)
    aid = (
        "A healthy layer has its dot near the dashed line and no bar below it. The longer a stem or a bar, the less of "
        "the layer is in use."
    )
    title = "Rank and symmetry, layer by layer"
    picture = charts.over_layers(title, aid, labels, panels)
    return section("overview", "All layers", figure(title, aid + note, picture))


def _rank_panel(weights: Sequence[Entry]) -> Panel:
    shares = [words.against_random(entry) for entry in weights]
    tips = [f"{entry.get('name')}: {_rank(entry)}" for entry in weights]
    series = Series(name="a weight of the model", values=shares, tips=tips, stem=1.0)
    high = min(max([1.1, *words.finites(shares)]), 2.0)
    level = (1.0, "a random matrix of its shape")
    return Panel(title="Effective rank of each weight", up="over random", series=[series], high=high, level=level)


def _rank(entry: Entry) -> str:
    return f"effective rank {number(entry.get('rank/effective'))}, {percent(words.against_random(entry))} of random"


def _symmetry_panel(units: Sequence[Entry], labels: Sequence[str], places: bool) -> Panel:
    """A bar where each set of units is made; of several made by one weight, the most symmetric has it."""
    shares: list[float | None] = [None] * len(labels)
    tips = [""] * len(labels)
    for place, entry in zip(_made_at(units, labels) if places else range(len(units)), units, strict=True):
        found = words.symmetric_share(entry)
        tips[place] += f"{entry.get('name')}: {number(entry.get('symmetric'))} of {charts.counted_units(entry)}. "
        if found is not None:
            shares[place] = max(found, shares[place] or 0.0)
    series = Series(name="twins, sign-twins and dead", values=shares, tips=tips, css="bad", shape="bar")
    return Panel(title="Symmetric units, where they are made", up="share", series=[series])


def _made_at(units: Sequence[Entry], labels: Sequence[str]) -> list[int]:
    """Where on the axis of the weights each set of units is made: at the first weight that makes it."""
    known = {name: place for place, name in enumerate(labels)}
    places, last = [], 0
    for entry in units:
        makers = [str(maker).rsplit("[", 1)[0] for maker in entry.get("made_by") or ()]
        last = next((known[maker] for maker in makers if maker in known), last)
        places.append(last)
    return places


def thinned(labels: list[str], panels: list[Panel]) -> tuple[str, list[str], list[Panel]]:
    """At most PLACES places: one stands for a few neighbours, with the worst value of each series; and a note on it."""
    size = math.ceil(len(labels) / PLACES)
    if size == 1:
        return "", labels, panels
    groups = [range(start, min(start + size, len(labels))) for start in range(0, len(labels), size)]

    def worst(series: Series, group: range) -> int:
        known = [(number, place) for place in group if (number := series.values[place]) is not None]
        # Much of a bar is bad, and little of a rank.
        return (max if series.shape == "bar" else min)(known)[1] if known else group[0]

    def fewer(series: Series) -> Series:
        kept = [worst(series, group) for group in groups]
        values, tips = [series.values[place] for place in kept], [series.tips[place] for place in kept]
        return Series(**{**vars(series), "values": values, "tips": tips})

    panels = [Panel(**{**vars(panel), "series": [*map(fewer, panel.series)]}) for panel in panels]
    note = f" Each place stands for {size} layers in a row, with the worst values among them."
    return note, [labels[group[0]] for group in groups], panels


# ---- units -----------------------------------------------------------------------------------------------------------


def units(diagnosis: Mapping[str, Any]) -> str:
    entries, title = words.rows(diagnosis, "units"), "Units: twins, sign-twins and dead ones"
    if not entries:
        return absent("units", title, dict(words.not_looked_at(diagnosis))["units and heads"])
    aid = (
        "One picture for each set of units that could change places without changing the output, the most symmetric "
        "first. Left of the dashed line: closer to a twin, or to being dead, than chance has it. The tinted strip at 0 "
        "is symmetry itself, which gradient descent cannot leave."
    )

    def draw(entry: Entry) -> str:
        return small_figure(entry.get("name"), charts.in_words(entry), charts.distances(entry))

    counts = {"of": words.kind, "count": value("count"), "twins": value("twins"), "sign-twins": value("sign_twins")}
    counts |= {"duplicates": value("duplicates"), "dead": value("dead")}
    counts |= {"symmetric": lambda entry: percent(words.symmetric_share(entry))}
    nearest = {f"{name} distance": value("nearest", name) for name in ("min", "median")}
    return section(
        "units",
        title,
        paragraph(aid, "aid"),
        grid(worst_first(diagnosis, "units"), draw, "sets of units"),
        table(
            f"{counted(len(entries), 'set')} of units in numbers",
            counts | nearest | {"if random": value("nearest", "random")},
            entries,
        ),
        unfold("What makes and reads them, and which units are twins", "".join(map(_wiring, entries[:LISTED]))),
    )


def _wiring(entry: Entry) -> str:
    keys = (("made by", "made_by"), ("read by", "read_by"), ("may differ by", "symmetry"))
    pairs = [(label, ", ".join(map(str, entry.get(key) or ())) or "-") for label, key in keys]
    pairs += [("largest groups of twins", sets(entry["groups"]))] if entry.get("groups") else []
    return f"<h4>{escaped(entry.get('name'))}</h4>{facts(pairs)}"


# ---- heads -----------------------------------------------------------------------------------------------------------

PAIRS = (("query_key", "Query and key", "compares"), ("output_value", "Output and value", "passes on"))


def heads(diagnosis: Mapping[str, Any]) -> str:
    entries, title = words.rows(diagnosis, "heads"), "Heads of attention"
    if not entries and not diagnosis.get("units"):
        return absent("heads", title, dict(words.not_looked_at(diagnosis))["units and heads"])
    if not entries:
        return section("heads", title, paragraph("No heads of attention were found.", "quiet"))
    pictures = []
    for key, label, verb in PAIRS:
        strips = [_strip(entry, key) for entry in entries[:DRAWN]]
        aid = (
            f"How many directions a head {verb}, in per cent of all that it could: a pale cell is a head that does "
            "little. A ring marks heads that equal another one."
        )
        heading = f"{label}: effective rank of each head"
        if any(words.finites(strip.values) for strip in strips):
            pictures.append(figure(heading, aid, charts.heat(heading, aid, strips)))
    left = len(entries) - DRAWN
    columns = {"heads": value("count"), "size": value("size"), "equal": value("equal", show=sets)}
    columns |= {f"rank of {label.lower()}": value(key, "rank/effective", show=_listed) for key, label, _ in PAIRS}
    return section(
        "heads",
        title,
        *(pictures or [paragraph("The ranks of the heads could not be read.", "quiet")]),
        paragraph(f"{counted(left, 'more attention')} not drawn." if left > 0 else "", "quiet"),
        table(f"{counted(len(entries), 'attention')} in numbers", columns, entries),
    )


def _listed(numbers: Any) -> str:
    return ", ".join(map(number, numbers or ())) or "-"


def _strip(entry: Entry, key: str) -> Strip:
    """A cell for each head; those of an attention whose ranks were not read stay empty."""
    ranks, name = part(entry, key), str(entry.get("name"))
    full, unread = ranks.get("full"), [None] * int(finite(entry.get("count")) or 0)
    effective = list(ranks.get("rank/effective") or unread)
    tips = [
        f"{name}, head {head}: effective rank {number(rank)} of {number(full)}" for head, rank in enumerate(effective)
    ]
    equal = frozenset(head for group in entry.get("equal") or () for head in group)
    return Strip(name=name, values=[ratio(rank, full) for rank in effective], equal=equal, tips=tips)


# ---- weights ---------------------------------------------------------------------------------------------------------


def weights(diagnosis: Mapping[str, Any]) -> str:
    entries, title = words.rows(diagnosis, "weights"), "Weights: how many directions each matrix uses"
    if not entries:
        return absent("weights", title, "no parameter has two axes")
    aid = (
        "Singular values over the largest, in order, lowest rank first. A line far below the dashed one, which is a "
        "random matrix of that shape, has lost directions; a sharp drop is a collapse to few of them."
    )
    columns = {"shape": lambda entry: " x ".join(map(str, entry.get("shape") or ())), "rank": value("rank")}
    for kind in ("effective", "stable"):
        columns |= {kind: value(f"rank/{kind}"), f"{kind} if random": value("random", f"rank/{kind}")}
    columns |= {"dead rows": value("dead_rows"), "dead columns": value("dead_columns"), "norm": value("norm")}
    return section(
        "weights",
        title,
        paragraph(aid, "aid"),
        grid(worst_first(diagnosis, "weights"), _spectrum, "weights"),
        table(f"{counted(len(entries), 'weight')} in numbers", columns, entries),
    )


def _spectrum(entry: Entry) -> str:
    values = list(entry.get("singular") or ())
    rows, columns = (int(finite(entry.get(key)) or 0) for key in ("rows", "columns"))
    known = min(rows, columns, len(values)) > 2
    chance = charts.random_spectrum(rows, columns, len(values)) if known else ()
    sentence = f"{number(rows)} x {number(columns)}; {_rank(entry)}."
    heading = f"{entry.get('name')}: singular values"
    picture = charts.spectrum(heading, values, sentence, "singular values, in order", "over the largest", chance)
    return small_figure(entry.get("name"), sentence, picture)


# ---- features --------------------------------------------------------------------------------------------------------


def features(diagnosis: Mapping[str, Any]) -> str:
    entries, title = words.rows(diagnosis, "features"), "Features: what the layers make of the batches"
    if not entries:
        why = "no batches were given" if diagnosis.get("features") is None else "no layer was found"
        return absent("features", title, why)
    labels = [str(entry.get("name")) for entry in entries]
    note, labels, panels = thinned(labels, [_feature_ranks(entries), _lost_features(entries)])
    aid = (
        "The higher the marks, the more of a layer's width the batches fill. Bars and diamonds below are units that "
        "are always silent, or copies of another one."
    )
    decay = (
        "How fast the eigenvalues of the features' covariance fall, lowest rank first: a line that drops at once means "
        "that few directions carry all."
    )
    heading = "Ranks of features, layer by layer"
    ranks = ("rank", "rank/effective", "rank/stable")
    columns = {"width": value("width"), "samples": value("samples"), "largest rank": value("full")}
    columns |= {key.removeprefix("rank/"): value(key) for key in ranks}
    columns |= {"dead": value("dead"), "duplicates": value("duplicates"), "low eigenvalues": value("low", show=share)}
    return section(
        "features",
        title,
        figure(heading, aid + note, charts.over_layers(heading, aid, labels, panels)),
        paragraph(decay, "aid"),
        grid(worst_first(diagnosis, "features"), _eigenvalues, "layers"),
        table(f"{counted(len(entries), 'layer')} in numbers", columns, entries),
    )


def _feature_ranks(entries: Sequence[Entry]) -> Panel:
    looks = (("rank", "numerical", "third", "triangle"), ("rank/effective", "effective", "main", "circle"))
    series = []
    for key, label, css, shape in (*looks, ("rank/stable", "stable", "fourth", "diamond")):
        values = [words.of_full(entry, key) for entry in entries]
        tips = [f"{e.get('name')}: {label} rank {number(e.get(key))} of {number(e.get('full'))}" for e in entries]
        series.append(Series(name=label, values=values, tips=tips, css=css, shape=shape))
    return Panel(title="Rank of the features", up="of all possible", series=series)


def _lost_features(entries: Sequence[Entry]) -> Panel:
    series = []
    for key, css, shape in (("dead", "bad", "bar"), ("duplicates", "main", "diamond")):
        values = [ratio(entry.get(key), entry.get("width")) for entry in entries]
        tips = [f"{e.get('name')}: {number(e.get(key))} {key} of {counted(e.get('width'), 'unit')}" for e in entries]
        series.append(Series(name=key, values=values, tips=tips, css=css, shape=shape))
    return Panel(title="Units that carry nothing of their own", up="share", series=series)


def _eigenvalues(entry: Entry) -> str:
    values, heading = list(entry.get("eigenvalues") or ()), f"{entry.get('name')}: eigenvalues"
    sentence = f"{share(entry.get('low'))} of the eigenvalues are below a thousandth of the largest."
    picture = charts.spectrum(heading, values, sentence, "eigenvalues, in order", "over the largest")
    return small_figure(entry.get("name"), sentence, picture)


# ---- training --------------------------------------------------------------------------------------------------------


def training(diagnosis: Mapping[str, Any]) -> str:
    entries, title = words.rows(diagnosis, "training"), "Training: what decay does against the gradient"
    if not entries:
        why = "no optimizer was given" if diagnosis.get("training") is None else "no set of units was found"
        return absent("training", title, why)
    shown, all_of_it = worst_first(diagnosis, "training")[: 3 * SHOWN], part(diagnosis, "training")
    kind = ", added to the gradient" if all_of_it.get("coupled") else ", apart from the gradient"
    decay = f"Largest weight decay {number(all_of_it.get('decay'))}{kind}; "
    aid = (
        "In common: what a unit shares with its nearest twin; apart: what tells it from it. Where the square of decay "
        "lies right of the circle on the line 'apart', decay is the stronger and pulls the unit into its twin; the "
        "column at the right says how many units move that way."
    )
    left = len(entries) - len(shown)
    columns = {"lambda": value("lambda")}
    for side, label in (("symmetric", "in common"), ("broken", "apart")):
        columns |= {f"{label}: {key}": value(side, key) for key in ("decay", "gradient")}
        columns |= {f"{label}: towards symmetry": value(side, "inward", show=share)}
    heading = "Decay against gradient, on what twins have in common and on what is apart"
    return section(
        "training",
        title,
        paragraph(f"{decay}gradients of {counted(all_of_it.get('batches'), 'batch', 'batches')}."),
        figure(heading, aid, charts.pulls(heading, aid, shown)),
        paragraph(f"The worst {len(shown)}; {number(left)} more sets in the table." if left else "", "quiet"),
        table(f"{counted(len(entries), 'set')} of units in numbers", columns, entries),
    )
