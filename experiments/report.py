"""From the tables to figures and verdicts: `python -m experiments.report [fig4 ...] [--results DIR]`; no torch.

Each figure is a module `experiments/<name>.py` that says what is claimed and how it is drawn, and trains nothing:

    TITLE: str                                  one line
    CLAIMS: tuple[Claim, ...]                   see claims.py
    NOTES: str                                  markdown: deviations from the paper, and what is unknown
    def draw(results: Results) -> Figure        see plotting.py
    EXPERIMENT: str | tuple[str, ...]           only if it draws the runs of another figure, or of several

It leaves results/<name>/{figure.pdf, figure.png, report.md} and results/REPORT.md, which depend on the tables only.
"""

import argparse
import importlib
import pkgutil
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

import experiments
from experiments import plotting
from experiments.claims import INCONCLUSIVE, NOT_REPRODUCED, NOT_TESTED, REPRODUCED, Equivalence, Verdict, evaluate
from experiments.results import Results, ResultsError, combine, load, write_files

VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_TESTED)
FIGURE = re.compile(r"(fig|table)\d+[a-z]?|theory|ablation|sigma_map|ant")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One figure: its module, its results, and the verdict on each of its claims."""

    name: str
    module: ModuleType
    results: Results
    verdicts: tuple[Verdict, ...]


def judge(name: str, folder: Path) -> Report:
    """Evaluate the claims of the figure `name` on its tables in `folder`.

    Raises: `ResultsError` when there is no such figure, or no results for it.
    """
    try:
        module = importlib.import_module(f"experiments.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"experiments.{name}":
            raise
        raise ResultsError(f"no figure {name!r}: there is no experiments/{name}.py") from error
    results = combine([load(folder, source) for source in _sources(module, name)])
    return Report(
        name=name, module=module, results=results, verdicts=tuple(evaluate(claim, results) for claim in module.CLAIMS)
    )


def write(report: Report, folder: Path) -> None:
    """Draw the figure and write it, with report.md, into folder/<name>."""
    plotting.style()
    figure = report.module.draw(report.results)
    plotting.save(figure, folder / report.name)
    write_files({folder / report.name / "report.md": to_markdown(report).encode()})


def available(folder: Path) -> list[str]:
    """Names of the figures with results in `folder`, in reading order (fig2 before fig10)."""
    trained = {path.parent.name for path in Path(folder).glob("*/runs.csv")}
    drawn = {name for experiment in trained for name, sources in drawn_from(experiment).items() if sources <= trained}
    return sorted(
        trained | drawn, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )


def drawn_from(experiment: str) -> dict[str, set[str]]:
    """The other figures that are drawn from the runs of this one, with all that each is drawn from."""
    names = [module.name for module in pkgutil.iter_modules(experiments.__path__) if FIGURE.fullmatch(module.name)]
    modules = {name: importlib.import_module(f"experiments.{name}") for name in names}
    sources = {name: set(_sources(module, name)) for name, module in modules.items()}
    return {name: others for name, others in sources.items() if experiment in others - {name}}


def _sources(module: ModuleType, name: str) -> tuple[str, ...]:
    """The experiments whose runs a figure draws."""
    source = getattr(module, "EXPERIMENT", name)
    return source if isinstance(source, tuple) else (source,)


def to_markdown(report: Report) -> str:
    """The text of report.md."""
    return "\n".join(
        [
            f"# {report.name}: {report.module.TITLE}",
            "",
            "![the figure](figure.png)",
            "",
            _summary(report.results),
            "",
            *_table(
                ["claim", "verdict", "effect [interval]", "seeds", "paper"],
                [
                    [f"**{v.claim.id}** {v.claim.text} ({v.claim.source})", v.verdict, effect(v), v.n, v.claim.paper]
                    for v in report.verdicts
                ],
            ),
            "",
            "Positive effects speak for the claim. Intervals over seeds: 95 %, for equivalences (≈) 90 % against the "
            "margin; for trends the effect is Kendall's tau.",
            "",
            "## Deviations and unknowns",
            "",
            textwrap.dedent(report.module.NOTES).strip(),
            "",
            "## Provenance",
            "",
            *_provenance(report.results),
            "",
        ]
    )


def overview(reports: Sequence[Report]) -> str:
    """The text of REPORT.md: every claim of every figure that has results."""
    count = Counter(v.verdict for report in reports for v in report.verdicts)
    rows = [
        [
            f"[{r.name}]({r.name}/report.md)",
            f"**{v.claim.id}** {v.claim.text}",
            v.verdict,
            effect(v),
            v.n,
            v.claim.paper,
            r.results.scale,
        ]
        for r in reports
        for v in r.verdicts
    ]
    return "\n".join(
        [
            "# Every claim and its verdict",
            "",
            "; ".join(f"{number} {verdict}" for verdict, number in sorted(count.items())) + ".",
            "",
            *_table(["figure", "claim", "verdict", "effect [interval]", "seeds", "paper", "scale"], rows),
            "",
        ]
    )


def summary_table(reports: Sequence[Report]) -> str:
    """The README's table of figures: verdicts counted, and what they cost."""
    rows = []
    for r in reports:
        count = Counter(v.verdict for v in r.verdicts)
        verdicts = ", ".join(f"{count[verdict]} {verdict}" for verdict in sorted(count, key=VERDICTS.index))
        minutes = r.results.runs["seconds"].sum() / 60
        cost = (
            f"{max(1, minutes):.0f} core-minutes"
            if r.results.experiment == r.name
            else f"the runs of {r.results.experiment}"
        )
        scale = f"{r.results.scale}, {r.results.runs['seed'].nunique()} seeds"
        rows.append([f"[`make {r.name}`](results/{r.name}/report.md)", r.module.TITLE, verdicts, scale, cost])
    return "\n".join(_table(["figure", "what", "ours", "scale", "training"], rows))


