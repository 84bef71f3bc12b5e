"""results/claims.csv and results/figures.csv: what REPORT.md says, a row a claim and a row a figure, for programs."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.analysis.summaries import Summary

CLAIMS = (
    *("figure", "id", "verdict", "effect", "low", "high", "n", "p", "kind", "margin", "against"),
    *("text", "source", "paper", "scale"),
)
FIGURES = (
    "figure",
    "title",
    "scale",
    "seeds",
    "runs",
    "seconds",
    "drawn_from",
    "finding",
    "paper",
    "ours",
    "judged_on",
    "cost",
)


def claims(summaries: Sequence[Summary]) -> str:
    """The text of claims.csv: `p` and the effect with its interval to six digits, empty where there is none."""
    rows = ({"figure": s["name"], "scale": s["scale"], **v, **v["numbers"]} for s in summaries for v in s["verdicts"])
    return _csv(CLAIMS, rows)


def figures(summaries: Sequence[Summary]) -> str:
    """The text of figures.csv; `runs` and their `seconds` of training are those of `drawn_from` together."""
    return _csv(FIGURES, ({**s, "figure": s["name"], **s["trained"], **s["finding"]} for s in summaries))


def _csv(columns: Sequence[str], rows: Iterator[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(row[column]) for column in columns} for row in rows)
    return buffer.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return " ".join(str(value).split())
