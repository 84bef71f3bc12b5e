"""A group of runs as one learner: its records, its checkpoints, its failures, and what it leaves on the disk."""

import io
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch

from experiments.analysis import results
from experiments.engine.build import actor, assemble, interacts, load, measures, own_device, share_settings, unfit
from experiments.engine.config import Run
from experiments.engine.errors import ConfigError, OutOfMemory
from experiments.engine.expand import Group
from experiments.engine.provenance import provenance
from experiments.engine.store import Outcome, Progress, RunStore, set_aside
from experiments.engine.store import Record as Line
from syre import distributed
from syre.data import DataError
from syre.trainer import Record, Snapshot, StateError, flush_denormals, train

Row = tuple[int, str, str, list[float]]  # step, split, metric, one value per replica
Stop = Callable[[int, int], bool]  # (step, of all the steps) -> whether to stop; see `syre.trainer.train`
Seen = Callable[[int, int], None]  # is told the same, at every step


@dataclass(kw_only=True)
class _Log:
    """What a group has come to: its records, when it began, and whether it is ours to train."""

    group: Group
    store: RunStore
    device: torch.device
    rows: list[Row] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    ours: bool = False
    due: float = 0.0  # seconds after which it is written down again how far this has come

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def come_to(self, step: int, total: int) -> None:
        """Write down how far this has come, about once a second, and of a long training more seldom."""
        if self.seconds >= self.due:
            self.store.come_to(self.group.id, Progress(step, total, round(self.seconds)))
            self.due = 1.01 * self.seconds + 1.0

    def lines(self, rows: Sequence[Row], replica: int) -> Iterator[Line]:
        """The records of one replica."""
        return ((step, split, metric, values[replica]) for step, split, metric, values in rows)


def train_group(
    group: Group,
    store: RunStore,
    *,
    data_root: str | None,
    alone: bool,
    stop: Stop | None = None,
    seen: Seen | None = None,
) -> Outcome:
    """Train a group from where its last checkpoint left it, and write its runs.

    If `stop` says so it ends before its time, with a checkpoint to go on from, and no run. While it trains it is held
    against other processes: one that comes second is told so.

    A group that fails is written too, as runs of status `failed`; then the error goes on. Where nothing can be written,
    on a full disk say, what is there stays as it is: the last checkpoint can be resumed once there is room. A run
    `alone`, not of a sweep, leaves nothing behind when its settings do not fit or its data is not there.

    Of several processes (`syre.distributed`) the first writes; if they fail, the one that was the first to. `seen` is
    told of every step, for whoever shows it.
    """
    first = group.runs[0]
    device = own_device(first)
    flush_denormals(first.config["compute"]["threads"])
    if distributed.world() > 1 and (reason := keeps_to_one_process(group)):
        raise ConfigError(f"torchrun trains one run over its processes; {reason}: run it without torchrun")
    with ExitStack() as stack:
        try:
            device = stack.enter_context(distributed.join(device))
        except ValueError as misfit:
            raise ConfigError(str(misfit)) from None
        log, error = _Log(group=group, store=store, device=device), None
        acquire = partial(stack.enter_context, store.hold(group.id))
        try:
            outcome = _train(log, acquire, data_root=data_root, stop=_watched(log, _together(stop), seen))
            if outcome is not Outcome.done or not log.ours:
                return outcome
        except Exception as caught:
            error = out_of_memory(caught, group) or caught
            traceback.clear_frames(caught.__traceback__)  # else the tensors live as long as the error does
        with distributed.failure() if error else nullcontext(distributed.rank() == 0) as mine:
            lost = isinstance(error, results.ResultsError) or (alone and isinstance(error, ConfigError | DataError))
            if mine and not lost:
                _write(log, error=error)
            if mine and log.ours and (not lost or measures(first)):  # there is nothing to go on from
                store.discard(group.id)
        if error:
            raise error
    return Outcome.done


def keeps_to_one_process(group: Group) -> str:
    """Why this group cannot be trained over several processes; empty if it can."""
    first = group.runs[0]
    if len(group.runs) > 1:
        return f"group {group.id} is {len(group.runs)} at once"
    if measures(first) or interacts(first):
        return f"{first.id} {'only measures' if measures(first) else 'acts in an environment'}"
    return ""


