"""What is said of figures in few words: the table of the README, and what a command prints; REPORT.md is overview.py.

All of it is made of the summaries of the figures (`pages.summary`), which are plain words and numbers.
"""

import html
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

VERDICTS = ("reproduced", "not reproduced", "inconclusive", "not tested at this scale", "contrary at this scale")
EARLIER = "earlier.csv"  # in the results folder: the claims, and their verdicts, as they were before they were revised
MARKS = dict(zip(VERDICTS, "✓✗?·!", strict=True))
FAILURES_FIRST = tuple(VERDICTS[place] for place in (4, 1, 2, 0, 3))

HOW_TO_READ = """
Behind the interval over seeds stands what it is held against: > the smallest effect worth naming (95 %), > −(the
largest cost allowed) or ≈ 0 ± a margin (both 90 %: tests at 5 %), < a bound on a share of networks (Wilson's, 90 %).
Positive effects speak for a claim with >. For trends the effect is Kendall's tau. Samples without spread are decided by
the exact sign test, which takes five seeds.
"""

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


def core_time(seconds: float) -> str:
    """What a training took: `1 core-minute`, `42 core-minutes`, `12 core-hours`."""
    minutes, hours = max(1, round(seconds / 60)), round(seconds / 3600, 1)
    if minutes < 120:
        return f"{minutes} core-minute" + "s" * (minutes > 1)
    return f"{hours:.0f} core-hours" if hours >= 10 else f"{hours:g} core-hours"


def training_time(seconds: Mapping[str, float]) -> str:
    """What trainings took on which devices: `2 core-hours and 5 minutes of one NVIDIA H100 80GB HBM3`."""
    said = [core_time(seconds["cpu"])] if "cpu" in seconds else []
    for device in sorted(seconds.keys() - {"cpu"}):
        said.append(core_time(seconds[device]).replace("core-", "") + f" of one {device}")
    return " and ".join(said)


def the_runs_of(experiments: Sequence[str]) -> str:
    """What a figure is drawn from that has no runs of its own: `the runs of fig2, fig5`; of many their number."""
    return "the runs of " + (", ".join(experiments) if len(experiments) < 4 else f"{len(experiments)} figures")


def seeds_of(counts: Iterable[int]) -> str:
    """The seeds that claims are judged on, of which each has so many: `5 seeds`, `3 to 5 seeds`."""
    least, most = min(counts := set(counts)), max(counts)
    return f"{least} to {most} seeds" if least < most else f"{most} seed{'s' * (most > 1)}"


KINDS = ("fig", "table", "theory")  # of what the paper has, in its order


def place(name: str) -> tuple[int, int, str]:
    """The paper's order: figures 1, 2, 3, 3b ... 14, tables, theory, and a variant after what it varies; then the rest.

    It is for `sorted`; `fig3b_full` comes after `fig3b`, and `ablation` after `theory`.
    """
    kind = next((word for word in KINDS if name.startswith(word)), "")
    number, rest = re.findall(r"(\d*)(.*)", name.removeprefix(kind))[0]
    return (*KINDS, "").index(kind), int(number or 0), rest


def figures_named(names: Iterable[str]) -> str:
    """Some figures in a sentence, in the paper's order: `figures 2, 3b and 9, table 1`."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(names, key=place):
        kind = next((word for word in KINDS[:2] if name.startswith(word)), "")
        number = name.removeprefix(kind).replace("_", " ")
        kinds.setdefault({"fig": "figure", "table": "table"}.get(kind, ""), []).append(number)
    said = [f"{kind}{'s' * (kind != '' and len(of) > 1)} {listed(of)}".strip() for kind, of in kinds.items()]
    return ", ".join(said) or "none"


def listed(words: Sequence[str]) -> str:
    """Some words in a sentence: `a, b and c`, or `none`."""
    return ", ".join(words[:-1]) + " and " * (len(words) > 1) + words[-1] if words else "none"


def shown(verdict: Mapping[str, Any]) -> str:
    """The effect of a claim, and what it is held against."""
    return f"{verdict['effect']} {verdict['against']}".strip()


def summary_table(summaries: Sequence[Summary]) -> str:
    """The README's table: each figure that claims something, what it shows, the paper's number, ours, and its cost."""
    rows = []
    for s in sorted((s for s in summaries if s["verdicts"]), key=lambda s: place(s["name"])):
        report, found = f"results/{s['name']}/report.md", s["finding"]
        picture = f'<img src="results/{s["name"]}/figure.png" width="200" alt="{html.escape(s["title"])}">'
        count = Counter(v["verdict"] for v in s["verdicts"])
        verdicts = " ".join(f"{count[verdict]} {MARKS[verdict]}" for verdict in VERDICTS if verdict in count)
        cost = f"{s['scale']}, {s['judged_on']}, {s['cost']}"
        command = f"[`make {s['name']}`]({report})"
        rows.append(
            [f"[{picture}]({report})", found["finding"], found["paper"], found["ours"], verdicts, cost, command]
        )
    return "\n".join(
        table(["figure", "what our runs show", "the paper", "ours", "verdicts", "scale and cost", "command"], rows)
    )


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
