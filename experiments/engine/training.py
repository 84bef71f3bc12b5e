"""From runs to trained runs on disk: a group of them as one learner, its records, its checkpoints, its failures."""

import io
import json
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from tqdm import tqdm

from experiments.analysis import results
from experiments.engine.config import ConfigError, OutOfMemory, Run
from experiments.engine.locks import hold
from experiments.engine.provenance import provenance
from experiments.engine.sweep import LIVE, STEP, Ending, Group, finished, group_file, set_aside
from syre import distributed
from syre.batches import Batches
from syre.data import DataError
from syre.learners import Learner, Replica, learner, replicas_per_process
from syre.models import Noisy
from syre.seeding import derive_seed, generator
from syre.trainer import Record, Snapshot, StateError, flush_denormals, has_bf16, train

Row = tuple[int, str, str, list[float]]  # step, split, metric, one value per replica

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml: ten times faster

# Threads that a run may have on a machine of fewer CPUs too, for a run of a larger one to be repeated there number for
# number. It is asked where the run trains: it may have been composed elsewhere, on the login node of a cluster say.
THREADS = 64

# ---- from a configuration to something that trains -------------------------------------------------------------------


def own_device(run: Run) -> torch.device:
    """The device on which a run trains on this machine.

    Raises:
        ConfigError: no such device here, or one that the run cannot use; too many threads.
    """
    threads, most = run.config["compute"]["threads"], max(os.cpu_count() or 1, THREADS)
    if threads > most:
        raise ConfigError(f"compute.threads must be in 0, ..., {most} on this machine, got {threads}")
    if measures(run) and hasattr(run.task, "device"):
        device_of(run.task.device, "task.device")
    device = device_of(run.config["compute"]["device"])
    if interacts(run) and device.type != "cpu":
        raise ConfigError(f"task={run.config['task']['name']} runs on the CPU: set compute.device=cpu")
    return device


