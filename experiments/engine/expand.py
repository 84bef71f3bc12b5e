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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType, QuotedString
from omegaconf import DictConfig, OmegaConf

from experiments.analysis.results import LATER
from experiments.engine.config import GROUPS, TYPED, Run, identity
from experiments.engine.errors import ConfigError

Compose = Callable[[list[str]], DictConfig]  # Hydra overrides -> composed configuration
SETTABLE = ("seed", "recipe", *GROUPS, *TYPED)  # what may differ between the runs of one sweep


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that train as one process step, in the order in which they are stacked."""

    runs: list[Run]

    @property
    def id(self) -> str:
        return hashlib.blake2b("/".join(run.id for run in self.runs).encode(), digest_size=6).hexdigest()


Axes = Mapping[str, list[Any]]  # key -> the values that it takes


def expand(config: DictConfig, compose: Compose, fixed: Sequence[str] = (), axes: Axes | None = None) -> list[Run]:
    """All runs of an experiment, without repetition, in the order of its blocks.

    Args:
        config: the composed configuration of the experiment.
        compose: composes a configuration from overrides; called once per choice of groups.
        fixed: keys given on the command line; blocks do not touch them.
        axes: keys that the command line sweeps, with their values, for all runs that have such a key.

    Raises: ConfigError for a key that is unknown in a block, or an axis that no run has, or no run at all. (Of a run,
    `Run.check` says so, later: what is finished need not be looked at.)
    """
    composed: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    nowhere = set(axes or {}) - {*GROUPS}
    for chosen in _chosen(config, fixed, axes or {}):
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
        known = ", ".join(sorted({name for settings in groups for name in settings} - {"_target_", LATER}))
        raise ConfigError(f"unknown key {key}; " + (f"{group} may have {known}" if known else "no run has it"))
    return list(runs.values())


def data_at(scale: str, config: DictConfig, fixed: Sequence[str], axes: Axes) -> list[dict[str, Any]]:
    """The settings of the data sets that an experiment has at another scale, without composing its runs."""
    config = cast(DictConfig, OmegaConf.merge(config, {"scale": scale}))
    own = {} if OmegaConf.is_missing(config, "data") else _plain(config.data) or {}
    found: list[dict[str, Any]] = []
    for chosen in _chosen(config, fixed, axes):
        name = chosen.get("data", own.get("name"))
        settings = dict(own) if name == own.get("name") else {"name": name}
        settings |= {key.removeprefix("data."): value for key, value in chosen.items() if key.startswith("data.")}
        found += [settings] if name and settings not in found else []
    return found


def split(words: Sequence[str]) -> tuple[list[str], list[str], Axes]:
    """What overrides say of a sweep: those that every run is composed with, the keys of all, and the axes with values.

    Raises: HydraException for a word that is no override.
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


def _chosen(config: DictConfig, fixed: Sequence[str], axes: Axes) -> Iterator[dict[str, Any]]:
    """What each run is told, by its block and by the scale."""
    of_scale = _plain(config.scales).get(config.scale) or {}
    of_scale = {key: value for key, value in of_scale.items() if key not in fixed}
    return (of_scale | chosen for chosen in _products(config, fixed, axes))


def _products(config: DictConfig, fixed: Sequence[str], given: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """One mapping key -> value for each run of each block."""
    blocks = _plain(config.runs) or [{}]
    members = {key: given.get(key, [config[key].get("name")]) for key in GROUPS if key in fixed}
    seeds = _at_scale(_plain(config.seeds), config)
    if isinstance(seeds, int) and seeds < 1:
        raise ConfigError(f"seeds must be a number >= 1, or a list of seeds, got {seeds}")
    for block in blocks:
        axes = {key: _at_scale(value, config) for key, value in block.items()}
        if seeds is not None:
            axes.setdefault("seed", list(range(seeds)) if isinstance(seeds, int) else seeds)
        axes = {key: value if isinstance(value, list) else [value] for key, value in axes.items()}
        axes = {key: values for key, values in axes.items() if key in members or key not in fixed}
        axes = {key: [v for v in values if v in members.get(key, values)] for key, values in axes.items()}
        axes |= {key: values for key, values in given.items() if key not in axes}
        for values in itertools.product(*axes.values()):
            yield dict(zip(axes, values, strict=True))


def _plain(value: Any) -> Any:
    """A value of a configuration as plain Python."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


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
        alike.setdefault(json.dumps(without(run.config, batched), sort_keys=True), []).append(run)
    return [
        Group(runs=members[start : start + step])
        for members in alike.values()
        for step in [max(1, size(members[0]))]
        for start in range(0, len(members), step)
    ]


def without(config: dict[str, Any], keys: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """The configuration without the given dotted keys and all below them."""
    kept = {}
    for key, value in config.items():
        if (path := prefix + key) not in keys:
            kept[key] = without(value, keys, path + ".") if isinstance(value, dict) else value
    return kept
