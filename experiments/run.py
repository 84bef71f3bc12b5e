"""The command line: a run, a group of a sweep, or a whole sweep, its tables, verdicts and picture.

    python -m experiments.run regularizer=syre data=mnist               one run
    python -m experiments.run -m experiment=fig4 scale=cpu              a figure: trains what is missing, judges, draws
    python -m experiments.run -m regularizer=syre regularizer.sigma=0.01,0.1,1 seed=0,1,2
    torchrun --nproc-per-node 2 -m experiments.run model=vit data=cifar10     one run over two GPUs (syre.distributed)

Each run leaves outputs/<experiment>/runs/<id>/{config.yaml, metrics.csv, run.json, done}, `done` last.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.engine.config import Run, identity
from experiments.engine.errors import ConfigError, Killed, OutOfMemory, is_users, one_line
from experiments.engine.expand import Group, as_axis
from experiments.engine.experiment import CONFIGS, FREE
from experiments.engine.preemption import Stop
from experiments.engine.processes import rank, torchrun, world, write_whole_lines
from experiments.engine.progress import Sight, shown
from experiments.engine.store import Outcome, RunStore
from experiments.engine.sweep import is_figure, mirror_of
from experiments.engine.words import called, ended, names

# torch, and syre with it, is imported where something is to be trained: what is finished costs no second of it.


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def main(config: DictConfig) -> str | None:
    """One job: a group of a sweep, or one run of its own; how it ended (`Outcome`)."""
    write_whole_lines()  # this may be a process of the launcher's
    store = RunStore(Path(config.outputs) / config.experiment)
    # In one line here too: Hydra would add one to an error that leaves the job. A sweep takes the errors of its jobs.
    with nullcontext() if HydraConfig.get().mode is RunMode.MULTIRUN else said_in_one_line():
        if config.group is not None:
            group = store.load(config.group)
            return Outcome.done if store.all_finished(group) else _train(group, store, config)  # another may have
        _alone(Run(config=identity(config)), store, config)
    return Outcome.done


def _alone(run: Run, store: RunStore, config: DictConfig) -> None:
    """Train a run of its own, unless it has ended before, and say what it has come to."""
    group, before = Group(runs=[run]), store.finished(run.id)
    now = Sight(unit="steps", note="loading torch and the data set")
    with shown(names([run])[run.id], lambda: now) if rank() == 0 and not before else nullcontext():
        if before:
            store.discard(group.id)
        else:
            run.check()
        with mirror_of(config) if rank() == 0 else nullcontext() as mirror:
            if mirror:  # also if it is finished: it may not have been mirrored then
                mirror.watch([run.id], live=[] if before else [group], called=called([run]))
            if not before and _train(group, store, config, alone=True, now=now) == Outcome.held:
                owner = store.holder(group.id)
                raise ConfigError(f"run {run.id} is in training already ({owner}): wait for it")
            now.note = "waiting for W&B" if mirror else ""
    if rank() == 0:
        status, (_, records) = store.facts(run.id)["status"], store.rows(run.id)
        how = "finished" + " before" * before + ", but its loss is not finite" * (status == "nan")
        print(f"{how}: {ended(records)} ({store.run(run.id)})")


def _train(
    group: Group, store: RunStore, config: DictConfig, *, alone: bool = False, now: Sight | None = None
) -> Outcome:
    """Train a group here; on a signal that asks to stop, leave with a checkpoint. `now` has how far it has come."""
    from experiments.engine.training import keeps_to_one_process, train_group

    def seen(step: int, total: int) -> None:
        if now:
            now.done, now.total, now.note = step, total, ""

    job = HydraConfig.get()
    processes = job.launcher.get("processes", 1)
    if processes > 1 and world() == 1 and not keeps_to_one_process(group):
        return torchrun(group, store, processes, job.overrides.task)
    with Stop() as stop:
        outcome = train_group(group, store, data_root=config.data_root, alone=alone, stop=stop, seen=seen)
    if outcome is Outcome.stopped:
        stop.leave()
    if signal.SIGTERM in stop.asked:  # with the last step: it is for what comes next, the next group of a sweep say
        signal.raise_signal(signal.SIGTERM)
    return outcome


@contextmanager
def said_in_one_line() -> Iterator[None]:
    """What the user can mend is one line on stderr and exit code 2; 1 where there is a row that says so."""
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on with what is missing", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if world() > 1:
            from syre import distributed

            distributed.wait_for_report()
        if not is_users(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, OutOfMemory | Killed) else 2)


def _prepare(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra is to read it.

    In a sweep, what only some of the runs may have becomes an axis, which Hydra leaves to the sweep. And what says
    itself what it trains may have a name of its own, `experiment=mine`, as if there were an empty file of that name.
    """
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    names = [word.removeprefix("experiment=") for word in overrides if word.startswith("experiment=")]
    if names and _may_be_new(names[-1]) and not FREE.issuperset(re.split("[./=]", word)[0] for word in overrides):
        node = {"experiment": names[-1]}
        ConfigStore.instance().store(group="experiment", name=names[-1], node=node, package="_global_")
    for word in overrides:
        _require_names(word)
    sweeps = "-m" in arguments or "--multirun" in arguments
    return [as_axis(word) if sweeps and word in overrides else word for word in arguments]


def _require_names(word: str) -> None:
    """Raise ConfigError where a group, `model` say, is set to what is no name: Hydra would not say which."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:  # which Hydra says itself
        return
    key = override.get_key_element()
    if override.type is not OverrideType.CHANGE or not (folder := CONFIGS / key).is_dir() or not key.isidentifier():
        return
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        if not isinstance(value, str | list | QuotedString):
            names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            said = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            raise ConfigError(f"{key} must be the name of one of configs/{key} ({names}), got {said}")


def _may_be_new(experiment: str) -> bool:
    """Whether this is a name that is not taken, and not like that of a figure: `fig99` is a mistake."""
    if not re.fullmatch(r"(?!(fig|table)\d)[a-zA-Z][\w-]*", experiment, re.ASCII):
        return False
    return not (CONFIGS / f"experiment/{experiment}.yaml").exists() and not is_figure(experiment)


def cli() -> None:
    """Exit code 0; 1 for runs that failed; 2 after one line for what the user can mend."""
    write_whole_lines()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra's way of letting errors through to the line below
    with said_in_one_line():
        sys.argv[1:] = _prepare(sys.argv[1:])
        main()


if __name__ == "__main__":
    from experiments.run import cli  # so that worker processes find the job by its name, not inside __main__

    cli()
