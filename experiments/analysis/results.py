"""From finished runs to two small tables, and back: the contract between training and figures (no torch).

`outputs/<experiment>/runs/<id>/{config.yaml, metrics.csv, run.json, done}`  --collect-->
`results/<experiment>/{runs.csv, metrics.csv}`  --load-->  `Results`, from which every claim and figure is made.
"""

import contextlib
import csv
import glob
import io
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from textwrap import shorten
from uuid import uuid4

import numpy as np
import pandas as pd
import yaml

SCALES = ("smoke", "cpu", "paper")  # ascending: a figure is drawn from the last one present
STATUSES = ("done", "nan", "failed")
LEAD = ("id", "scale", "status", "seed")
# Timing and origin: the columns (and groups of columns, as in `versions.torch`) that may differ between equal results.
PROVENANCE = ("git_sha", "dirty", "device", "threads", "seconds", "versions")
ABANDONED = 3600.0  # seconds after which a file that was begun is being written no more
METRICS = ("id", "step", "split", "metric", "value")
# In the YAML of a model, a regularizer, ...: those of its keys that came after the first committed results, each with
# the value at which nothing changes. A run that has this value keeps the id that it had before there was the key.
LATER = "_later_"
CONFIGS = Path(__file__).parents[2] / "configs"
# The two tables, and the columns that each of them has: metrics.csv just these, runs.csv also those of the configs.
TABLES = {"runs.csv": (*LEAD, *(name for name in PROVENANCE if name != "versions")), "metrics.csv": METRICS}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # which Python reads, and pandas does not


# column -> what each of its cells must be, and that in words
CELLS: dict[str, tuple[Callable[[str], object], str]] = {
    "id": (str.strip, "the id of a run"),
    "scale": (SCALES.__contains__, f"one of {', '.join(SCALES)}"),
    "status": (STATUSES.__contains__, f"one of {', '.join(STATUSES)}"),
    "seed": (lambda cell: _is_number(cell) and float(cell).is_integer(), "an integer"),
    **dict.fromkeys(("threads", "seconds", "step", "value"), (_is_number, "a number")),
}

Arm = Mapping[str, object]  # column -> value, as in {"regularizer.name": "syre", "regularizer.sigma": 0.01}
Row = dict[str, str]


class ResultsError(RuntimeError):
    """One line for the user: what is missing or damaged, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """One experiment at one scale: `runs`, one row a run, and `metrics` (id, step, split, metric, value)."""

    experiment: str
    scale: str
    runs: pd.DataFrame
    metrics: pd.DataFrame
    _found: dict[object, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    def final(self, *metrics: str, **arm: object) -> pd.DataFrame:
        """The runs of an arm, with one more column a metric: its value at the last step, NaN for a run without one."""
        return select(self._once(metrics, lambda: self._final(metrics)), **arm)

    def curve(self, metric: str, **arm: object) -> pd.DataFrame:
        """The runs of an arm, one row a recorded step, with the columns `step` and `metric`."""
        rows = self._rows(metric)[["id", "step", "value"]].rename(columns={"value": metric})
        return select(self.runs.merge(rows, on="id"), **arm)

    def by_seed(self, metric: str, arm: Arm) -> pd.Series:
        """A metric at the end of the runs of an arm, by seed. Raises: `ResultsError` where a seed has several runs."""
        return one_run_each(self.final(metric, **arm), metric, "seed").set_index("seed")[metric]

    def table(self, make: Callable[["Results"], pd.DataFrame]) -> pd.DataFrame:
        """The table that `make` makes of these results, once for all that ask for it."""
        return self._once(make, lambda: make(self))

    def _once(self, key: object, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table, made when it is first asked for: claims ask for the same ones again and again."""
        if key not in self._found:
            self._found[key] = make()
        return self._found[key].copy(deep=False)

    def _final(self, metrics: Sequence[str]) -> pd.DataFrame:
        table = self.runs.copy()
        for metric in metrics:
            last = self._rows(metric).sort_values("step", kind="stable").drop_duplicates("id", keep="last")
            value = table["id"].map(last.set_index("id")["value"])
            table[metric] = value.where((table["status"] == "done") & np.isfinite(value))
        return table

    def _rows(self, metric: str) -> pd.DataFrame:
        rows = self.metrics[(self.metrics["metric"] == metric) & (self.metrics["split"] == "test")]
        if rows.empty:
            known = ", ".join(sorted(set(self.metrics["split"] + "/" + self.metrics["metric"])))
            known = shorten(known, 1000, placeholder=" ...")  # the pixels of figure 10 are thousands
            raise ResultsError(f"{self.experiment} has no metric test/{metric}; there are: {known}")
        return rows


