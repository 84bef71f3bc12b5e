"""Is it collapsed, did decay do it, and what to try: the entries `verdict` and `advice` of a `Diagnosis`.

What is said rests on `evidence.json`, which `scripts/evidence.py` makes from the committed tables: no number of a
result is written here. An interval there is [mean, low, high, n], 95 % over n seeds.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from math import isfinite, sqrt
from statistics import median
from typing import Any

Entry = Mapping[str, Any]

LEAST = 4  # units, rows or columns: what has fewer says little about a network
SMALL = 0.1  # root mean square of the inputs, below which they count as small: a tenth of standardised ones
FAR = 10  # times as many parameters as the largest network measured: far from the evidence
# What is recommended; a test holds it against the map over sigma.
SIGMA, CAREFUL, ABSOLUTE, PAPERS = 1, 0.3, 0.1, 0.01
# The calibrations of `evidence.json`, what sees most first: features too, the weights of a model whose forward pass is
# known, those of a checkpoint, where it is not.
WAYS = {"with batches": "with batches", "weights alone": "by the weights alone", "checkpoint": "by single matrices"}
# Score and threshold of a way that has not been measured: half of all that is there is symmetric.
DEFAULTS: dict[str, Entry] = {
    "with batches": {"score": "any", "threshold": 0.75},
    "weights alone": {"score": "either", "threshold": 0.75},
    "checkpoint": {"score": "state", "threshold": 0.6},
}


@cache
def evidence() -> dict[str, Any]:
    """What `scripts/evidence.py` wrote."""
    return json.loads(resources.files("syre.diagnostics").joinpath("evidence.json").read_text("utf-8"))


# ---- scores ----------------------------------------------------------------------------------------------------------
# Pure functions of a diagnosis: a number in [0, 1], the larger the more collapsed; None where it cannot be computed.


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return float(value) if known else None


def _rows(diagnosis: Entry, name: str) -> list[Entry]:
    return list(diagnosis.get(name) or ())


def _units(diagnosis: Entry) -> list[Entry]:
    """The sets of units, without those of a few; heads are units too."""
    return [entry for entry in _rows(diagnosis, "units") if entry["count"] >= LEAST]


def _share(part: float, whole: float) -> float | None:
    return min(part / whole, 1.0) if whole > 0 else None


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _lacking(ratios: Sequence[float | None], quantile: float) -> float | None:
    """1 - the ratio below which this share of the ratios lies, which are at most 1."""
    known = sorted(min(ratio, 1.0) for ratio in ratios if ratio is not None)
    return 1 - known[int(quantile * (len(known) - 1))] if known else None


def _symmetric(diagnosis: Entry) -> list[float | None]:
    return [_share(entry["symmetric"], entry["count"]) for entry in _units(diagnosis)]


def _counted(diagnosis: Entry, *kinds: str) -> float | None:
    """The share of all units that are of these kinds."""
    entries = _units(diagnosis)
    return _share(sum(entry[kind] for entry in entries for kind in kinds), sum(entry["count"] for entry in entries))


def _nearness(diagnosis: Entry) -> list[float | None]:
    """For each set of units, how much nearer to a symmetric state its median unit is than one of a random network."""
    found = []
    for entry in _units(diagnosis):
        nearest = entry.get("nearest") or {}
        here, random = _number(nearest.get("median")), _number(nearest.get("random"))
        found.append(None if here is None or not random else max(0.0, 1 - here / random))
    return found


def _close(diagnosis: Entry, share: float = 0.1) -> float | None:
    """The share of all units that are nearer than a tenth of what the median of a random network is."""
    close = count = 0
    for entry in _units(diagnosis):
        random = _number((entry.get("nearest") or {}).get("random"))
        distances = [_number(distance) for distance in entry.get("distances") or ()]
        if random:
            close += sum(distance is not None and distance < share * random for distance in distances)
            count += len(distances)
    return _share(close, count)


def _matrices(diagnosis: Entry) -> list[Entry]:
    return [entry for entry in _rows(diagnosis, "weights") if min(entry["rows"], entry["columns"]) >= LEAST]


def _ranks(diagnosis: Entry) -> list[float | None]:
    """The effective rank of each matrix over that of a random one."""
    found = []
    for entry in _matrices(diagnosis):
        rank, random = _number(entry["rank/effective"]), _number((entry.get("random") or {}).get("rank/effective"))
        found.append(None if rank is None or not random else rank / random)
    return found


def _sizes(diagnosis: Entry) -> list[float | None]:
    """The rms of each matrix over the one that `nn.Linear` starts with, 1 / sqrt(3 columns)."""
    norms = [(_number(entry["norm"]), entry["rows"]) for entry in _matrices(diagnosis)]
    return [None if norm is None else norm * sqrt(3 / rows) for norm, rows in norms]


def _layers(diagnosis: Entry) -> list[Entry]:
    """The features of the layers, without those that could have a rank of a few only."""
    return [entry for entry in _rows(diagnosis, "features") if (_number(entry["full"]) or 0) >= LEAST]


def _of_features(diagnosis: Entry) -> list[float | None]:
    """The effective rank of each layer's features, over the largest that it could have."""
    ranks = [(_number(entry["rank/effective"]), entry["full"]) for entry in _layers(diagnosis)]
    return [None if rank is None else rank / full for rank, full in ranks]


