"""From a run, or a group of them, to what trains: devices, data, replicas, the learner and its batches."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from experiments.engine import compiler
from experiments.engine.config import Run
from experiments.engine.errors import ConfigError
from experiments.engine.expand import Group, without
from syre import distributed
from syre.batches import Batches
from syre.learners import Learner, Replica, learner, replicas_per_process
from syre.models import Noisy
from syre.models.base import has_running_statistics
from syre.seeding import derive_seed, generator
from syre.trainer import Interaction, Measurement, has_bf16

# Threads that a run may have on a machine of fewer CPUs too, for a run of a larger one to be repeated there number for
# number. It is asked where the run trains: it may have been composed elsewhere, on the login node of a cluster say.
THREADS = 64


def own_device(run: Run) -> torch.device:
    """The device on which a run trains on this machine.

    Raises: ConfigError for none such here, or one that the run cannot use, and for too many threads.
    """
    threads, most = run.config["compute"]["threads"], max(os.cpu_count() or 1, THREADS)
    if threads > most:
        raise ConfigError(f"compute.threads must be in 0, ..., {most} on this machine, got {threads}")
    if isinstance(run.task, Measurement):
        device_of(run.task.device, "task.device")
    device = device_of(run.config["compute"]["device"])
    if interacts(run) and device.type != "cpu":
        raise ConfigError(f"task={run.config['task']['name']} runs on the CPU: set compute.device=cpu")
    return device


def device_of(name: str, setting: str = "compute.device") -> torch.device:
    """The torch device; `auto` is the GPU if there is one.

    Raises: ConfigError for another device than a CPU or a CUDA GPU, or one that is not there, and for `auto` where
    there are GPUs that torch cannot use.
    """
    if name == "auto":
        if not torch.cuda.is_available() and (given := _given_gpus()):
            cuda = torch.version.cuda
            built = f"for CUDA {cuda}, which this driver may be too old for" if cuda else "without CUDA"
            blind = f"there are GPUs here ({given}), but torch {torch.__version__} sees none (it is built {built})"
            advice = "install a build of torch that fits, or set compute.device=cpu"
            raise ConfigError(f"compute.device=auto: {blind}: {advice}")
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name, re.ASCII):
        raise ConfigError(f"{setting} must be auto, cpu or cuda[:index], got {name!r}")
    if name != "cpu" and int(name[5:] or 0) >= torch.cuda.device_count():
        raise ConfigError(f"{setting}={name} asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


@contextmanager
def unfit(who: str = "") -> Iterator[None]:
    """Settings that do not fit one another, as a library class says it by ValueError, are the user's to mend.

    So is a package that they need and that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        named = not who or who.split("=")[0] in str(error)
        raise ConfigError(str(error) if named else f"{who} on this model: {error}") from None


