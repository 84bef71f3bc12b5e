"""How far a sweep has come, for those who wait for it: a bar while it goes on, and its status from outside."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

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


@contextmanager
def bar(experiment: Experiment, groups: Sequence[Group]) -> Iterator[None]:
    """A bar with the time left over the runs of a sweep, wherever they train; nothing unless in a terminal."""
    stop = threading.Event()

    def watch(shown: tqdm) -> None:
        seen, then = done_and_taken(experiment, groups)[1], time.monotonic()
        while not stop.wait(1.0):
            done, taken = done_and_taken(experiment, groups)
            shown.update(done - shown.n)
            if taken < seen:  # a group has ended
                seen, then = taken, time.monotonic()
            elif taken > seen:
                shown.set_postfix_str(f"{(taken - seen) / (time.monotonic() - then):.0f} steps/s")

    shape = "{l_bar}{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]"
    done, total = done_and_taken(experiment, groups)[0], len(experiment.runs)
    with tqdm(total=total, initial=done, bar_format=shape, disable=None) as shown:
        thread = threading.Thread(target=watch, args=(shown,), daemon=True)
        if not shown.disable:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.is_alive():
                thread.join()


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
    new_seconds: float = 0.0  # and those of them that are in no table either
    new_unknown: int = 0
    training: list[str] = field(default_factory=list)  # a line for each group
    errors: dict[str, str] = field(default_factory=dict)  # run id -> why it failed

    @property
    def missing(self) -> int:
        return self.total - self.done - self.running - self.failed

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
