"""What the advice of `syre.diagnose` rests on, from the committed tables: `make evidence`, in a minute at most.

    python -m scripts.evidence                        writes syre/diagnostics/evidence.json
    python -m scripts.evidence --results DIR --out FILE

Nothing is trained, and no number is typed: each is read from the tables in results/, or computed from them. The same
tables give the same bytes. The entries of the file (an interval is [mean, low, high, n], 95 % over n seeds):

`diagnostics`: how a collapse is told, "with batches", by the "weights alone", or from a "checkpoint", where nothing is
    known of the forward pass: null as long as it has not been measured, or
    {"score", "threshold", "collapsed", "hits", "healthy", "false_alarms"}, counted on runs that did not choose it.
`models`: of each figure, its model and training in words, its parameters, whether its decay is coupled.
`sigma`: of each figure, unit and sigma of the map over sigma: the part of the collapse that syre undoes at `at` (0: as
    decay alone; 1: no collapse), and the points of accuracy that it costs at `cost_at`, where decay alone is mild.
`places`: a figure at some settings; its `levels`, each metric of each arm (no decay, decay alone, syre), as a table
    that names its columns once; and for each gamma at which decay alone is judged, its `differences`, paired by seed,
    of one arm `than` another. Where an arm has its best sigma or gamma, or less decay, that is chosen for each seed on
    the other ones, by the metric `by`.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.analysis.arms import (
    ALPHA,
    GAMMA,
    IDENTICAL,
    NAME,
    SCOPE,
    SIGMA,
    START,
    UNIT,
    USUAL,
    VANILLA,
    decay,
    less_is_better,
    syre,
)
from experiments.analysis.results import Arm, Results, ResultsError, combine, load, select, write_files
from experiments.analysis.stats import cross_fitted_best, paired_differences, t_interval
from experiments.figures import sigma_map

ROOT = Path(__file__).parents[1]
OUT = ROOT / "syre/diagnostics/evidence.json"
DIGITS = 4  # of a number in the file
NOTHING = 1e-12  # of the largest value behind a number, which is then 0 but for rounding, and 0 on every machine

# ---- the figures -----------------------------------------------------------------------------------------------------

# What the data sets are, which the tables name: their names in words, the shape of an input, the outputs.
DATA: dict[str, tuple[str, tuple[int, ...], int]] = {
    "mnist": ("MNIST", (1, 28, 28), 10),
    "permuted_mnist": ("MNIST and pixel permutations of it", (1, 28, 28), 10),
    "fashion_mnist": ("Fashion-MNIST", (1, 28, 28), 10),
    "cifar10": ("CIFAR-10", (3, 32, 32), 10),
    "cifar100": ("CIFAR-100", (3, 32, 32), 100),
    "teacher_student": ("a random teacher", (), 1),
}
WORDS = {"relu": "ReLU", "tanh": "tanh", "gelu": "GELU", "silu": "SiLU", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A figure at settings that hold for all arms, and the gammas at which they are compared.

    by: the metric by which sigma, or gamma, is chosen on the other seeds.
    """

    figure: str
    at: Arm
    gammas: tuple[float, ...]
    metrics: tuple[str, ...] = ("accuracy", "rank/effective")
    by: str = "accuracy"
    start: str = "shift"


COPIES = {IDENTICAL: 0.9}
PLACES = (
    Place(
        figure="fig1",
        at=COPIES,
        gammas=(1e-3,),
        start="keep",
        metrics=("accuracy", "loss", "distance", "rank/effective"),
    ),
    Place(figure="fig5", at={ALPHA: 1}, gammas=(1e-4, 0.1, 0.3)),
    Place(figure="fig5", at={ALPHA: 0.01}, gammas=(1e-3,)),
    Place(
        figure="fig9",
        at={"task.beta": 1, "task.images": "[]"},
        gammas=(1,),
        metrics=("rank", "rank/effective", "reconstruction"),
        by="reconstruction",
    ),
    Place(figure="fig11", at={}, gammas=(0.05, 0.15)),
    Place(figure="fig12", at={ALPHA: 1}, gammas=(0.1, 1)),
    Place(figure="fig12", at={ALPHA: 1e-3}, gammas=(0.1,)),
    Place(
        figure="fig13",
        at={"model.shared": True},
        gammas=(0.03,),
        metrics=("accuracy", "barrier/loss", "rank/effective"),
    ),
    Place(
        figure="fig14",
        at={**COPIES, "model.activation": "tanh"},
        gammas=(1e-3,),
        start="keep",
        metrics=("accuracy", "rank/ntk/effective", "rank/effective"),
        by="rank/ntk/effective",
    ),
    Place(figure="table1", at={}, gammas=(1e-4, 1e-2), metrics=("accuracy", "low_rankness", "rank/effective")),
)
SETTINGS = {
    ALPHA: "inputs at scale {:g}",
    GAMMA: "γ = {:g}",
    "task.beta": "β = {:g}",
    IDENTICAL: "{:.1g} of the neurons start as copies of one",
    "model.activation": "{}",
    "data.inputs": "{:g} inputs",
}


