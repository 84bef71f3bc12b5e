"""The receipt of a sweep: how many of its runs and verdicts are the committed ones, and by how much others differ.

Committed is what git has at HEAD. Where git does not have the tables, it is what they were before the sweep wrote them.
Numbers are compared as the tables have them, nine digits; where they come from (`results.PROVENANCE`) is not compared.
"""

import math
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.analysis.listing import CLAIMS
from experiments.analysis.results import TABLES, ResultsError, Row, named, other_settings, parsed
from experiments.analysis.summaries import Summary

RELATIVE, ABSOLUTE = 1e-5, 1e-12  # other processors and versions of torch give other last digits
RUNS, METRICS = TABLES
VERDICTS = "claims.csv"

Contents = Mapping[Path, bytes]  # of files; those that are not there are left out
Receipt = dict[str, Any]  # words and numbers, as receipt.json has them
Cell = tuple[str, str]  # a column and no step, or split/metric and the step


class Difference(NamedTuple):
    """A cell of a run that two tables have differently, None where there is none."""

    run: str
    what: str
    step: str
    before: str | None
    now: str | None

    @property
    def relative(self) -> float:
        """By how much, as a fraction of the larger of two numbers; infinite where they are not both numbers."""
        try:
            before, now = float(self.before or "nan"), float(self.now or "nan")
        except ValueError:
            return math.inf
        larger = max(abs(before), abs(now))
        return abs(before - now) / (larger or 1.0) if math.isfinite(before - now) else math.inf

    @property
    def rounding(self) -> bool:
        """Whether these are two results of training, and as near as those of two machines."""
        if not self.step or math.isinf(self.relative):
            return False
        largest = max(abs(float(cell or "nan")) for cell in (self.before, self.now))
        return self.relative <= RELATIVE or largest <= ABSOLUTE


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The two tables of an experiment, by the ids of the runs: the rows of runs.csv, and the cells of metrics.csv."""

    runs: Mapping[str, Row]
    metrics: Mapping[str, Mapping[Cell, str]]

    def cell(self, run: str, cell: Cell) -> str | None:
        """The text of a cell; None where there is none."""
        what, step = cell
        return self.metrics.get(run, {}).get(cell) if step else self.runs.get(run, {}).get(what)


def on_disk(folder: Path, experiment: str) -> Contents:
    """The tables of an experiment, and the verdicts beside them, as they are now."""
    files = [folder / VERDICTS, *(folder / experiment / name for name in TABLES)]
    return {path: path.read_bytes() for path in files if path.is_file()}


def at_head(folder: Path, files: Sequence[Path]) -> tuple[str, Contents]:
    """The commit that git is at in a folder, and what it has there of some files; "" and nothing where it has none."""
    asked = ["HEAD^{commit}", *(f"HEAD:./{file.relative_to(folder).as_posix()}" for file in files)]
    try:
        text = "".join(f"{name}\n" for name in asked).encode()
        done = subprocess.run(["git", "cat-file", "--batch"], cwd=folder, input=text, capture_output=True)
    except OSError:  # no git, or no such folder
        return "", {}
    if done.returncode:
        return "", {}
    rest, commit, found = done.stdout, "", dict[Path, bytes]()
    for file in (None, *files):
        said, _, rest = rest.partition(b"\n")
        if not said.endswith(b" missing"):
            object_id, _, size = said.decode().split(" ")
            if file is None:
                commit = object_id
            else:
                found[file] = rest[: int(size)]
            rest = rest[int(size) + 1 :]
    return commit, found


def make(
    *,
    experiment: str,
    scale: str,
    place: Path,
    results: Path,
    before: Contents,
    adopted: Collection[str],
    summaries: Sequence[Summary],
) -> Receipt:
    """The receipt of a sweep whose tables are in place/<experiment>, and the committed ones in results/<experiment>.

    `before` is `on_disk(results, experiment)` before they were written. Of the runs those that were `adopted` from
    tables were not trained. `summaries` are those of the figures that were judged. Where `place` is another folder, a
    sweep of one's own, only the runs that the committed tables have too are compared, and no verdicts.
    Raises: `ResultsError` for a table that cannot be read.
    """
    own = place == results
    drawn = dict.fromkeys(name for summary in summaries for name in summary["trained"]["drawn_from"].split(" + "))
    others = [name for name in drawn if name != experiment] if own else []
    files = [results / name / table for name in (experiment, *others) for table in TABLES]
    commit, head = at_head(results, [results / VERDICTS, *files])
    tracked = all(results / experiment / table in head for table in TABLES)
    committed, after = head if tracked else before, on_disk(place, experiment)
    where = f"as committed in git {commit[:12]}" if tracked else ""
    now = _tables(after, place / experiment)
    same = own and all(committed.get(file) == after.get(file) for file in files[: len(TABLES)])
    old = now if same else _tables(committed, results / experiment, where)
    ids = {run for run, row in now.runs.items() if row["scale"] == scale}
    told = {run for run, row in old.runs.items() if row["scale"] == scale}
    edits = []
    if own and tracked:
        edits += _edits(results / experiment, head, before, after)
    for name in others:
        edits += _edits(results / name, head, there := on_disk(results, name), there)
    return {
        "experiment": experiment,
        "scale": scale,
        "tables": str(place / experiment),
        "committed": {"commit": commit if tracked else None, "in_git": tracked, "checkout": bool(commit)}
        | {"tables": str(results / experiment), "runs": len(told)},
        "rounding": {"relative": RELATIVE, "absolute": ABSOLUTE},
        "trained": _compared(old, now, ids - {*adopted}),
        "adopted": _compared(old, now, ids & {*adopted}),
        "missing": sorted(told - ids) if own else [],
        "changed_before": edits,
        "not_as_committed": [
            str(file) for file in files[: len(TABLES)] if own and tracked and after[file] != head[file]
        ],
        "verdicts": _verdicts(head.get(results / VERDICTS, before.get(results / VERDICTS)), summaries) if own else None,
        "figures": [_figure(summary, place) for summary in summaries],
    }


# ---- tables ----------------------------------------------------------------------------------------------------------


def _tables(contents: Contents, folder: Path, where: str = "") -> Tables:
    """The tables of a folder. Raises: `ResultsError` that says which one is damaged, and `where` it is so."""
    rows: dict[str, list[Row]] = {}
    for name, columns in TABLES.items():
        try:
            rows[name] = named(*parsed(contents[folder / name], columns)) if folder / name in contents else []
        except ValueError as error:
            what = " ".join(str(error).split())
            raise ResultsError(f"{folder / name}{where and f', {where}'}: {what}") from None
    cells: dict[str, dict[Cell, str]] = {}
    for row in rows[METRICS]:
        cells.setdefault(row["id"], {})[f"{row['split']}/{row['metric']}", row["step"]] = row["value"]
    return Tables(runs={row["id"]: row for row in rows[RUNS]}, metrics=cells)


def _differences(old: Tables, new: Tables, run: str) -> list[Difference]:
    """The cells in which a run that both have differs."""
    columns: list[Cell] = [(column, "") for column in other_settings(old.runs[run], new.runs[run])]
    before, now = old.metrics.get(run, {}), new.metrics.get(run, {})
    others = [cell for cell in {**before, **now} if before.get(cell) != now.get(cell)] if before != now else []
    return [Difference(run, *cell, before=old.cell(run, cell), now=new.cell(run, cell)) for cell in columns + others]


def _compared(old: Tables, now: Tables, ids: Iterable[str]) -> dict[str, Any]:
    """How many runs are equal, to the digit or within rounding, differ, are new, or failed; and those that differ."""
    count = Counter[str]()
    differing: list[dict[str, Any]] = []
    for run in ids:
        differences = _differences(old, now, run) if run in old.runs else []
        if now.runs[run]["status"] == "failed":
            kind = "failed"
        elif run not in old.runs:
            kind = "new"
        else:
            kind = "different" if not all(d.rounding for d in differences) else "rounding" if differences else "equal"
        count[kind] += 1
        if kind in ("different", "rounding"):
            differing.append({"kind": kind, "cells": len(differences), "largest": _said(_largest(differences))})
    differing.sort(key=lambda one: (-_size(one["largest"]), one["largest"]["run"]))
    kinds = {kind: count[kind] for kind in ("equal", "rounding", "different", "new", "failed")}
    return {"runs": count.total(), **kinds, "differing": differing}


def _largest(differences: Iterable[Difference]) -> Difference:
    return max(differences, key=lambda one: one.relative)


def _said(one: Difference, before: str = "committed", now: str = "now") -> dict[str, Any]:
    relative = one.relative if math.isfinite(one.relative) else None
    return {"run": one.run, "what": one.what, "step": one.step, before: one.before, now: one.now, "relative": relative}


def _size(said: Mapping[str, Any]) -> float:
    return math.inf if said["relative"] is None else float(said["relative"])


def _edits(folder: Path, head: Contents, disk: Contents, after: Contents) -> list[dict[str, Any]]:
    """In what the tables on the disk, before the sweep, were others than git has at HEAD, and what they are after it.

    Runs that git does not have are no difference: they come from other sweeps.
    """
    files = [folder / name for name in TABLES if folder / name in head]
    if all(head[file] == disk.get(file) for file in files):
        return []
    if absent := [file for file in files if file not in disk]:
        return [{"file": str(file), "absent": True} for file in absent]
    old, then, now = _tables(head, folder, "as committed"), _tables(disk, folder), _tables(after, folder)
    both, lost = [run for run in old.runs if run in then.runs], [run for run in old.runs if run not in then.runs]
    found = [difference for run in both for difference in _differences(old, then, run)]
    edits = []
    for name, cells in ((RUNS, [one for one in found if not one.step]), (METRICS, [one for one in found if one.step])):
        gone = lost if name == RUNS else []
        if cells or gone:
            is_now = {one: now.cell(one.run, (one.what, one.step)) for one in cells}
            largest = _largest(cells) if cells else None
            edits.append(
                {"file": str(folder / name), "absent": False, "runs_lost": gone, "cells": len(cells)}
                | {"as_committed_now": sum(text == one.before for one, text in is_now.items())}
                | {"still_so": sum(text == one.now for one, text in is_now.items())}
                | {"largest": largest and _said(largest, now="disk") | {"now": is_now[largest]}}
            )
    return edits


# ---- verdicts --------------------------------------------------------------------------------------------------------


def _verdicts(committed: bytes | None, summaries: Sequence[Summary]) -> dict[str, Any]:
    """The verdicts of some figures against those of claims.csv: how many are the same, and which are not."""
    try:
        rows = named(*parsed(committed, CLAIMS)) if committed else []
    except ValueError as error:
        raise ResultsError(f"{VERDICTS} as committed: {' '.join(str(error).split())}") from None
    figures = {summary["name"] for summary in summaries}
    old = {(row["figure"], row["id"]): row for row in rows if row["figure"] in figures}
    now = {
        (s["name"], v["id"]): {"verdict": v["verdict"], "scale": s["scale"]} for s in summaries for v in s["verdicts"]
    }
    changed = [
        {"claim": "/".join(claim), "committed": old[claim]["verdict"], "now": now[claim]["verdict"]}
        | {"committed_scale": old[claim]["scale"], "scale": now[claim]["scale"]}
        for claim in now
        if claim in old and old[claim]["verdict"] != now[claim]["verdict"]
    ]
    both = len(now.keys() & old.keys())
    return {
        "compared": both,
        "same": both - len(changed),
        "changed": changed,
        "new": ["/".join(claim) for claim in now if claim not in old],
        "gone": ["/".join(claim) for claim in old if claim not in now],
    }


def _figure(summary: Summary, place: Path) -> dict[str, Any]:
    count = Counter(verdict["verdict"] for verdict in summary["verdicts"])
    return {"name": summary["name"], "picture": str(place / summary["name"] / "figure.png"), "verdicts": dict(count)}


# ---- in words --------------------------------------------------------------------------------------------------------


def text(receipt: Receipt) -> str:
    """What is printed: the receipt in a line, then what differs, and what it was compared with."""
    lines = [f"receipt: {_runs(receipt)}; {_of_verdicts(receipt)}"]
    for kind in ("rounding", "different"):
        lines += [_differing(receipt, part, kind) for part in ("trained", "adopted")]
    if missing := receipt["missing"]:
        lines.append(f"not among these: {_many(len(missing), f'{_word(receipt)} run')}, {missing[0]} first")
    if receipt["verdicts"]:
        lines += [f"{one['claim']}: {_change(one)}" for one in receipt["verdicts"]["changed"]]
    lines += [_edited(edit) for edit in receipt["changed_before"]]
    if (files := receipt["not_as_committed"]) and _all_equal(receipt):
        git = "`git diff` shows where (provenance is no number), `git checkout` brings it back"
        lines.append(f"{' and '.join(files)} now differs from the committed file all the same: {git}")
    lines.append(_committed(receipt))
    return "\n  ".join(filter(None, lines))


def _all_equal(receipt: Receipt) -> bool:
    equal = all(receipt[part]["equal"] == receipt[part]["runs"] for part in ("trained", "adopted"))
    return equal and not receipt["missing"]


def _word(receipt: Receipt) -> str:
    return "committed" if receipt["committed"]["in_git"] else "earlier"


def _runs(receipt: Receipt) -> str:
    trained, adopted = receipt["trained"], receipt["adopted"]
    known = {part: receipt[part]["runs"] - receipt[part]["new"] for part in ("trained", "adopted")}
    if not receipt["committed"]["runs"] or not any(known.values()):
        total = trained["runs"] + adopted["runs"]
        return f"nothing to compare, the {_word(receipt)} tables have none of {_many(total, 'run')}"
    ones = f"runs equal to the {_word(receipt)} ones"
    parts = [f"{trained['equal']} of {known['trained']} {ones}"] if known["trained"] else []
    words = {"rounding": "equal within rounding", "different": "different", "failed": "failed"}
    parts += [f"{trained[kind]} {word}" for kind, word in words.items() if trained[kind]]
    if new := trained["new"] + adopted["new"]:
        parts.append(f"{new} new")
    if adopted["runs"]:
        others = known["adopted"] - adopted["equal"]
        taken = f"{adopted['runs']} adopted from the tables, not trained"
        parts.append(taken + f" ({others} of them different from the {_word(receipt)} ones)" * bool(others))
    return ", ".join(parts)


def _of_verdicts(receipt: Receipt) -> str:
    found = receipt["verdicts"]
    if found is None:
        return "verdicts not compared, these are not the runs of the figure"
    if not found["compared"]:
        return "no committed verdicts" if found["new"] else "no verdicts"
    parts = [f"{found['same']} of {found['compared']} verdicts the same"]
    parts += [f"{len(found[kind])} {kind}" for kind in ("changed", "new", "gone") if found[kind]]
    return ", ".join(parts)


def _differing(receipt: Receipt, part: str, kind: str) -> str:
    those = [one for one in receipt[part]["differing"] if one["kind"] == kind]
    if not those:
        return ""
    how = "equal within rounding" if kind == "rounding" else "different"
    most = "the most: " * (len(those) > 1)
    return f"{len(those)} {how}, {most}{_example(those[0]['largest'], committed=_word(receipt), now='now')}"


def _example(largest: Mapping[str, Any], **words: str) -> str:
    """`run 7c4ea7df53bb, test/loss at step 6000: -3.52 committed, -3.5 now (relative difference 0.0057)`."""
    at = f" at step {largest['step']}" if largest["step"] else ""
    values = ", ".join(f"{_or_none(largest[name])} {word}" for name, word in words.items())
    size = "" if largest["relative"] is None else f" (relative difference {largest['relative']:.2g})"
    return f"run {largest['run']}, {largest['what']}{at}: {values}{size}"


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _or_none(cell: str | None) -> str:
    return "nothing" if cell is None else cell or "an empty cell"


def _change(one: Mapping[str, str]) -> str:
    scales = f" (scale {one['committed_scale']} -> {one['scale']})" * (one["committed_scale"] != one["scale"])
    return f"{one['committed']} -> {one['now']}{scales}"


def _edited(edit: Mapping[str, Any]) -> str:
    if edit["absent"]:
        return f"{edit['file']}, which is committed, was not there before this sweep"
    count, lost = edit["cells"], edit["runs_lost"]
    said = [f"lacked {_many(len(lost), 'committed run')}, {lost[0]} first"] if lost else []
    if count:
        others = count - edit["as_committed_now"] - edit["still_so"]
        counts = {"as committed again": edit["as_committed_now"], "still so": edit["still_so"], "others now": others}
        after = ", ".join(f"{number} {words}" for words, number in counts.items() if number)
        cells = f"{_many(count, 'cell')} ({after})"
        example = _example(edit["largest"], committed="committed", disk="on the disk", now="now")
        said.append(f"differed from the committed one in {cells}, {'the most: ' * (count > 1)}{example}")
    return f"before this sweep {edit['file']} {', and '.join(said)}"


def _committed(receipt: Receipt) -> str:
    of = receipt["committed"]
    if of["in_git"]:
        return f"committed: {of['tables']} in git at {of['commit'][:12]}"
    why = "git does not have them" if of["checkout"] else "no git here"
    return f"compared with the tables in {of['tables']} as they were before this sweep ({why})"
