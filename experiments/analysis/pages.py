"""The pages of the report: from the tables to verdicts and a picture of each figure; see report.py. No torch.

Each module `experiments/figures/<name>.py` is a figure. It says what is claimed and how it is drawn; it trains nothing:

    TITLE: str                                  one line
    CLAIMS: tuple[Claim, ...]                   see claims.py, and arms.py for the usual ones; none: no row in README.md
    NOTES: str                                  markdown: deviations from the paper, and what is unknown
    def notes(results: Results) -> str          the same, instead of it, where it tells numbers of the results: notes.py
    def draw(results: Results) -> Figure        see plotting.py, and arms.py for the looks
    EXPERIMENT: str | tuple[str, ...]           only if it draws the runs of another figure, or of several
    BESIDE: tuple[str, ...]                     experiments that are drawn beside its own, where they have results, but
                                                not judged: further arguments of `draw`
    RETIRED: dict[str, str]                     what became of earlier claims that are gone, by their ids
    def paper_table(results: Results) -> str    a table of the paper with ours, in Markdown: on top of the report
    def further(results: Results) -> str        more of the report, in Markdown: tables that the claims do not say
    def learnt(results: Results) -> str         beyond the paper: two sentences for README and REPORT.md
    def finding(results: Results) -> Finding    what it shows, in one or two sentences made of the results: words.py

Of open claims that state their `arms` the report says how many core-hours would decide them: remaining.py.
"""

import importlib
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

import experiments.figures
from experiments.analysis import plotting
from experiments.analysis.claims import MIN_SEEDS, NOT_TESTED, Claim, Verdict, evaluate
from experiments.analysis.notes import written
from experiments.analysis.remaining import still_open
from experiments.analysis.results import Results, ResultsError, Row, cells, combine, load, named
from experiments.analysis.summaries import (
    EARLIER,
    FAILURES_FIRST,
    HOW_TO_READ,
    Finding,
    Summary,
    seeds_of,
    table,
    the_runs_of,
    training_time,
)

COLUMNS = ("figure", "id", "text", "source", "kind", "margin", "verdict", "effect", "low", "high", "n")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One figure: its module, its results, the verdict on each of its claims, failures first, and earlier claims."""

    name: str
    module: ModuleType
    results: Results
    verdicts: tuple[Verdict, ...]
    earlier: tuple[Row, ...] = ()


def module_of(name: str) -> ModuleType:
    """The module of a figure. Raises: `ResultsError` when there is none."""
    try:
        return importlib.import_module(f"experiments.figures.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"experiments.figures.{name}":
            raise
        raise ResultsError(f"no figure {name!r}: there is no experiments/figures/{name}.py") from error


def judge(name: str, folder: Path) -> Report:
    """Evaluate the claims of the figure `name` on its tables in `folder`.

    Raises: `ResultsError` when there is no such figure, or no results for it.
    """
    module = module_of(name)
    results = combine([load(folder, source) for source in sources(module, name)])
    with _complete(results, folder):
        verdicts = [evaluate(claim, results) for claim in module.CLAIMS]
    verdicts.sort(key=lambda verdict: FAILURES_FIRST.index(verdict.verdict))
    earlier = tuple(row for row in _earlier(folder) if row["figure"] == name)
    return Report(name=name, module=module, results=results, verdicts=tuple(verdicts), earlier=earlier)


def _earlier(folder: Path) -> list[Row]:
    """The claims as they were; none in a folder of results that has no such file."""
    path = Path(folder) / EARLIER
    try:
        return named(*cells(path, COLUMNS)) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: {' '.join(str(error).split())}; `git checkout` restores it") from None


@contextmanager
def _complete(results: Results, folder: Path) -> Iterator[None]:
    """A setting that the tables have no column of is theirs to be mended; any other KeyError is ours."""
    try:
        yield
    except KeyError as error:
        column = str(error.args[0]) if error.args else ""
        if "." not in column or column in results.runs:
            raise
        tables = ", ".join(str(folder / name / "runs.csv") for name in results.experiment.split(" + "))
        raise ResultsError(
            f"no column {column} in {tables}; mend it, or delete it and run its sweep, which collects it"
        ) from error


def pictures(report: Report, folder: Path) -> dict[Path, bytes]:
    """The files of a figure in folder/<name>: its picture, twice, and report.md."""
    plotting.style()
    with _complete(report.results, folder):
        figure = report.module.draw(report.results, *(load(folder, name) for name in beside(report.module, folder)))
    drawn = plotting.files(figure, folder / report.name)
    return drawn | {folder / report.name / "report.md": to_markdown(report).encode()}


def sketch(name: str, folder: Path) -> dict[Path, bytes]:
    """folder/<name>/figure.png, of whatever runs there are: nothing is judged. Raises: as `judge`."""
    module = module_of(name)
    results = combine([load(folder, source) for source in sources(module, name)])
    plotting.style()
    with _complete(results, folder):
        figure = module.draw(results)
    return plotting.png(figure, folder / name)


def summary(report: Report) -> Summary:
    """What REPORT.md, the README and the terminal say of a figure: words and numbers only."""
    results = report.results
    return {
        "name": report.name,
        "title": report.module.TITLE,
        "scale": results.scale,
        "seeds": int(results.runs["seed"].nunique()),
        "judged_on": _judged_on(report),
        "cost": _cost(report),
        "runs": _summary(results),
        "trained": {"drawn_from": results.experiment, "runs": len(results.runs), "seconds": _seconds(results)},
        "learnt": _learnt(report),
        "finding": _finding(report),
        "verdicts": [
            {"verdict": v.verdict, "effect": effect(v), "against": against(v), "n": int(v.n), "p": v.p}
            | {key: getattr(v.claim, key) for key in ("id", "text", "source", "paper")}
            | {"kind": type(v.claim).__name__.lower(), "margin": float(v.claim.margin)}
            | {"numbers": {key: float(getattr(v, key)) for key in ("effect", "low", "high")}}
            for v in report.verdicts
        ],
    }


def _judged_on(report: Report) -> str:
    """The seeds of its claims; of a figure of which none is judged, those that it has."""
    most = int(report.results.runs["seed"].nunique())  # some samples are networks, not seeds
    counts = {min(verdict.n, most) for verdict in report.verdicts if verdict.n and verdict.verdict != NOT_TESTED}
    return seeds_of(counts or {most})


def _cost(report: Report) -> str:
    """What training took, on which devices; of a figure that is drawn from others' runs, theirs, which may be there."""
    runs, name = report.results.runs, report.name
    experiments = report.results.experiment.split(" + ")
    alone = runs if experiments == [name] else runs[runs["experiment"] == name] if name in experiments else None
    others = [experiment for experiment in experiments if experiment != name]
    took = [] if alone is None else [training_time(_by_device(alone))]
    if others:
        theirs = runs if alone is None else runs.drop(alone.index)
        took.append(f"{the_runs_of(others)} ({training_time(_by_device(theirs))})")
    took += [f"then {after}" for after in getattr(report.module, "AFTER", ())]
    few = any(0 < verdict.n < MIN_SEEDS for verdict in report.verdicts)
    return " and ".join(took) + f" for the {len(runs)} runs so far" * few