def evidence(results: Path) -> dict[str, Any]:
    """All of the file. Raises: ResultsError for tables that are missing or damaged."""
    tables = {name: load(results, name) for name in sorted({*sigma_map.EXPERIMENT, *(p.figure for p in PLACES)})}
    return {
        "diagnostics": calibrations(results),
        "models": {name: model(table, _first_place(name)) for name, table in tables.items()},
        "places": [place_entry(place, tables[place.figure]) for place in PLACES],
        "sigma": list(over_sigma(combine([tables[name] for name in sigma_map.EXPERIMENT]))),
    }


def calibrations(results: Path) -> dict[str, Any]:
    """Score and threshold of each way of asking, by the figure that measured them; None without its tables."""
    found: dict[str, Any] = dict.fromkeys(("checkpoint", "weights alone", "with batches"))
    if (results / "diagnostics/runs.csv").is_file():
        figure = importlib.import_module("experiments.figures.diagnostics")
        found |= figure.calibrations(load(results, "diagnostics"))
    return found


# ---- models in words -------------------------------------------------------------------------------------------------


def _first_place(figure: str) -> Arm:
    """Settings of a figure that hold for all that is said of it."""
    own = [place.at for place in PLACES if place.figure == figure]
    return own[0] if own else sigma_map.EFFECTS[figure][1]


def model(table: Results, at: Arm) -> dict[str, Any]:
    """What the runs of a figure have in common, in words and numbers."""
    run = select(table.runs, **{**at, NAME: "weight_decay"}).iloc[0]
    given = {str(k)[6:]: _cell(v) for k, v in run.items() if str(k).startswith("model.") and v == v}
    name, shape, outputs = DATA[run["data.name"]]
    module = _built(str(given.pop("_target_")), given, shape or (int(run["data.inputs"]),), outputs)
    images = f"{run['data.samples']:g} samples of " if run.get("data.samples", 0) > 0 else ""
    length = f"{run['train.epochs']:g} epochs" if run["train.epochs"] else f"{run['train.steps']:g} steps"
    length = "1 epoch" if run["train.epochs"] == 1 else length
    batch = f"batches of {run['train.batch_size']:g}" if run["train.batch_size"] else "full batches"
    tasks = f" on each of {run['data.tasks']:g} tasks" if "data.tasks" in run else ""
    optimizer = WORDS[str(run["optim.name"])]
    copies = 2 if given["name"] == "pair" else 1  # of one network, which trains by itself
    return {
        "words": f"{_named(given, module)}, {optimizer}, {images}{name}, {length}{tasks}, {batch}",
        "parameters": sum(p.numel() for p in module.parameters()) // copies,
        "optimizer": optimizer,
        "coupled": not (run.get("optim.decoupled") is True or run["optim.name"] == "adamw"),
        "attention": "heads" in given,
        "scale": table.scale,
    }


def _cell(value: Any) -> Any:
    return yaml.safe_load(value) if isinstance(value, str) else getattr(value, "item", lambda: value)()