def update_readme(readme: Path, reports: Sequence[Report]) -> None:
    """Put the table between the README's two marks, if it has them."""
    text = readme.read_text() if readme.is_file() else ""
    before, mark, rest = text.partition("<!-- figures -->\n")
    _, end, after = rest.partition("<!-- /figures -->")
    if end:
        write_files({readme: f"{before}{mark}{summary_table(reports)}\n{end}{after}".encode()})


def effect(verdict: Verdict) -> str:
    """`+0.31 [+0.2, +0.42]`, with the margin of an equivalence; a dash without data."""
    if np.isnan(verdict.effect):
        return "–"
    text = f"{verdict.effect:+.3g}"
    if not np.isnan(verdict.low):
        text += f" [{verdict.low:+.3g}, {verdict.high:+.3g}]"
    return text + (f" ≈ 0 ± {verdict.claim.margin:g}" if isinstance(verdict.claim, Equivalence) else "")


def terminal_table(report: Report) -> str:
    """The verdicts in aligned columns."""
    rows = [
        [v.claim.id, v.verdict, effect(v), f"n = {v.n}", v.claim.paper and f"paper: {v.claim.paper}"]
        for v in report.verdicts
    ]
    widths = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
    lines = [f"{report.name}: {report.module.TITLE}", f"  {_summary(report.results)}"]
    for row, verdict in zip(rows, report.verdicts, strict=True):
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append(textwrap.indent(textwrap.fill(verdict.claim.text, 100), "      "))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, draw and report; 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__.split(";")[0])
    parser.add_argument("figures", nargs="*", help="fig4 ...; without names, every figure that has results")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        there = available(options.results)
        asked = [name for figure in options.figures for name in (figure, *sorted({*drawn_from(figure)} & {*there}))]
        names = list(dict.fromkeys(asked)) or there
        if not names:
            raise ResultsError(f"no results in {options.results}: `make fig4`, say, trains and collects some")
        reports = {name: judge(name, options.results) for name in names}
        for report in reports.values():
            write(report, options.results)
            print(terminal_table(report))
        everything = [reports.get(name) or judge(name, options.results) for name in there]
        write_files({options.results / "REPORT.md": overview(everything).encode()})
        update_readme(options.results.parent / "README.md", everything)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _summary(results: Results) -> str:
    runs = results.runs
    status = runs["status"].value_counts()
    trouble = ", ".join(f"{status.get(name, 0)} {word}" for name, word in (("failed", "failed"), ("nan", "went NaN")))
    seconds = f"{runs['seconds'].sum():.0f} s of training"
    return f"Scale `{results.scale}`: {len(runs)} runs over {runs['seed'].nunique()} seeds, {trouble}; {seconds}."


def _provenance(results: Results) -> list[str]:
    runs = results.runs
    versions = [column for column in runs if column.startswith("versions.")]
    facts = {
        "git": [
            f"{str(sha)[:12]}{' (dirty)' if dirty else ''}" for sha, dirty in zip(runs.git_sha, runs.dirty, strict=True)
        ],
        "device": list(runs["device"]),
        "threads": [f"{threads:g}" for threads in runs["threads"]],
        **{column.removeprefix("versions."): list(runs[column]) for column in versions},
    }
    return [f"- {name}: {', '.join(sorted(set(map(str, values))))}" for name, values in facts.items()]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [
        "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    ]


if __name__ == "__main__":
    sys.exit(main())
