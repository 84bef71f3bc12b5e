"""What is said of figures in few words: the table of the README, and what a command prints; REPORT.md is overview.py.

All of it is made of the summaries of the figures (`pages.summary`), which are plain words and numbers.
"""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

VERDICTS = ("reproduced", "not reproduced", "inconclusive", "not tested at this scale", "contrary at this scale")
EARLIER = "earlier.csv"  # in the results folder: the claims, and their verdicts, as they were before they were revised
FAILURES_FIRST = tuple(VERDICTS[place] for place in (4, 1, 2, 0, 3))

Summary = dict[str, Any]  # name, title, scale, seeds, cost, runs, trained, learnt, finding and verdicts


class Finding(NamedTuple):
    """What a figure shows, in words that hold for its results, and the number of the paper beside ours, if there is."""

    finding: str
    paper: str = ""
    ours: str = ""


def counted(summaries: Sequence[Summary]) -> str:
    """How many claims of some figures have which verdict."""
    count = Counter(v["verdict"] for s in summaries for v in s["verdicts"])
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in sorted(count, key=VERDICTS.index))


def shown(verdict: Mapping[str, Any]) -> str:
    """The effect of a claim, and what it is held against."""
    return f"{verdict['effect']} {verdict['against']}".strip()


def summary_table(summaries: Sequence[Summary]) -> str:
    """The README's table of figures: verdicts counted, and what they cost."""
    rows = []
    for s in summaries:
        link = f"[`make {s['name']}`](results/{s['name']}/report.md)"
        rows.append([link, s["title"], counted([s]), f"{s['scale']}, {s['seeds']} seeds", s["cost"]])
    return "\n".join(table(["figure", "what", "ours", "scale", "training"], rows))


def beyond(summaries: Sequence[Summary], folder: str = "") -> str:
    """What was learnt beyond the paper: a point each figure that says so, linked to its report in a folder."""
    said = ((s["name"], s["learnt"]) for s in summaries if s.get("learnt"))
    return "\n".join(f"- {words} ([{name}]({folder}{name}/report.md))" for name, words in said)


def terminal_table(s: Summary) -> str:
    """The verdicts in aligned columns."""
    rows = [
        [
            v["id"],
            v["verdict"],
            shown(v),
            f"n = {v['n']}",
            v["paper"] and f"paper: {v['paper']}",
        ]
        for v in s["verdicts"]
    ]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    lines = [f"{s['name']}: {s['title']}", f"  {s['runs']}"]
    for row, verdict in zip(rows, s["verdicts"], strict=True):
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append(textwrap.indent(textwrap.fill(verdict["text"], 100), "      "))
    return "\n".join(lines)


def brief(s: Summary, folder: Path, own: bool = True) -> str:
    """What a sweep ends with: verdicts counted, what does not hold, the picture; one line where it is not its `own`."""
    report, picture = (folder / s["name"] / name for name in ("report.md", "figure.png"))
    if not own:
        return f"{s['name']}, drawn from these runs too: {counted([s])}: {picture}"
    lines = [s["runs"], *textwrap.wrap(s["finding"]["finding"], 100)]
    for verdict in (name for name in FAILURES_FIRST if name not in ("reproduced", "not tested at this scale")):
        ids = ", ".join(v["id"] for v in s["verdicts"] if v["verdict"] == verdict)
        lines += textwrap.wrap(f"{verdict}: {ids}", 100, subsequent_indent="  ", break_on_hyphens=False) if ids else []
    lines += [f"verdicts: {counted([s])} ({report} has each claim)", f"picture: {picture}"]
    return "\n  ".join([f"{s['name']}: {s['title']}", *lines])


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table in Markdown, a string each line."""
    lines = [header, ["---"] * len(header), *rows]
    return [
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    ]
