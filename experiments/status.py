"""`make status`: what of an experiment is done, running, failed and missing, and the hours that are left.

    python -m experiments.status                       every experiment, at scale cpu
    python -m experiments.status fig5 --scale paper    one, with its groups in training and what has failed

The hours are those of a single process: of each run that is missing, the seconds that runs of its kind took, here or
in the committed tables, or else will take at the pace of those in training. Two processes need half of it, where they
have cores of their own.
"""

import argparse
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from experiments.analysis import results
from experiments.engine.config import ConfigError, Run, Scale
from experiments.engine.locks import holder
from experiments.engine.sweep import STEP, Group, expand, group_file, kind, load_group, split

CONFIGS = Path(__file__).parents[1] / "configs"
COMPOSED = CONFIGS.parent / "outputs/.composed"
SOURCES = [
    *sorted(CONFIGS.rglob("*.yaml")),
    Path(__file__).with_name("engine") / "config.py",
    Path(__file__).with_name("engine") / "sweep.py",
]


# ---- a sweep while it goes on ----------------------------------------------------------------------------------------


def steps(folder: Path, group_id: str) -> tuple[int, int, int]:
    """The step that a group in training has come to, its steps in all and its seconds so far; (0, 1, 0) if unknown."""
    with suppress(OSError, ValueError):  # it does not train now, or is just writing
        step, total, seconds = map(int, group_file(folder, group_id, STEP).read_text().split())
        return step, total, seconds
    return 0, 1, 0


def progress(runs: Sequence[Run], groups: Sequence[Group], folder: Path) -> tuple[float, int]:
    """How many runs of a sweep are done, those in training as fractions, and how many steps these have come to."""
    done, taken = float(sum((folder / "runs" / run.id / "done").exists() for run in runs)), 0
    for group in groups:
        step, total, _ = steps(folder, group.id)
        done, taken = done + len(group.runs) * step / total, taken + len(group.runs) * step
    return min(done, len(runs)), taken


@contextmanager
def bar(runs: Sequence[Run], groups: Sequence[Group], folder: Path) -> Iterator[None]:
    """A bar with the time left over the runs of a sweep, wherever they train; nothing unless in a terminal."""
    stop = threading.Event()

    def watch(shown: tqdm) -> None:
        seen, then = progress(runs, groups, folder)[1], time.monotonic()
        while not stop.wait(1.0):
            done, taken = progress(runs, groups, folder)
            shown.update(done - shown.n)
            if taken < seen:  # a group has ended
                seen, then = taken, time.monotonic()
            elif taken > seen:
                shown.set_postfix_str(f"{(taken - seen) / (time.monotonic() - then):.0f} steps/s")

    shape = "{l_bar}{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=len(runs), initial=progress(runs, groups, folder)[0], bar_format=shape, disable=None) as shown:
        thread = threading.Thread(target=watch, args=(shown,), daemon=True)
        if not shown.disable:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()


# ---- a sweep from outside --------------------------------------------------------------------------------------------


@dataclass
class Status:
    """Where the runs of an experiment stand. A run that failed and is in training again is running."""

    total: int
    done: int = 0
    running: int = 0
    failed: int = 0
    tabled: int = 0  # in the tables under results/
    seconds: float = 0.0  # that the runs which are not done will take, as far as is known
    unknown: int = 0  # runs of whose kind none has been timed, or trains
    training: list[str] = field(default_factory=list)  # a line for each group
    errors: dict[str, str] = field(default_factory=dict)  # run id -> why it failed

    @property
    def missing(self) -> int:
        return self.total - self.done - self.running - self.failed

    @property
    def left(self) -> str:
        """The hours left, with a ? where they are more."""
        if self.unknown and not self.seconds:
            return "?"
        return f"{self.seconds / 3600:.1f}{'+ ?' if self.unknown else ''}"


