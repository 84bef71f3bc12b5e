"""A figure's sweep: from its blocks to runs, and from runs to groups that train as one.

An experiment lists its runs as a union of products, `runs:`, a list of blocks. A block maps a key to a value, a list of
values, or a mapping from scale to either:

    runs:
      - {regularizer: weight_decay, regularizer.weight_decay: [0.01, 0.1]}
      - {regularizer: syre, regularizer.sigma: {smoke: 1, cpu: [0.1, 1]}, regularizer.weight_decay: [0.01, 0.1]}
    seeds: {smoke: 2, cpu: [5, 6, 7]}      # a number n: 0, ..., n - 1; the seeds of blocks that do not set theirs
    scales: {smoke: {train.epochs: 1, data: digits}}   # settings of one scale
    batched: [seed, regularizer]           # keys (with all below them) that may differ inside a group
    replicas: 0                            # runs per group; 0: by the measured rule of syre.learners

A group may be null where the task only measures: `{task: ridge, model: null, data: null, ...}`.

What is given on the command line wins over all of these: `optim.lr=0.1` replaces the values of every block,
`regularizer.sigma=0.1` those of every block whose regularizer has a sigma, and `regularizer=syre` leaves out the blocks
of other regularizers. A group is written down before it trains and is never repacked: it is the unit of checkpoint and
resume.
"""

import copy
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType, QuotedString
from omegaconf import DictConfig, OmegaConf

from experiments.analysis.results import ResultsError, read_facts, write_files
from experiments.engine.config import GROUPS, TYPED, ConfigError, Run, identity
from experiments.engine.locks import holder

Compose = Callable[[list[str]], DictConfig]  # Hydra overrides -> composed configuration
LIVE = ".csv"  # beside the checkpoint of a lone run: its records so far, as in the metrics.csv of a finished one
STEP = ".step"  # beside a group's checkpoint: the step it has come to, its steps in all and the seconds that it took
SETTABLE = ("seed", *GROUPS, *TYPED)  # what may differ between the runs of one sweep


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that train as one process step, in the order in which they are stacked."""

    runs: list[Run]

    @property
    def id(self) -> str:
        return hashlib.blake2b("/".join(run.id for run in self.runs).encode(), digest_size=6).hexdigest()


class Ending(StrEnum):
    """How the training of a group ended, when it was no error."""

    done = "done"
    stopped = "stopped"  # at a checkpoint to go on from
    held = "held"  # by another process, which trains it


def expand(config: DictConfig, compose: Compose, fixed: Sequence[str] = (),
           axes: Mapping[str, list[Any]] | None = None) -> list[Run]:  # fmt: skip
    """All runs of an experiment, without repetition, in the order of its blocks.

    Args:
        config: the composed configuration of the experiment.
        compose: composes a configuration from overrides; called once per choice of groups.
        fixed: keys given on the command line; blocks do not touch them.
        axes: keys that the command line sweeps, with their values, for all runs that have such a key.

    Raises:
        ConfigError: a key that is unknown in a block, or an axis that no run has, or no run at all. (Of a run,
            `Run.check` says so, later: what is finished need not be looked at.)
    """
    composed: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    nowhere = set(axes or {}) - {*GROUPS}
    for chosen in _products(config, fixed, axes or {}):
        chosen = {**_scale_settings(config, fixed), **chosen}
        members = tuple((key, value) for key, value in chosen.items() if key in GROUPS)
        if members not in composed:
            whole = identity(compose([f"{key}={value}" for key, value in members if value is not None]))
            composed[members] = whole | {key: None for key, value in members if value is None}
        absent = {key for key in axes or {} if key not in GROUPS and _node(composed[members], key) is None}
        nowhere &= absent
        settings = {key: value for key, value in chosen.items() if key not in GROUPS and key not in absent}
        run = Run(config=_with(composed[members], settings))
        runs.setdefault(run.id, run)
    if not runs:
        raise ConfigError(f"experiment {config.experiment} has no runs with the choices of {', '.join(fixed)}")
    if nowhere:
        group = (key := min(nowhere)).split(".")[0]
        groups = [whole[group] for whole in composed.values() if isinstance(whole.get(group), dict)]
        known = ", ".join(sorted({name for settings in groups for name in settings} - {"_target_"}))
        raise ConfigError(f"unknown key {key}; " + (f"{group} may have {known}" if known else "no run has it"))
    return list(runs.values())


def split(words: Sequence[str]) -> tuple[list[str], list[str], dict[str, list[Any]]]:
    """What overrides say of a sweep: those that every run is composed with, the keys of all, and the axes with values.

    Raises:
        HydraException: a word that is no override.
    """
    given = OverridesParser.create().parse_overrides([as_axis(word) for word in words])
    plain = [word for word, o in zip(words, given, strict=True) if not o.is_sweep_override()]
    axes = {o.get_key_element(): [_unquoted(v) for v in o.sweep_iterator()] for o in given if o.is_sweep_override()}
    return plain, [o.get_key_element() for o in given], axes


def as_axis(word: str) -> str:
    """A setting of one group's member, `regularizer.sigma=0.1`, as an axis with this value: `...=choice(0.1)`.

    Any other word is returned as it is. What runs are composed with, all must have; an axis is for those that have it.
    """
    override = OverridesParser.create().parse_override(word)
    group, dot, _ = (key := override.get_key_element()).partition(".")
    text = word.partition("=")[2]
    if not (group in GROUPS and dot and text) or override.type != OverrideType.CHANGE or override.is_sweep_override():
        return word
    return word if "${" in text else f"{key}=choice({text})"  # only composition knows what another key's value is


def _unquoted(value: Any) -> Any:
    """A value of an axis, without Hydra's marks for what was in quotes."""
    if isinstance(value, list):
        return [_unquoted(part) for part in value]
    if isinstance(value, dict):
        return {_unquoted(key): _unquoted(part) for key, part in value.items()}
    return value.text if isinstance(value, QuotedString) else value


