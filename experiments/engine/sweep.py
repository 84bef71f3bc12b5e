"""A sweep: train what is missing of an experiment, collect its tables, judge its claims and draw its figure."""

import json
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.utils import JobStatus
from omegaconf import DictConfig

from experiments.analysis import receipt, report
from experiments.analysis.results import TABLES, ResultsError, read_table, write_files
from experiments.analysis.summaries import Summary, brief
from experiments.engine.cards import spread
from experiments.engine.config import Run
from experiments.engine.errors import ConfigError, Killed, one_line
from experiments.engine.expand import Compose, Group, data_at, split
from experiments.engine.experiment import Experiment
from experiments.engine.mirror import Mirror
from experiments.engine.processes import world
from experiments.engine.progress import Sight, of_sweep, shown
from experiments.engine.store import Outcome
from experiments.engine.words import called, data_used


def sweep(config: DictConfig, words: Sequence[str], compose: Compose, launcher: Any) -> None:
    """The whole of it, for a configuration and the overrides that it was composed with.

    Raises: SystemExit, 2 where the figure could not be drawn, else 1 where runs have failed.
    """
    if world() > 1:
        trains = "torchrun trains one run, or one group of a sweep (group=...), over its processes"
        raise ConfigError(f"{trains}; a sweep (-m) runs without torchrun")
    now, adopted = Sight(note="listing its runs"), 0
    with shown(str(config.experiment), lambda: now):
        experiment = Experiment.of(config, words, compose)
        if config.adopt:
            adopted = experiment.store.adopt(Path(config.results) / experiment.name, experiment.runs)
        missing = [] if config.train_nothing else experiment.missing()
        for table in TABLES if missing else ():  # one that is damaged is found before the hours of training
            read_table(experiment.place / experiment.name / table)
        now.note = "loading torch and the data sets"
        groups = _plan(experiment, missing, elsewhere=getattr(launcher, "elsewhere", False))
    if config.adopt:
        print(f"{experiment.name}: {adopted} runs adopted from the tables in {config.results}", flush=True)
    what = f"{len({run.id for group in groups for run in group.runs})} to train in {len(groups)} groups"
    print(f"{experiment.name}: {len(experiment.runs)} runs at scale {experiment.scale}, {what}", flush=True)
    if experiment.scale == "smoke" and (data := _data(experiment, words, count=bool(groups))):
        print(f"data: {data}", flush=True)
    failed: list[Exception] = []
    with mirror_of(config) as mirror:
        if mirror:
            lone = [group for group in groups if len(group.runs) == 1]
            mirror.watch([run.id for run in experiment.runs], live=lone, called=called(experiment.runs))
        if groups:
            spread(launcher, config)
            with shown(experiment.name, of_sweep(experiment, groups)):
                failed = _launch(experiment, launcher, groups)
        if failed:
            how_many = f"{len(failed)} of {len(groups)} groups failed"
            print(f"{how_many}, the first with {one_line(failed[0])}", file=sys.stderr)
        drawn = _tables(experiment)
        if mirror and groups:
            folder = experiment.place / experiment.name
            made = [path for path in sorted(folder.iterdir()) if path.is_file()]
            mirror.artifact(f"{experiment.name}-{experiment.place.name}", experiment.scale, made)
    if not drawn or failed:
        raise SystemExit(1 if drawn else 2)


def mirror_of(config: DictConfig) -> AbstractContextManager[Mirror | None]:
    """W&B, in a process of its own, which is given a moment in the end."""
    folder = Path(config.outputs) / config.experiment
    mode, project = config.wandb.mode, config.wandb.project
    return Mirror.start(mode=mode, project=project, folder=folder, experiment=config.experiment) or nullcontext()


# ---- training --------------------------------------------------------------------------------------------------------


def _plan(experiment: Experiment, missing: Sequence[Run], elsewhere: bool) -> list[Group]:
    """The groups to train. Wrong settings and missing data are found here, before anything is written."""
    if not missing:
        return []
    for run in missing:
        run.check()
    from experiments.engine.build import fitting, load, own_device

    data_root = experiment.config.data_root
    for run in () if elsewhere else _one_of_each(missing, "compute", "task"):  # another machine has other devices
        own_device(run)
    for run in _one_of_each(missing, "data"):
        if run.data is not None:
            load(run, data_root)
    return experiment.plan(experiment.runs, check=fitting(data_root))


def _data(experiment: Experiment, words: Sequence[str], count: bool) -> str:
    """The data sets of a sweep at smoke scale, in words: they are smaller than the figure's own, or others.

    `count`: with the number of their samples, for which they are loaded.
    """
    _, keys, axes = split(words)
    runs, samples = [run for run in _one_of_each(experiment.runs, "data") if run.config["data"]], dict[str, set[int]]()
    for run in runs if count else ():
        from experiments.engine.build import load

        inputs = getattr(load(run, experiment.config.data_root), "train_inputs", None)  # an environment has none
        if inputs is not None and len(inputs) > 1:  # a matrix is one
            samples.setdefault(run.config["data"]["name"], set()).add(len(inputs))
    return data_used([run.config["data"] for run in runs], data_at("cpu", experiment.config, keys, axes), samples)


def _one_of_each(runs: Sequence[Run], *parts: str) -> list[Run]:
    """A run for each of the settings that there are of these parts of a configuration."""
    return list({json.dumps([run.config[part] for part in parts]): run for run in runs}.values())


