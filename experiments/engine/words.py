"""Runs in words, for those who watch them: what a run is called, and the data that a small scale really takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import groupby
from typing import Any

from omegaconf import OmegaConf

from experiments.analysis.results import CONFIGS, LATER, flatten
from experiments.engine.config import GROUPS, Compute, Run

NOTATION = {"weight_decay": "gamma"}  # the paper's letter; sigma, rate, lr, ... are called what they are
ORDER = ("regularizer", "model", "data", "optim", "task", "train", "compute")
LONGEST = 120  # characters of a name, W&B's limit being 128
LONGEST_TAG = 64

# ---- what a run is called --------------------------------------------------------------------------------------------


Called = Mapping[str, Any]  # a name and tags, as W&B takes them


def called(runs: Sequence[Run]) -> dict[str, Called]:
    """The name and the tags of each run of a sweep, by its id."""
    found = names(runs)
    return {run.id: {"name": found[run.id], "tags": tags(run)} for run in runs}


def names(runs: Sequence[Run]) -> dict[str, str]:
    """What each run of a sweep is called, by its id: `syre sigma=1 gamma=0.1 seed 0`.

    First its regularizer, with those of its settings that vary between the runs or are not as in its YAML; then what
    else tells it from the others: another model, data set, optimizer or task, and settings that vary, where they are
    not as in the YAML; last the seed. Of a run alone it is whatever else is not as in the YAMLs.
    """
    settings = [_settings(run) for run in runs]
    members = [{group: _member(run, group) for group in GROUPS} for run in runs]
    kinds = [tuple(each.values()) for each in members]
    usual = _usual_members() if len(runs) == 1 else {group: one for group in GROUPS if (one := _same(members, group))}
    varying: dict[Any, set[str]] = {}
    for kind, alike in groupby(sorted(range(len(runs)), key=lambda k: repr(kinds[k])), lambda k: kinds[k]):
        values: dict[str, set[str]] = {}
        for k in alike:
            for key, value in settings[k].items():
                values.setdefault(key, set()).add(value)
        varying[kind] = {key for key, found in values.items() if len(found) > 1}
    found = {}
    for run, of_run, member, kind in zip(runs, settings, members, kinds, strict=True):
        told = {key for key in of_run if _is_told(key, of_run, run, varying[kind], alone=len(runs) == 1)}
        words = [str(member["regularizer"])] if member["regularizer"] else []
        for group in ORDER:
            name = member.get(group)
            words += [name] if name and group != "regularizer" and name != usual.get(group) else []
            words += [_assigned(key, of_run[key]) for key in of_run if key in told and key.split(".")[0] == group]
        found[run.id] = _shortened(words, f"seed {run.seed}")
    return found


def tags(run: Run) -> list[str]:
    """What runs are filtered by: experiment, scale, model, data and regularizer."""
    config = run.config
    said = [config["experiment"], config["scale"], *(_member(run, group) for group in ("model", "data", "regularizer"))]
    return list(dict.fromkeys(str(word)[:LONGEST_TAG] for word in said if word))


def _is_told(key: str, settings: Mapping[str, str], run: Run, varying: set[str], alone: bool) -> bool:
    """Whether a setting belongs into the name of a run."""
    group = key.split(".")[0]
    usual = settings[key] == _usual(group, _member(run, group)).get(key)
    if group == "regularizer":  # a strength is said wherever it varies, for a reader not to look it up
        return not usual or (key in varying and _is_number(settings[key]))
    return not usual and (alone or key in varying)


def _settings(run: Run) -> dict[str, str]:
    """Its settings by dotted key, all text; what decays after what is a regularizer's own, as in sigma, gamma."""
    found: dict[str, str] = {}
    for group in ORDER:
        of_group = dict(flatten({group: _less(run.config[group])})) if run.config.get(group) else {}
        found |= dict(sorted(of_group.items(), key=lambda pair: pair[0].split(".")[-1] in NOTATION))
    return found


def _member(run: Run, group: str) -> str | None:
    """The name of the model, data set, ... of a run; None where it has none."""
    settings = run.config.get(group)
    return str(settings.get("name", "")) or None if isinstance(settings, dict) else None