def _by_device(runs: pd.DataFrame) -> dict[str, float]:
    """The seconds of training on each device."""
    return {str(device): float(seconds) for device, seconds in runs.groupby("device")["seconds"].sum().items()}


def _seconds(results: Results) -> float:
    return float(round(results.runs["seconds"].sum()))


def _learnt(report: Report) -> str:
    """What was learnt; nothing where its numbers are not there (yet)."""
    try:
        return _asked(report, "learnt")
    except ResultsError:
        return ""


def _finding(report: Report) -> dict[str, str]:
    """The finding of a figure; without one, what was learnt from it; nothing where its numbers are not there (yet)."""
    asked = getattr(report.module, "finding", None)
    try:
        found = asked(report.results) if asked else Finding(_learnt(report))
    except ResultsError:
        untested = [verdict.verdict == NOT_TESTED for verdict in report.verdicts]
        how_far = "Nothing" if all(untested) else "Not all"
        found = Finding(f"{how_far} is judged yet: only some of its runs have ended." if any(untested) else "")
    return dict(found._asdict())


def names() -> list[str]:
    """The figures: what is in the folder."""
    return [module.name for module in pkgutil.iter_modules(experiments.figures.__path__)]


def available(folder: Path) -> list[str]:
    """Names of the figures with all their results in `folder`, in reading order (fig2 before fig10)."""
    trained = {path.parent.name for path in Path(folder).glob("*/runs.csv")}
    drawn = {name for experiment in trained for name, sources in drawn_from(experiment).items() if sources <= trained}
    return sorted(
        {name for name in trained if not lacking(name, trained)} | drawn,
        key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)],
    )


def lacking(name: str, trained: set[str]) -> set[str]:
    """The experiments of which a figure draws runs as well, and which have no results."""
    return set(sources(module_of(name), name)) - trained if name in names() else set()


def drawn_from(experiment: str) -> dict[str, set[str]]:
    """The other figures that are drawn from the runs of this one, with all that each is drawn from."""
    found = {name: {*sources(module_of(name), name), *beside(module_of(name))} for name in names()}
    return {name: others for name, others in found.items() if experiment in others - {name}}


def sources(module: ModuleType, name: str) -> tuple[str, ...]:
    """The experiments whose runs a figure draws."""
    source = getattr(module, "EXPERIMENT", name)
    return source if isinstance(source, tuple) else (source,)