def look(runs: Sequence[Run], folder: Path, tables: Path) -> Status:
    """The status of `runs`, which train in `folder`, outputs/<experiment>; `tables` is results/<experiment>."""
    status, ids = Status(total=len(runs)), {run.id: run for run in runs}
    ended = {}
    for run in runs:
        if (folder / "runs" / run.id / "done").exists():
            ended[run.id] = results.read_facts(folder / "runs" / run.id, "seconds")
    tabled = _tabled(tables)
    status.tabled = len(ids.keys() & tabled.keys())
    timed: dict[str, list[float]] = {}
    for run in runs:
        facts = ended.get(run.id)
        seconds = facts["seconds"] if facts and facts["status"] != "failed" else tabled.get(run.id)
        if seconds is not None:
            timed.setdefault(kind(run), []).append(float(seconds))

    rest = {run.id: 1.0 for run in runs if run.id not in ended or ended[run.id]["status"] == "failed"}
    status.done = len(runs) - len(rest)
    running, begun = set(), dict[str, list[float]]()
    for lock in sorted((folder / "groups").glob("*.lock")):
        owner = holder(lock)
        members = ids.keys() & _members(folder, lock.stem, runs) if owner else set()
        if members:
            step, total, seconds = steps(folder, lock.stem)
            rest |= dict.fromkeys(members & rest.keys(), 1 - step / total)
            for name in members if step and seconds else ():
                begun.setdefault(kind(ids[name]), []).append(seconds * total / step / len(members))
            running |= members & rest.keys()
            status.training.append(f"{lock.stem}: {len(members)} runs, step {step} of {total}, {owner}")
    status.running = len(running)
    status.errors = {name: ended[name].get("error", "") for name in rest if name in ended and name not in running}
    status.failed = len(status.errors)
    for name, share in rest.items():
        known = timed.get(kind(ids[name])) or begun.get(kind(ids[name]))
        status.seconds += share * fmean(known) if known else 0.0
        status.unknown += not known
    return status


def _tabled(tables: Path) -> dict[str, float]:
    """The ids of the runs in the tables, with their seconds."""
    table = results.read_table(tables / "runs.csv")
    return {row["id"]: float(row["seconds"]) for row in table if row["status"] != "failed"}


def _members(folder: Path, group_id: str, runs: Sequence[Run]) -> set[str]:
    """The ids of the runs of a group, which is that of a single run where nothing is written down about it."""
    with suppress(ConfigError, results.ResultsError):
        return {run.id for run in load_group(folder, group_id).runs}
    return {run.id for run in runs if Group(runs=[run]).id == group_id}


# ---- the command line ------------------------------------------------------------------------------------------------


def load(name: str, words: Sequence[str]) -> tuple[DictConfig, list[Run]]:
    """The configuration of an experiment with some overrides, and its runs.

    Hydra takes half a second for some of them, so they are kept, for as long as nothing they are made of changes.
    """
    file = COMPOSED / f"{_digest(name, *words)}.json"
    sources = _digest(*(path.read_text() for path in SOURCES), *map(version, ("hydra-core", "omegaconf")))
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text())
        if kept["sources"] == sources:
            return OmegaConf.create(kept["config"]), [Run(config=config) for config in kept["runs"]]
    plain, keys, axes = split([f"experiment={name}", *words])
    config = compose("config", plain)
    runs = expand(config, lambda members: compose("config", [*plain, *members]), fixed=keys, axes=axes)
    whole = {"sources": sources, "config": OmegaConf.to_container(config, enum_to_str=True),
             "runs": [run.config for run in runs]}  # fmt: skip
    with suppress(results.ResultsError):  # where nothing can be written it takes that time again
        results.write_files({file: json.dumps(whole).encode()})
    return config, runs


def _digest(*words: str) -> str:
    return hashlib.blake2b(json.dumps(words).encode(), digest_size=8).hexdigest()


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    """0; 2 after one line for what the user can mend."""
    known = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m experiments.status", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="default: all of them")
    parser.add_argument("--scale", choices=[scale.value for scale in Scale], default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides, as the sweep was given")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(known)):
        print(f"error: no experiment {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            show(f"{'scale ' + options.scale:12}{'runs':>7}{'done':>7}{'running':>9}{'failed':>8}{'missing':>9}"
                 f"{'in tables':>11}{'hours left':>12}")  # fmt: skip
            for name in options.names or known:
                config, runs = load(name, [f"scale={options.scale}", *options.set])
                status = look(runs, Path(config.outputs) / name, Path(config.results) / name)
                show(f"{name:12}{status.total:7}{status.done:7}{status.running:9}{status.failed:8}{status.missing:9}"
                     f"{status.tabled:11}{status.left:>12}")  # fmt: skip
                if options.names:
                    for line in [*status.training, *(f"failed {run}: {why}" for run, why in status.errors.items())]:
                        show(f"  {' '.join(line.split())[:160]}")
    except (ConfigError, results.ResultsError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