def load(results: Path, experiment: str) -> Results:
    """The tables of `experiment`, restricted to the largest scale there is.

    Raises: `ResultsError` without tables, or when the two do not belong together.
    """
    folder = Path(results) / experiment
    if not all((folder / name).is_file() for name in TABLES):
        raise ResultsError(f"no results for {experiment} in {folder}: `make {experiment}` trains and collects them")
    header, _ = (_table(folder / name)[0] for name in TABLES)
    text = [name for name in header if name in ("id", "git_sha", "device") or name.startswith("versions.")]
    # Only an empty cell is missing: "nan" is a status, and "none" may be the name of something.
    runs = pd.read_csv(folder / "runs.csv", dtype=dict.fromkeys(text, str), na_values=[""], keep_default_na=False)
    metrics = pd.read_csv(
        folder / "metrics.csv", dtype={"id": str}, na_values={"value": ["nan"]}, keep_default_na=False
    )
    if runs.empty or not set(runs.loc[runs["status"] == "done", "id"]) <= set(metrics["id"]) <= set(runs["id"]):
        raise ResultsError(f"the tables in {folder} do not match each other: `make {experiment}` collects them again")
    scale = max(runs["scale"], key=SCALES.index)
    runs = _filled(runs[runs["scale"] == scale].reset_index(drop=True), later(CONFIGS))
    metrics = metrics[metrics["id"].isin(runs["id"])].reset_index(drop=True)
    return Results(experiment=experiment, scale=scale, runs=runs, metrics=metrics)


@cache
def later(configs: Path) -> tuple[tuple[str, str, Mapping[str, object]], ...]:
    """The settings that came later: a group, the name of its member ("" where members have none), and `_later_`."""
    found = []
    for path in sorted(configs.glob("*/*.yaml")):
        try:
            member = (yaml.safe_load(text) if LATER in (text := path.read_text()) else None) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ResultsError(f"{path}: {' '.join(str(error).split())}") from None
        if LATER in member:
            found.append((path.parent.name, member.get("name", ""), member[LATER]))
    return tuple(found)


def _filled(runs: pd.DataFrame, settings: Sequence[tuple[str, str, Mapping[str, object]]]) -> pd.DataFrame:
    """Runs that are older than a setting have the value at which it changes nothing, instead of an empty cell."""
    runs = runs.copy()
    for group, member, values in settings:
        names = runs.get(f"{group}.name", pd.Series("", index=runs.index))
        for key, value in values.items():
            column = f"{group}.{key}"
            cells = runs[column] if column in runs else pd.Series(np.nan, index=runs.index, dtype=object)
            empty = cells.isna() & (names == member)
            if empty.any():
                runs[column] = cells.astype(object).mask(empty, value).infer_objects()
    return runs


def combine(parts: Sequence[Results]) -> Results:
    """Several experiments as one, told apart by the column `experiment`; its scale is the smallest of theirs."""
    if len(parts) == 1:
        return parts[0]
    return Results(
        experiment=" + ".join(part.experiment for part in parts),
        scale=min((part.scale for part in parts), key=SCALES.index),
        runs=pd.concat([part.runs.assign(experiment=part.experiment) for part in parts], ignore_index=True),
        metrics=pd.concat([part.metrics for part in parts], ignore_index=True),
    )