def _built(target: str, given: dict[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    module, _, name = target.rpartition(".")
    settings = getattr(importlib.import_module(module), name)
    return settings(**{k: v for k, v in given.items() if k != "name"}).build(shape, outputs)


def _named(given: dict[str, Any], module: Any) -> str:
    match given["name"]:
        case "mlp" | "collapsed_mlp" | "pair":
            layers = (module.nets[0] if given["name"] == "pair" else module).layers
            sizes = "-".join(str(size) for size in (layers[0].in_features, *(layer.out_features for layer in layers)))
            norm = {"none": "", "layer": "LayerNorm, "}[given.get("norm", "none")]
            pair = "two networks, each " if given["name"] == "pair" else ""
            return f"{pair}fully connected {sizes}, {norm}{WORDS[given['activation']]}"
        case "beta_vae":
            return f"β-VAE of width {given['hidden']} with {given['latent']} latent units, {WORDS[given['activation']]}"
        case "continual_cnn":
            channels = " and ".join(map(str, given["channels"]))
            return f"two convolutions of {channels} channels and a hidden layer of {given['hidden']}"
        case "vit":
            return f"vision transformer of depth {given['depth']} and width {given['dim']} with {given['heads']} heads"
        case "simclr":
            return f"SimCLR, ResNet18 of {given['width']} channels with a head of {given['hidden']} and {given['out']}"
    raise ResultsError(f"scripts/evidence.py has no words for the model {given['name']}")


def settings(at: Arm) -> str:
    """Settings in words, those that have any."""
    words = [SETTINGS[key].format(value) for key, value in at.items() if key in SETTINGS]
    return ", ".join(words)


# ---- the map over sigma ----------------------------------------------------------------------------------------------


def over_sigma(results: Results) -> Iterator[dict[str, Any]]:
    """Effect and cost of syre, as `sigma_map` has them, of each figure, unit and sigma."""
    for figure in sigma_map.EXPERIMENT:
        metric, at, _ = sigma_map.EFFECTS[figure]
        mild = sigma_map.COSTS.get(figure)
        for unit in sigma_map.UNITS:
            undone = _by_sigma(sigma_map.effects(results, figure, unit))
            cost = _by_sigma(sigma_map.costs(results, figure, unit)) if mild is not None else {}
            for sigma in sorted({*undone, *cost}):
                yield {
                    "figure": figure,
                    "unit": unit,
                    "sigma": sigma,
                    "metric": metric,
                    "at": settings(at),
                    "undone": undone.get(sigma),
                    "cost_at": settings(mild or {}),
                    "cost": cost.get(sigma),
                }


def _by_sigma(rows: pd.DataFrame) -> dict[float, list[Any]]:
    return {float(str(sigma)): interval(own["value"]) for sigma, own in rows.groupby(SIGMA)}


# ---- places ----------------------------------------------------------------------------------------------------------


def place_entry(place: Place, table: Results) -> dict[str, Any]:
    return {
        "figure": place.figure,
        "at": settings(place.at),
        "start": place.start,
        "by": place.by,
        "columns": [*ARM, *place.metrics],
        "levels": list(levels(place, table)),
        "differences": [entry for gamma in place.gammas for entry in differences(place, gamma, table)],
    }


ARM = ("arm", "gamma", "sigma", "unit", "scope")  # the columns of `levels` before the metrics


def levels(place: Place, table: Results) -> Iterator[list[Any]]:
    """Each metric of no decay, of decay alone and of syre, at all of their settings."""
    usual = {column: allowed for column, allowed in USUAL.items() if column not in (UNIT, SCOPE)}
    arms = {NAME: ["vanilla", "weight_decay", "syre"], START: [place.start, None]}
    rows = select(table.final(*place.metrics), **place.at, **usual, **arms)
    columns = [NAME, GAMMA, SIGMA, UNIT, SCOPE]
    rows = rows.assign(**{column: rows.get(column) for column in columns})
    rows[columns[1:3]] = rows[columns[1:3]].astype(float)
    for key, own in rows.groupby(columns, dropna=False, sort=True):
        name, gamma, sigma, unit, scope = key
        _lone(own, place)
        arm = {"vanilla": "no decay", "weight_decay": "decay", "syre": "syre"}[str(name)]
        unit, scope = (unit if arm == "syre" else None), (scope if arm != "no decay" else None)
        values = [interval(own[metric]) for metric in place.metrics]
        yield [arm, _or_none(gamma), _or_none(sigma), unit, scope, *values]


def _lone(rows: pd.DataFrame, place: Place) -> None:
    if rows["seed"].duplicated().any():
        raise ResultsError(f"{place.figure} at {dict(place.at)} leaves a setting open: a seed has several runs")


def _or_none(cell: Any) -> Any:
    return cell if cell == cell else None


SIGMAS: dict[str, tuple[float, str]] = {
    f"{unit} {sigma:g}": (sigma, unit)
    for unit, sigmas in {"relative": (0.01, 0.3, 1), "absolute": (0.01, 0.1)}.items()
    for sigma in sigmas
}
SCOPES = ("matrices", "weights")


def compared(place: Place, gamma: float) -> dict[str, Arm]:
    """The arms that are compared at a gamma; where gamma or sigma is open, the best on the other seeds is taken."""
    at, start = place.at, place.start

    def anchored(name: str, scope: str = "") -> Arm:
        sigma, unit = SIGMAS[name]
        return syre(at, start=start, gamma=gamma, sigma=sigma, unit=unit, scope=scope)

    return {
        "no decay": VANILLA | dict(at),
        "decay": decay(at, gamma=gamma),
        **{f"decay, {scope}": decay(at, gamma=gamma, scope=scope) for scope in SCOPES},
        "syre, best sigma": syre(at, start=start, gamma=gamma),
        "syre, best sigma and gamma": syre(at, start=start),
        **{f"syre, {name}": anchored(name) for name in SIGMAS},
        **{f"syre, {name}, {scope}": anchored(name, scope) for name in SIGMAS for scope in SCOPES},
    }


PAIRS = (
    ("no decay", "decay"),
    ("less decay", "decay"),
    ("no decay", "syre, best sigma"),
    ("no decay", "syre, best sigma and gamma"),
    ("less decay", "syre, best sigma"),
    *((f"syre, {sigma}", "decay") for sigma in SIGMAS),
    *((f"{arm}, {scope}", arm) for scope in SCOPES for arm in ("decay", "syre, relative 1")),
    *((f"syre, {sigma}, {scope}", f"decay, {scope}") for scope in SCOPES for sigma in ("relative 1", "absolute 0.1")),
)


def differences(place: Place, gamma: float, table: Results) -> Iterator[dict[str, Any]]:
    """Each metric of one arm less that of another, by seed, of those pairs that the figure has runs of."""
    columns = ["seed", *(c for c in (*USUAL, NAME, GAMMA, SIGMA, START, *place.at) if c in table.runs)]
    rows = table.final(*dict.fromkeys((*place.metrics, place.by)), **place.at)
    rows = rows[[*dict.fromkeys((*columns, *place.metrics, place.by))]]
    milder = [g for g in sorted(table.runs[GAMMA].dropna().unique()) if 0 < g < gamma]
    arms = compared(place, gamma) | ({"less decay": decay(place.at, {GAMMA: milder})} if milder else {})
    found = {name: by_seed(select(rows, **arm), place) for name, arm in arms.items()}
    for of, than in (pair for pair in PAIRS if {*pair} <= {*found}):
        gained = {metric: paired_differences(found[of][metric], found[than][metric]) for metric in place.metrics}
        if all(len(values) for values in gained.values()):
            yield {"gamma": gamma, "of": of, "than": than, **{m: interval(values) for m, values in gained.items()}}


def by_seed(rows: pd.DataFrame, place: Place) -> pd.DataFrame:
    """The metrics of each seed; at the gamma and sigma that are best on the other seeds, of those that are open."""
    over = [column for column in (GAMMA, SIGMA) if column in rows and rows[column].nunique(dropna=False) > 1]
    if not over:
        _lone(rows, place)
        return rows.set_index("seed")
    rows = rows.assign(settings=rows.groupby(over, dropna=False).ngroup())
    most = not less_is_better(place.by)
    best = {m: cross_fitted_best(rows, metric=m, by=place.by, over="settings", maximize=most) for m in place.metrics}
    return pd.DataFrame({metric: chosen[metric] for metric, chosen in best.items()})


# ---- the file --------------------------------------------------------------------------------------------------------


def interval(values: pd.Series) -> list[Any]:
    """[mean, low, high, n] of the finite values; a run that diverged counts for nothing, and shows in n."""
    finite = values[values.map(isfinite)]
    found, rounding = t_interval(finite), NOTHING * finite.abs().max()
    numbers = [0.0 if abs(number) <= rounding else float(f"{number:.{DIGITS}g}") for number in found[:3]]
    return [*(number if isfinite(number) else None for number in numbers), found.n]


def text(entries: dict[str, Any]) -> bytes:
    """JSON with a line for each entry of a list, so that a change of the tables shows as a change of lines."""
    return (_lines(entries) + "\n").encode()


def _lines(value: Any, indent: str = "") -> str:
    inner = indent + " "
    if isinstance(value, dict) and any(isinstance(v, dict | list) and not _short(v) for v in value.values()):
        rows = [f"{json.dumps(k)}: {_lines(v, inner)}" for k, v in sorted(value.items())]
        return "{\n" + ",\n".join(inner + row for row in rows) + f"\n{indent}}}"
    if isinstance(value, list) and not _short(value):
        return "[\n" + ",\n".join(inner + _lines(v, inner) for v in value) + f"\n{indent}]"
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _short(value: Any) -> bool:
    """Whether a list goes on one line: a row, of numbers and intervals."""
    rows = isinstance(value, list) and all(isinstance(v, list) for v in value)
    return isinstance(value, list) and not rows and not any(isinstance(v, dict) for v in value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evidence", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="DIR")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        write_files({options.out: text(evidence(options.results))})
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
