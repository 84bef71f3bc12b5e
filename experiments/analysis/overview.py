"""The text of REPORT.md: the paper in 26 statements on one screen, and every claim of every figure below it."""

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.analysis.statements import STATEMENTS, WORDS, Cell, Statement, in_words, references
from experiments.analysis.stats import holm
from experiments.analysis.summaries import (
    FAILURES_FIRST,
    HOW_TO_READ,
    MARKS,
    VERDICTS,
    Summary,
    beyond,
    counted,
    figures_named,
    shown,
    table,
)

REPRODUCED, NOT_REPRODUCED, _, _, CONTRARY = VERDICTS
CELLS = ("recommended", "best", "no_decay", "rival")
COLUMNS = ("#", "statement", "at the recommended σ", "at the best σ", "against no decay", "against the best rival")
OPENING = "front"  # the figure that README.md begins with
SHOWN = 3  # more claims than these are counted in a cell, not shown one by one

LEGEND = """
✓ reproduced, ✗ not reproduced, ? inconclusive, · not tested at this scale (or on fewer than three seeds), ! contrary at
this scale. \\* survives Holm's correction over the {family} claims tested in this table, at 0.05: {left} of the {held}
reproduced do. Of several claims in a cell each has its line, or they are counted. The best σ is chosen on other seeds,
and one for all metrics where a figure says so, or it is the one that the claim names. How effects and intervals are to
be read stands above the list of all claims.

In words: *holds as recommended* if all claims are reproduced at the recommended σ, *at larger σ* if only at the best,
*at any σ* if none is named; *partly* if some claims are; *contradicted* if none is and one is not reproduced, *contrary
so far* if numbers of a smaller scale speak against it, *not shown here* if claims were inconclusive, *not decided yet*
if none was tested, *an identity* if a test proves it. The last two columns of numbers put a statement into place and do
not enter.
"""

Verdicts = Mapping[str, Mapping[str, Any]]  # "figure/id" -> its verdict in a summary


def overview(summaries: Sequence[Summary]) -> str:
    """REPORT.md; the statements are those whose figures have results."""
    verdicts = _verdicts(summaries)
    figures = {s["name"] for s in summaries}
    statements = [statement for statement in STATEMENTS if statement.figure in figures]
    blocks = ["# What of the paper holds", *_front_page(statements, verdicts, figures)]
    if learnt := beyond(summaries):
        blocks += ["## Beyond the paper", learnt]
    return "\n\n".join([*blocks, "## Every claim and its verdict", *_every_claim(summaries)]) + "\n"


def found(summaries: Sequence[Summary]) -> str:
    """What README.md begins with: the finding of the opening picture, and where no decay at all is as good as syre."""
    verdicts, figures = _verdicts(summaries), {s["name"] for s in summaries}
    cells = [_cells(s, verdicts, figures) for s in STATEMENTS if s.figure in figures]
    opening = next((s["finding"]["finding"] for s in summaries if s["name"] == OPENING), "")
    said = f"{opening} {_no_decay(cells, verdicts, figures_named)}".strip()
    return textwrap.fill(said, 120, break_on_hyphens=False)


def _verdicts(summaries: Sequence[Summary]) -> Verdicts:
    return {f"{s['name']}/{v['id']}": v | {"scale": s["scale"]} for s in summaries for v in s["verdicts"]}


def _cells(statement: Statement, verdicts: Verdicts, figures: set[str]) -> dict[str, list[str]]:
    """The claims of each cell of a statement."""
    return {name: _found(getattr(statement, name), verdicts, figures) for name in CELLS}


