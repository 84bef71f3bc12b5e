"""What the printed table and the page of a diagnosis say alike: numbers, the verdict, what was not looked at."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def finite(value: Any) -> float | None:
    """The number that `value` is, or None: for None, NaN, infinities and what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def finites(values: Iterable[Any] | None) -> list[float]:
    """The finite numbers among `values`, in their order."""
    return [number for number in map(finite, values or ()) if number is not None]


def ratio(part: Any, whole: Any) -> float | None:
    """part / whole, or None where either is not known or nothing is there to divide by."""
    above, below = finite(part), finite(whole)
    return None if above is None or not below else above / below


def number(value: Any) -> str:
    """Three digits, thousands with commas: 0.0123, 12.3, 50,890; "-" for what is not known."""
    if finite(value) is None:
        return str(value) if isinstance(value, float) and math.isinf(value) else "-"
    size = float(value)
    whole = size == int(size) and abs(size) < 1e15
    return f"{int(size):,}" if whole else f"{size:,.0f}" if abs(size) >= 1000 else f"{size:.3g}"


def percent(share: float | None) -> str:
    """A share of 1 in per cent; what is little, but not nothing, is "<1%"."""
    if share is None:
        return "-"
    return "<1%" if 0 < share < 0.01 else ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def shorten(text: Any, length: int) -> str:
    """At most `length` characters: the middle of a longer text gives way to dots."""
    words = str(text)
    if len(words) <= length:
        return words
    tail = (length - 3) * 2 // 3  # the end of a parameter's name tells more than its beginning
    return f"{words[: length - 3 - tail]}...{words[-tail:]}"


def counted(count: Any, one: str, many: str = "") -> str:
    """1 unit, 2 units."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


# ---- what a diagnosis says -------------------------------------------------------------------------------------------


def part(diagnosis: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The dict of that name; an empty one where there is none."""
    return diagnosis.get(name) or {}


def rows(diagnosis: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The list of that name; an empty one where there is none."""
    found = part(diagnosis, "training").get("units") if name == "training" else diagnosis.get(name)
    return list(found or ())


def headline(diagnosis: Mapping[str, Any]) -> str:
    """The verdict in a few words."""
    verdict = part(diagnosis, "verdict")
    if verdict.get("collapsed") is None:
        return "It cannot be told whether this model is collapsed"
    if not verdict["collapsed"]:
        return "Not collapsed"
    if verdict.get("by_decay") is None:
        return "Collapsed"
    return "Collapsed, and weight decay does it" if verdict["by_decay"] else "Collapsed, but not by weight decay"


def score(diagnosis: Mapping[str, Any]) -> str:
    """The score and from where on it means a collapse; empty where there is none, or no verdict."""
    verdict = part(diagnosis, "verdict")
    if finite(verdict.get("score")) is None or verdict.get("collapsed") is None:
        return ""
    threshold = finite(verdict.get("threshold"))
    return f"score {number(verdict['score'])}{'' if threshold is None else f', collapsed from {number(threshold)}'}"


def model(diagnosis: Mapping[str, Any]) -> str:
    """The model in one line."""
    entry = part(diagnosis, "model")
    tensors = counted(entry.get("tensors"), "tensor")
    return f"{entry.get('class') or 'A model'}, {counted(entry.get('parameters'), 'parameter')} in {tensors}"


def reading(diagnosis: Mapping[str, Any]) -> str:
    """From what it was read which unit is read by what."""
    structure = part(diagnosis, "structure")
    shapes = structure.get("inputs")
    inputs = f" ({shapes})" if shapes else ""
    return {
        "batches": f"read from a forward pass of the given batches{inputs}",
        "guessed inputs": f"read from a forward pass of guessed inputs{inputs}",
    }.get(structure.get("source", "none"), "no forward pass was read")


def not_looked_at(diagnosis: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is missing from a diagnosis, and why."""
    structure, missing = part(diagnosis, "structure"), []
    if not diagnosis.get("units"):
        known = structure.get("source", "none") != "none"
        why = structure.get("why") or ("the forward pass has none" if known else "what reads which unit is not known")
        missing.append(("units and heads", why))
    if diagnosis.get("features") is None:
        missing.append(("features", "no batches"))
    if diagnosis.get("training") is None:
        missing.append(("training", "no optimizer"))
    if not diagnosis.get("weights"):
        missing.append(("ranks of weights", "no parameter has two axes"))
    return missing


# ---- what is worst ---------------------------------------------------------------------------------------------------


def kind(entry: Mapping[str, Any]) -> str:
    """Of what a set of units is one: heads, or else units."""
    return "heads" if entry.get("kind") == "heads" else "units"


def symmetric_share(entry: Mapping[str, Any]) -> float | None:
    """Share of a set's units that are twins, sign-twins or dead."""
    return ratio(entry.get("symmetric"), entry.get("count"))


def nearness(entry: Mapping[str, Any]) -> float | None:
    """The median distance to a symmetric state over that of a random network."""
    nearest = part(entry, "nearest")
    return ratio(nearest.get("median"), nearest.get("random"))


def against_random(entry: Mapping[str, Any]) -> float | None:
    """The effective rank of a weight over that of a random matrix of its shape."""
    return ratio(entry.get("rank/effective"), part(entry, "random").get("rank/effective"))


def of_full(entry: Mapping[str, Any], name: str = "rank/effective") -> float | None:
    """A rank of features over the largest possible."""
    return ratio(entry.get(name), entry.get("full"))


def lowest_head(entry: Mapping[str, Any]) -> float | None:
    """The lowest effective rank of a head of an attention, over the largest possible."""
    shares = [ratio(rank, sort.get("full")) for sort in head_ranks(entry) for rank in sort.get("rank/effective") or ()]
    return min(finites(shares), default=None)


def head_ranks(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [part(entry, "query_key"), part(entry, "output_value")]


def badness(name: str, entry: Mapping[str, Any]) -> tuple[float, float]:
    """Sorts the entries of one list: the most symmetric, or lowest in rank, have the largest."""
    if name == "units":
        return (symmetric_share(entry) or 0.0, -_or(nearness(entry), math.inf))
    if name == "heads":
        return (sum(map(len, entry.get("equal") or ())), -_or(lowest_head(entry), math.inf))
    if name == "weights":
        return (-_or(against_random(entry), math.inf), 0.0)
    if name == "features":
        return (-_or(of_full(entry), math.inf), 0.0)
    return (_or(finite(part(entry, "broken").get("inward")), -1.0), 0.0)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def worst(name: str, entries: list[Mapping[str, Any]], count: int) -> list[int]:
    """The places of the `count` worst entries, the worst first."""
    places = sorted(range(len(entries)), key=lambda place: badness(name, entries[place]), reverse=True)
    return places[:count]
