"""A real regression problem, small enough to come with a library."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from syre.checks import at_least, check, count
from syre.data.files import bundled
from syre.data.images import Dataset, DataSource
from syre.seeding import generator


@dataclass(frozen=True, kw_only=True)
class Diabetes(DataSource):
    """Progress of the disease of 442 patients from 10 measurements (Efron et al. 2004), and inputs that say nothing.

    Split: `samples` patients drawn from the seed are the training set, all others the test set. Measurements and target
    have mean 0 and std 1 on the training set.

    irrelevant: inputs of Gaussian noise, drawn from the seed, after the 10 measurements.
    """

    samples: int = 200
    irrelevant: int = 0
    ranges: ClassVar = {"samples": count, "irrelevant": at_least}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from scikit-learn, whatever the root; runs of one seed share their tensors.

        Raises:
            ValueError: so many samples that none are left to test on, or one, which has no std.
        """
        most = len(_patients()[0]) - 1
        check(2 <= self.samples <= most, f"data.samples must be in 2, ..., {most}, got {self.samples}")
        return _split(self, seed)


@lru_cache(maxsize=1)
def _patients() -> tuple[Tensor, Tensor]:
    """Measurements [442, 10] and targets [442], as they were taken."""
    inputs, targets = (bundled(f"diabetes_{name}.csv.gz") for name in ("data_raw", "target"))
    return torch.from_numpy(inputs), torch.from_numpy(targets)


@lru_cache(maxsize=256)
def _split(data: Diabetes, seed: int) -> Dataset:
    inputs, targets = _patients()
    order = torch.randperm(len(inputs), generator=generator(seed, "diabetes", "split"))
    train, test = order[: data.samples], order[data.samples :]
    inputs, targets = (_standard(values, train).float() for values in (inputs, targets))
    noise = torch.randn(len(inputs), data.irrelevant, generator=generator(seed, "diabetes", "irrelevant"))
    inputs = torch.cat([inputs, noise], 1)
    return Dataset.of((inputs[train], targets[train]), (inputs[test], targets[test]), num_classes=1)


def _standard(values: Tensor, train: Tensor) -> Tensor:
    """Each column with mean 0 and std 1 on the training rows."""
    return (values - values[train].mean(0)) / values[train].std(0)
