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
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from tqdm import tqdm

from experiments import results
from experiments.config import ConfigError, Run, Wandb, identity, resolve
from experiments.sweep import Group, expand, finished, load_group, plan
from experiments.training import STEP, OutOfMemory, device_of, group_size, train_group
from syre import distributed
from syre.data import DataError

USER_ERRORS = (ConfigError, DataError, results.ResultsError, HydraException, OmegaConfBaseException)
# What leaves a figure's runs what they are; the tables of any other sweep do not go to results/.
FREE = ("experiment", "scale", "outputs", "results", "data_root", "wandb", "hydra")


# ---- a sweep ---------------------------------------------------------------------------------------------------------


def sweep(config: DictConfig, arguments: Sequence[str], compose: Callable[[list[str]], DictConfig],
          launcher: Any) -> None:  # fmt: skip
    """Train what is missing of an experiment, collect its tables, judge its claims and draw its figure."""
    given = OverridesParser.create().parse_overrides(list(arguments))
    axes = {o.get_key_element(): [_plain(v) for v in o.sweep_iterator()] for o in given if o.is_sweep_override()}
    plain = [word for word, o in zip(arguments, given, strict=True) if not o.is_sweep_override()]
    keys = [o.get_key_element() for o in given]

    if distributed.world() > 1:
        raise ConfigError("torchrun trains one run, or one group of a sweep (group=...), over its processes; "
                          "a sweep (-m) runs without torchrun")  # fmt: skip
    runs = expand(config, lambda members: compose([*plain, *members]), fixed=keys, axes=axes)
    folder = Path(config.outputs) / config.experiment
    device_of(config.compute.device)
    for run in {json.dumps(run.config["data"]): run for run in runs if run.data is not None}.values():
        run.data.load(root=config.data_root, seed=run.seed)  # missing data is found before anything is written
    size = (lambda run: config.replicas) if config.replicas else (lambda run: group_size(run, config.data_root))
    groups = plan(runs, folder, batched=config.batched, size=size)
    missing = sum(not finished(folder, run.id) for run in runs)
    print(f"{config.experiment}: {len(runs)} runs at scale {config.scale}, {missing} to train in {len(groups)} groups",
          flush=True)  # fmt: skip

    failed: list[Any] = []
    if groups:
        with _progress(runs, groups, folder):  # quoted: an id may look like a number, 12e456 being infinity
            try:
                jobs = launcher.launch([[*plain, f"group='{group.id}'"] for group in groups], initial_job_idx=0)
            except BrokenExecutor:
                raise OutOfMemory(
                    "a process was killed, most likely for want of memory: lower hydra.launcher.n_jobs or "
                    "train.batch_size; the same command goes on with what is missing"
                ) from None
        failed = [job._return_value for job in jobs if job.status is not JobStatus.COMPLETED]
    custom = any(re.split("[./]", key)[0] not in FREE for key in keys)
    place = folder / f"results-{'custom' if custom else config.scale}"
    if not custom and config.scale != "smoke":
        place = Path(config.results)
    if failed:
        print(f"{len(failed)} of {len(groups)} groups failed, the first with {_line(failed[0])}", file=sys.stderr)
    results.collect(Path(config.outputs), place, config.experiment, config.scale, [run.id for run in runs])
    print(f"tables: {place / config.experiment}")
    if _is_figure(config.experiment) and _judge(config.experiment, place, custom):
        raise SystemExit(2)
    if failed:
        raise SystemExit(1)


def _is_figure(name: str) -> bool:
    """Whether there is a module experiments/<name>.py that draws; `run`, the experiment without a name, is none."""
    return find_spec(f"experiments.{name}") is not None and hasattr(import_module(f"experiments.{name}"), "draw")


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


def _plain(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def progress(runs: Sequence[Run], groups: Sequence[Group], folder: Path) -> tuple[float, int]:
    """How many runs of a sweep are done, those in training as fractions, and how many steps these have come to."""
    done, steps = float(sum((folder / "runs" / run.id / "done").exists() for run in runs)), 0
    for group in groups:
        with suppress(OSError, ValueError):  # it does not train now, or is just writing
            step, total = map(int, (folder / "groups" / f"{group.id}{STEP}").read_text().split())
            done, steps = done + len(group.runs) * step / total, steps + len(group.runs) * step
    return min(done, len(runs)), steps


@contextmanager
def _progress(runs: Sequence[Run], groups: Sequence[Group], folder: Path) -> Iterator[None]:
    """A bar with the time left over the runs of a sweep, wherever they train; nothing unless in a terminal."""
    stop = threading.Event()

    def watch(bar: tqdm) -> None:
        seen, then = progress(runs, groups, folder)[1], time.monotonic()
        while not stop.wait(1.0):
            done, steps = progress(runs, groups, folder)
            bar.update(done - bar.n)
            if steps < seen:  # a group has ended
                seen, then = steps, time.monotonic()
            elif steps > seen:
                bar.set_postfix_str(f"{(steps - seen) / (time.monotonic() - then):.0f} steps/s")

    shape = "{l_bar}{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=len(runs), initial=progress(runs, groups, folder)[0], bar_format=shape, disable=None) as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        if not bar.disable:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()


# ---- the command line ------------------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parents[1] / "configs"), config_name="config")
def main(config: DictConfig) -> None:
    """One job: a group of a sweep, or one run of its own."""
    folder = Path(config.outputs) / config.experiment
    options: dict[str, Any] = {"data_root": config.data_root, "wandb": Wandb(**config.wandb)}
    if config.group is not None:
        train_group(load_group(folder, config.group), folder, **options, alone=False)
        return
    with one_line():  # here too: Hydra would add a line to an error that leaves the job
        run = resolve(identity(config))
        before = finished(folder, run.id)
        if not before:
            train_group(Group(runs=[run]), folder, **options, alone=True)
        if distributed.rank() == 0:
            print(f"finished{' before' if before else ''}: {folder / 'runs' / run.id}")


@contextmanager
def one_line() -> Iterator[None]:
    """What the user can mend is one line on stderr and exit code 2; 1 where there is a row that says so."""
    try:
        yield
    except (*USER_ERRORS, OutOfMemory) as error:
        distributed.after_you()
        print(f"error: {_line(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, OutOfMemory) else 2)
    except Exception:
        distributed.after_you()
        raise


def _line(error: BaseException) -> str:
    """An error and what Hydra hides behind it, as one line."""
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        allowed = ", ".join(sorted(key for key in map(str, cause.parent_node) if not key.startswith("_")))
        return f"unknown key {cause.full_key}; it may be one of {allowed}"
    text = "; ".join(" ".join(str(e).split()) for e in (error, cause) if e is not None)
    text = text.split(" Config search path:")[0]
    return text if isinstance(error, (*USER_ERRORS, OutOfMemory)) else f"{type(error).__name__}: {text}"


def cli() -> None:
    """Exit code 0; 1 for runs that failed; 2 after one line for what the user can mend."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra's way of letting errors through to the line below
    with one_line():
        main()


if __name__ == "__main__":
    from experiments.run import cli  # so that worker processes find the job by its name, not inside __main__

    cli()
