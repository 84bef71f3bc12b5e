"""What lies in outputs/<experiment>: the one place that knows its files.

runs/<run id>/       config.yaml, metrics.csv, run.json and, last, done: a run that has ended
groups/<group id>    .json its runs, as they were packed    .pt its checkpoint    .lock who trains it now
                     .step how far it has come              .csv of a lone run, its records so far
receipt.json           what of the last sweep is as committed (analysis/receipt.py); of a sweep of one's own, in its
                       results-custom/
"""

import itertools
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from experiments.analysis import results
from experiments.analysis.locks import hold, holder
from experiments.analysis.results import ResultsError, Row, cell, cells, flatten, named
from experiments.engine.config import Run
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Group

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml: ten times faster
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Record = tuple[int, str, str, float]  # step, split, metric, value


class Outcome(StrEnum):
    """How the training of a group ended, when it was no error."""

    done = "done"
    stopped = "stopped"  # at a checkpoint to go on from
    held = "held"  # by another process, which trains it


class Progress(NamedTuple):
    """The step that a group in training has come to, its steps in all, and its seconds so far."""

    step: int = 0
    total: int = 1
    seconds: int = 0


@dataclass(frozen=True)
class RunStore:
    """The runs of an experiment, and the groups in which they train, in `folder`, outputs/<experiment>."""

    folder: Path

    # ---- runs

    def run(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    def ended(self, run_id: str) -> bool:
        """Whether there is all that a run leaves, also one that failed."""
        return (self.run(run_id) / "done").exists()

    def finished(self, run_id: str) -> bool:
        """Whether a run has ended, well or in NaN; one that failed is tried again."""
        return self.ended(run_id) and self.facts(run_id)["status"] != "failed"

    def facts(self, run_id: str, *keys: str) -> dict[str, Any]:
        """What is known of a run that has ended: its status, these keys, and where its numbers come from.

        Raises: ResultsError where they are missing or damaged.
        """
        with _reading(self.run(run_id)) as place:
            facts: dict[str, Any] = json.loads((place / "run.json").read_text())
            if missing := [key for key in ("status", *keys) if key not in facts]:
                raise ValueError(f"run.json has no {', '.join(missing)}")
            if facts["status"] not in results.STATUSES:
                raise ValueError(f"status in run.json is {facts['status']!r}, not one of {', '.join(results.STATUSES)}")
            if not isinstance(facts.get("seconds", 0.0), int | float):
                raise ValueError(f"seconds in run.json is {facts['seconds']!r}, not a number")
        return facts

    def rows(self, run_id: str) -> tuple[Row, list[Row]]:
        """A run that has ended as a row of runs.csv and its rows of metrics.csv, all text. Raises: as `facts`."""
        facts = self.facts(run_id, "scale", *results.PROVENANCE)
        with _reading(self.run(run_id)) as place:
            config = yaml.load((place / "config.yaml").read_text(), Loader=Loader)
            row = dict(flatten({key: value for key, value in config.items() if key != "experiment"}))
            row |= dict(flatten({key: facts[key] for key in results.PROVENANCE}))
            row |= {"id": run_id, "scale": facts["scale"], "status": facts["status"], "seed": cell(config["seed"])}
            row["seconds"] = f"{float(facts['seconds']):.3f}"
            records = named(*cells(place / "metrics.csv", results.METRICS[1:]))
            return row, [{**one, "id": run_id, "value": cell(float(one["value"]))} for one in records]

    def collect(self, folder: Path, scale: str, run_ids: Iterable[str], curves: Collection[str] = ()) -> None:
        """Write runs that have ended into the tables in `folder` (`results.collect`), as `results.thinned` to `curves`.

        Raises: ResultsError where runs are missing or damaged, or the files cannot be written, and are as they were.
        """
        ids, name = sorted(set(run_ids)), self.folder.name
        missing = [run_id for run_id in ids if not self.ended(run_id)]
        if missing or not ids:
            example = f", {missing[0]} first" if missing else ""
            lack = f"{len(missing)} of {len(ids)} runs at scale {scale} are missing{example}"
            raise ResultsError(f"{name}: {lack}: `make {name} SCALE={scale}` runs what is missing")
        rows = {run_id: self.rows(run_id) for run_id in ids}
        chosen = {run_id: (row, results.thinned(records, curves)) for run_id, (row, records) in rows.items()}
        results.collect(folder, scale, chosen)

    def write(self, run: Run, records: Iterable[Record], facts: Mapping[str, Any]) -> None:
        """The directory of a run that has ended, all of it or nothing; `facts` has its status."""
        config = run.config
        facts = {"id": run.id, "experiment": config["experiment"], "scale": config["scale"], **facts}
        settings, table = yaml.dump(config, sort_keys=False, Dumper=Dumper), "".join([HEADER, *map(line, records)])
        texts = (settings, table, json.dumps(facts, indent=1), "")
        results.write_files({path: text.encode() for path, text in zip(self.files(run.id), texts, strict=True)})

    def files(self, run_id: str) -> list[Path]:
        """What a finished run has left, `done` last."""
        return [self.run(run_id) / name for name in ("config.yaml", "metrics.csv", "run.json", "done")]

    def adopt(self, tables: Path, runs: Iterable[Run]) -> int:
        """Take over those of these runs that `tables`, results/<experiment>, has and are not finished here; how many.

        Collected again they give the rows that they come from.
        """
        rows = {row["id"]: row for row in results.read_table(tables / "runs.csv") if row["status"] != "failed"}
        taken = {run.id: run for run in runs if run.id in rows and not self.finished(run.id)}
        records: dict[str, list[Record]] = {run_id: [] for run_id in taken}
        for row in results.read_table(tables / "metrics.csv") if taken else ():
            if row["id"] in records:
                records[row["id"]].append((int(row["step"]), row["split"], row["metric"], float(row["value"])))
        whole = {run_id: run for run_id, run in taken.items() if records[run_id] or rows[run_id]["status"] != "done"}
        for run_id, run in whole.items():
            if not self.finished(run_id):  # another process may have ended it since
                self.write(run, records[run_id], _facts_of(rows[run_id]))
        return len(whole)

    def adopted(self, run_id: str) -> bool:
        """Whether a run that has ended was taken over from tables: one that was trained says in which group."""
        return "group" not in self.facts(run_id)

    # ---- groups

    def file(self, group_id: str, suffix: str = ".json") -> Path:
        return self.folder / "groups" / f"{group_id}{suffix}"

    def groups(self) -> Iterator[tuple[Path, Group | ValueError]]:
        """The files of all groups that are written down; of a damaged one, what is wrong."""
        for file in sorted((self.folder / "groups").glob("*.json")):
            try:
                yield file, _read_group(file)
            except ValueError as error:
                yield file, error

    def save(self, groups: Iterable[Group]) -> None:
        """Write groups down, all or none."""
        results.write_files({self.file(g.id): json.dumps([run.config for run in g.runs]).encode() for g in groups})

    def load(self, group_id: str) -> Group:
        """A group as it was packed. Raises: ConfigError where there is none; ResultsError for a damaged file."""
        if not re.fullmatch("[0-9a-f]{12}", group_id):
            where = self.folder / "groups"
            raise ConfigError(f"group must be 12 hex digits, the name of a file in {where}, got {group_id!r}")
        file = self.file(group_id)
        try:
            return _read_group(file)
        except FileNotFoundError:
            raise ConfigError(f"no group {group_id}: there is no {file}") from None
        except (OSError, ValueError) as error:
            raise ResultsError(f"{file} is damaged ({error}): run its sweep again, which packs its runs anew") from None

    def all_finished(self, group: Group) -> bool:
        return all(self.finished(run.id) for run in group.runs)

    @contextmanager
    def hold(self, group_id: str) -> Iterator[bool]:
        """Hold a group against all other processes, to train it (`locks.hold`).

        Whoever held it before does not write any more: a checkpoint that it was killed in the middle of is removed.
        """
        with hold(self.file(group_id, ".lock")) as ours:
            if ours:
                results.remove(self._begun(group_id))
            yield ours

    def _begun(self, group_id: str = "*") -> Iterator[Path]:
        """Checkpoints that are being written, or were when their process was killed."""
        return (self.folder / "groups").glob(results.temporary(f"{group_id}.pt"))

    def holder(self, group_id: str) -> str | None:
        """Who trains a group now, in words; None if nobody does."""
        return holder(self.file(group_id, ".lock"))

    def held(self) -> dict[str, str]:
        """The groups that are in training now, with who trains them."""
        locks = sorted(path.stem for path in (self.folder / "groups").glob("*.lock"))
        return {group_id: owner for group_id in locks if (owner := self.holder(group_id))}

    def checkpoint(self, group_id: str) -> Path:
        return self.file(group_id, ".pt")

    def records(self, group_id: str) -> Path:
        """The records of a lone run so far, while it trains."""
        return self.file(group_id, ".csv")

    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "groups").glob("*.pt"))

    def progress(self, group_id: str) -> Progress:
        """How far a group has come; the start where that is not known."""
        with suppress(OSError, ValueError, TypeError):  # it does not train now, or is just writing
            return Progress(*map(int, self.file(group_id, ".step").read_text().split()))
        return Progress()

    def come_to(self, group_id: str, progress: Progress) -> None:
        with suppress(OSError):  # on a full disk the training goes on, until it has to keep something
            self.file(group_id, ".step").write_text(" ".join(map(str, progress)))

    def publish(self, group_id: str, records: Iterable[Record], anew: bool = False) -> None:
        """Records of a lone run as they come, for whoever wants to see it train; `anew`: all of them so far."""
        with suppress(OSError), self.records(group_id).open("w" if anew else "a") as file:
            file.write("".join([HEADER] * anew + [line(record) for record in records]))

    def discard(self, group_id: str) -> None:
        """Remove what is of use only while a group trains."""
        for suffix in REMAINS:
            self.file(group_id, suffix).unlink(missing_ok=True)
        results.remove(self._begun(group_id))

    def tidy(self, runs: Iterable[Run] = ()) -> None:
        """Remove what processes have left that were killed, of runs that have ended since, or before `discard`.

        `runs`: some that may have trained alone, in a group that is not written down.
        """
        left = {path.stem for path in (self.folder / "groups").glob("*") if path.suffix in REMAINS}
        left |= {path.name.split(".")[1] for path in self._begun()}
        alone = (Group(runs=[run]) for run in runs if left)
        known = {group.id: group for group in alone if group.id in left}
        known |= {file.stem: group for file, group in self.groups() if file.stem in left and isinstance(group, Group)}
        for group in known.values():
            if self.all_finished(group):
                with self.hold(group.id) as ours:
                    if ours:
                        self.discard(group.id)
        for folder in {path.parent for path in (self.folder / "runs").glob(f"*/{results.temporary('*')}")}:
            results.remove(results.abandoned(folder))