def _same(members: Sequence[Mapping[str, str | None]], group: str) -> str | None:
    """What all runs have of a group; None if it varies."""
    found = {each[group] for each in members}
    return found.pop() if len(found) == 1 else None


@cache
def _usual(group: str, member: str | None) -> dict[str, str]:
    """The settings of a YAML, by dotted key; none where there is no such file."""
    if group == "compute":
        return dict(flatten({group: asdict(Compute())}))
    file = CONFIGS / group / f"{'default' if group == 'train' else member}.yaml"
    plain = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else {}
    return dict(flatten({group: _less(plain)})) if isinstance(plain, dict) else {}


@cache
def _usual_members() -> dict[str, str]:
    """The model, data set, ... that a run has unless it is told otherwise."""
    defaults = OmegaConf.load(CONFIGS / "config.yaml").defaults
    return {key: str(value) for each in defaults if not isinstance(each, str) for key, value in each.items()}


def _less(settings: Any) -> dict[str, Any]:
    """Settings without what they are called."""
    return {key: value for key, value in settings.items() if key not in ("name", "_target_", LATER)}


def _assigned(key: str, value: str) -> str:
    last = key.split(".")[-1]
    return f"{NOTATION.get(last, last)}={value.replace(' ', '')}"


def _shortened(words: Sequence[str], last: str) -> str:
    """The words and the last one, without those for which there is no room."""
    kept, room = [], LONGEST - len(last)
    for word in words:
        if len(word) + 1 <= room:
            kept.append(word)
            room -= len(word) + 1
    return " ".join([*kept, last])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- what a run has come to ------------------------------------------------------------------------------------------

TOLD = ("accuracy", "return", "loss", "rank")


def ended(records: Iterable[Mapping[str, str]]) -> str:
    """What a run has come to on unseen data, of its rows of metrics.csv: `accuracy 0.93, loss 0.24, rank 12`.

    Of a task that has none of these, its first three metrics.
    """
    last: dict[str, tuple[int, str]] = {}
    for row in records:
        if row["split"] == "test":
            last[row["metric"]] = max(last.get(row["metric"], (-1, "")), (int(row["step"]), row["value"]), key=_step)
    chosen = [metric for metric in TOLD if metric in last] or list(last)[:3]
    return ", ".join(f"{metric} {float(last[metric][1]):.4g}" for metric in chosen)


def _step(pair: tuple[int, str]) -> int:
    return pair[0]


# ---- the data of a small scale ---------------------------------------------------------------------------------------

Data = Mapping[str, Any]  # the settings of a data set, with its name


def data_used(here: Iterable[Data], elsewhere: Iterable[Data], samples: Mapping[str, set[int]]) -> str:
    """The data sets `here`, in place of those `elsewhere`: `digits, 1442 samples, in place of mnist`.

    Of one that is in both, the settings that have one value here, which they have nowhere there. `samples` is how many
    a data set has for training, by its name, as far as that is known.
    """
    ours, theirs = _by_name(here), _by_name(elsewhere)
    said = [", ".join([name, *_how_it_differs(name, ours, theirs, samples.get(name, set()))]) for name in ours]
    gone = [name for name in theirs if name not in ours]
    return "; ".join(said) + (f"{',' if len(said) == 1 else ';'} in place of {', '.join(gone)}" if gone else "")


def _by_name(settings: Iterable[Data]) -> dict[str, dict[str, list[str]]]:
    """name -> setting -> the values that it has."""
    found: dict[str, dict[str, list[str]]] = {}
    for each in settings:
        kept = found.setdefault(str(each["name"]), {})
        for key, value in flatten(_less(each)):
            if value not in kept.setdefault(key, []):
                kept[key].append(value)
    return found


def _how_it_differs(
    name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], samples: Iterable[int]
) -> Iterable[str]:
    counts = sorted(samples)
    if counts:
        yield f"{counts[0]} samples" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} samples"
    for key, values in ours[name].items():
        there = theirs.get(name, {}).get(key, values)
        if len(values) == 1 and values[0] not in there and not (key == "samples" and counts):
            yield f"{key}={values[0]} in place of {' or '.join(_whole(key, value) for value in there)}"


def _whole(key: str, value: str) -> str:
    """A setting of a data set, of which 0 samples are all."""
    return "all" if key.endswith("samples") and value == "0" else value
