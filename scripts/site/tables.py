"""What the site shows of results/: its figures, their claims, and the runs of each sweep. No pandas, no torch.

The numbers are those of the committed tables. Of a run the last value of each metric on the test split is kept, if it
ended well and the value is finite, as `experiments.analysis.results.Results.final` has it.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

SCALES = ("smoke", "cpu", "paper")  # ascending: a figure is drawn from the last one present
LEAD = ("id", "scale", "status", "seed")
PROVENANCE = ("git_sha", "dirty", "device", "threads", "seconds", "versions")
LATER = "_later_"  # in the YAML of a member of a group: its settings that came later, at the value of older runs
FAMILY = 100  # metrics of one name before the slash: more than these are the pixels of images, and left out
FIRST = ("accuracy", "loss", "rank", "return")

Row = dict[str, str]
Value = float | str | None
Later = Mapping[tuple[str, str], Mapping[str, Value]]  # (group, name of its member) -> setting -> value


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row of figures.csv; `sources` are the experiments whose runs it draws."""

    name: str
    title: str
    scale: str
    runs: int
    sources: tuple[str, ...]
    finding: str
    paper: str
    ours: str
    judged_on: str
    cost: str


def rows(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figures(results: Path) -> list[Figure]:
    """The figures in the order of the paper: figures, tables, theory, then what is beyond; `front` is the first."""
    found = [
        Figure(
            name=row["figure"],
            title=row["title"],
            scale=row["scale"],
            runs=int(row["runs"]),
            sources=tuple(row["drawn_from"].split(" + ")),
            finding=row["finding"],
            paper=row["paper"],
            ours=row["ours"],
            judged_on=row["judged_on"],
            cost=row["cost"],
        )
        for row in rows(results / "figures.csv")
    ]
    return sorted(found, key=lambda figure: in_order(figure.name))


def in_order(name: str) -> tuple[int, list[int | str]]:
    """The place of a figure: fig2 before fig10, and what has a number in the paper before what has none."""
    kinds = ("front", r"fig\d", r"table\d", "theory", "")
    kind = next(place for place, start in enumerate(kinds) if re.match(start, name))
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def label(name: str) -> str:
    """How a figure is called in words: `Figure 3b`, `Figure 2 (teacher)`, `Sigma map`."""
    if found := re.fullmatch(r"(fig|table)(\d+b?)(?:_(\w+))?", name):
        kind, number, variant = found.groups()
        return f"{'Figure' if kind == 'fig' else 'Table'} {number}" + f" ({variant})" * bool(variant)
    own = {"front": "At a glance", "gpt": "GPT"}
    return own.get(name) or name.replace("_", " ").capitalize()


def claims(results: Path) -> list[Row]:
    """The rows of claims.csv."""
    return rows(results / "claims.csv")


def sigmas(text: str) -> list[str]:
    """The sigmas that a claim names: numbers, and `best` where it is chosen on other seeds."""
    return ["best"] * ("best σ" in text) + _named("σ", text)


def gammas(text: str) -> list[str]:
    """The weight decays that a claim names."""
    return _named("γ", text)


def _named(letter: str, text: str) -> list[str]:
    return list(
        dict.fromkeys(f"{float(found):g}" for found in re.findall(rf"{letter} = (\d+(?:\.\d+)?(?:e-?\d+)?)", text))
    )


# ---- the runs of a sweep ---------------------------------------------------------------------------------------------


def later(configs: Path) -> Later:
    """The settings that came after the first results, and the value that older runs have of each."""
    found: dict[tuple[str, str], Mapping[str, Value]] = {}
    for path in sorted(configs.glob("*/*.yaml")):
        text = path.read_text(encoding="utf-8")
        member = (yaml.safe_load(text) or {}) if LATER in text else {}
        if LATER in member:
            found[path.parent.name, member.get("name", "")] = member[LATER]
    return found


def sweep(folder: Path, added: Later) -> dict[str, object]:
    """The runs of an experiment, compactly: columns of ids, seeds, status, and of each setting that differs and metric.

    A setting is `{"values": [...], "of": [...]}`: its values, null where a run has no such setting, and the place of
    each run's in them.
    """
    runs = rows(folder / "runs.csv")
    scale = max((run["scale"] for run in runs), key=SCALES.index)
    runs = [run for run in runs if run["scale"] == scale]
    for run in runs:
        _fill(run, added)
    last = _last(folder / "metrics.csv", {run["id"] for run in runs if run["status"] == "done"})
    return {
        "scale": scale,
        "ids": [run["id"] for run in runs],
        "seeds": [int(run["seed"]) for run in runs],
        "status": [run["status"] for run in runs],
        "seconds": [float(run["seconds"]) for run in runs],
        "settings": _settings(runs),
        "metrics": {metric: [last[metric].get(run["id"]) for run in runs] for metric in _metrics(last)},
    }


def _fill(run: Row, added: Later) -> None:
    for (group, member), values in added.items():
        if run.get(f"{group}.name", "") == member:
            for key, value in values.items():
                column = f"{group}.{key}"
                run[column] = run.get(column, "") or (str(value).lower() if isinstance(value, bool) else str(value))


def _last(path: Path, ids: set[str]) -> dict[str, dict[str, float]]:
    """metric -> run -> its value at the last step on the test split, where that is finite."""
    steps: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows(path):
        if row["split"] == "test" and row["id"] in ids:
            key, step = (row["metric"], row["id"]), float(row["step"])
            if key not in steps or step >= steps[key][0]:
                steps[key] = step, float(row["value"] or "nan")
    found: dict[str, dict[str, float]] = {}
    for (metric, run), (_, value) in steps.items():
        found.setdefault(metric, {})
        if math.isfinite(value):
            found[metric][run] = value
    return found


def _metrics(found: Iterable[str]) -> list[str]:
    """The metrics worth showing, those that are read first at the beginning."""
    size = Counter(metric.split("/")[0] for metric in found)
    kept = [metric for metric in found if size[metric.split("/")[0]] <= FAMILY]
    return sorted(kept, key=lambda metric: (metric not in FIRST, _order(metric)))


def _order(text: str) -> list[tuple[float, str]]:
    numbers = ((part, _number(part)) for part in text.split("/"))
    return [(math.inf if number is None else number, part) for part, number in numbers]


def _settings(runs: Sequence[Row]) -> dict[str, dict[str, list]]:
    """The settings in which runs differ: those of which two values are there."""
    columns = list(dict.fromkeys(column for run in runs for column in run))
    shown: dict[str, dict[str, list]] = {}
    for column in columns:
        if column in LEAD or column.split(".")[0] in PROVENANCE or column.endswith("_target_"):
            continue
        cells = [_value(run.get(column, "")) for run in runs]
        values = sorted(set(cells), key=lambda cell: (cell is not None, isinstance(cell, str), cell or 0))
        if len([value for value in values if value is not None]) > 1:
            place = {value: index for index, value in enumerate(values)}
            shown[column] = {"values": values, "of": [place[cell] for cell in cells]}
    return shown


def _value(cell: str) -> Value:
    number = _number(cell)
    return number if number is not None else (cell or None)


def _number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in cell else None


def looks(code: str) -> dict[str, dict[str, str]]:
    """The label and the colour of each arm, read from the text of experiments/analysis/arms.py."""
    found = re.findall(r'"(\w+)": Look\(label="([^"]+)", color="(#\w{6})"', code)
    return {name: {"label": label, "color": color} for name, label, color in found}


def script(name: str, value: object) -> str:
    """A script that gives the value to the page: a page that is opened from a file can load it, and no JSON."""
    said = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return f"(window.syre ??= {{}})[{json.dumps(name)}] = {said};\n"
