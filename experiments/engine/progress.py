"""How far a sweep has come, for those who wait for it: a bar while it goes on, and its status from outside."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from experiments.analysis.results import ResultsError
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Group
from experiments.engine.experiment import Experiment, pace


def done_and_taken(experiment: Experiment, groups: Sequence[Group]) -> tuple[float, int]:
    """How many runs are done, those in training as fractions, and how many steps these have come to."""
    store, taken = experiment.store, 0
    done = float(sum(store.ended(run.id) for run in experiment.runs))
    for group in groups:
        now = store.progress(group.id)
        done, taken = done + len(group.runs) * now.step / now.total, taken + len(group.runs) * now.step
    return min(done, len(experiment.runs)), taken


@dataclass(kw_only=True)
class Sight:
    """What there is to see: so much `done` of a `total`, which is 0 while it is not known; and what goes on."""

    done: float = 0.0
    total: int = 0
    unit: str = "runs"
    note: str = ""


@contextmanager
def shown(what: str, look: Callable[[], Sight]) -> Iterator[None]:
    """Show what `look` sees while this goes on, on stderr: a bar in a terminal, else a plain line now and then.

    SYRE_PROGRESS=off shows nothing.
    """
    if os.environ.get("SYRE_PROGRESS") == "off":
        yield
        return
    stop = threading.Event()
    watch = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=watch, args=(what, look, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def of_sweep(experiment: Experiment, groups: Sequence[Group]) -> Callable[[], Sight]:
    """What there is to see of a sweep, wherever its groups train."""
    (first, seen), then, total = done_and_taken(experiment, groups), time.monotonic(), len(experiment.runs)

    def look() -> Sight:
        nonlocal seen, then
        done, taken = done_and_taken(experiment, groups)
        note = "" if taken or done > first else "starting the first groups"
        if taken < seen:  # a group has ended
            seen, then = taken, time.monotonic()
        elif taken > seen:
            note = f"{(taken - seen) / (time.monotonic() - then):.0f} steps/s"
        return Sight(done=done, total=total, note=note)

    return look


# ---- a bar, and plain lines ------------------------------------------------------------------------------------------

MEASURED = "{l_bar}{bar}| {n:.1f}/{total} {unit} [{elapsed}<{remaining}{postfix}]"
WAITING = "{desc}{postfix} [{elapsed}]"
FIRST, SOON, SELDOM = 4.0, 30.0, 300.0  # seconds until the first plain line, and from one to the next, growing


class _Bar(tqdm):
    monitor_interval = 0  # no thread of its own: what is refreshed every second needs none, and none can be forked


def _bar(what: str, look: Callable[[], Sight], stop: threading.Event) -> None:
    """A bar that is drawn anew every second, also while nothing is done yet."""
    seen = look()
    options: dict[str, Any] = {"leave": False, "miniters": 1, "mininterval": 0, "bar_format": WAITING}
    options |= _size()
    with _Bar(desc=what, initial=seen.done, total=seen.total or None, **options) as bar:
        while True:
            bar.unit, bar.total = seen.unit, seen.total or None
            bar.bar_format = MEASURED if seen.total else WAITING
            bar.set_postfix_str(seen.note, refresh=False)
            bar.update(seen.done - bar.n)
            bar.refresh()
            if stop.wait(1.0):
                return
            seen = look()


def _size() -> dict[str, int | bool]:
    """As wide as the terminal; some, of containers say, claim to have no width and no height at all."""
    with suppress(OSError, ValueError):
        if not all(os.get_terminal_size(sys.stderr.fileno())):
            return {"ncols": 80, "nrows": 24}
    return {"dynamic_ncols": True}


def _lines(what: str, look: Callable[[], Sight], stop: threading.Event) -> None:
    """A line that says it is alive: the first within seconds, the next ones ever more seldom."""
    begun, already, due = time.monotonic(), look().done, FIRST
    while not stop.wait(begun + due - time.monotonic()):
        elapsed = time.monotonic() - begun
        print(plain_line(what, look(), elapsed, already), file=sys.stderr, flush=True)
        due = elapsed + min(max(SOON, elapsed / 2), SELDOM)


def plain_line(what: str, seen: Sight, elapsed: float, already: float = 0.0) -> str:
    """What a line says after so many seconds, of which `already` was done at the start."""
    if not seen.total:
        return f"{what}: {seen.note}, {duration(elapsed)} so far"
    number = f"{seen.done:.0f}" if float(seen.done).is_integer() else f"{seen.done:.1f}"
    new = seen.done - already
    left = f"about {duration((seen.total - seen.done) * elapsed / new)} left" if new > 0 else ""
    more = ", ".join(filter(None, [f"{duration(elapsed)} so far", left, seen.note]))
    return f"{what}: {number} of {seen.total} {seen.unit} done, {more}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


# ---- from outside ----------------------------------------------------------------------------------------------------


@dataclass
class Status:
    """Where the runs of an experiment stand. A run that failed and is in training again is running."""

    total: int
    done: int = 0
    running: int = 0
    failed: int = 0  # and to be trained again
    tabled: int = 0  # in the tables under results/
    seconds: float = 0.0  # that the runs which are not done will take, as far as is known
    unknown: int = 0  # runs of whose kind none has been timed, or trains
    new: int = 0  # neither done nor running nor in a table: what is to train with adopt=true
    new_seconds: float = 0.0  # of those that are not done and in no table either
    new_unknown: int = 0
    training: list[str] = field(default_factory=list)  # a line for each group
    errors: dict[str, str] = field(default_factory=dict)  # run id -> why it failed

    @property
    def to_train(self) -> int:
        """What the command of the experiment trains: all that has not ended well here, and is not in training."""
        return self.total - self.done - self.running

    @property
    def left(self) -> str:
        """The hours left, with a ? where they are more."""
        return _hours(self.seconds, self.unknown)

    @property
    def adopting(self) -> str:
        """As `left`, of a sweep that adopts the runs of the tables."""
        return _hours(self.new_seconds, self.new_unknown)


def status(experiment: Experiment) -> Status:
    """The status of an experiment. Raises: ResultsError for what is damaged."""
    store, runs = experiment.store, {run.id: run for run in experiment.runs}
    ended = {name: store.facts(name, "seconds") for name in runs if store.ended(name)}
    whole = {name: float(facts["seconds"]) for name, facts in ended.items() if facts["status"] != "failed"}
    tabled = experiment.tabled()
    found = Status(total=len(runs), done=len(whole), tabled=len(tabled))
    left = {name: 1.0 for name in runs if name not in whole}  # what is left of each run, as a fraction

    running, begun = set(), dict[str, float]()
    for group_id, owner in store.held().items():
        members = runs.keys() & _members(experiment, group_id)
        if members:
            now = store.progress(group_id)
            left |= dict.fromkeys(members & left.keys(), 1 - now.step / now.total)
            if now.step and now.seconds:
                begun |= dict.fromkeys(members, now.seconds * now.total / now.step / len(members))
            running |= members & left.keys()
            found.training.append(f"{group_id}: {len(members)} runs, step {now.step} of {now.total}, {owner}")
    found.running = len(running)
    found.errors = {name: ended[name].get("error", "") for name in left if name in ended and name not in running}
    found.failed = len(found.errors)
    seconds = experiment.estimate(begun) | experiment.estimate(tabled | whole)
    for name, rest in left.items():
        known = seconds.get(pace(runs[name]))
        found.seconds += rest * (known or 0.0)
        found.unknown += known is None
        if name not in tabled:
            found.new += name not in running
            found.new_seconds += rest * (known or 0.0)
            found.new_unknown += known is None
    return found


def _hours(seconds: float, unknown: int) -> str:
    if unknown and not seconds:
        return "?"
    return f"{seconds / 3600:.1f}{'+ ?' if unknown else ''}"


def _members(experiment: Experiment, group_id: str) -> set[str]:
    """The ids of the runs of a group, which is that of a single run where nothing is written down about it."""
    with suppress(ConfigError, ResultsError):
        return {run.id for run in experiment.store.load(group_id).runs}
    return {run.id for run in experiment.runs if Group(runs=[run]).id == group_id}