def give_up(group: Group, store: RunStore, reason: Exception) -> None:
    """Write those runs of a group that have no result as failed, for a reason known only from outside."""
    _write(_Log(group=group, store=store, device=torch.device("cpu")), error=reason)


def out_of_memory(error: Exception, group: Group) -> OutOfMemory | None:
    """The error as one line that says what to lower; None if it says something else."""
    text = " ".join(str(error).split())
    signs = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(sign in text for sign in signs):
        return None
    settings = group.runs[0].train
    advice = f"out of memory with train.batch_size={settings.batch_size}, train.accumulate={settings.accumulate}"
    fewer = f", {len(group.runs)} replicas: set replicas to fewer, or"
    parts = ": raise train.accumulate (the parts in which a batch is trained) or"
    either = fewer if len(group.runs) > 1 else parts
    return OutOfMemory(f"{advice}{either} lower train.batch_size ({text[:200]})")


def _train(log: _Log, acquire: Callable[[], bool], *, data_root: str | None, stop: Stop) -> Outcome:
    """Fill the log, and keep it and all else that the rest depends on at each checkpoint.

    `acquire` takes the group for this process, if no other one has it.
    """
    group, store, leads = log.group, log.store, distributed.rank() == 0
    begin, total = _loop(group, data_root, log.device, stop)
    log.ours = distributed.broadcast(leads and acquire())
    if not log.ours:
        return Outcome.held
    if distributed.broadcast(store.all_finished(group)):
        log.ours = False  # it was another's, which has ended it
        return Outcome.done
    while True:
        state = _state(log)
        if leads and len(group.runs) == 1:
            store.publish(group.id, log.lines(log.rows, 0), anew=True)
        try:
            return _follow(begin(state), total, log)
        except StateError as error:  # it can be read, but another version of the code has written it
            if leads:
                set_aside(store.checkpoint(group.id), error, OVER)
            traceback.clear_frames(error.__traceback__)  # for what is made anew to have its room
        distributed.barrier()
        del begin
        begin, _ = _loop(group, data_root, log.device, stop)


def _follow(events: Iterator[Record | Snapshot], total: int, log: _Log) -> Outcome:
    """Train to the end, or to where it stops: records go to the log, those of a lone run are published too."""
    leads, name, event = distributed.rank() == 0, log.group.id, None
    for event in events:
        if leads and total:
            log.store.come_to(name, Progress(event.step, total, round(log.seconds)))
        if isinstance(event, Record):
            new = [(event.step, event.split, metric, v.tolist()) for metric, v in event.values.items()]
            log.rows += new
            if leads and len(log.group.runs) == 1:
                log.store.publish(name, log.lines(new, 0))
        elif leads:
            _save(log, event.state)
    return Outcome.stopped if isinstance(event, Snapshot) else Outcome.done


# ---- checkpoints -----------------------------------------------------------------------------------------------------

OVER = "its runs start over"  # what follows from one that is damaged


def _save(log: _Log, state: dict[str, Any] | None) -> None:
    """Keep all that the rest of a group depends on; state None is its start."""
    buffer = io.BytesIO()
    own = {"group": log.group.id, "device": log.device.type}
    torch.save({**own, "rows": log.rows, "seconds": log.seconds, "state": state}, buffer)
    results.write_files({log.store.checkpoint(log.group.id): buffer.getvalue()})


def _state(log: _Log) -> dict[str, Any] | None:
    """The state to go on from, whatever device it was made on, and the log as it was then.

    None, the start, where there is none yet, or none that can be read.
    """
    file = log.store.checkpoint(log.group.id)
    if distributed.rank() == 0:
        try:
            made, now = read_checkpoint(log.store, log.group.id).get("device", log.device.type), log.device.type
            if made != now:
                what = "from here on noise, if there is any, is that of another stream"
                print(f"{file} was made on {made}, and goes on on {now}: {what}", file=sys.stderr)
        except (FileNotFoundError, StateError) as error:
            if isinstance(error, StateError):
                set_aside(file, error, OVER)
            log.rows, log.started = [], time.perf_counter()
            _save(log, None)  # a place that cannot be written shows now
    distributed.barrier()
    kept = read_checkpoint(log.store, log.group.id)
    log.rows, log.started = [tuple(row) for row in kept["rows"]], time.perf_counter() - kept["seconds"]
    return cast(dict[str, Any] | None, kept["state"])


