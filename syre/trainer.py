"""The training loop: it yields records, and knows no logger, no configuration and no figure.

    for event in train(learner, task, batches, settings):
        ...  # a Record of metrics, or a Snapshot to keep

A Snapshot holds all that the rest of the run depends on: `train(..., resume=snapshot.state)` goes on from it and
yields, on a CPU, bit for bit the records that the undisturbed run would have.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre import distributed
from syre.batches import Batches
from syre.checks import Settings, above, among, at_least, check, positive, share
from syre.learners import Learner, Replica
from syre.precision import full_float32

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: (1 + cos(pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
}


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """How long and how a run is trained.

    Args:
        epochs: passes over the training set (of each task, where there are several); or `steps`: optimizer steps. One
            of the two is 0.
        batch_size: samples per step; 0 means the full batch.
        schedule: factor on the learning rate over the run: constant, cosine or linear to 0.
        warmup: fraction of the run over which the factor first rises from 0, in [0, 1].
        clip: bound on each run's gradient norm; 0 means none.
        evaluations: evenly spaced evaluations, the last at the end; the start is always evaluated too.
        checkpoints: evenly spaced snapshots before the end.
        accumulate: parts into which each batch is split, their gradients averaged, for want of memory; lone runs only.
        restart: whether, of a sequence of tasks, each goes through schedule and warm-up by itself.
    """

    epochs: int = 0
    steps: int = 0
    batch_size: int = 64
    schedule: str = "constant"
    warmup: float = 0.0
    clip: float = 0.0
    evaluations: int = 1
    checkpoints: int = 0
    accumulate: int = 1
    restart: bool = False
    prefix = "train"
    ranges: ClassVar = {"batch_size": at_least, "schedule": among(*SCHEDULES), "warmup": share, "clip": at_least}
    ranges |= {"evaluations": positive, "checkpoints": at_least, "accumulate": above(1)}

    def __post_init__(self) -> None:
        super().__post_init__()
        both, wanted = (self.epochs, self.steps), "train.epochs or train.steps must be > 0, and the other 0"
        check(max(both) > 0 == min(both), f"{wanted}, got {self.epochs} and {self.steps}")

    def batch(self, samples: int) -> int:
        """Samples of a step, with so many in the training set."""
        return self.batch_size if 0 < self.batch_size < samples else samples

    def part(self, samples: int) -> int:
        """Samples of a forward pass in training: of one process, and of one part of its batch."""
        return self.batch(samples) // distributed.world() // self.accumulate

    def total_steps(self, steps_per_epoch: int, stages: int = 1) -> int:
        return self.steps or self.epochs * steps_per_epoch * stages

    def lr_factor(self, step: int, total: int, stages: int = 1) -> float:
        """The factor on the learning rate of step 0, ..., total - 1, of a sequence of so many tasks."""
        if self.restart:
            first, last = (
                -(-stage * total // stages) for stage in (step * stages // total, step * stages // total + 1)
            )
            step, total = step - first, last - first
        rise = self.warmup * total
        if step < rise:
            return (step + 1) / rise if rise > 1 else 1.0
        return SCHEDULES[self.schedule]((step - rise) / max(1.0, total - rise))


@dataclass(frozen=True, kw_only=True)
class Record:
    """Metrics of R replicas after `step` steps: name -> [R]."""

    step: int
    split: str
    values: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that the rest of the run depends on, after `step` of `total` steps.

    The tensors of `state` are the live ones: save or copy them before the loop goes on.
    """

    step: int
    total: int
    state: dict[str, Any]


Events = Iterator[Record | Snapshot]
State = dict[str, Any] | None  # of a snapshot, to go on from; None: from the start
Stop = Callable[[int, int], bool] | None  # (step, total) -> whether the training is to end there
Make = Callable[[], Any]  # a new environment

# ---- what a run may do: a task is one of these, a frozen dataclass, the leaf of a config -----------------------------


class _Trains(Settings, ABC):
    """What tasks with and without a loop of their own share."""

    prefix = "task"

    @abstractmethod
    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        """Raise ValueError, one line, for a model, data or settings of training that it cannot train."""