def select(df: pd.DataFrame, **filters: object) -> pd.DataFrame:
    """The rows where every column has the value asked for: `select(df, **{"regularizer.sigma": 0.1}, seed=[0, 1])`.

    Numbers match to 1e-6 however they are written, a list matches any of its values, None matches an empty cell.
    Raises: `ResultsError` for a column that is not there, unless None is asked for: then it is empty everywhere.
    """
    kept = np.arange(len(df))
    for column, wanted in filters.items():
        options = wanted if isinstance(wanted, list | tuple | set | frozenset | range) else [wanted]
        if column in df:
            cells = df[column].iloc[kept]
            kept = kept[np.logical_or.reduce([_matches(cells, option) for option in options])]
        elif None not in options:
            raise ResultsError(f"no column {column!r}; there are: {', '.join(without_provenance(df).columns)}")
    return df.iloc[kept] if filters else df


def there(df: pd.DataFrame, arm: Arm) -> pd.DataFrame:
    """The rows of an arm that are there so far: none where no run has one of its settings yet."""
    return select(df.assign(**{column: None for column in arm if column not in df}), **arm)


def one_run_each(rows: pd.DataFrame, metric: str, *per: str) -> pd.DataFrame:
    """The rows, if there is one for each combination of the columns `per`.

    Raises: `ResultsError` that names what is open: an arm that leaves a setting open would mix it into the seeds.
    """
    repeated = rows[rows.duplicated(list(per), keep=False)]
    if len(repeated):
        same = repeated[(repeated[list(per)] == repeated[list(per)].iloc[0]).all(axis=1)]
        settings = without_provenance(same).drop(columns=["id", "status", metric])
        open_columns = [str(column) for column in settings if settings[column].nunique(dropna=False) > 1]
        raise ResultsError(f"an arm leaves {', '.join(open_columns) or 'nothing'} open")
    return rows


