"""What is said of figures in few words: REPORT.md, the table of the README, and what a command prints.

All of it is made of the summaries of the figures (`pages.summary`), which are plain words and numbers.
"""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

VERDICTS = ("reproduced", "not reproduced", "inconclusive", "not tested at this scale", "contrary at this scale")

Summary = dict[str, Any]  # name, title, scale, seeds, cost, runs and verdicts


def overview(summaries: Sequence[Summary]) -> str:
    """The text of REPORT.md: every claim of every figure that has results."""
    count = Counter(v["verdict"] for s in summaries for v in s["verdicts"])
    columns = ("verdict", "effect", "n", "paper")
    rows = [
        [f"[{s['name']}]({s['name']}/report.md)", f"**{v['id']}** {v['text']}", *map(v.get, columns), s["scale"]]
        for s in summaries
        for v in s["verdicts"]
    ]
    counted = "; ".join(f"{number} {verdict}" for verdict, number in sorted(count.items()))
    lines = table(["figure", "claim", "verdict", "effect [interval]", "seeds", "paper", "scale"], rows)
    return "\n".join(["# Every claim and its verdict", "", f"{counted}.", "", *lines, ""])


def summary_table(summaries: Sequence[Summary]) -> str:
    """The README's table of figures: verdicts counted, and what they cost."""
    rows = []
    for s in summaries:
        count = Counter(v["verdict"] for v in s["verdicts"])
        verdicts = ", ".join(f"{count[verdict]} {verdict}" for verdict in sorted(count, key=VERDICTS.index))
        link = f"[`make {s['name']}`](results/{s['name']}/report.md)"
        rows.append([link, s["title"], verdicts, f"{s['scale']}, {s['seeds']} seeds", s["cost"]])
    return "\n".join(table(["figure", "what", "ours", "scale", "training"], rows))


def terminal_table(s: Summary) -> str:
    """The verdicts in aligned columns."""
    rows = [
        [v["id"], v["verdict"], v["effect"], f"n = {v['n']}", v["paper"] and f"paper: {v['paper']}"]
        for v in s["verdicts"]
    ]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    lines = [f"{s['name']}: {s['title']}", f"  {s['runs']}"]
    for row, verdict in zip(rows, s["verdicts"], strict=True):
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append(textwrap.indent(textwrap.fill(verdict["text"], 100), "      "))
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table in Markdown, a string each line."""
    lines = [header, ["---"] * len(header), *rows]
    return [
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    ]