def device_of(name: str, setting: str = "compute.device") -> torch.device:
    """The torch device; `auto` is the GPU if there is one.

    Raises:
        ConfigError: another device than a CPU or a CUDA GPU, or one that is not there; `auto` where there are GPUs that
            torch cannot use.
    """
    if name == "auto":
        if not torch.cuda.is_available() and (given := _given_gpus()):
            build = f"for CUDA {torch.version.cuda}, which this driver may be too old for" if torch.version.cuda else \
                "without CUDA"  # fmt: skip
            raise ConfigError(f"compute.device=auto: there are GPUs here ({given}), but torch {torch.__version__} sees "
                              f"none (it is built {build}): install a build of torch that fits, or set "
                              "compute.device=cpu")  # fmt: skip
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name, re.ASCII):
        raise ConfigError(f"{setting} must be auto, cpu or cuda[:index], got {name!r}")
    if name != "cpu" and int(name[5:] or 0) >= torch.cuda.device_count():
        raise ConfigError(f"{setting}={name} asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


@contextmanager
def _unfit(who: str = "") -> Iterator[None]:
    """Settings that do not fit one another, as a library class says it by ValueError, are the user's to mend."""
    try:
        yield
    except ValueError as error:
        named = not who or who.split("=")[0] in str(error)
        raise ConfigError(str(error) if named else f"{who} on this model: {error}") from None


def load(run: Run, data_root: str | None) -> Any:
    """The data set, or environment, of a run.

    Raises:
        ConfigError: more samples than there are, say. DataError: data missing or damaged.
    """
    with _unfit():
        return run.data.load(root=data_root, seed=run.seed)


def _given_gpus() -> str:
    """What says that this process has been given GPUs, by SLURM or by who started it; empty if nothing does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1", "NoDevFiles"):  # they are hidden, or, as SLURM says it, there are none
        return ""
    names = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES")
    given = {name: os.environ.get(name) for name in names}
    if given["SLURM_GPUS_ON_NODE"] == "0":  # how many, where the others list them
        del given["SLURM_GPUS_ON_NODE"]
    return ", ".join(f"{name}={value}" for name, value in given.items() if value)


def build(run: Run, data_root: str | None, device: torch.device) -> tuple[Replica, Any]:
    """A run as a replica, ready to train, and its data set.

    Raises:
        ConfigError: settings that do not fit one another. DataError: data missing or damaged.
    """
    data, regularizer = load(run, data_root), f"regularizer={run.regularizer.name}"
    with _unfit():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(run.seed, "init"))
            model = run.model.build(data.input_shape, data.num_classes).to(device)
        run.task.accept(model, data, run.train)
    with _unfit(regularizer):
        run.regularizer.prepare(model, run.seed)
    with _unfit():
        optimizer = run.optim.build(model, run.regularizer.weight_decay)
    with _unfit(regularizer):
        handle = run.regularizer.attach(optimizer, model, run.seed)
    noise = generator(run.seed, "noise", device=device)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=noise), data


def assemble(group: Group, data_root: str | None, device: torch.device) -> tuple[Learner, Batches]:
    """The runs of a group as one learner, and their batches.

    Raises:
        ConfigError: settings that do not fit one another. DataError: data missing or damaged.
    """
    first, compute = group.runs[0], group.runs[0].config["compute"]
    replicas, batches = _prepare(group, data_root, device)
    bf16 = compute["precision"] == "bf16" or (
        compute["precision"] == "auto" and len(replicas) == 1 and has_bf16(device)
    )
    single = {"compiled": compute["compile"], "accumulate": first.train.accumulate}
    with _unfit():
        return learner(replicas, autocast=torch.bfloat16 if bf16 else None, **single), batches


def _prepare(group: Group, data_root: str | None, device: torch.device) -> tuple[list[Replica], Batches]:
    """The runs of a group, each by itself, and their batches."""
    first = group.runs[0]
    _share_settings(group)
    built = [build(run, data_root, device) for run in group.runs]
    scales = [getattr(run.data, "input_scale", 1.0) for run in group.runs]
    with _unfit():
        batches = Batches(
            [data for _, data in built], scales=scales, seeds=[run.seed for run in group.runs],
            batch_size=first.train.batch_size, device=device, rank=distributed.rank(), world=distributed.world(),
        )  # fmt: skip
    share, parts = batches.batch_size // distributed.world(), first.train.accumulate
    if share % parts:
        raise ConfigError(f"the batch of a process, {share}, must be a multiple of train.accumulate={parts}")
    return [replica for replica, _ in built], batches


def _share_settings(group: Group) -> None:
    """Make sure that the runs of a group differ in nothing that they have but once."""
    if len(group.runs) == 1:
        return
    first = group.runs[0]
    compute = first.config["compute"]
    if len({run.config["task"]["_target_"] for run in group.runs}) > 1:
        raise ConfigError("runs that train as one have one task: `task` cannot be in batched=[...]")
    if measures(first):
        return
    for part in ("task", "train", "compute"):
        if any(run.config[part] != first.config[part] for run in group.runs):
            raise ConfigError(f"runs that train as one share their {part}: nothing of it can be in batched=[...]")
    if interacts(first):
        raise ConfigError(f"runs of task={first.config['task']['name']} train alone: set replicas=1")
    if compute["precision"] == "bf16" or compute["compile"] or first.train.accumulate > 1:
        raise ConfigError("compute.precision=bf16, compute.compile=true and train.accumulate > 1 are for lone runs: "
                          "set replicas=1")  # fmt: skip


def _actor(run: Run, data_root: str | None, device: torch.device) -> Replica:
    """A run that acts in an environment, ready to train."""
    compute = run.config["compute"]
    if compute["precision"] == "bf16" or compute["compile"]:
        raise ConfigError(f"compute.precision=bf16 and compute.compile=true are not for {type(run.task).__name__}")
    return build(run, data_root, device)[0]


def fitting(data_root: str | None) -> Callable[[Group], None]:
    """A check that a group can be trained, for one group of a sweep after another, before any of them is written.

    It raises ConfigError where `train_group` would. Of runs that differ by numbers alone, by seed, rates and scales,
    one is built, and on the CPU.
    """
    known: set[tuple[str, ...]] = set()

    def check(group: Group) -> None:
        _share_settings(group)
        if measures(group.runs[0]):
            return
        alike: dict[str, Run] = {}
        for run in group.runs:
            alike.setdefault(_structure(run), run)
        key = (*sorted(alike), "alone" if len(group.runs) == 1 else "together")
        if key in known:
            return
        known.add(key)
        some = list(alike.values())
        if len(group.runs) > 1 and len(some) == 1:
            some *= 2
        try:
            if interacts(some[0]):
                _actor(some[0], data_root, torch.device("cpu"))
                return
            replicas, _ = _prepare(Group(runs=some), data_root, torch.device("cpu"))
            if len(replicas) > 1:
                with _unfit():
                    learner(replicas)
        except (RuntimeError, MemoryError):  # too large, say: to be told by the run itself, in a row
            pass

    return check


def _structure(run: Run) -> str:
    """What of a run may not fit, as text: all but its seed, its learning rate and the strengths of its regularizer."""
    kept = {key: value for key, value in run.config.items() if key not in ("experiment", "recipe", "scale", "seed")}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "input_scale"}
    kept["optim"] = {key: value for key, value in kept["optim"].items() if key != "lr"}
    kept["regularizer"] = {k: v for k, v in kept["regularizer"].items() if not isinstance(v, int | float)}
    return json.dumps(kept, sort_keys=True)


def group_size(run: Run, data_root: str | None) -> int:
    """How many replicas gain from training together with this run, by the rule of syre.learners.

    It is measured on a CPU; of a GPU half of the free memory is taken. Nets with running statistics are never stacked.
    """
    compute = run.config["compute"]
    if (
        measures(run)
        or interacts(run)
        or compute["compile"]
        or compute["precision"] == "bf16"
        or run.train.accumulate > 1
    ):
        return 1  # these are for lone runs
    try:
        replica, data = build(run, data_root, torch.device("cpu"))
    except (RuntimeError, MemoryError):  # too large: to be told by the run itself, in a row
        return 1
    units = sum(math.prod(module.features) for module in replica.model.modules() if isinstance(module, Noisy))
    parameters = sum(parameter.numel() for parameter in replica.model.parameters())
    samples = len(data.train_inputs)
    if any(getattr(module, "track_running_stats", False) for module in replica.model.modules()):
        return 1
    cuda = torch.cuda.is_available()  # a sweep for a cluster is planned where there may be no GPU
    device = device_of(compute["device"]) if cuda else torch.device("cpu")
    room = {"memory": torch.cuda.mem_get_info(device)[0] // 2} if device.type == "cuda" else {}
    return replicas_per_process(parameters, units + data.num_classes, run.train.batch(samples), **room)


def measures(run: Run) -> bool:
    """Whether a run is a numerical experiment without training: its task has `measure(seed) -> {metric: value}`."""
    return hasattr(run.task, "measure")


def interacts(run: Run) -> bool:
    """Whether a run acts in an environment: its data is one, and its task brings its own loop, `interact`."""
    return hasattr(run.task, "interact")


# ---- one group of runs -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Log:
    """What a group has come to: its records, when it began, whether it is ours to train, and where all that is kept."""

    saved: Path
    device: torch.device
    rows: list[Row] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    ours: bool = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


def out_of_memory(error: Exception, group: Group) -> OutOfMemory | None:
    """The error as one line that says what to lower; None if it says something else."""
    text = " ".join(str(error).split())
    if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
        sign in text for sign in ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    ):
        return None
    settings = group.runs[0].train
    advice = f"out of memory with train.batch_size={settings.batch_size}, train.accumulate={settings.accumulate}"
    if len(group.runs) > 1:
        advice += f", {len(group.runs)} replicas: set replicas to fewer, or"
    else:
        advice += ": raise train.accumulate (the parts in which a batch is trained) or"
    return OutOfMemory(f"{advice} lower train.batch_size ({text[:200]})")


def train_group(group: Group, folder: Path, *, data_root: str | None, alone: bool,
                stop: Callable[[int, int], bool] | None = None) -> Ending:  # fmt: skip
    """Train a group from where its last checkpoint left it, and write its runs into `folder`.

    If `stop` (see `syre.trainer.train`) says so it ends before its time, with a checkpoint to go on from, and no run.
    While it trains it is held against other processes (`locks.py`): one that comes second is told so.

    A group that fails is written too, as runs of status `failed`; then the error goes on. Where nothing can be written,
    on a full disk say, what is there stays as it is: the last checkpoint can be resumed once there is room. A run
    `alone`, not of a sweep, leaves nothing behind when its settings do not fit or its data is not there.

    Of several processes (`syre.distributed`) the first writes; if they fail, the one that was the first to.
    """
    first = group.runs[0]
    device = own_device(first)
    flush_denormals(first.config["compute"]["threads"])
    if distributed.world() > 1 and (reason := keeps_to_one_process(group)):
        raise ConfigError(f"torchrun trains one run over its processes; {reason}: run it without torchrun")
    with ExitStack() as stack:
        try:
            device = stack.enter_context(distributed.join(device))
        except ValueError as unfit:
            raise ConfigError(str(unfit)) from None
        saved, error = group_file(folder, group.id, ".pt"), None
        log, take = _Log(saved=saved, device=device), partial(stack.enter_context, hold(saved.with_suffix(".lock")))
        try:
            ending = _train(group, log, take, data_root=data_root, alone=alone, stop=_together(stop))
            if ending is not Ending.done or not log.ours:
                return ending
        except Exception as caught:
            error = out_of_memory(caught, group) or caught
            traceback.clear_frames(caught.__traceback__)  # else the tensors live as long as the error does
        with distributed.failure() if error else nullcontext(distributed.rank() == 0) as mine:
            lost = isinstance(error, results.ResultsError) or (alone and isinstance(error, ConfigError | DataError))
            if mine and not lost:
                _write(group, folder, log.rows, log.seconds, device, error)
                if log.ours:
                    saved.unlink(missing_ok=True)
                    for suffix in (STEP, LIVE):
                        saved.with_suffix(suffix).unlink(missing_ok=True)
            elif mine and log.ours and measures(first):
                saved.unlink(missing_ok=True)  # there is nothing in it to go on from
        if error:
            raise error
    return Ending.done


def keeps_to_one_process(group: Group) -> str:
    """Why this group cannot be trained over several processes; empty if it can."""
    first = group.runs[0]
    if len(group.runs) > 1:
        return f"group {group.id} is {len(group.runs)} at once"
    if measures(first) or interacts(first):
        return f"{first.id} {'only measures' if measures(first) else 'acts in an environment'}"
    return ""


def give_up(group: Group, folder: Path, reason: Exception) -> None:
    """Write those runs of a group that have no result as failed, for a reason known only from outside.

    Its checkpoint stays, for another time.
    """
    _write(group, folder, [], 0.0, torch.device("cpu"), reason)


def _train(group: Group, log: _Log, take: Callable[[], bool], *, data_root: str | None, alone: bool,
            stop: Callable[[int, int], bool] | None) -> Ending:  # fmt: skip
    """Fill the log, and keep it and all else that the rest depends on at each checkpoint.

    `take` takes the group for this process, if no other one has it.
    """
    leads, folder = distributed.rank() == 0, log.saved.parents[1]
    begin, total = _loop(group, data_root, log.device, stop)
    log.ours = distributed.broadcast(leads and take())
    if not log.ours:
        return Ending.held
    if distributed.broadcast(all(finished(folder, run.id) for run in group.runs)):
        log.ours = False  # it was another's, which has ended it
        return Ending.done
    while True:
        state = _state(log)
        publish = len(group.runs) == 1 and leads
        if publish:
            _publish(log, log.rows, anew=True)
        try:
            return _follow(begin(state), total, log, publish=publish, quiet=not (alone and leads))
        except StateError as error:  # it can be read, but another version of the code has written it
            if leads:
                set_aside(log.saved, error, OVER)
            traceback.clear_frames(error.__traceback__)  # for what is made anew to have its room
        distributed.barrier()
        del begin
        begin, _ = _loop(group, data_root, log.device, stop)


def _follow(events: Iterator[Record | Snapshot], total: int, log: _Log, *, publish: bool, quiet: bool) -> Ending:
    """Train to the end, or to where it stops: records go to the log, and are published; snapshots are kept."""
    leads, event = distributed.rank() == 0, None
    with tqdm(total=total, unit="step", disable=True if quiet else None, leave=False) as bar:
        for event in events:
            bar.update(event.step - bar.n)
            if leads and total:
                with suppress(OSError):  # on a full disk the training goes on, until it has to keep something
                    log.saved.with_suffix(STEP).write_text(f"{event.step} {total} {log.seconds:.0f}")
            if isinstance(event, Record):
                new = [(event.step, event.split, name, v.tolist()) for name, v in event.values.items()]
                log.rows += new
                if publish:
                    _publish(log, new)
            elif leads:
                _save(log, event.state)
    return Ending.stopped if isinstance(event, Snapshot) else Ending.done


def _publish(log: _Log, rows: Sequence[Row], anew: bool = False) -> None:
    """The records of a lone run as they come, in a file beside its checkpoint, for whoever wants to see it train."""
    with suppress(OSError), log.saved.with_suffix(LIVE).open("w" if anew else "a") as file:
        file.write("".join(["step,split,metric,value\n"] * anew + [_line(row, 0) for row in rows]))


def _line(row: Row, replica: int) -> str:
    """A record of one replica as a line of metrics.csv."""
    step, split, metric, values = row
    return f"{step},{split},{metric},{values[replica]:.9g}\n"


# ---- checkpoints -----------------------------------------------------------------------------------------------------

OVER = "its runs start over"  # what follows from one that is damaged


def _save(log: _Log, state: dict[str, Any] | None) -> None:
    """Keep all that the rest of a group depends on; state None is its start."""
    buffer = io.BytesIO()
    own = {"group": log.saved.stem, "device": log.device.type}
    torch.save({**own, "rows": log.rows, "seconds": log.seconds, "state": state}, buffer)
    results.write_files({log.saved: buffer.getvalue()})


def _state(log: _Log) -> dict[str, Any] | None:
    """The state to go on from, whatever device it was made on, and the log as it was then.

    None, the start, where there is none yet, or none that can be read.
    """
    if distributed.rank() == 0:
        try:
            made = _read(log.saved).get("device", log.device.type)
            if made != log.device.type:
                print(f"{log.saved} was made on {made}, and goes on on {log.device.type}: from here on noise, if there "
                      "is any, is that of another stream", file=sys.stderr)  # fmt: skip
        except (FileNotFoundError, StateError) as error:
            if isinstance(error, StateError):
                set_aside(log.saved, error, OVER)
            log.rows, log.started = [], time.perf_counter()
            _save(log, None)  # a place that cannot be written shows now
    distributed.barrier()
    kept = _read(log.saved)
    log.rows, log.started = [tuple(row) for row in kept["rows"]], time.perf_counter() - kept["seconds"]
    return cast(dict[str, Any] | None, kept["state"])


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint. Raises: StateError for a file that is none."""
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
        if not whole or kept.get("group", path.stem) != path.stem:
            raise TypeError("not a checkpoint of this group")
    except Exception as error:  # of pickle, of zip or of torch
        raise StateError(f"{type(error).__name__}: {error}") from error
    return kept


def _together(stop: Callable[[int, int], bool] | None) -> Callable[[int, int], bool] | None:
    """`stop` as the first process answers it, for processes that train together: every twentieth step, as it waits."""
    if stop is None or distributed.world() == 1:
        return stop
    return lambda step, total: step % 20 == 0 and distributed.broadcast(stop(step, total))


def _loop(
    group: Group, data_root: str | None, device: torch.device, stop: Callable[[int, int], bool] | None
) -> tuple[Callable[[Any], Iterator[Record | Snapshot]], int]:
    """What trains these runs, given the state to go on from (None: the start), and how many steps it takes.

    Raises:
        ConfigError: settings that do not fit one another. DataError: data missing or damaged.
    """
    first = group.runs[0]
    if measures(first):
        _share_settings(group)
        return lambda _: _measure(group.runs), 0
    if interacts(first):
        _share_settings(group)
        replica, make = _actor(first, data_root, device), partial(load, first, data_root)
        start = partial(first.task.interact, replica, make, first.train, seed=first.seed, stop=stop)
        return lambda state: start(resume=state), first.train.steps
    team, batches = assemble(group, data_root, device)
    total = first.train.total_steps(batches.steps_per_epoch, batches.stages)
    return lambda state: train(team, first.task, batches, first.train, resume=state, stop=stop), total


def _measure(runs: Sequence[Run]) -> Iterator[Record | Snapshot]:
    """The one record of runs that measure without training."""
    with _unfit():
        found = [run.task.measure(run.seed) for run in runs]
    values = {name: torch.tensor([row[name] for row in found], dtype=torch.float64) for name in found[0]}
    yield Record(step=0, split="test", values=values)


def _write(group: Group, folder: Path, rows: list[Row], seconds: float, device: torch.device,
           error: Exception | None) -> list[str]:  # fmt: skip
    """The directories of the group's runs, but for those that have been finished elsewhere; their statuses."""
    facts = provenance(device) | {"group": group.id, "seconds": seconds / len(group.runs)}
    if distributed.world() > 1:
        facts["device"] = f"{distributed.world()} x {facts['device']}"
    facts |= {"error": f"{type(error).__name__}: {error}"} if error else {}
    statuses = []
    for k, run in enumerate(group.runs):
        last = {(split, metric): values[k] for _, split, metric, values in rows}
        losses = [value for (_, metric), value in last.items() if metric == "loss"]
        judged = losses if ("test", "loss") in last else list(last.values())
        healthy = bool(judged) and all(map(math.isfinite, judged))
        statuses.append("failed" if error else "done" if healthy else "nan")
        place = folder / "runs" / run.id
        if finished(folder, run.id):  # in a group of another sweep: the first one stays
            statuses[-1] = results.read_facts(place)["status"]
            continue
        run_json = {"id": run.id, "experiment": run.config["experiment"], "scale": run.config["scale"],
                    "status": statuses[-1], **facts}  # fmt: skip
        results.write_files({
            place / "config.yaml": yaml.dump(run.config, sort_keys=False, Dumper=Dumper).encode(),
            place / "metrics.csv": "".join(["step,split,metric,value\n", *(_line(row, k) for row in rows)]).encode(),
            place / "run.json": json.dumps(run_json, indent=1).encode(),
            place / "done": b"",
        })  # fmt: skip
    return statuses