def without_provenance(df: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns of `PROVENANCE`: what must be equal, byte for byte, when a sweep is run again."""
    return df[[column for column in df if not _is_provenance(str(column))]]


def collect(folder: Path, scale: str, runs: Mapping[str, tuple[Row, list[Row]]]) -> None:
    """Write runs, by their ids each as its row of runs.csv and its rows of metrics.csv, into the tables in `folder`.

    They replace the rows of this scale; rows of other scales stay. Row and column order depend on the configs alone.
    A run whose numbers are in the tables already, trained again elsewhere say, keeps the provenance that it has there;
    where that is so for all runs of the scale, and their settings are there too, both files stay as they are.
    Raises: `ResultsError` when a table is damaged, or the files cannot be written (then both are untouched).
    """
    old = {row["id"]: row for row in read_table(folder / "runs.csv")}
    old_records: dict[str, list[Row]] = {name: [] for name in old}
    for record in read_table(folder / "metrics.csv"):
        old_records.setdefault(record["id"], []).append(record)
    others = [name for name, row in old.items() if row["scale"] != scale]
    rows = [old[name] for name in others]
    metrics = [record for name in others for record in old_records[name]]
    unchanged = 0
    for run_id, (run, records) in sorted(runs.items()):
        if run_id in old and _numbers(old[run_id], old_records[run_id]) == _numbers(run, records):
            run = _of_origin(run, old[run_id])
            unchanged += not other_settings(old[run_id], run)  # which only a change by hand has brought about
        rows.append(run)
        metrics += records
    if unchanged == len(runs) == len(old) - len(others):
        return

    columns = sorted({column for row in rows for column in row} - set(LEAD))
    config = [column for column in columns if not _is_provenance(column)]
    origin = [column for name in PROVENANCE for column in columns if column.split(".")[0] == name]
    rows.sort(key=lambda row: [SCALES.index(row["scale"]), *(_order(row.get(c, "")) for c in [*config, "seed", "id"])])
    place = {row["id"]: index for index, row in enumerate(rows)}
    metrics.sort(key=lambda row: (place[row["id"]], row["split"], row["metric"], _order(row["step"])))
    write_files(
        {
            # In this order: after a kill between the two the next collection finds other numbers than it has, and
            # keeps no provenance that is not theirs; and a new run without its records shows in `load`.
            folder / "runs.csv": _to_csv([*LEAD, *config, *origin], rows),
            folder / "metrics.csv": _to_csv(METRICS, metrics),
        }
    )


def thinned(records: list[Row], curves: Collection[str]) -> list[Row]:
    """The records of a run: of metrics that are not among `curves` the last one only; without `curves` all."""
    if not curves:
        return records
    last = {(row["split"], row["metric"]): row for row in sorted(records, key=lambda row: int(row["step"]))}
    return [row for row in records if row["metric"] in curves or row is last[row["split"], row["metric"]]]


def temporary(name: str, own: str = "*") -> str:
    """What `write_files` calls a file until it is whole; without `own` a pattern of all that were begun."""
    return f".{name}.{own}.tmp"


def abandoned(folder: Path, name: str = "*") -> list[Path]:
    """Files of such a name that `write_files` began over an hour ago: their process was killed."""
    found = []
    for path in folder.glob(temporary(name)):
        with contextlib.suppress(OSError):  # it has just been renamed
            found += [path] if time.time() - path.stat().st_mtime > ABANDONED else []
    return found


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write all of `files` or none: each to a temporary file first, renamed when all are on the disk.

    A file that already has these bytes is left alone, so that redrawing unchanged results touches nothing. What a
    process has left of it that was killed meanwhile is removed.
    Raises: `ResultsError`, with every old file as it was.
    """
    own = uuid4().hex[:8]  # the disk may be shared with machines where another process has our number
    begun = {path: path.with_name(temporary(path.name, own)) for path in files}
    try:
        changed = [path for path, data in files.items() if not (path.is_file() and path.read_bytes() == data)]
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(begun[path], "wb") as file:
                file.write(files[path])
                file.flush()
                os.fsync(file.fileno())  # some file systems report a full disk only here
        for path in changed:
            os.replace(begun[path], path)
        remove(chain.from_iterable(abandoned(path.parent, glob.escape(path.name)) for path in changed))
    except OSError as error:
        names = ", ".join(path.name for path in files)
        folder = next(iter(files)).parent
        raise ResultsError(f"cannot write {names} in {folder}: {error.strerror or error}") from error
    finally:
        remove(begun.values())


def remove(files: Iterable[Path]) -> None:
    """Remove files that may be there, where that can be done."""
    for path in files:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def read_table(path: Path) -> list[Row]:
    """The rows of one of `TABLES`; none where it does not exist.

    Raises: `ResultsError` that names the file and what is wrong with it, unless it is as `collect` writes it.
    """
    return named(*_table(path)) if path.is_file() else []


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        return cells(path, TABLES[path.name])
    except (OSError, ValueError) as error:
        what = " ".join(str(error).split())
        raise ResultsError(f"{path}: {what}; mend it, or delete it and run its sweep, which collects it") from None


def _numbers(run: Row, records: Sequence[Row]) -> tuple[str, list[tuple[str, ...]]]:
    """What of a run is a result: its status and its records, in whatever order they are."""
    return run["status"], sorted(tuple(record[column] for column in METRICS) for record in records)


def other_settings(old: Row, new: Row) -> list[str]:
    """The columns, but for the provenance, in which two rows of a run differ; what came later the old one may lack."""
    differing = [c for c, text in old.items() if text != new.get(c, "") and not _is_provenance(c)]
    came_later = {f"{group}.{key}" for group, _, values in later(CONFIGS) for key in values} if differing else ()
    return [c for c in differing if old[c] or c not in came_later]


def _of_origin(run: Row, origin: Row) -> Row:
    """A row with the provenance of another one."""
    own = {column: cell for column, cell in run.items() if not _is_provenance(column)}
    return own | {column: cell for column, cell in origin.items() if _is_provenance(column)}


def named(header: list[str], rows: list[list[str]]) -> list[Row]:
    return [dict(zip(header, row, strict=True)) for row in rows]


def cells(path: Path, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file, which has these columns and in them what `CELLS` says. Raises: ValueError."""
    return parsed(path.read_bytes(), columns)


def parsed(content: bytes, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """As `cells`, of the content of a file."""
    text = content.decode()  # UnicodeDecodeError is a ValueError
    if marker := re.search(r"^(<{7}|={7}|>{7}|\|{7})", text, re.MULTILINE):
        raise ValueError(f"line {text.count(chr(10), 0, marker.start()) + 1} is a conflict marker of git")
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except csv.Error as error:
        raise ValueError(f"not a CSV file ({error})") from None
    if missing := [name for name in columns if name not in header]:
        raise ValueError(f"no column {', '.join(missing)}" if header else "the file is empty")
    unknown = [name for name in header if name not in columns] if "metric" in columns else []
    if unknown or len({*header}) < len(header):
        raise ValueError(f"unknown column {', '.join(unknown)}" if unknown else "two columns of one name")
    if uneven := next((row for row in rows if len(row) != len(header)), None):
        raise ValueError(f"the row {','.join(uneven)[:60]!r} has {len(uneven)} cells, not {len(header)}")
    for name in filter(CELLS.__contains__, columns):
        place, (allowed, words) = header.index(name), CELLS[name]
        if wrong := {cell for cell in {row[place] for row in rows} if not allowed(cell)}:
            row = next(row for row in rows if row[place] in wrong)
            raise ValueError(f"{name} is {row[place]!r}, not {words}, in the row {','.join(row)[:60]!r}")
    ids = Counter(row[header.index("id")] for row in rows) if "status" in columns else Counter()
    if ids.total() > len(ids):
        raise ValueError(f"run {ids.most_common(1)[0][0]} has {ids.most_common(1)[0][1]} rows")
    return header, rows


def _to_csv(columns: Sequence[str], rows: list[Row]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def flatten(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            if key != LATER:
                yield from flatten(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, cell(value)


def cell(value: object) -> str:
    """The text of one cell: nine digits of a float, empty for None, JSON for the rest."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    return value if isinstance(value, str) else json.dumps(value)


def _order(text: str) -> tuple[int, float, str]:
    """Sort key of a cell: empty ones first, then numbers by value, then words."""
    try:
        return (1, float(text), "")
    except ValueError:
        return (2 if text else 0, 0.0, text)


def _is_provenance(column: str) -> bool:
    return column.split(".")[0] in PROVENANCE


def _matches(column: pd.Series, wanted: object) -> np.ndarray:
    if wanted is None:
        return column.isna().to_numpy()
    text = None if column.dtype.kind in "iuf" else column.astype(str).to_numpy(dtype=object)
    if isinstance(wanted, bool) and text is not None:
        return np.array([str(cell).lower() == str(wanted).lower() for cell in text], dtype=bool)
    try:
        number = float(str(wanted))
    except ValueError:
        return np.zeros(len(column), dtype=bool) if text is None else np.array(text == str(wanted), dtype=bool)
    if text is None:
        return np.isclose(column.to_numpy(dtype=float), number, rtol=1e-6, atol=0)
    numbers = pd.to_numeric(pd.Series(text), errors="coerce").to_numpy(dtype=float)
    return np.isclose(numbers, number, rtol=1e-6, atol=0) | np.array(text == str(wanted), dtype=bool)