def beside(module: ModuleType, folder: Path | None = None) -> list[str]:
    """The experiments that a figure draws but does not judge; with a folder, those that have results in it."""
    names: tuple[str, ...] = getattr(module, "BESIDE", ())
    return [name for name in names if folder is None or (Path(folder) / name / "runs.csv").is_file()]


def to_markdown(report: Report) -> str:
    """The text of report.md."""
    claims = [
        [_sentence(v.claim), v.verdict, f"{effect(v)} {against(v)}".strip(), v.n, v.claim.paper]
        for v in report.verdicts
    ]
    judged = (
        "\n".join(table(["claim", "verdict", "effect [interval]", "seeds", "paper"], claims)),
        f"{HOW_TO_READ.strip()}\nIn the notes below all intervals are of 95 %.",
    )
    blocks = (
        f"# {report.name}: {report.module.TITLE}",
        *filter(None, [_asked(report, "paper_table")]),
        "![the figure](figure.png)",
        _summary(report.results),
        *(judged if claims else ()),
        *filter(None, [_asked(report, "further")]),
        *still_open(report.verdicts, report.results),
        "## Deviations and unknowns",
        notes(report),
        *_changed(report),
        "## Provenance",
        "\n".join(_provenance(report.results)),
    )
    return "\n\n".join(blocks) + "\n"


def notes(report: Report) -> str:
    """The notes of a figure: typed, or written of its results."""
    asked = getattr(report.module, "notes", None)
    return written(asked(report.results)) if asked else textwrap.dedent(report.module.NOTES).strip()


def _asked(report: Report, function: str) -> str:
    """What a function that a figure may have says of its results; nothing if it has none."""
    asked = getattr(report.module, function, None)
    return asked(report.results).strip() if asked else ""


def _sentence(claim: Claim) -> str:
    reason = f"; {claim.argued}" * bool(claim.argued)
    return f"**{claim.id}** {claim.text} ({claim.source}{reason})"


def effect(verdict: Verdict) -> str:
    """`+0.31 [+0.2, +0.42]`; a dash without data."""
    return _interval(verdict.effect, verdict.low, verdict.high)


def against(verdict: Verdict) -> str:
    """What the interval is held against: `> 0.05`, `> -0.01`, `≈ 0 ± 0.05`; nothing without data."""
    return "" if np.isnan(verdict.effect) else verdict.claim.against


def _interval(mean: float, low: float, high: float) -> str:
    if np.isnan(mean):
        return "–"
    if np.isnan(low):
        return f"{mean:+.3g}"
    rounding = abs(mean) < 1e-9 * max(abs(low), abs(high))
    return f"{0.0 if rounding else mean:+.3g} [{low:+.3g}, {high:+.3g}]"


def _changed(report: Report) -> list[str]:
    """The section on earlier claims: those whose sentence, kind, margin or verdict is another now."""
    retired: dict[str, str] = getattr(report.module, "RETIRED", {})
    now = {v.claim.id: v for v in report.verdicts}
    rows = []
    for row in report.earlier:
        after = retired.get(row["id"], "no longer claimed")
        if v := now.get(row["id"]):
            after = f"{v.verdict}, {effect(v)} {against(v)}".strip()
            as_then = (v.claim.text, type(v.claim).__name__.lower(), f"{v.claim.margin:.6g}", v.verdict)
            if as_then == tuple(row[column] for column in ("text", "kind", "margin", "verdict")):
                continue
        before = f"{row['verdict']}, {_interval(*(float(row[column]) for column in ('effect', 'low', 'high')))}"
        rows.append([f"**{row['id']}** {row['text']} ({row['source']})", before, after])
    if not rows:
        return []
    said = "What was claimed before, where the sentence, its kind, its margin or its verdict is another now."
    return ["## Earlier claims", said, "\n".join(table(["earlier claim", "verdict then", "now"], rows))]


def _summary(results: Results) -> str:
    runs = results.runs
    status = runs["status"].value_counts()
    trouble = ", ".join(f"{status.get(name, 0)} {word}" for name, word in (("failed", "failed"), ("nan", "went NaN")))
    seconds = f"{runs['seconds'].sum():.0f} s of training"
    return f"Scale `{results.scale}`: {len(runs)} runs over {runs['seed'].nunique()} seeds, {trouble}; {seconds}."


def _provenance(results: Results) -> list[str]:
    runs = results.runs
    versions = [column for column in map(str, runs) if column.startswith("versions.")]
    facts = {
        "git": [str(sha)[:12] + " (dirty)" * bool(dirty) for sha, dirty in zip(runs.git_sha, runs.dirty, strict=True)],
        "device": list(runs["device"]),
        "threads": [f"{threads:g}" for threads in runs["threads"]],
        **{column.removeprefix("versions."): list(runs[column]) for column in versions},
    }
    return [f"- {name}: {', '.join(sorted(set(map(str, values))))}" for name, values in facts.items()]