def load(run: Run, data_root: str | None) -> Any:
    """The data set, or environment, of a run.

    Raises: ConfigError for more samples than there are, say; DataError for data missing or damaged.
    """
    with unfit():
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

    Raises: ConfigError for settings that do not fit one another; DataError for data missing or damaged.
    """
    (compiler.load if run.config["compute"]["compile"] or distributed.world() > 1 else compiler.spare)()
    data, regularizer = load(run, data_root), f"regularizer={run.regularizer.name}"
    with unfit():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(run.seed, "init"))
            model = run.model.build(data.input_shape, data.num_classes).to(device)
        run.task.accept(model, data, run.train)
    with unfit(regularizer):
        run.regularizer.prepare(model, run.seed)
    with unfit():
        optimizer = run.optim.build(model, run.regularizer.weight_decay, run.regularizer.scope)
    with unfit(regularizer):
        handle = run.regularizer.attach(optimizer, model, run.seed)
    noise = generator(run.seed, "noise", device=device)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=noise), data


def assemble(group: Group, data_root: str | None, device: torch.device) -> tuple[Learner, Batches]:
    """The runs of a group as one learner, and their batches. Raises: as `build`."""
    first, compute = group.runs[0], group.runs[0].config["compute"]
    replicas, batches = _prepare(group, data_root, device)
    auto = compute["precision"] == "auto" and len(replicas) == 1 and has_bf16(device)
    autocast = torch.bfloat16 if auto or compute["precision"] == "bf16" else None
    single = {"compiled": compute["compile"], "accumulate": first.train.accumulate}
    with unfit():
        return learner(replicas, autocast=autocast, **single), batches


def _prepare(group: Group, data_root: str | None, device: torch.device) -> tuple[list[Replica], Batches]:
    """The runs of a group, each by itself, and their batches."""
    first = group.runs[0]
    share_settings(group)
    replicas, sets = zip(*(build(run, data_root, device) for run in group.runs), strict=True)
    scales, seeds = [run.data.input_scale for run in group.runs], [run.seed for run in group.runs]
    place: dict[str, Any] = {"device": device, "rank": distributed.rank(), "world": distributed.world()}
    with unfit():
        batches = Batches(sets, scales=scales, seeds=seeds, batch_size=first.train.batch_size, **place)
    share, parts = batches.batch_size // distributed.world(), first.train.accumulate
    if share % parts:
        raise ConfigError(f"the batch of a process, {share}, must be a multiple of train.accumulate={parts}")
    return list(replicas), batches


def share_settings(group: Group) -> None:
    """Make sure that the runs of a group differ in nothing that they have but once."""
    if len(group.runs) == 1:
        return
    first = group.runs[0]
    if len({run.config["task"]["_target_"] for run in group.runs}) > 1:
        raise ConfigError("runs that train as one have one task: `task` cannot be in batched=[...]")
    if measures(first):
        return
    for part in ("task", "train", "compute"):
        if any(run.config[part] != first.config[part] for run in group.runs):
            raise ConfigError(f"runs that train as one share their {part}: nothing of it can be in batched=[...]")
    if interacts(first):
        raise ConfigError(f"runs of task={first.config['task']['name']} train alone: set replicas=1")
    if _lone(first):
        settings = "compute.precision=bf16, compute.compile=true and train.accumulate > 1"
        raise ConfigError(f"{settings} are for lone runs: set replicas=1")


def _lone(run: Run) -> bool:
    """Whether it has settings that no stacked run can have."""
    compute = run.config["compute"]
    return compute["precision"] == "bf16" or compute["compile"] or run.train.accumulate > 1


def actor(run: Run, data_root: str | None, device: torch.device) -> Replica:
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
        share_settings(group)
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
        with suppress(RuntimeError, MemoryError):  # too large, say: to be told by the run itself, in a row
            if interacts(some[0]):
                actor(some[0], data_root, torch.device("cpu"))
                return
            replicas, _ = _prepare(Group(runs=some), data_root, torch.device("cpu"))
            if len(replicas) > 1:
                with unfit():
                    learner(replicas)

    return check


def _structure(run: Run) -> str:
    """What of a run may not fit, as text: all but its seed, its learning rate and the strengths of its regularizer."""
    kept = without(run.config, ("experiment", "recipe", "scale", "seed", "data.input_scale", "optim.lr"))
    kept["regularizer"] = {k: v for k, v in kept["regularizer"].items() if not isinstance(v, int | float)}
    return json.dumps(kept, sort_keys=True)


def group_size(run: Run, data_root: str | None) -> int:
    """How many replicas gain from training together with this run, by the rule of syre.learners.

    It is measured on a CPU; of a GPU half of the free memory is taken. Nets with running statistics are never stacked.
    """
    if measures(run) or interacts(run) or _lone(run):
        return 1
    try:
        replica, data = build(run, data_root, torch.device("cpu"))
    except (RuntimeError, MemoryError):  # too large: to be told by the run itself, in a row
        return 1
    units = sum(math.prod(module.features) for module in replica.model.modules() if isinstance(module, Noisy))
    parameters = sum(parameter.numel() for parameter in replica.model.parameters())
    samples = len(data.train_inputs)
    if has_running_statistics(replica.model):
        return 1
    cuda = torch.cuda.is_available()  # a sweep for a cluster is planned where there may be no GPU
    device = device_of(run.config["compute"]["device"]) if cuda else torch.device("cpu")
    room = {"memory": torch.cuda.mem_get_info(device)[0] // 2} if device.type == "cuda" else {}
    return replicas_per_process(parameters, units + data.num_classes, run.train.batch(samples), **room)


def measures(run: Run) -> bool:
    """Whether a run is a numerical experiment without training."""
    return isinstance(run.task, Measurement)


def interacts(run: Run) -> bool:
    """Whether a run acts in an environment: its data is one, and its task brings its own loop."""
    return isinstance(run.task, Interaction)
