"""A diagnosis as a short table for a terminal: ASCII, at most 100 columns, some forty lines however large the model."""

import textwrap
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from syre.diagnostics import words
from syre.diagnostics.words import number, part, percent, ratio

WIDTH, NAME, ROWS, ADVICE = 100, 32, 25, 4
SPELT = str.maketrans(
    {"σ": "sigma", "γ": "gamma", "λ": "lambda", "θ": "theta", "η": "eta", "×": "x", "≥": ">=", "≤": "<=", "≈": "~"}
    | {"–": "-", "—": "-", "−": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "→": "->", "·": "*"}
)


def table(diagnosis: Mapping[str, Any]) -> str:
    """Verdict, advice, and the rows of units, heads, weights, features and training, the worst where there are many."""
    lines = [*_verdict(diagnosis), "", *_advice(diagnosis), *_model(diagnosis)]
    for name, left in _shares(diagnosis).items():
        lines += ["", *_section(name, words.rows(diagnosis, name), left)]
    return "\n".join(lines)


def plain(text: Any) -> str:
    """In ASCII, on one line: Greek letters are spelt, what else there is is escaped as Python does."""
    known = unicodedata.normalize("NFC", str(text)).translate(SPELT)
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in known)
    return printable.encode("ascii", "backslashreplace").decode()


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    indent = " " * len(first) if rest is None else rest
    return textwrap.wrap(plain(text), WIDTH, initial_indent=first, subsequent_indent=indent) or [first]


# ---- what comes first ------------------------------------------------------------------------------------------------


def _verdict(diagnosis: Mapping[str, Any]) -> list[str]:
    verdict, score = part(diagnosis, "verdict"), words.score(diagnosis)
    lines = _wrapped(words.headline(diagnosis).upper() + (f" ({score})" if score else ""))
    for sentence in verdict.get("because") or ():
        lines += _wrapped(sentence, "  - ")
    return lines + (_wrapped(verdict["sure"], "  How sure: ", "  ") if verdict.get("sure") else [])


def _advice(diagnosis: Mapping[str, Any]) -> list[str]:
    advice = words.rows(diagnosis, "advice")
    if not advice:
        return []
    lines = ["What to do"]
    for place, entry in enumerate(advice[:ADVICE], 1):
        lines += _wrapped(entry.get("do") or "-", f"  {place}. ")
        lines += _wrapped(entry["because"], "     ") if entry.get("because") else []
    if len(advice) > ADVICE:
        lines.append(f"  and {number(len(advice) - ADVICE)} more")
    return [*lines, ""]


def _model(diagnosis: Mapping[str, Any]) -> list[str]:
    lines = _wrapped(f"{words.model(diagnosis)}; {words.reading(diagnosis)}", "Model: ", "  ")
    missing = ", ".join(f"{what} ({why})" for what, why in words.not_looked_at(diagnosis))
    lines += _wrapped(missing, "Not looked at: ", "  ") if missing else []
    unread = part(diagnosis, "structure").get("unread") or ()
    if unread:
        names = ", ".join([words.shorten(name, NAME) for name in unread[:3]] + ["..."] * (len(unread) > 3))
        lines += _wrapped(f"{words.counted(len(unread), 'parameter')} ({names})", "Not in the forward pass: ", "  ")
    return lines


# ---- rows ------------------------------------------------------------------------------------------------------------


def _shares(diagnosis: Mapping[str, Any]) -> dict[str, int]:
    """How many rows each part may have: all, or a fair share of what the shorter parts leave of ROWS."""
    sizes = {name: len(words.rows(diagnosis, name)) for name in COLUMNS}
    free, shares = ROWS, dict.fromkeys(COLUMNS, 0)
    waiting = sorted((name for name in COLUMNS if sizes[name]), key=sizes.__getitem__)
    for place, name in enumerate(waiting):
        shares[name] = min(sizes[name], free // (len(waiting) - place))
        free -= shares[name]
    return {name: share for name, share in shares.items() if share}


def _section(name: str, entries: list[Mapping[str, Any]], count: int) -> list[str]:
    title, measure, header, cells = COLUMNS[name]
    chosen = sorted(words.worst(name, entries, count))  # in the network's order
    names = [words.shorten(plain(entries[place].get("name")), NAME) for place in chosen]
    body = [[label, *map(plain, cells(entries[place]))] for label, place in zip(names, chosen, strict=True)]
    widths = [max(map(len, column)) for column in zip([title, *header], *body, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in [[title, *header], *body]
    ]
    if len(entries) > count:
        lines.append(f"  the {count} {measure} of {number(len(entries))}; {number(len(entries) - count)} are left out")
    return [line.rstrip() for line in lines]


def _units(entry: Mapping[str, Any]) -> list[str]:
    counts = [number(entry.get(key)) for key in ("count", "twins", "sign_twins", "dead")]
    nearest = part(entry, "nearest")
    distances = [number(nearest.get(key)) for key in ("median", "random")]
    return [words.kind(entry), *counts, percent(words.symmetric_share(entry)), *distances]


def _heads(entry: Mapping[str, Any]) -> list[str]:
    cells = [number(entry.get("count")), number(entry.get("size")), number(sum(map(len, entry.get("equal") or ())))]
    for ranks in words.head_ranks(entry):
        effective = words.finites(ranks.get("rank/effective"))
        ends = f"{number(min(effective))} to {number(max(effective))}" if effective else "-"
        cells.append(f"{ends} of {number(ranks.get('full'))}" if effective else "-")
    return cells


def _weights(entry: Mapping[str, Any]) -> list[str]:
    shape = "x".join(map(str, entry.get("shape") or ())) or "-"
    ranks = [number(entry.get(key)) for key in ("rank", "rank/effective")]
    dead = [number(entry.get(key)) for key in ("dead_rows", "dead_columns")]
    return [shape, *ranks, percent(words.against_random(entry)), *dead]


def _features(entry: Mapping[str, Any]) -> list[str]:
    sizes = [number(entry.get(key)) for key in ("width", "samples", "rank", "rank/effective")]
    units = [number(entry.get(key)) for key in ("dead", "duplicates")]
    return [*sizes, percent(words.of_full(entry)), *units]


def _training(entry: Mapping[str, Any]) -> list[str]:
    sides = [part(entry, name) for name in ("symmetric", "broken")]
    pulls = [number(ratio(side.get("decay"), side.get("gradient"))) for side in sides]
    return [number(entry.get("lambda")), *pulls, percent(words.finite(sides[1].get("inward")))]


Cells = Callable[[Mapping[str, Any]], list[str]]
COLUMNS: dict[str, tuple[str, str, tuple[str, ...], Cells]] = {  # title, what is kept, header, the cells of an entry
    "units": (
        "Sets of units",
        "most symmetric",
        ("kind", "count", "twins", "sign-twins", "dead", "symmetric", "distance", "random"),
        _units,
    ),
    "heads": ("Heads", "lowest in rank", ("heads", "size", "equal", "rank of Q K", "rank of O V"), _heads),
    "weights": (
        "Weights",
        "lowest in rank",
        ("shape", "rank", "effective", "of random", "dead rows", "columns"),
        _weights,
    ),
    "features": (
        "Features",
        "lowest in rank",
        ("width", "samples", "rank", "effective", "of full", "dead", "duplicates"),
        _features,
    ),
    "training": (
        "Decay over gradient",
        "most inward",
        ("lambda", "common part", "broken part", "inward"),
        _training,
    ),
}