def read_checkpoint(store: RunStore, group_id: str) -> dict[str, Any]:
    """The checkpoint of a group. Raises: StateError for a file that is none; FileNotFoundError."""
    path = store.checkpoint(group_id)
    try:
        content = io.BytesIO(path.read_bytes())  # here, for torch raises OSError for a truncated file too
    except FileNotFoundError:
        raise
    except OSError as error:
        raise results.ResultsError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        kept = torch.load(content, weights_only=True, map_location="cpu")
        rows, seconds, state = (kept[key] for key in ("rows", "seconds", "state"))
        whole = isinstance(rows, list) and isinstance(seconds, float) and isinstance(state, dict | None)
        if not whole or kept.get("group", group_id) != group_id:
            raise TypeError("not a checkpoint of this group")
    except Exception as error:  # of pickle, of zip or of torch
        raise StateError(f"{type(error).__name__}: {error}") from error
    return cast(dict[str, Any], kept)


# ---- the loop, and what comes of it ----------------------------------------------------------------------------------


def _watched(log: _Log, stop: Stop | None, seen: Seen | None) -> Stop:
    """`stop`, which is asked at every step, and on the way says how far the training has come."""
    leads = distributed.rank() == 0

    def ask(step: int, total: int) -> bool:
        if leads:
            log.come_to(step, total)
        if seen:
            seen(step, total)
        return stop is not None and stop(step, total)

    return ask


def _together(stop: Stop | None) -> Stop | None:
    """`stop` as the first process answers it, for processes that train together: every twentieth step, as it waits."""
    if stop is None or distributed.world() == 1:
        return stop
    return lambda step, total: step % 20 == 0 and distributed.broadcast(stop(step, total))


def _loop(
    group: Group, data_root: str | None, device: torch.device, stop: Stop
) -> tuple[Callable[[Any], Iterator[Record | Snapshot]], int]:
    """What trains these runs, given the state to go on from (None: the start), and how many steps it takes.

    Raises: as `build`.
    """
    first = group.runs[0]
    share_settings(group)
    if measures(first):
        return lambda _: _measure(group.runs), 0
    if interacts(first):
        replica, make = actor(first, data_root, device), partial(load, first, data_root)
        start = partial(first.task.interact, replica, make, first.train, seed=first.seed, stop=stop)
        return lambda state: start(resume=state), first.train.steps
    learner, batches = assemble(group, data_root, device)
    total = first.train.total_steps(batches.steps_per_epoch, batches.stages)
    return lambda state: train(learner, first.task, batches, first.train, resume=state, stop=stop), total


def _measure(runs: Sequence[Run]) -> Iterator[Record | Snapshot]:
    """The one record of runs that measure without training."""
    with unfit():
        found = [run.task.measure(run.seed) for run in runs]
    values = {name: torch.tensor([row[name] for row in found], dtype=torch.float64) for name in found[0]}
    yield Record(step=0, split="test", values=values)


def _write(log: _Log, *, error: Exception | None) -> None:
    """The directories of the group's runs, but for those that have been finished elsewhere: the first one stays."""
    runs = log.group.runs
    facts = provenance(log.device) | {"group": log.group.id, "seconds": log.seconds / len(runs)}
    if distributed.world() > 1:
        facts["device"] = f"{distributed.world()} x {facts['device']}"
    facts |= {"error": f"{type(error).__name__}: {error}"} if error else {}
    for k, run in enumerate(runs):
        last = {(split, metric): values[k] for _, split, metric, values in log.rows}
        losses = [value for (_, metric), value in last.items() if metric == "loss"]
        judged = losses or list(last.values())  # a diagnostic, PPO's KL say, may overflow in a run that is well
        healthy = bool(judged) and all(map(math.isfinite, judged))
        status = "failed" if error else "done" if healthy else "nan"
        if not log.store.finished(run.id):
            log.store.write(run, log.lines(log.rows, k), {"status": status, **facts})