def _narrow(diagnosis: Entry) -> list[float | None]:
    """1 / effective rank of each layer's features: 1 where all samples look alike, whatever the width."""
    ranks = [_number(entry["rank/effective"]) for entry in _layers(diagnosis)]
    return [None if rank is None else 1 / max(rank, 1.0) for rank in ranks]


def _low(diagnosis: Entry) -> list[float | None]:
    return [_number(entry["low"]) for entry in _layers(diagnosis)]


def _last(values: Sequence[float | None]) -> float | None:
    return values[-1] if values else None


def _idle(diagnosis: Entry) -> float | None:
    """The share of all features that are 0 on all samples, or copies of another one."""
    layers = [entry for entry in _layers(diagnosis) if entry["dead"] is not None]
    return _share(sum(e["dead"] + (e["duplicates"] or 0) for e in layers), sum(e["width"] for e in layers))


def _equal_rows(diagnosis: Entry) -> float | None:
    """The share of all rows of weight matrices that are 0 or equal to another one, where that was counted."""
    entries = [entry for entry in _matrices(diagnosis) if entry.get("duplicate_rows") is not None]
    equal = sum(max(entry["duplicate_rows"], entry["dead_rows"]) for entry in entries)
    return _share(equal, sum(entry["rows"] for entry in entries))


def _heads(diagnosis: Entry) -> float | None:
    """The share of all heads that are equal to another one."""
    entries = _rows(diagnosis, "heads")
    return _share(sum(len(group) for e in entries for group in e["equal"]), sum(e["count"] for e in entries))


def _head_ranks(diagnosis: Entry) -> list[float | None]:
    """Of each attention, the median over heads of the effective rank of queries times keys, over the largest."""
    found = []
    for entry in _rows(diagnosis, "heads"):
        products = entry.get("query_key") or {}
        middle = _middle([_number(rank) for rank in products.get("rank/effective") or ()])
        found.append(None if middle is None or not products.get("full") else middle / products["full"])
    return found


def _agreed(diagnosis: Entry) -> float | None:
    """The middle one of three that look at different things: units, weights and features."""
    three = [SCORES[name](diagnosis) for name in ("near", "weights/median", "features/median")]
    return None if None in three else _middle(three)


SCORES: dict[str, Callable[[Entry], float | None]] = {
    "symmetric": lambda d: _largest(_symmetric(d)),
    "symmetric/mean": lambda d: _counted(d, "symmetric"),
    "symmetric/median": lambda d: _middle(_symmetric(d)),
    "twins": lambda d: _counted(d, "twins", "sign_twins"),  # dead channels are usual in networks that are well
    "near": lambda d: _middle(_nearness(d)),
    "near/most": lambda d: _largest(_nearness(d)),
    "near/share": _close,
    "weights": lambda d: _lacking(_ranks(d), 0),
    "weights/quarter": lambda d: _lacking(_ranks(d), 0.25),  # trained matrices are of low rank here and there
    "weights/median": lambda d: _lacking(_ranks(d), 0.5),
    "shrunk": lambda d: _lacking(_sizes(d), 0.5),
    "rows": _equal_rows,
    "features": lambda d: _lacking(_of_features(d), 0),
    "features/median": lambda d: _lacking(_of_features(d), 0.5),
    "features/last": lambda d: _lacking(_of_features(d)[-1:], 0),
    "narrow": lambda d: _largest(_narrow(d)),
    "narrow/median": lambda d: _middle(_narrow(d)),
    "narrow/last": lambda d: _last(_narrow(d)),
    "low": lambda d: _last(_low(d)),
    "low/median": lambda d: _middle(_low(d)),
    "idle": _idle,
    "heads": _heads,
    "heads/rank": lambda d: _lacking(_head_ranks(d), 0.5),
    "agreed": _agreed,
}
# Networks fail in ways of which each score sees one: the largest of several, as far as they are known.
COMBINED: dict[str, tuple[str, ...]] = {
    "either": ("shrunk", "symmetric/mean"),
    "any": ("shrunk", "symmetric/mean", "narrow/last"),
    "state": ("shrunk", "rows"),  # of a checkpoint without its code
}


