"""The command line: a run, a group of a sweep, or a whole sweep, its tables, verdicts and picture.

    python -m experiments.run regularizer=syre data=mnist               one run
    python -m experiments.run -m experiment=fig4 scale=cpu              a figure: trains what is missing, judges, draws
    python -m experiments.run -m regularizer=syre regularizer.sigma=0.01,0.1,1 seed=0,1,2
    torchrun --nproc-per-node 2 -m experiments.run model=vit data=cifar10     one run over two GPUs (syre.distributed)

Each run leaves outputs/<experiment>/runs/<id>/{config.yaml, metrics.csv, run.json, done}, `done` last.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from experiments.analysis import results
from experiments.engine.cards import spread
from experiments.engine.config import ConfigError, Killed, OutOfMemory, Run, identity
from experiments.engine.locks import hold, holder
from experiments.engine.preemption import Stop
from experiments.engine.sweep import Ending, Group, as_axis, expand, finished, group_file, load_group, plan, split
from experiments.engine.tracking import Mirror
from experiments.status import CONFIGS, bar

# torch, and syre with it, is imported where something is to be trained: what is finished costs no second of it.

USER_ERRORS = (ConfigError, results.ResultsError, HydraException, OmegaConfBaseException)
# What leaves a figure's runs what they are; the tables of any other sweep do not go to results/.
FREE = {"experiment", "scale", "outputs", "results", "data_root", "wandb", "hydra"}


# ---- a sweep ---------------------------------------------------------------------------------------------------------


def sweep(config: DictConfig, arguments: Sequence[str], compose: Callable[[list[str]], DictConfig],
          launcher: Any) -> None:  # fmt: skip
    """Train what is missing of an experiment, collect its tables, judge its claims and draw its figure."""
    plain, keys, axes = split(arguments)
    if _world() > 1:
        raise ConfigError("torchrun trains one run, or one group of a sweep (group=...), over its processes; "
                          "a sweep (-m) runs without torchrun")  # fmt: skip
    runs = expand(config, lambda members: compose([*plain, *members]), fixed=keys, axes=axes)
    folder = Path(config.outputs) / config.experiment
    missing = [run for run in runs if not finished(folder, run.id)]
    custom = not FREE.issuperset(map(_root, keys))
    place = folder / f"results-{'custom' if custom else config.scale}"
    if not custom and config.scale != "smoke":
        place = Path(config.results)
    for table in results.TABLES if missing else ():  # one that is damaged is found before the hours of training
        results.read_table(place / config.experiment / table)

    groups = _plan(config, runs, missing, folder, elsewhere=getattr(launcher, "elsewhere", False))
    what = f"{len({run.id for group in groups for run in group.runs})} to train in {len(groups)} groups"
    print(f"{config.experiment}: {len(runs)} runs at scale {config.scale}, {what}", flush=True)
    failed: list[Exception] = []
    with _mirror(config) as mirror:
        if mirror:
            mirror.watch((run.id for run in runs), live=[group for group in groups if len(group.runs) == 1])
        if groups:
            spread(launcher, config)
            with bar(runs, groups, folder):
                failed = _launch(launcher, groups, folder, plain)
        if failed:
            print(f"{len(failed)} of {len(groups)} groups failed, the first with {_line(failed[0])}", file=sys.stderr)
        with hold(place / f".{config.experiment}.lock", patience=600) as ours:
            if not ours:
                raise results.ResultsError(
                    f"another sweep has been writing {place / config.experiment} for ten minutes"
                )
            results.collect(Path(config.outputs), place, config.experiment, config.scale, [run.id for run in runs])
            print(f"tables: {place / config.experiment}")
            unclear = _is_figure(config.experiment) and _judge(config.experiment, place, custom)
        if mirror and groups:
            made = [path for path in sorted((place / config.experiment).iterdir()) if path.is_file()]
            mirror.artifact(f"{config.experiment}-{place.name}", config.scale, made)
    if unclear:
        raise SystemExit(2)
    if failed:
        raise SystemExit(1)


def _plan(
    config: DictConfig, runs: Sequence[Run], missing: Sequence[Run], folder: Path, elsewhere: bool
) -> list[Group]:
    """The groups to train. Wrong settings and missing data are found here, before anything is written."""
    if not missing:
        return []
    for run in missing:
        run.check()
    from experiments.engine.training import fitting, group_size, load, own_device

    for run in () if elsewhere else _one_of_each(missing, "compute", "task"):  # another machine has other devices
        own_device(run)
    for run in _one_of_each(missing, "data"):
        if run.data is not None:
            load(run, config.data_root)
    size = (lambda run: config.replicas) if config.replicas else (lambda run: group_size(run, config.data_root))
    return plan(runs, folder, batched=config.batched, size=size, check=fitting(config.data_root))


def _one_of_each(runs: Sequence[Run], *parts: str) -> list[Run]:
    """A run for each of the settings that there are of these parts of a configuration."""
    return list({json.dumps([run.config[part] for part in parts]): run for run in runs}.values())


def _launch(launcher: Any, groups: Sequence[Group], folder: Path, words: Sequence[str]) -> list[Exception]:
    """Train groups, those that another sweep trains now after it has let go of them; the errors of those that fail."""
    failed: list[Exception] = []
    while groups:
        # Quoted: an id may look like a number, 12e456 being infinity.
        try:
            jobs = launcher.launch([[*words, f"group='{group.id}'"] for group in groups], initial_job_idx=0)
        except BrokenExecutor as error:
            raise Killed(_why_killed(str(error))) from None
        held = []
        for group, job in zip(groups, jobs, strict=True):
            if job.status is not JobStatus.COMPLETED:
                failed.append(job._return_value)
                _give_up(group, folder, job._return_value)
            elif job.return_value == Ending.held:
                held.append(group)
        groups = held
        for group in held:
            lock = group_file(folder, group.id, ".lock")
            if owner := holder(lock):
                print(f"group {group.id} is in training elsewhere ({owner}): waiting for it", flush=True)
            while holder(lock):
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


def _give_up(group: Group, folder: Path, reason: Exception) -> None:
    """A job that ended without a word, its machine lost say, leaves rows that say so."""
    if not all((folder / "runs" / run.id / "done").exists() for run in group.runs):
        from experiments.engine.training import give_up

        give_up(group, folder, reason)


def _mirror(config: DictConfig) -> AbstractContextManager[Mirror | None]:
    """W&B, in a process of its own, which is given a moment in the end."""
    folder = Path(config.outputs) / config.experiment
    mirror = Mirror.start(mode=config.wandb.mode, project=config.wandb.project, folder=folder,
                          experiment=config.experiment)  # fmt: skip
    return mirror or nullcontext()


def _is_figure(name: str) -> bool:
    """Whether there is a module experiments/figures/<name>.py, which draws."""
    return find_spec(f"experiments.figures.{name}") is not None


def _judge(name: str, place: Path, custom: bool) -> int:
    """Verdicts and picture; 2 if that fails. A sweep of one's own may lack what they need, and ends with its tables."""
    from experiments import report  # here, for training to need no matplotlib

    try:
        code = report.main([name, "--results", str(place)])
    except (LookupError, ValueError) as error:
        if not custom:
            raise
        print(f"error: {_line(error)}", file=sys.stderr)
        code = 2
    if code and custom:
        print(f"no figure: these are not all the runs that {name} compares", file=sys.stderr)
    return 0 if custom else code


