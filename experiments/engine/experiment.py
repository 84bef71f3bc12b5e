"""An experiment at one scale: its runs, what is missing of them, how they train, what they take, and their tables."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from experiments.analysis import results
from experiments.analysis.locks import hold
from experiments.engine.config import Run
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Compose, Group, expand, pack, split
from experiments.engine.store import RunStore, set_aside

CONFIGS = Path(__file__).parents[2] / "configs"
COMPOSED = CONFIGS.parent / "outputs/.composed"
SOURCES = [*sorted(CONFIGS.rglob("*.yaml")), *(Path(__file__).with_name(f"{name}.py") for name in ("config", "expand"))]

# What leaves a figure's runs what they are; the tables of any other sweep do not go to results/.
FREE = {"experiment", "scale", "adopt", "train_nothing", "outputs", "results", "data_root", "wandb", "hydra"}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The runs of a composed configuration.

    Of the overrides that it was composed with, `words` are those that each run has, and `keys` the keys of all.
    """

    config: DictConfig
    runs: list[Run]
    words: Sequence[str] = ()
    keys: Sequence[str] = ()

    @classmethod
    def of(cls, config: DictConfig, words: Sequence[str], composed: Compose) -> "Experiment":
        """That of a configuration and the overrides `words` that it was composed with. Raises: as `expand`."""
        plain, keys, axes = split(words)
        if config.replicas < 0:
            raise ConfigError(f"replicas must be >= 0 (0: as many as fit), got {config.replicas}")
        runs = expand(config, lambda members: composed([*plain, *members]), fixed=keys, axes=axes)
        if "batched" in keys:
            known = {key for run in runs for key, _ in results.flatten(run.config)}
            for key in config.batched:
                if not any(one == key or one.startswith(f"{key}.") for one in known):
                    raise ConfigError(f"batched has {key}, which no run has: it takes keys such as seed and optim.lr")
        return cls(config=config, runs=runs, words=plain, keys=keys)

    @classmethod
    def load(cls, name: str, words: Sequence[str]) -> "Experiment":
        """That of a name and some overrides, inside `hydra.initialize_config_dir`.

        Hydra takes half a second for some of them, so they are kept, for as long as nothing they are made of changes.
        """
        file = COMPOSED / f"{_digest(name, *words)}.json"
        sources = _digest(*(path.read_text() for path in SOURCES), *map(version, ("hydra-core", "omegaconf")))
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(file.read_text())
            if kept["sources"] == sources:
                runs = [Run(config=config) for config in kept["runs"]]
                return cls(config=OmegaConf.create(kept["config"]), runs=runs, words=kept["words"], keys=kept["keys"])
        words = [f"experiment={name}", *words]
        config = compose("config", split(words)[0])
        made = cls.of(config, words, lambda overrides: compose("config", overrides))
        whole: dict[str, Any] = {"sources": sources, "words": made.words, "keys": made.keys}
        whole |= {"runs": [run.config for run in made.runs], "config": OmegaConf.to_container(config, enum_to_str=True)}
        with suppress(results.ResultsError):  # where nothing can be written it takes that time again
            results.write_files({file: json.dumps(whole).encode()})
        return made

    @property
    def name(self) -> str:
        return str(self.config.experiment)

    @property
    def scale(self) -> str:
        return str(self.config.scale)

    @property
    def custom(self) -> bool:
        """Whether the command line has made other runs of it than its figure has."""
        return not FREE.issuperset(key.split(".")[0].split("/")[0] for key in self.keys)

    @cached_property
    def store(self) -> RunStore:
        return RunStore(Path(self.config.outputs) / self.name)

    @property
    def place(self) -> Path:
        """Where its tables go, in a folder of its name: results/ is for figures, at scales that say something."""
        if self.custom or self.scale == "smoke":
            return self.store.folder / f"results-{'custom' if self.custom else self.scale}"
        return Path(self.config.results)

    def missing(self) -> list[Run]:
        return [run for run in self.runs if not self.store.finished(run.id)]

    # ---- training

    def size(self, run: Run) -> int:
        """How many runs like this one train as one."""
        from experiments.engine.build import group_size  # here, for what is finished to need no torch

        return self.config.replicas or group_size(run, self.config.data_root)

    def pack(self, runs: Iterable[Run]) -> list[Group]:
        return pack(list(runs), batched=self.config.batched, size=self.size)

    def plan(self, runs: Sequence[Run], check: Callable[[Group], None] = lambda group: None) -> list[Group]:
        """The groups of these runs that are still to train: interrupted ones as they were packed, and what is missing.

        A group of another sweep that is in training now, and has some of these runs among its own, is one of them.
        They come seed by seed, in the order of the sweep: one that is interrupted for good leaves whole seeds.
        `check` raises for a group that cannot be trained.
        Raises: ConfigError for a missing run that cannot be run; then nothing has been written.
        """
        places = {run.id: place for place, run in enumerate(runs)}
        missing = {run.id: run for run in runs if not self.store.finished(run.id)}
        for run in missing.values():
            run.check()
        groups, damaged = [], {}
        for file, group in self.store.groups() if missing else ():
            if isinstance(group, ValueError):
                damaged[file] = group
                continue
            members = [run.id for run in group.runs]
            if not missing.keys().isdisjoint(members) and (places.keys() >= {*members} or self.store.holder(group.id)):
                groups.append(group)
                for member in members:
                    missing.pop(member, None)
        new = self.pack(missing.values())
        for group in groups + new:
            check(group)
        for file, error in damaged.items():  # packed as it was, a group goes on from its checkpoint
            set_aside(file, error, "its runs are packed anew")
        self.store.save(new)
        last = len(places)
        return sorted(groups + new, key=lambda group: min((r.seed, places.get(r.id, last)) for r in group.runs))

    # ---- tables

    @contextmanager
    def sole(self) -> Iterator[None]:
        """Be the only process that writes its tables. Raises: ResultsError where another has, for ten minutes."""
        with hold(self.place / f".{self.name}.lock", patience=600) as ours:
            if not ours:
                raise results.ResultsError(f"another sweep has been writing {self.place / self.name} for ten minutes")
            yield

    def collect(self, runs: Iterable[Run], place: Path | None = None) -> Path:
        """Write these runs, which have ended, into the tables; their folder.

        Inside `sole`: it reads what is there, of other scales too, and writes it again.
        Raises: ResultsError, also where the tables have others of its runs, which would be lost with them.
        """
        folder, chosen, mine = (
            (place or self.place) / self.name,
            {run.id for run in runs},
            {run.id for run in self.runs},
        )
        rows = results.read_table(folder / "runs.csv")
        if lost := [row for row in rows if row["id"] in mine - chosen and row["status"] != "failed"]:
            there = f"{folder / 'runs.csv'} has {len(lost)} runs that have not ended here, {lost[0]['id']} first"
            raise results.ResultsError(f"{there}: adopt=true takes them over")
        self.store.collect(folder, self.scale, chosen, self.config.curves)
        return folder

    def taken(self, device: str) -> dict[str, float]:
        """The seconds of those of its runs that have finished here, on such a device."""
        finished = [run.id for run in self.runs if self.store.finished(run.id)]
        known = {run_id: self.store.facts(run_id, "seconds", "device") for run_id in finished}
        return {name: float(of["seconds"]) for name, of in known.items() if of["device"] == device}

    def tabled(self) -> dict[str, float]:
        """The seconds of those of its runs that the committed tables have."""
        ids = {run.id for run in self.runs}
        table = results.read_table(Path(self.config.results) / self.name / "runs.csv")
        return {row["id"]: float(row["seconds"]) for row in table if row["status"] != "failed" and row["id"] in ids}

    def estimate(self, timed: Mapping[str, float]) -> dict[str, float]:
        """Seconds of a run by its `pace`, as the runs of `timed`, id -> seconds, took them."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            if run.id in timed:
                found.setdefault(pace(run), []).append(timed[run.id])
        return {name: fmean(seconds) for name, seconds in found.items()}


def pace(run: Run) -> str:
    """What runs that take about as long have in common, as a digest."""
    keys = ("experiment", "scale", "model", "optim", "train", "compute")
    data = {key: value for key, value in (run.config["data"] or {}).items() if key != "input_scale"}
    alike = {"data": data, "task": run.config["task"]["_target_"]} | {key: run.config[key] for key in keys}
    return hashlib.blake2b(json.dumps(alike, sort_keys=True).encode(), digest_size=6).hexdigest()


def _digest(*words: str) -> str:
    return hashlib.blake2b(json.dumps(words).encode(), digest_size=8).hexdigest()