def _launch(experiment: Experiment, launcher: Any, groups: Sequence[Group]) -> list[Exception]:
    """Train groups, those that another sweep trains now after it has let go of them; the errors of those that fail."""
    failed: list[Exception] = []
    while groups:
        # Quoted: an id may look like a number, 12e456 being infinity.
        words = [[*experiment.words, f"group='{group.id}'"] for group in groups]
        try:
            jobs = launcher.launch(words, initial_job_idx=0)
        except BrokenExecutor as error:
            raise Killed(_why_killed(str(error))) from None
        held = []
        for group, job in zip(groups, jobs, strict=True):
            if job.status is not JobStatus.COMPLETED:
                failed.append(job._return_value)
                _give_up(experiment, group, job._return_value)
            elif job.return_value == Outcome.held:
                held.append(group)
        groups = held
        for group in held:
            if owner := experiment.store.holder(group.id):
                print(f"group {group.id} is in training elsewhere ({owner}): waiting for it", flush=True)
            while experiment.store.holder(group.id):
                time.sleep(1)
    return failed


def _why_killed(text: str) -> str:
    """What joblib says of processes that ended without a result, `{SIGSEGV(-11)}` say, in one line."""
    codes = sorted({*re.findall(r"\b(SIG[A-Z0-9]+|UNKNOWN|EXIT)\((-?\d+)\)", text)})
    ends = [name if name.startswith("SIG") else f"exit code {code}" for name, code in codes]
    what = f"a process ended by {' and '.join(ends)}" if ends else " ".join(text.split())
    if ends == ["SIGKILL"]:
        what += ", most likely for want of memory: lower hydra.launcher.n_jobs or train.batch_size"
    return f"{what}; the same command goes on with what is missing"


def _give_up(experiment: Experiment, group: Group, reason: Exception) -> None:
    """A job that ended without a word, its machine lost say, leaves rows that say so; its checkpoint stays."""
    if not all(experiment.store.ended(run.id) for run in group.runs):
        from experiments.engine.training import give_up

        give_up(group, experiment.store, reason)


# ---- tables and picture ----------------------------------------------------------------------------------------------


def _tables(experiment: Experiment) -> bool:
    """Collect the tables, judge them, compare them with the committed ones; whether all that was asked for is done."""
    name, place, runs = experiment.name, experiment.place, experiment.runs
    if experiment.config.train_nothing:
        runs = [run for run in runs if experiment.store.ended(run.id)]
        if not runs:
            nothing = f"{name}: none of these {len(experiment.runs)} runs has ended"
            raise ConfigError(f"{nothing}: without train_nothing=true the same command trains them")
    experiment.store.tidy(experiment.runs)
    with experiment.sole():
        smoke, before = experiment.scale == "smoke", receipt.on_disk(Path(experiment.config.results), name)
        made = experiment.collect(runs)
        if not smoke:
            print(f"tables: {made}")
        drawn, summaries = _judge(name, place, experiment.custom, smoke) if is_figure(name) else (True, [])
        if smoke:
            what = "tables and picture" if (made / "figure.png").exists() else "tables"
            print(f"smoke judges nothing, it shows that everything runs; {what}: {made}")
        else:
            _compare(experiment, runs, before, summaries)
        return drawn


def _compare(experiment: Experiment, runs: Sequence[Run], before: receipt.Contents, summaries: list[Summary]) -> None:
    """Print what of these runs and verdicts is as committed, and leave it as JSON; the sweep is done without it too."""
    name, store, place = experiment.name, experiment.store, experiment.place
    file = (place if experiment.custom else store.folder) / "receipt.json"
    adopted = {run.id for run in runs if store.adopted(run.id)}
    try:
        found = receipt.make(
            experiment=name,
            scale=experiment.scale,
            place=place,
            results=Path(experiment.config.results),
            before=before,
            adopted=adopted,
            summaries=summaries,
        )
        if experiment.custom and not found["committed"]["runs"]:
            return  # a sweep of one's own, of which nothing is committed
        write_files({file: f"{json.dumps(found, indent=1)}\n".encode()})
        print(f"{receipt.text(found)}\n  as JSON: {file}")
    except ResultsError as error:
        print(f"no receipt: {one_line(error)}", file=sys.stderr)


def is_figure(name: str) -> bool:
    """Whether there is a module experiments/figures/<name>.py, which draws."""
    return find_spec(f"experiments.figures.{name}") is not None


def _judge(name: str, place: Path, custom: bool, smoke: bool) -> tuple[bool, list[Summary]]:
    """Verdicts and picture, at smoke scale the picture. A sweep of one's own may lack what they need."""
    memory = report.Memory(place)
    names = None if smoke else report.known(memory, [name])
    if names is None:
        from experiments.analysis import pages  # here, for what has not changed to need no matplotlib

        if others := pages.lacking(name, {path.parent.name for path in place.glob("*/runs.csv")}):
            missing = f"it draws runs of {', '.join(sorted(others))} too, which are not in {place}"
            print(f"no figure: {missing}", file=sys.stderr)
            return True, []
        try:
            if smoke:
                report.sketch([name], place)
                return True, []
            names = report.renew(memory, [name])
        except (LookupError, ValueError, ResultsError) as error:
            if not custom and not isinstance(error, ResultsError):
                raise
            lacks = f"no figure: these are not all the runs that {name} compares ({one_line(error)})"
            print(lacks if custom else f"error: {one_line(error)}", file=sys.stderr)
            return custom, []
    for summary in memory.summaries(names):
        print(brief(summary, place, own=summary["name"] == name))
    return True, memory.summaries(names)