def _front_page(statements: Sequence[Statement], verdicts: Verdicts, figures: set[str]) -> list[str]:
    if not statements:
        return []
    found = {statement: _cells(statement, verdicts, figures) for statement in statements}
    words = {s: in_words(s, *([verdicts[r]["verdict"] for r in found[s][name]] for name in CELLS[:2])) for s in found}
    headlines = sorted({ref for cells in found.values() for refs in cells.values() for ref in refs})
    p = [verdicts[ref]["p"] for ref in headlines]
    survive = {ref for ref, rejected in zip(headlines, holm(p), strict=True) if rejected}
    survive = {ref for ref in survive if verdicts[ref]["verdict"] == REPRODUCED}
    rows = [
        [s.number, f"{s.text} ({s.where}; [{s.figure}]({s.figure}/report.md))" + f" *{s.metric}*" * bool(s.metric)]
        + [_cell(getattr(s, name), found[s][name], verdicts, survive) for name in CELLS]
        + [", ".join(dict.fromkeys(verdicts[ref]["scale"] for refs in found[s].values() for ref in refs)), words[s]]
        for s in statements
    ]
    tested = [each for each in p if not math.isnan(each)]
    held = sum(verdicts[ref]["verdict"] == REPRODUCED for ref in headlines)
    legend = LEGEND.strip().format(family=len(tested), left=len(survive), held=held)
    count = Counter(words.values())
    so_far = ", ".join(f"*{said}* {count[said]}" for said in WORDS if said in count)
    alone = _no_decay(list(found.values()), verdicts)
    first = f"{f'**{alone}**' if alone else ''} The {len(statements)} statements: {so_far}.".strip()
    return [first, "\n".join(table([*COLUMNS, "scale", "verdict"], rows)), legend]


def _no_decay(
    found: Sequence[Mapping[str, Sequence[str]]], verdicts: Verdicts, names: Callable[[Sequence[str]], str] = ", ".join
) -> str:
    """In which figures no decay at all is as good as the best arm of syre, and in which syre wins."""
    by_figure: dict[str, set[str]] = {}
    for cells in found:
        for ref in cells["no_decay"]:
            by_figure.setdefault(ref.split("/")[0], set()).add(verdicts[ref]["verdict"])
    as_good = [name for name, said in by_figure.items() if said & {NOT_REPRODUCED, CONTRARY}]
    wins = [name for name, said in by_figure.items() if said == {REPRODUCED}]
    if not by_figure:
        return ""
    still_open = [name for name in by_figure if name not in (*as_good, *wins)]

    def count(figures: Sequence[str]) -> str:
        return f"{len(figures)} ({names(figures)})" if figures else "none"

    return (
        "By some measure no decay at all is as good as the best arm of syre, or better, in "
        f"{count(as_good)} of the {len(by_figure)} figures where the two are compared; "
        f"by all measures syre wins in {count(wins)}; open: {count(still_open)}."
    )


def _found(cell: Cell, verdicts: Verdicts, figures: set[str]) -> list[str]:
    """The claims of a cell, less those of figures without results. Raises: KeyError for a claim that is not there."""
    refs = [ref for ref in references(cell) if ref.split("/")[0] in figures]
    if unknown := [ref for ref in refs if ref not in verdicts]:
        raise KeyError(f"no claim {', '.join(unknown)}")
    return refs


def _cell(cell: Cell, refs: Sequence[str], verdicts: Verdicts, survive: set[str]) -> str:
    """The effects and marks of some claims; of many their marks, counted; of none the words."""
    if not references(cell):
        return str(cell)
    marks = [MARKS[verdicts[ref]["verdict"]] + r"\*" * (ref in survive) for ref in refs]
    if len(refs) > SHOWN:
        order = [MARKS[verdict] for verdict in FAILURES_FIRST]
        return ", ".join(
            f"{n} {mark}" for mark, n in sorted(Counter(marks).items(), key=lambda m: order.index(m[0][0]))
        )
    return "<br>".join(f"{verdicts[ref]['effect']} {mark}" for ref, mark in zip(refs, marks, strict=True))


def _every_claim(summaries: Sequence[Summary]) -> list[str]:
    link = "[{name}]({name}/report.md)".format_map
    rows = [
        [link(s), f"**{v['id']}** {v['text']}", v["verdict"], shown(v), v["n"], v["paper"], s["scale"]]
        for s in summaries
        for v in s["verdicts"]
    ]
    lines = table(["figure", "claim", "verdict", "effect [interval]", "seeds", "paper", "scale"], rows)
    return [f"{counted(summaries)}. Within a figure failures come first.", HOW_TO_READ.strip(), "\n".join(lines)]