HEADER = "step,split,metric,value\n"
REMAINS = (".pt", ".step", ".csv")  # of a group, until its runs have ended


@contextmanager
def _reading(place: Path) -> Iterator[Path]:
    """What cannot be read of a run is one line."""
    try:
        yield place
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ResultsError(f"run {place} is damaged ({reason}): delete it and run again") from error


def _facts_of(row: Row) -> dict[str, Any]:
    """The facts of a run from its row of runs.csv."""
    versions = {name.removeprefix("versions."): text for name, text in row.items() if name.startswith("versions.")}
    return {
        **{name: row[name] for name in ("status", "git_sha", "device")},
        **{name: json.loads(row[name]) for name in ("dirty", "threads", "seconds")},
        "versions": {name: text for name, text in versions.items() if text},
    }


def line(record: Record) -> str:
    """A line of metrics.csv."""
    step, split, metric, value = record
    return f"{step},{split},{metric},{value:.9g}\n"


def _read_group(file: Path) -> Group:
    """A group from its file. Raises: ValueError for a damaged one."""
    try:
        group = Group(runs=[Run(config=config) for config in json.loads(file.read_text())])
        whole = group.id == file.stem
    except (TypeError, LookupError, AttributeError):
        whole = False
    if not whole:
        raise ValueError("these are not the runs of that group")
    return group


def read_notes(file: Path, then: str) -> dict[str, Any]:
    """What a command has noted in a JSON file for a later one; nothing where there is none, or it is damaged."""
    try:
        notes = json.loads(file.read_text())
        if not isinstance(notes, dict):
            raise ValueError(f"a {type(notes).__name__}, not an object")
        return notes
    except FileNotFoundError:
        return {}
    except ValueError as error:
        set_aside(file, error, then)
        return {}


def set_aside(file: Path, error: Exception, then: str) -> None:
    """Give a file that cannot be used another name, under which it stays, and say what happens without it.

    Raises: ResultsError for a place that cannot be written.
    """
    names = (file.with_name(f"{file.name}.damaged{k or ''}") for k in itertools.count())
    aside = next(name for name in names if not name.exists())
    try:
        file.rename(aside)
    except OSError as failure:
        raise ResultsError(f"cannot rename {file}: {failure.strerror or failure}") from failure
    reason = " ".join(str(error).split()).split(". ")[0].rstrip(": ")[:200]  # torch goes on with advice
    print(f"{file} is damaged ({reason}): it is now {aside.name}, and {then}", file=sys.stderr)