def _largest_of(parts: tuple[str, ...]) -> Callable[[Entry], float | None]:
    def largest(diagnosis: Entry) -> float | None:
        values = [SCORES[part](diagnosis) for part in parts]
        return None if "rows" in parts and values[parts.index("rows")] is None else _largest(values)

    return largest


SCORES |= {name: _largest_of(parts) for name, parts in COMBINED.items()}
# What each of them is.
MEANING = {
    "symmetric": "the share of twins, sign-twins and dead units in the layer that has most of them",
    "symmetric/mean": "the share of twins, sign-twins and dead units",
    "symmetric/median": "the share of twins, sign-twins and dead units in the middle layer",
    "twins": "the share of twins and sign-twins",
    "near": "how much nearer to a symmetric state units are than in a random network, in the middle layer",
    "near/most": "how much nearer to a symmetric state units are than in a random network, in the nearest layer",
    "near/share": "the share of units ten times nearer to a symmetric state than in a random network",
    "weights": "what the effective rank of the worst weight matrix lacks of a random one's",
    "weights/quarter": "what the effective rank of weight matrices lacks of random ones', at their lower quartile",
    "weights/median": "what the effective rank of weight matrices lacks of random ones', at their median",
    "shrunk": "what weights lack of the size that they start with, at their median",
    "rows": "the share of rows of weight matrices that are 0 or equal another one",
    "features": "what the effective rank of the worst layer's features lacks of the largest possible",
    "features/median": "what the effective rank of features lacks of the largest possible, at the middle layer",
    "features/last": "what the effective rank of the last hidden layer's features lacks of the largest possible",
    "narrow": "1 over the effective rank of the worst layer's features",
    "narrow/median": "1 over the effective rank of features, at the middle layer",
    "narrow/last": "1 over the effective rank of the last hidden layer's features",
    "low": "the share of low eigenvalues in the last hidden layer",
    "low/median": "the share of low eigenvalues in the middle layer",
    "idle": "the share of features that are 0 throughout, or copies of another one",
    "heads": "the share of attention heads that equal another one",
    "heads/rank": "what the effective rank of queries times keys lacks of the largest possible, at the median",
    "agreed": "the middle one of three scores: nearness of units, ranks of weights, ranks of features",
    "either": "the larger of two: what weights lack of the size that they start with, and the share of symmetric units",
    "any": "the largest of three: what weights lack of the size that they start with, the share of symmetric units, "
    "and 1 over the effective rank of the last hidden layer's features",
    "state": "the larger of two: what weights lack of the size that they start with, and the share of rows of weight "
    "matrices that are 0 or equal another one",
}


# ---- the verdict -----------------------------------------------------------------------------------------------------


def judge(diagnosis: Entry) -> dict[str, Any]:
    """The entry `verdict`. Where it cannot be told whether there is a collapse, `collapsed` and `score` are None.

    `by_decay` is asked of a collapse alone. It is None where no optimizer is known, and where neither decay nor the
    gradient moves most of the symmetric units together now.
    """
    way, rule, score = _scored(diagnosis)
    collapsed = None if score is None else score >= rule["threshold"]
    return {
        "collapsed": collapsed,
        "score": score,
        "threshold": float(rule["threshold"]),
        "because": _reasons(diagnosis, rule, score),
        "by_decay": _by_decay(diagnosis) if collapsed else None,
        "sure": _how_sure(rule, way, score),
    }


def _scored(diagnosis: Entry) -> tuple[str, Entry, float | None]:
    """A way of judging, its rule and the score: of the ways whose score can be computed, the one that sees most."""
    measured = evidence()["diagnostics"]
    rules = [(way, measured.get(way) or DEFAULTS[way]) for way in WAYS]
    if not diagnosis.get("features"):
        del rules[: 1 if _rows(diagnosis, "units") else 2]
    if not _not_finite(diagnosis):
        for way, rule in rules:
            if (score := SCORES[rule["score"]](diagnosis)) is not None:
                return way, rule, score
    return *rules[0], None


def _not_finite(diagnosis: Entry) -> list[str]:
    """Names of the weights that hold NaN or infinity."""
    return [e["name"] for e in _rows(diagnosis, "weights") if e.get("not_finite") or _number(e["norm"]) is None]


