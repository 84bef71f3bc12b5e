"""The typed root of every configuration, and the identity of a run.

A configuration is plain YAML until here. The root below is typed, and each group (model, data, ...) is the settings of
one frozen dataclass of `syre`, named by `_target_`: a misspelt key, a wrong type or a value out of range fails before
anything is written, in one line that names the key. After this file, functions take the values they use.

`syre`, and torch with it, is imported when the first such object is made: what is finished is known by its id alone.
"""

import hashlib
import json
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from experiments.analysis.results import LATER
from experiments.engine.errors import ConfigError

sys.path.append(str(Path(__file__).parent))  # where Hydra looks for `hydra_plugins`

GROUPS = ("model", "data", "regularizer", "optim", "task")
Scale = StrEnum("Scale", ["smoke", "cpu", "paper"])
Mode = StrEnum("Mode", ["disabled", "offline", "online"])


class Precision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"  # autocast; lone runs only
    auto = "auto"  # bf16 where the hardware has it


@dataclass
class Compute:
    """Where a run computes. `threads` is part of a run's identity: a sum depends on how it is split.

    How many threads there may be is said where the run trains, which may be another machine (engine/training.py).
    """

    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: int = 1  # per process; 0: torch's own choice
    precision: Precision = Precision.fp32
    compile: bool = False  # torch.compile; lone runs only

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"compute.threads must be a number >= 0, got {self.threads}")


@dataclass
class Wandb:
    """Mirror of the local records; no figure reads from it."""

    mode: Mode = Mode.offline
    project: str = "syre"


@dataclass
class Config:
    """The root. `runs`, `seeds`, `scales`, `batched` and `replicas` describe a sweep (see engine/sweep.py)."""

    experiment: str = "run"
    recipe: int = 1  # raised when a change of behaviour changes an experiment's numbers
    scale: Scale = Scale.cpu
    seed: int = 0
    model: Any = MISSING
    data: Any = MISSING
    regularizer: Any = MISSING
    optim: Any = MISSING
    task: Any = MISSING
    train: Any = field(default_factory=dict)
    compute: Compute = field(default_factory=Compute)
    budget: str = ""  # what the cpu scale costs, in words
    curves: list[str] = field(default_factory=list)  # the tables keep these metrics' every record, of others the last

    runs: list[Any] = field(default_factory=list)
    seeds: Any = None
    scales: dict[str, Any] = field(default_factory=dict)
    batched: list[str] = field(default_factory=list)
    replicas: int = 0

    data_root: str | None = None
    outputs: str = "outputs"
    results: str = "results"
    wandb: Wandb = field(default_factory=Wandb)
    group: str | None = None
    adopt: bool = False  # take over what results/ has of the runs, and train what is missing
    train_nothing: bool = False  # collect, judge and draw what has ended