def _root(key: str) -> str:
    """The first part of a key, or of an override."""
    return re.split("[./=]", key)[0]


# ---- the command line ------------------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def main(config: DictConfig) -> str | None:
    """One job: a group of a sweep, or one run of its own; how it ended (`Ending`)."""
    folder = Path(config.outputs) / config.experiment
    # In one line here too: Hydra would add one to an error that leaves the job. A sweep takes the errors of its jobs.
    with nullcontext() if HydraConfig.get().mode is RunMode.MULTIRUN else one_line():
        if config.group is not None:
            return _train_packed(config, folder)
        run = Run(config=identity(config))
        group, before = Group(runs=[run]), finished(folder, run.id)
        if not before:
            run.check()
        with _mirror(config) if _rank() == 0 else nullcontext() as mirror:
            if mirror:  # also if it is finished: it may not have been mirrored then
                mirror.watch([run.id], live=[] if before else [group])
            if not before and _train(group, folder, config, alone=True) == Ending.held:
                owner = holder(group_file(folder, group.id, ".lock"))
                raise ConfigError(f"run {run.id} is in training already ({owner}): wait for it")
        if _rank() == 0:
            print(f"finished{' before' if before else ''}: {folder / 'runs' / run.id}")
    return Ending.done


def _train_packed(config: DictConfig, folder: Path) -> str:
    """Train a group of a sweep, as it was packed."""
    group = load_group(folder, config.group)
    if _all_finished(group, folder):  # by another sweep, meanwhile
        return Ending.done
    return _train(group, folder, config)