def _reasons(diagnosis: Entry, rule: Entry, score: float | None) -> list[str]:
    if names := _not_finite(diagnosis):
        return [f"There are NaN or infinite numbers in {_listed(names)}: the training has diverged."]
    if score is None:
        why = (diagnosis.get("structure") or {}).get("why")
        return [f"The score is not known, {MEANING[rule['score']]}{f': {why}' if why else ''}."]
    limit = f"a network counts as collapsed from {rule['threshold']:.2g} on"
    first = f"The score, {MEANING[rule['score']]}, is {score:.2g}; {limit}."
    return [first, *_of_units(diagnosis), *_of_ranks(diagnosis)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _of_units(diagnosis: Entry) -> list[str]:
    """How many units are symmetric, and where most of them are."""
    entries = _units(diagnosis)
    if not entries:
        return []
    keys = ("symmetric", "count", "twins", "sign_twins", "dead")
    symmetric, count, twins, sign_twins, dead = (sum(entry[key] for entry in entries) for key in keys)
    kinds = f": {twins} twins, {sign_twins} sign-twins, {dead} dead" if symmetric else ""
    sentences = [f"{symmetric} of {count} units are symmetric{kinds}."]
    worst = max(entries, key=lambda entry: entry["symmetric"] / entry["count"])
    if symmetric and len(entries) > 1:
        sentences.append(f"They are most in {worst['name']}: {worst['symmetric']} of {worst['count']}.")
    return sentences


def _of_ranks(diagnosis: Entry) -> list[str]:
    """The lowest ranks of features and of weights."""
    sentences = []
    layers = [(_number(entry["rank/effective"]), entry) for entry in _layers(diagnosis)]
    if known := [(rank, entry) for rank, entry in layers if rank is not None]:
        rank, entry = min(known, key=lambda pair: pair[0] / pair[1]["width"])
        name, width = entry["name"], entry["width"]
        sentences.append(f"Of all features those of {name} have the lowest effective rank: {rank:.3g} of {width}.")
    ratios = zip(_ranks(diagnosis), _matrices(diagnosis), strict=True)
    if found := [(ratio, entry) for ratio, entry in ratios if ratio is not None]:
        ratio, entry = min(found, key=lambda pair: pair[0])
        name = entry["name"]
        sentences.append(
            f"Of all weights {name} has the lowest effective rank: {_percent(ratio)} of a random matrix's."
        )
    return sentences


def _by_decay(diagnosis: Entry) -> bool | None:
    """Whether decay, or the gradient, moves most of the symmetric units (of all units, if none is) to their twins."""
    training = diagnosis.get("training")
    if not training:
        return None
    if not _decays(diagnosis):
        return False
    units = _rows(diagnosis, "units")
    which = "symmetric" if any(entry["symmetric"] for entry in units) else "count"
    weights = {entry["name"]: entry[which] for entry in units}
    decay = gradient = total = 0.0
    for entry in training["units"]:
        pull, push, inward = (_number((entry["broken"] or {}).get(key)) for key in ("decay", "gradient", "inward"))
        if pull is None or push is None or inward is None or pull == push == 0:
            continue  # exactly on a symmetric state there is no broken part to be pulled at
        weight = weights.get(entry["name"], 0)
        total += weight
        if pull > push:
            decay += weight * inward
        else:
            gradient += weight * inward
    if decay > total / 2:
        return True
    return False if gradient > total / 2 else None


def _decays(diagnosis: Entry) -> float:
    """The largest decay of the optimizer; 0 without one."""
    return _number((diagnosis.get("training") or {}).get("decay")) or 0.0


def _how_sure(rule: Entry, way: str, score: float | None) -> str:
    if score is None:
        return "It cannot be told."
    if rule is DEFAULTS[way]:
        return f"Judged {WAYS[way]}, by a threshold whose hits and false alarms are not yet measured."
    return (
        f"Judged {WAYS[way]}. Of networks that did not choose this threshold it found {rule['hits']} of "
        f"{rule['collapsed']} collapsed ones, and called {rule['false_alarms']} of {rule['healthy']} healthy ones "
        "collapsed."
    )


# ---- evidence in sentences -------------------------------------------------------------------------------------------

# Of what tells how good a network is: its unit, how many of it 1 in the tables is, whether less is better, and the
# smallest loss by which decay alone counts as harmful.
METRICS = {
    "accuracy": ("points of accuracy", 100, False, 0.05),
    "reconstruction": ("nats of reconstruction", 1, True, 1.0),
}
RECOMMENDED = f"relative {SIGMA:g}"


def _sigma(arm: str) -> str:
    """`relative 1` in words."""
    return arm.replace(" ", " sigma ")


def _figure(name: str) -> str:
    return name.replace("fig", "figure ").replace("table", "table ")


def _where(place: Entry, gamma: float | None = None) -> str:
    """Figure, model and settings."""
    words = evidence()["models"][place["figure"]]["words"]
    parts = [words, *([place["at"]] if place["at"] else []), *([] if gamma is None else [f"γ = {gamma:g}"])]
    return f"{_figure(place['figure']).capitalize()} ({'; '.join(parts)})"


def _interval(values: Sequence[Any], factor: float = 1) -> str:
    mean, low, high = (factor * float(value) for value in values[:3])
    digits = 1 if factor > 1 else 2
    mean, low, high = (round(value, digits) + 0.0 for value in (mean, low, high))  # + 0.0: no minus before a zero
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _gains(values: Sequence[Any], unit: str = "", factor: float = 1) -> str:
    """An interval of a gain in words; of a loss, where its mean is negative."""
    mean, low, high = values[:3]
    verb, signed = ("gains", (mean, low, high)) if mean >= 0 else ("loses", (-mean, -high, -low))
    return " ".join(filter(None, (verb, _interval(signed, factor), unit)))


def _gain(place: Entry, gamma: float, of: str, than: str) -> list[Any] | None:
    """How much better an arm is than another at a place, an interval; None if that was not measured."""
    less = METRICS[place["by"]][2]
    for entry in place["differences"]:
        if (entry["gamma"], entry["of"], entry["than"]) == (gamma, of, than) and entry[place["by"]][1] is not None:
            mean, low, high, seeds = entry[place["by"]]
            return [-mean, -high, -low, seeds] if less else [mean, low, high, seeds]
    return None


def _gain_words(place: Entry, gain: Sequence[Any]) -> str:
    unit, factor, *_ = METRICS[place["by"]]
    return _gains(gain, unit, factor)


@cache
def _harmful() -> list[tuple[Entry, float]]:
    """The places at which decay alone is surely worse than less of it, or none, each with the least gamma of those."""
    found = []
    for place in evidence()["places"]:
        if place["by"] in METRICS:
            for gamma in sorted({entry["gamma"] for entry in place["differences"]}):
                gains = [_gain(place, gamma, of, "decay") for of in ("no decay", "less decay")]
                if any(gain and gain[1] > METRICS[place["by"]][3] for gain in gains):
                    found.append((place, gamma))
                    break
    return found


def _over_sigma(sigma: float, unit: str, what: str) -> list[Entry]:
    """The rows of the map over sigma that have this effect, `undone` or `cost`."""
    rows = [row for row in evidence()["sigma"] if (row["sigma"], row["unit"]) == (sigma, unit)]
    return [row for row in rows if row[what] and row[what][0] is not None]


def _undone(sigma: float, unit: str) -> list[Entry]:
    """What a sigma undoes where decay does harm or makes units symmetric: in figure 13 it is the start that counts."""
    harmed = {place["figure"] for place, _ in _harmful()}
    rows = _over_sigma(sigma, unit, "undone")
    return [row for row in rows if row["figure"] in harmed or row["metric"].startswith("symmetry")]


def _undone_words(sigma: float, unit: str) -> str:
    parts = [f"{_interval(row['undone'])} in {_figure(row['figure'])} ({row['at']})" for row in _undone(sigma, unit)]
    return f"{unit.capitalize()} sigma {sigma:g} undoes this part of the collapse: {', '.join(parts)}."


def _cost_words(sigma: float, unit: str) -> str:
    parts = []
    for row in _over_sigma(sigma, unit, "cost"):
        mean, low, high, seeds = row["cost"]
        parts.append(f"{_gains([-mean, -high, -low, seeds])} in {_figure(row['figure'])} ({row['cost_at']})")
    return f"Where nothing is collapsed, {unit} sigma {sigma:g} in points of accuracy: {', '.join(parts)}."


def _models_words(rows: Sequence[Entry]) -> str:
    """The models behind rows of the map over sigma."""
    words = [f"{_figure(row['figure'])} ({evidence()['models'][row['figure']]['words']})" for row in rows]
    return f"The models are those of {'; '.join(words)}."


def _seeds(intervals: Sequence[Sequence[Any]]) -> str:
    counts = sorted({values[3] for values in intervals})
    return f"{counts[0]} to {counts[-1]} seeds each" if len(counts) > 1 else f"{counts[0]} seeds each"


def _level(place: Entry, gamma: float | None, arm: str, sigma: float | None = None) -> list[Any] | None:
    """The metric of an arm (sigma relative, all parameters decay), by which its place is judged; None if unknown."""
    for row in place["levels"]:
        cell = dict(zip(place["columns"], row, strict=True))
        usual = cell["unit"] in (None, "relative") and cell["scope"] in (None, "all")
        if usual and (cell["arm"], cell["gamma"], cell["sigma"]) == (arm, gamma, sigma):
            return cell[place["by"]] if cell[place["by"]][0] is not None else None
    return None


def _unlike(diagnosis: Entry) -> list[str]:
    """In what the model is unlike those of the evidence."""
    models = evidence()["models"]
    largest = max(entry["parameters"] for entry in models.values())
    own = (diagnosis.get("model") or {}).get("parameters") or 0
    sentences = []
    if own > FAR * largest:
        sentences.append(
            f"Measured only up to {largest:,} parameters, and yours has {own / largest:,.0f} times as many: whether it "
            "carries over is not known."
        )
    if diagnosis.get("heads"):
        seen = ", ".join(f"that of {_figure(name)}" for name, entry in models.items() if entry["attention"])
        sentences.append(f"Of networks with attention only a small one, {seen}, was measured, and no language model.")
    harmed = [models[place["figure"]] for place, _ in _harmful()]
    training = diagnosis.get("training")
    if training and training["decay"] and not training["coupled"] and all(entry["coupled"] for entry in harmed):
        kinds = " and ".join(sorted({entry["optimizer"] for entry in harmed}))
        sentences.append(f"Your decay is decoupled, as AdamW's is; harm was measured under coupled decay, of {kinds}.")
    if (diagnosis.get("structure") or {}).get("source", "none") == "none" and not diagnosis.get("features"):
        sentences.append("Read from the weights alone, without a forward pass: that makes the verdict less sure.")
    return sentences


# ---- advice ----------------------------------------------------------------------------------------------------------


def advise(diagnosis: Entry) -> list[dict[str, Any]]:
    """The entry `advice`: what to do, the first thing first. Uses the entry `verdict`, or judges anew without one."""
    verdict = diagnosis.get("verdict") or judge(diagnosis)
    if _not_finite(diagnosis):
        return [_diverged(diagnosis)]
    if verdict["collapsed"] is None:
        return [_cannot_be_told(verdict)]
    if not verdict["collapsed"]:
        return [_nothing_is_wrong(diagnosis, verdict)]
    if verdict["by_decay"] is False:
        return [_not_by_decay(diagnosis), _part_the_copies(diagnosis)]
    entries = [_less_decay(diagnosis, verdict), _syre(diagnosis), _scope(diagnosis)]
    if not diagnosis.get("training"):
        entries.insert(2, _pass_the_optimizer())
    return [_scale_the_inputs(diagnosis), *entries] if _small_inputs(diagnosis) else entries


def _entry(
    diagnosis: Entry, *, do: str, because: str, sure: str, evidence: Sequence[str | None] = ()
) -> dict[str, Any]:
    rests_on = [sentence for sentence in evidence if sentence]
    return {"do": do, "because": because, "evidence": rests_on, "sure": " ".join([sure, *_unlike(diagnosis)])}


def _diverged(diagnosis: Entry) -> dict[str, Any]:
    where = _listed(_not_finite(diagnosis))
    return {
        "do": "Go back to a checkpoint from before the training diverged, and go on with a smaller learning rate.",
        "because": f"There are NaN or infinite numbers in {where}, and no regularizer mends that.",
        "evidence": [],
        "sure": "That they are there is certain; why they came, the weights do not tell.",
    }


def _cannot_be_told(verdict: Entry) -> dict[str, Any]:
    return {
        "do": "Pass the model itself and a few batches: syre.diagnose(model, batches).",
        "because": verdict["because"][0],
        "evidence": [],
        "sure": "Nothing is known against this model: there is no reason yet to change its training.",
    }


def _nothing_is_wrong(diagnosis: Entry, verdict: Entry) -> dict[str, Any]:
    costs = [row["cost"] for row in _over_sigma(SIGMA, "relative", "cost")]
    worst = max(values[0] for values in costs)
    against = []
    for place, gamma in _harmful():
        whole = place["by"] == "accuracy" and place not in [small for small, _ in _scaled()]
        if whole and (gain := _gain(place, gamma, "no decay", "syre, best sigma and gamma")):
            other = "syre at the sigma and gamma that are best"
            against.append(f"{_where(place)}: against {other}, no decay at all {_gain_words(place, gain)}.")
    return _entry(
        diagnosis,
        do="Nothing is wrong: leave the training as it is.",
        because="There is no reason to add syre, for there is nothing to undo. It would cost little: where nothing is "
        f"collapsed, {_sigma(RECOMMENDED)} costs at most {worst:.1f} points of accuracy in the mean.",
        evidence=[
            _cost_words(SIGMA, "relative"),
            _cost_words(ABSOLUTE, "absolute"),
            _models_words(_over_sigma(SIGMA, "relative", "cost")),
            *against,
        ],
        sure=f"{verdict['sure']} The costs are of {_seeds(costs)}, with 95 % intervals.",
    )


def _less_decay(diagnosis: Entry, verdict: Entry) -> dict[str, Any]:
    present = _decays(diagnosis)
    how_much = f"from {present:g} to {present / 10:g}, or to 0," if present else "a tenth of it, or none,"
    if verdict["by_decay"]:
        because = "Decay pulls the symmetric units together harder than the gradient pulls them apart."
    elif diagnosis.get("training"):
        because = "Neither decay nor the gradient moves most of the symmetric units together now; decay may have."
    else:
        because = (
            "Whether decay did it is not known without the optimizer. If there is decay, this is the first to try."
        )
    sentences: list[str] = []
    gains: list[Sequence[Any]] = []
    apart: list[str] = []
    for place, gamma in _harmful():
        found = {
            words: gain
            for of, than, words in (
                ("no decay", "decay", "no decay, against decay alone,"),
                ("less decay", "decay", "the best of the lower gammas, against decay alone,"),
                ("no decay", "syre, best sigma", "no decay, against syre at the best sigma,"),
            )
            if (gain := _gain(place, gamma, of, than))
        }
        gains += found.values()
        said = [f"{words} {_gain_words(place, gain)}" for words, gain in found.items()]
        sentences.append(f"{_where(place, gamma)}: {'; '.join(said)}.")
        none, less = (_gain(place, gamma, of, "decay") for of in ("no decay", "less decay"))
        if none and less and less[0] - none[0] > METRICS[place["by"]][3]:
            apart.append(_figure(place["figure"]))
    if apart:
        because += f" Rather less than none where it is as in {', '.join(apart)}: there no decay at all did worse."
    return _entry(
        diagnosis,
        do=f"Use less weight decay, {how_much} and train anew.",
        because=because,
        evidence=sentences,
        sure=f"{len(sentences)} settings, all in which decay alone was harmful; {_seeds(gains)}, 95 % intervals; small "
        "networks. They had less decay from the start: that it mends trained weights is not shown.",
    )


def _line(**more: Any) -> str:
    given = "".join(f", {key}={value!r}" for key, value in more.items())
    return f"`syre.attach(optimizer, model, sigma={SIGMA:g}{given})`".replace("'", '"')


def _syre(diagnosis: Entry) -> dict[str, Any]:
    over_gamma = []
    for place, _ in _harmful():
        known = sorted({row[1] for row in place["levels"] if row[0] == "syre"})
        levels = [(own, level) for own in known if (level := _level(place, own, "syre", SIGMA))]
        if len(levels) > 2 and place["by"] == "accuracy":
            said = ", ".join(f"{100 * level[0]:.1f} % at γ = {own:g}" for own, level in levels)
            over_gamma.append(f"{_where(place)}: the accuracy at {_sigma(RECOMMENDED)} is {said}.")
    undone = [row["undone"] for row in _undone(SIGMA, "relative")]
    papers = [max(row["undone"][0], 0.0) for row in _undone(PAPERS, "relative")]
    little = f"{100 * min(papers):.0f} to {_percent(max(papers))}"
    return _entry(
        diagnosis,
        do=f"Or train anew with syre, and the decay as low as will do: {_line()}. To be careful sigma={CAREFUL:g}; "
        f'as good is sigma={ABSOLUTE:g}, unit="absolute".',
        because="Decay toward a random anchor does not end in a symmetric state. The paper's "
        f"{_sigma(f'relative {PAPERS:g}')} is too small: it undoes {little} of a collapse.",
        evidence=[
            _undone_words(SIGMA, "relative"),
            _undone_words(CAREFUL, "relative"),
            _undone_words(ABSOLUTE, "absolute"),
            _undone_words(PAPERS, "relative"),
            _models_words(_undone(SIGMA, "relative")),
            *over_gamma,
            _cost_words(SIGMA, "relative"),
            *_copies(),
        ],
        sure=f"{len(undone)} figures, {_seeds(undone)}, 95 % intervals; small networks, with syre from the start.",
    )


def _copies() -> list[str]:
    """What syre does to units that start as copies of one, from that very start."""
    sentences = []
    for place in _planted():
        gamma = place["differences"][0]["gamma"]
        arms = (RECOMMENDED, f"absolute {ABSOLUTE:g}", f"relative {PAPERS:g}")
        gains = {arm: gain for arm in arms if (gain := _gain(place, gamma, f"syre, {arm}", "decay"))}
        said = [f"at {_sigma(arm)} {_gain_words(place, gain)}" for arm, gain in gains.items()]
        seeds = _seeds(list(gains.values()))
        sentences.append(f"{_where(place, gamma)}: syre, against decay alone, {', '.join(said)} ({seeds}).")
    return sentences


def _planted() -> list[Entry]:
    """The places at which units start as copies of one, and syre has the start of the other arms."""
    return [place for place in evidence()["places"] if place["start"] == "keep" and place["by"] in METRICS]


def _not_by_decay(diagnosis: Entry) -> dict[str, Any]:
    entries = _units(diagnosis)
    dead, symmetric = (sum(entry[key] for entry in entries) for key in ("dead", "symmetric"))
    who = "The gradient itself moves the units together." if _decays(diagnosis) else "There is no decay."
    stuck = []
    for place in _planted():
        gamma = place["differences"][0]["gamma"]
        if gain := _gain(place, gamma, "no decay", "decay"):
            said = f"no decay, against decay alone, {_gain_words(place, gain)} ({_seeds([gain])})"
            stuck.append((_where(place, gamma), said))
    if not symmetric:
        kind = "No unit is exactly symmetric: look for inputs that say too little, and for too large a learning rate."
    elif dead > symmetric / 2:
        kind = (
            "Most of the symmetric units are dead: look for biases that keep a ReLU off, and too large a learning rate."
        )
    else:
        kind = (
            "Most of the symmetric units are alike: look for weights that start equal, and inputs that say too little."
        )
    return _entry(
        diagnosis,
        do="Look at the initialisation, at dead units and at the data, for decay did not make this collapse.",
        because=f"{who} {kind}",
        evidence=[f"{words}: they stay copies with decay and without; {said}." for words, said in stuck],
        sure="What pulls the units now is measured; what did so earlier in the training is not.",
    )


def _part_the_copies(diagnosis: Entry) -> dict[str, Any]:
    places = _planted()
    gamma = {} if _decays(diagnosis) else {"weight_decay": places[0]["differences"][0]["gamma"]}
    figures = " and ".join(_figure(place["figure"]) for place in places)
    return _entry(
        diagnosis,
        do=f"Units that are alike syre can take apart, from these very weights: {_line(**gamma, start='keep')}.",
        because="The gradient keeps equal units equal; decay toward anchors that differ does not. It acts through the "
        "decay, so that it needs weight_decay > 0.",
        evidence=[*_copies(), _cost_words(SIGMA, "relative")],
        sure=f"It rests on planted copies, in {figures} alone. Units that are dead, or alike for want of data, are "
        "another matter: nothing was measured there.",
    )


def _pass_the_optimizer() -> dict[str, Any]:
    return {
        "do": "Pass the optimizer to know whether decay did it: syre.diagnose(model, batches, optimizer, loss_fn).",
        "because": "Then the pull of the decay on these units is compared with that of the gradient.",
        "evidence": [],
        "sure": "Without it the order of this advice is a guess.",
    }


def _small_inputs(diagnosis: Entry) -> bool:
    size = _number((diagnosis.get("structure") or {}).get("rms"))
    return size is not None and size < SMALL


def _scale_the_inputs(diagnosis: Entry) -> dict[str, Any]:
    """For a diagnosis whose entry `structure` has the root mean square of the inputs, `rms`."""
    sentences, levels = [], []
    for small, whole in _scaled():
        gamma = small["differences"][0]["gamma"]
        here, there = (_level(place, gamma, "decay") for place in (small, whole))
        if here and there:
            levels.append(here)
            said = f"decay alone has {100 * here[0]:.1f} % accuracy, and {100 * there[0]:.1f} % with {whole['at']}"
            sentences.append(f"{_where(small, gamma)}: {said}.")
    return _entry(
        diagnosis,
        do="Scale the inputs to a standard deviation of 1.",
        because=f"Their root mean square is {diagnosis['structure']['rms']:.2g}. Small inputs make small gradients, so "
        "that a mild decay is strong.",
        evidence=sentences,
        sure=f"{len(sentences)} figures, {_seeds(levels)}, means; nothing but the inputs differs.",
    )


def _scaled() -> Iterator[tuple[Entry, Entry]]:
    """Places with scaled inputs, each with that of the same figure where the scale is 1."""
    scaled = [place for place in evidence()["places"] if place["at"].startswith("inputs at scale ")]
    for small in scaled:
        whole = [p for p in scaled if p["figure"] == small["figure"] and p["at"] == "inputs at scale 1"]
        if whole and small is not whole[0]:
            yield small, whole[0]


def _scope(diagnosis: Entry) -> dict[str, Any]:
    sentences: list[str] = []
    gains: list[Sequence[Any]] = []
    for place, gamma in _harmful():
        found = {
            words: gain
            for arm, words in (("decay", "decay alone"), (f"syre, {RECOMMENDED}", f"syre at {_sigma(RECOMMENDED)}"))
            if (gain := _gain(place, gamma, f"{arm}, matrices", arm))
        }
        if weights := _gain(place, gamma, f"syre, {RECOMMENDED}, weights", "decay, weights"):
            alone = "with positions and class tokens free too, against decay alone,"
            found[f"{alone} syre at {_sigma(RECOMMENDED)}"] = weights
        gains += found.values()
        if said := [f"{words} {_gain_words(place, gain)}" for words, gain in found.items()]:
            sentences.append(f"{_where(place, gamma)}: with the weight matrices alone decaying, {'; '.join(said)}.")
    return _entry(
        diagnosis,
        do="What decays matters less: the weight matrices alone, or biases and norms too, as you like.",
        because="Where weight matrices alone decay and have anchors, decay alone is as harmful or a little less so, "
        "and syre ends much alike.",
        evidence=sentences,
        sure=f"{len(sentences)} settings, {_seeds(gains)}, 95 % intervals.",
    )