ConfigStore.instance().store(name="schema", node=Config)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its identity, and what that describes as objects of `syre`, made when they are asked for.

    A group that the configuration sets to null is None. Each raises `ConfigError` as `check` does.
    """

    config: dict[str, Any]

    @cached_property
    def id(self) -> str:
        return run_id(self.config)

    @property
    def seed(self) -> int:
        return cast(int, self.config["seed"])

    model = property(lambda run: run._leaf("model"))
    data = property(lambda run: run._leaf("data"))
    regularizer = property(lambda run: run._leaf("regularizer"))
    optim = property(lambda run: run._leaf("optim"))
    task = property(lambda run: run._leaf("task"))
    train = property(lambda run: run._leaf("train"))

    def _leaf(self, group: str) -> Any:
        settings = self.config[group]
        return None if settings is None else _leaf(group, json.dumps(settings))

    def check(self) -> None:
        """Make sure that it can be run. Raises: ConfigError that names an unknown key, or a wrong type or value."""
        if type(self.seed) is not int:
            raise ConfigError(f"seed must be an integer, got {self.seed!r}")
        if self.config["task"] is None:
            raise ConfigError("task is missing")
        from syre.trainer import Measurement

        measures = issubclass(_class("task", self.config["task"].get("_target_")), Measurement)
        if not measures and (missing := [group for group in GROUPS if self.config[group] is None]):
            raise ConfigError(f"{', '.join(missing)} missing: task={self.config['task'].get('name')} trains a model")
        for group in (*GROUPS, *TYPED):
            self._leaf(group)


TYPED = ("train", "compute")  # the groups of settings that are always of one class
IDENTITY = ("experiment", "recipe", "scale", "seed", *GROUPS, "train", "compute")


def identity(config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that decides its numbers: all but paths, logging and the description of the sweep.

    Raises: ConfigError for a key that is not in `Config` (Hydra lets `+key=value` in), or is there no more (`~key`).
    """
    keys = set(map(str, config))  # `in` does not know those without a value
    if unknown := keys - {"hydra", *Config.__dataclass_fields__}:
        raise ConfigError(f"unknown key {', '.join(sorted(unknown))}")
    if absent := [key for key in IDENTITY if key not in keys]:
        raise ConfigError(f"the configuration has no {', '.join(absent)}, which every run has")
    part = OmegaConf.masked_copy(config, list(IDENTITY))
    plain = cast(dict[str, Any], OmegaConf.to_container(part, resolve=True, enum_to_str=True))
    return {key: None if value == MISSING else value for key, value in plain.items()}


def run_id(config: dict[str, Any]) -> str:
    """12 hex digits of blake2b over the canonical JSON of `identity`, less the later keys that change nothing."""
    chosen = {}
    for key in IDENTITY:
        settings = chosen[key] = config[key]
        if isinstance(settings, dict) and LATER in settings:
            gone = {LATER, *(name for name, value in settings[LATER].items() if settings.get(name) == value)}
            chosen[key] = {name: value for name, value in settings.items() if name not in gone}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _class(group: str, name: Any) -> type:
    """The class that a `_target_` names. Raises: ConfigError where there is none."""
    module, _, own = str(name).rpartition(".")
    try:
        found = getattr(import_module(module), own)  # Hydra's get_class also prints what is wrong
    except (ImportError, ValueError, AttributeError) as error:
        found, wrong = None, " ".join(str(error).split())
    else:
        wrong = f"a {type(found).__name__}"
    if not isinstance(found, type):
        raise ConfigError(f"{group}._target_ must name a class, package.module.Class, got {name} ({wrong})")
    return found


@lru_cache(maxsize=4096)  # a sweep repeats the same leaves hundreds of times
def _leaf(group: str, text: str) -> Any:
    """A frozen dataclass from its settings as JSON, types checked by OmegaConf and ranges by the class itself."""
    settings = json.loads(text)
    fixed = {"train": "syre.trainer.Training", "compute": f"{__name__}.Compute"}
    cls = _class(group, fixed.get(group) or settings.pop("_target_", None))
    settings = {key: value for key, value in settings.items() if key not in ("name", LATER)}
    for key, value in settings.items():
        numbers = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]
        if too_large := [number for number in numbers if abs(number) >= 1 << 63]:
            raise ConfigError(f"{group}.{key} must be of integers of 64 bits, got {too_large[0]}")
    try:
        typed = OmegaConf.structured(cls)
        OmegaConf.set_readonly(typed, False)
        return OmegaConf.to_object(OmegaConf.merge(typed, settings))
    except (ConfigKeyError, ConfigAttributeError) as error:
        allowed = ", ".join(OmegaConf.structured(cls).keys())
        raise ConfigError(f"unknown key {group}.{error.key}; {group} {cls.__name__} takes {allowed}") from None
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        key = getattr(error, "full_key", None)
        line = str(error).splitlines()[0]
        raise ConfigError(f"{group}.{key}: {line}" if key else line) from None
