"""Data that a run draws for itself, from its seed."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import nn

from syre.checks import above, among, at_least, count, share
from syre.data.files import DataError
from syre.data.images import Dataset, DataSource
from syre.models.mlp import ACTIVATIONS, MLPModule
from syre.seeding import derive_seed, generator

CLASSES = 10  # of a teacher


@dataclass(frozen=True, kw_only=True)
class RandomMatrix(DataSource):
    """One symmetric matrix A [1, N, N] per seed: the data of the benchmark of section 6.2.

    `unstructured`: `A = (G + G^T) / sqrt(2 N)` with Gaussian G, whose spectrum is the semicircle on [-2, 2].
    `structured`: `A = diag(g)`, g ~ N(0, 1).
    """

    spectrum: str = "unstructured"
    size: int = 100
    ranges: ClassVar = {"spectrum": among("unstructured", "structured"), "size": above(2)}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Draw A from the seed; nothing is read, and runs of one seed share one tensor."""
        return _draw(self, seed)


@lru_cache(maxsize=64)
def _draw(matrix: RandomMatrix, seed: int) -> Dataset:
    stream, n = generator(seed, "random_matrix", matrix.spectrum), matrix.size
    if matrix.spectrum == "structured":
        a = torch.diag(torch.randn(n, generator=stream))
    else:
        g = torch.randn(n, n, generator=stream)
        a = (g + g.T) / (2 * n) ** 0.5
    split = a.unsqueeze(0), torch.zeros(1)
    return Dataset.of(split, split, num_classes=1)


@dataclass(frozen=True, kw_only=True)
class TeacherStudent(DataSource):
    """Gaussian inputs and the classes that a random two-layer network, the teacher, gives them (section 5.3, B.1).

    `x ~ N(0, I)` with `inputs` entries, `y = argmax_k t_k(x)` of the ten outputs of an MLP with one layer of `hidden`
    units. The paper prints neither sizes nor distribution: the weights are torch's default initialisation, drawn again
    while some class has less than one input in a hundred, and the output biases make the mean of each output 0.

    label_noise: fraction of the training labels drawn anew, evenly from the ten classes.
    input_noise: std of the Gaussian noise added, once, to the training inputs after they were labelled.

    The test set has no noise. All noise levels of a seed share the teacher and the samples, and what is noisy at a low
    level is noisy at a higher one.
    """

    inputs: int = 20
    samples: int = 1000
    test_samples: int = 1000
    hidden: int = 100
    activation: str = "tanh"
    label_noise: float = 0.0
    input_noise: float = 0.0
    ranges: ClassVar = {"inputs": count, "samples": count, "test_samples": count, "hidden": count}
    ranges |= {"activation": among(*ACTIVATIONS), "label_noise": share, "input_noise": at_least}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Draw all from the seed; nothing is read, and runs of one seed share their tensors.

        Raises:
            DataError: too few inputs or hidden units to tell ten classes apart.
        """
        return _label(self, seed)


@lru_cache(maxsize=64)
@torch.no_grad()
def _label(data: TeacherStudent, seed: int) -> Dataset:
    teacher = _teacher(data.inputs, data.hidden, data.activation, seed)
    train, test = (
        torch.randn(samples, data.inputs, generator=generator(seed, "teacher", split))
        for split, samples in (("train", data.samples), ("test", data.test_samples))
    )
    train_targets, test_targets = teacher(train).argmax(1), teacher(test).argmax(1)

    stream = generator(seed, "teacher", "noise")
    redrawn = torch.randperm(data.samples, generator=stream)[: round(data.label_noise * data.samples)]
    train_targets[redrawn] = torch.randint(CLASSES, (data.samples,), generator=stream)[redrawn]
    train = train + data.input_noise * torch.randn(train.shape, generator=stream)
    return Dataset.of((train, train_targets), (test, test_targets), num_classes=CLASSES)


def _teacher(inputs: int, hidden: int, activation: str, seed: int) -> nn.Module:
    """The first random network, of a hundred, that gives each class to 1 % of the inputs at least."""
    probe = torch.randn(2000, inputs, generator=generator(seed, "teacher", "probe"))
    for attempt in range(100):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "teacher", "weights", attempt))
            teacher = MLPModule([inputs, hidden, CLASSES], ACTIVATIONS[activation])
        cast(nn.Linear, teacher.layers[-1]).bias.sub_(teacher(probe).mean(0))
        if torch.bincount(teacher(probe).argmax(1), minlength=CLASSES).min() >= 0.01 * len(probe):
            return teacher
    raise DataError(f"no teacher with data.inputs={inputs} and data.hidden={hidden} uses all of {CLASSES} classes")