def _node(config: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The mapping that has the last part of a dotted key; None where there is none."""
    *path, last = key.split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) and last in node else None


def _with(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of the configuration with some dotted keys set."""
    plain = copy.deepcopy(config)
    for key, value in settings.items():
        node, (first, *_) = _node(plain, key), key.split(".")
        if node is None or first not in SETTABLE:
            raise ConfigError(f"unknown key {key} in runs:, scales: or axes of experiment {plain['experiment']}")
        node[key.split(".")[-1]] = value
    return plain


def _scale_settings(config: DictConfig, fixed: Sequence[str]) -> dict[str, Any]:
    settings = OmegaConf.to_container(config.scales).get(config.scale) or {}
    return {key: value for key, value in settings.items() if key not in fixed}


def _products(config: DictConfig, fixed: Sequence[str], given: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """One mapping key -> value for each run of each block."""
    blocks = OmegaConf.to_container(config.runs) or [{}]
    members = {key: given.get(key, [config[key].get("name")]) for key in GROUPS if key in fixed}
    seeds = config.seeds
    seeds = _at_scale(OmegaConf.to_container(seeds) if OmegaConf.is_config(seeds) else seeds, config)
    for block in blocks:
        axes = {key: _at_scale(value, config) for key, value in block.items()}
        if seeds is not None:
            axes.setdefault("seed", list(range(seeds)) if isinstance(seeds, int) else seeds)
        axes = {key: value if isinstance(value, list) else [value] for key, value in axes.items()}
        axes = {key: [value for value in values if value in members.get(key, values)]
                for key, values in axes.items() if key in members or key not in fixed}  # fmt: skip
        axes |= {key: values for key, values in given.items() if key not in axes}
        for values in itertools.product(*axes.values()):
            yield dict(zip(axes, values, strict=True))


def _at_scale(value: Any, config: DictConfig) -> Any:
    if not isinstance(value, dict):
        return value
    if config.scale not in value:
        raise ConfigError(f"experiment {config.experiment} has no value for scale {config.scale} in {value}")
    return value[config.scale]


def pack(runs: Sequence[Run], *, batched: Sequence[str], size: Callable[[Run], int]) -> list[Group]:
    """Groups of runs that agree in all but the batched keys, at most `size(run)` each, in a fixed order."""
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(json.dumps(_without(run.config, batched), sort_keys=True), []).append(run)
    return [
        Group(runs=members[start : start + step])
        for members in alike.values()
        for step in [max(1, size(members[0]))]
        for start in range(0, len(members), step)
    ]


def _without(config: dict[str, Any], keys: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """The configuration without the given dotted keys and all below them."""
    kept = {}
    for key, value in config.items():
        if (path := prefix + key) not in keys:
            kept[key] = _without(value, keys, path + ".") if isinstance(value, dict) else value
    return kept


def kind(run: Run) -> str:
    """What runs of about equal length have in common, as a digest."""
    keys = ("experiment", "scale", "model", "optim", "train", "compute")
    data = {key: value for key, value in (run.config["data"] or {}).items() if key != "input_scale"}
    alike = {"data": data, "task": run.config["task"]["_target_"]} | {key: run.config[key] for key in keys}
    return hashlib.blake2b(json.dumps(alike, sort_keys=True).encode(), digest_size=6).hexdigest()


def finished(folder: Path, run_id: str) -> bool:
    """Whether a run has ended, well or in NaN; one that failed is tried again."""
    place = folder / "runs" / run_id
    return (place / "done").exists() and read_facts(place)["status"] != "failed"


def load_group(folder: Path, group_id: str) -> Group:
    """A group as it was packed.

    Raises:
        ConfigError: no such group. ResultsError: its file is damaged.
    """
    if not re.fullmatch("[0-9a-f]{12}", group_id):
        raise ConfigError(f"group must be 12 hex digits, the name of a file in {folder / 'groups'}, got {group_id!r}")
    file = group_file(folder, group_id)
    try:
        return _read_group(file)
    except FileNotFoundError:
        raise ConfigError(f"no group {group_id}: there is no {file}") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file} is damaged ({error}): run its sweep again, which packs its runs anew") from None


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


def set_aside(file: Path, error: Exception, then: str) -> None:
    """Give a file that cannot be used another name, under which it stays, and say what happens without it.

    Raises:
        ResultsError: a place that cannot be written.
    """
    names = (file.with_name(f"{file.name}.damaged{k or ''}") for k in itertools.count())
    aside = next(name for name in names if not name.exists())
    try:
        file.rename(aside)
    except OSError as failure:
        raise ResultsError(f"cannot rename {file}: {failure.strerror or failure}") from failure
    reason = " ".join(str(error).split()).split(". ")[0].rstrip(": ")[:200]  # torch goes on with advice
    print(f"{file} is damaged ({reason}): it is now {aside.name}, and {then}", file=sys.stderr)


def group_file(folder: Path, group_id: str, suffix: str = ".json") -> Path:
    """What is kept of a group: `.json` its runs, `.pt` its checkpoint, `.step` how far it is, `.lock` who trains it."""
    return folder / "groups" / f"{group_id}{suffix}"


def plan(runs: Sequence[Run], folder: Path, *, batched: Sequence[str], size: Callable[[Run], int],
         check: Callable[[Group], None] = lambda group: None) -> list[Group]:  # fmt: skip
    """The groups that are still to train: interrupted ones whole and as they were packed, and what else is missing.

    `folder` is `outputs/<experiment>`: groups are kept in `groups/<id>.json`, runs in `runs/<id>`. A group of another
    sweep that is in training now, and has some of these runs among its own, is one of them.

    They come seed by seed, in the order of the sweep: one that is interrupted for good leaves whole seeds.

    `check` raises for a group that cannot be trained.

    Raises:
        ConfigError: a missing run that cannot be run; then nothing has been written.
    """
    wanted = {run.id: place for place, run in enumerate(runs)}
    missing = {run.id: run for run in runs if not finished(folder, run.id)}
    for run in missing.values():
        run.check()
    groups, damaged = [], {}
    for file in sorted((folder / "groups").glob("*.json")) if missing else []:
        try:
            group = _read_group(file)
        except ValueError as error:
            damaged[file] = error
            continue
        members = [run.id for run in group.runs]
        if missing.keys().isdisjoint(members):
            continue
        if wanted.keys() >= {*members} or holder(file.with_suffix(".lock")):
            groups.append(group)
            for member in members:
                missing.pop(member, None)
    new = pack(list(missing.values()), batched=batched, size=size)
    for group in groups + new:
        check(group)
    for file, error in damaged.items():  # packed as it was, a group goes on from its checkpoint
        set_aside(file, error, "its runs are packed anew")
    write_files({group_file(folder, g.id): json.dumps([run.config for run in g.runs]).encode() for g in new})
    return sorted(groups + new, key=lambda group: min((r.seed, wanted.get(r.id, len(wanted))) for r in group.runs))