class Task(_Trains):
    """A loss to minimise, and what is measured: what `train` asks of a task."""

    @abstractmethod
    def loss(self, output: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each replica, mean over its batch: [..., batch, ...] -> [...], with any leading axes."""

    @abstractmethod
    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        """Metrics of each replica, [R]; `final` at the end of training, when costly ones are due."""


class Interaction(_Trains):
    """A loop of its own, in an environment: its data is one."""

    @abstractmethod
    def interact(
        self, replica: Replica, make: Make, settings: Training, *, seed: int, resume: State = None, stop: Stop = None
    ) -> Events:
        """Train on the environments that `make` makes; the events, `resume` and `stop` are those of `train`."""


class Measurement(Settings, ABC):
    """A numerical experiment without training.

    Attributes:
        device: on which it computes: cpu, unless it says otherwise (auto: the GPU if there is one).
    """

    prefix = "task"
    device: str = "cpu"

    @abstractmethod
    def measure(self, seed: int) -> dict[str, float]:
        """What one repetition measures: metric -> value."""


# ---- states to go on from --------------------------------------------------------------------------------------------


class StateError(ValueError):
    """A state to go on from that is none of this run's."""


@contextmanager
def resuming() -> Iterator[None]:
    """Whatever goes wrong with a state to go on from is a StateError; what was to go on has to be made anew."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise StateError(f"{type(error).__name__}: {error}") from error


def milestones(count: int, total: int) -> set[int]:
    """`count` evenly spaced steps, the last one `total`."""
    return {round(total * k / count) for k in range(1, count + 1)} if count else set()


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is fast here: on GPUs that have it, and on CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def flush_denormals(threads: int = 0) -> None:
    """Make this process treat denormal numbers as 0, and use `threads` threads (0: as many as torch takes by itself).

    To be called before the first tensor operation: torch's worker threads inherit the setting when they are started. A
    collapsed network lives in denormal numbers, and a step then takes up to 80 times longer on a CPU.
    """
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)


def train(
    learner: Learner, task: Task, batches: Batches, settings: Training, *, resume: State = None, stop: Stop = None
) -> Events:
    """Train R replicas; yield a Record per split at each evaluation, and a Snapshot at each checkpoint.

    Where the data is a sequence of tasks, each takes its equal share of the steps, in turn, and the records are of the
    task just trained. The record of split "train" holds the mean loss over the steps since the last evaluation, that of
    "test" what the task measures. A replica whose numbers are no longer finite goes on (it cannot disturb the others)
    and says so in its records; a lone run ends with the evaluation that finds its training loss not finite.

    `stop(step, total)` is asked after each step but the last: True ends the training here, with a Snapshot to go on
    from another time. (Processes that train together must all answer the same.)

    float32 is of full precision on a GPU too (`full_float32`), in training and in evaluations.
    """
    events = _train(learner, task, batches, settings, resume, stop)
    while True:
        with full_float32():  # while it trains: between two events torch is as the caller has it
            event = next(events, None)
        if event is None:
            return
        yield event


def _train(learner: Learner, task: Task, batches: Batches, settings: Training, resume: State, stop: Stop) -> Events:
    def evaluate(final: bool) -> dict[str, Tensor]:
        with distributed.local_only():
            return task.evaluate(learner, batches, final=final)

    total = settings.total_steps(batches.steps_per_epoch, batches.stages)
    evaluations, checkpoints = milestones(settings.evaluations, total), milestones(settings.checkpoints + 1, total)
    step, summed, since = 0, torch.zeros(learner.size, device=batches.device, dtype=torch.float64), 0
    if resume is None:
        batches.stage = 0
        learner.vary(0)
        yield Record(step=0, split="test", values=evaluate(final=False))
    else:
        with resuming():
            step, summed, since = resume["step"], resume["summed"].to(batches.device), resume["since"]
            batches.stage = resume["stage"]
            learner.vary(batches.stage)
            learner.load_state_dict(resume["learner"])
    while step < total:
        if (stage := step * batches.stages // total) != batches.stage:
            batches.stage = stage
            learner.enter(stage)
        factor = settings.lr_factor(step, total, batches.stages)
        summed += learner.step(task.loss, batches.train(step), lr_factor=factor, clip=settings.clip or None)
        step, since = step + 1, since + 1
        if step in evaluations:
            loss = distributed.average(summed) / since
            yield Record(step=step, split="train", values={"loss": loss})
            yield Record(step=step, split="test", values=evaluate(final=step == total))
            if learner.size == 1 and not loss.isfinite().all():
                return
            summed, since = torch.zeros_like(summed), 0
        halt = step < total and stop is not None and stop(step, total)
        if halt or (step in checkpoints and step < total):
            summed = distributed.average(summed)
            progress = {"step": step, "summed": summed, "since": since, "stage": batches.stage}
            state = {**progress, "learner": learner.state_dict()}
            yield Snapshot(step=step, total=total, state=state)
        if halt:
            return