def _train(group: Group, folder: Path, config: DictConfig, *, alone: bool = False) -> str:
    """Train a group here; on a signal that asks to stop, leave with a checkpoint."""
    from experiments.engine.training import keeps_to_one_process, train_group

    processes = HydraConfig.get().launcher.get("processes", 1)
    if processes > 1 and _world() == 1 and not keeps_to_one_process(group):
        return _torchrun(group, folder, processes)
    with Stop() as stop:
        ending = train_group(group, folder, data_root=config.data_root, alone=alone, stop=stop)
    if ending is Ending.stopped:
        stop.leave()
    return ending


def _torchrun(group: Group, folder: Path, processes: int) -> str:
    """Train the only run of a group over several processes of this machine, which are stopped by the same signal."""
    words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "experiments.run"]
    child = subprocess.Popen([sys.executable, *words, *HydraConfig.get().overrides.task])
    with Stop(lambda: child.send_signal(signal.SIGTERM)) as stop:  # torchrun hands it to all of them
        code = child.wait()
    if _all_finished(group, folder):
        return Ending.done
    if stop.asked:
        stop.leave()
    if code:
        raise RuntimeError(f"torchrun ended with exit code {code}")
    return Ending.held


def _all_finished(group: Group, folder: Path) -> bool:
    return all(finished(folder, run.id) for run in group.runs)


def _world() -> int:
    """`syre.distributed.world`, without torch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _rank() -> int:
    """`syre.distributed.rank`, without torch."""
    return int(os.environ.get("RANK", "0")) if _world() > 1 else 0


@contextmanager
def one_line() -> Iterator[None]:
    """What the user can mend is one line on stderr and exit code 2; 1 where there is a row that says so."""
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on with what is missing", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if _world() > 1:
            from syre import distributed

            distributed.wait_for_report()
        if not _for_the_user(error):
            raise
        print(f"error: {_line(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, OutOfMemory | Killed) else 2)


def _for_the_user(error: BaseException) -> bool:
    """Whether it is something that the user can mend, and says all in one line."""
    if isinstance(error, (*USER_ERRORS, OutOfMemory, Killed)):
        return True
    from syre.data import DataError

    return isinstance(error, DataError)


def _line(error: BaseException) -> str:
    """An error and what Hydra hides behind it, as one line."""
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        allowed = ", ".join(sorted(key for key in map(str, cause.parent_node) if not key.startswith("_")))
        return f"unknown key {cause.full_key}; it may be one of {allowed}"
    ours = _for_the_user(error) and not isinstance(error, HydraException | OmegaConfBaseException)  # it says all
    text, more = (" ".join(str(e or "").split()) for e in (error, None if ours else cause))
    if more not in text:
        text = more if text in more else f"{text}; {more}"
    text = text.split(" Config search path:")[0]
    return text if _for_the_user(error) else f"{type(error).__name__}: {text}"


def _prepare(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra is to read it.

    In a sweep, what only some of the runs may have becomes an axis, which Hydra leaves to the sweep. And what says
    itself what it trains may have a name of its own, `experiment=mine`, as if there were an empty file of that name.
    """
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    names = [word.removeprefix("experiment=") for word in overrides if word.startswith("experiment=")]
    if names and _may_be_new(names[-1]) and not FREE.issuperset(map(_root, overrides)):
        ConfigStore.instance().store(
            group="experiment", name=names[-1], node={"experiment": names[-1]}, package="_global_"
        )
    sweeps = "-m" in arguments or "--multirun" in arguments
    return [as_axis(word) if sweeps and word in overrides else word for word in arguments]


def _may_be_new(experiment: str) -> bool:
    """Whether this is a name that is not taken, and not like that of a figure: `fig99` is a mistake."""
    if not re.fullmatch(r"(?!(fig|table)\d)[a-zA-Z][\w-]*", experiment, re.ASCII):
        return False
    return not (CONFIGS / f"experiment/{experiment}.yaml").exists() and not _is_figure(experiment)


def cli() -> None:
    """Exit code 0; 1 for runs that failed; 2 after one line for what the user can mend."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra's way of letting errors through to the line below
    with one_line():
        sys.argv[1:] = _prepare(sys.argv[1:])
        main()


if __name__ == "__main__":
    from experiments.run import cli  # so that worker processes find the job by its name, not inside __main__

    cli()
