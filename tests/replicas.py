"""Small runs for the tests, assembled as experiments/run.py assembles them: alone, or as replicas of an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from syre import regularizers, rivals
from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Learner, Replica, learner
from syre.models import MLP
from syre.regularizers import Regularizer
from syre.seeding import derive_seed, generator
from syre.tasks import Classification
from syre.trainer import Record, Training, train

torch.set_num_threads(1)  # so small a network only waits for a second thread, and long on a busy machine

INPUTS, CLASSES, SAMPLES = 6, 3, 60
DEEP = MLP(hidden=[7, 8], activation="tanh")  # 143 parameters: below syre.learners.batched.SMALL
WIDE = MLP(hidden=[70, 60], activation="tanh")  # 4933: above it
TASK = Classification()
KINDS = [kind for kind in vars(regularizers).values() if isinstance(kind, type) and issubclass(kind, Regularizer)]
REGULARIZERS = [kind for kind in KINDS if "name" in vars(kind)]
RIVALS = [kind for kind in vars(rivals).values() if isinstance(kind, type) and issubclass(kind, Regularizer)]


@dataclass(frozen=True, kw_only=True)
class Run:
    regularizer: Any
    optim: Any
    seed: int = 0
    scale: float = 1.0
    model: Any = DEEP


def gaussian(dtype: torch.dtype = torch.float64, seed: int = 0) -> Dataset:
    """Gaussian inputs: none is 0, so neither is any gradient (a gradient of exactly 0 makes Adam amplify rounding)."""
    stream = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(SAMPLES, INPUTS, generator=stream, dtype=torch.float64).to(dtype) for _ in range(2)]
    targets = [torch.randint(CLASSES, (SAMPLES,), generator=stream) for _ in range(2)]
    return Dataset.of(*zip(inputs, targets, strict=True), num_classes=CLASSES)


def build(run: Run, dtype: torch.dtype = torch.float64) -> Replica:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.seed, "init"))
        model = run.model.build((INPUTS,), CLASSES).to(dtype)
    run.regularizer.prepare(model, run.seed)
    optimizer = run.optim.build(model, run.regularizer.weight_decay)
    handle = run.regularizer.attach(optimizer, model, run.seed)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(run.seed, "noise"))


def assemble(runs: Sequence[Run], data: Dataset, settings: Training) -> tuple[Learner, Batches]:
    team = learner([build(run, data.train_inputs.dtype) for run in runs])
    scales, seeds = [run.scale for run in runs], [run.seed for run in runs]
    return team, Batches([data] * len(runs), scales=scales, seeds=seeds, batch_size=settings.batch_size)


def train_all(runs: Sequence[Run], data: Dataset, settings: Training) -> tuple[Learner, list[Record]]:
    """Train to the end; the learner and its records."""
    team, batches = assemble(runs, data, settings)
    return team, [event for event in train(team, TASK, batches, settings) if isinstance(event, Record)]


def row(team: Learner, k: int) -> dict[str, torch.Tensor]:
    """The parameters of replica k."""
    return {name: parameter[k].clone() for name, parameter in team.parameters().items()}
