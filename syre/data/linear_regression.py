"""Linear regression on Gaussian inputs, drawn from the seed."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch

from syre.checks import at_least, check, count
from syre.data.images import Dataset, DataSource, Split
from syre.seeding import generator


@dataclass(frozen=True, kw_only=True)
class LinearRegression(DataSource):
    """`y = w* . x + noise * xi`: inputs x ~ N(0, I) in R^dims, teacher w* ~ N(0, I / dims), xi ~ N(0, 1) (section 6.1).

    nonzero: entries of the teacher that are not 0, the first ones, each N(0, 1 / nonzero); 0 means all. Inputs of the
        others are irrelevant. Inputs and noise are those of the dense teacher.

    The test set has the same noise, so no half mean squared error on it is expected below `noise^2 / 2`. All data sets
    of a seed share the teacher and the test set, and the first n of N > n samples are those of the data set with n.
    """

    samples: int = 1000
    dims: int = 200
    noise: float = 0.5
    test_samples: int = 1000
    nonzero: int = 0
    ranges: ClassVar = {"samples": count, "dims": count, "test_samples": count, "noise": at_least, "nonzero": at_least}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Draw all from the seed; nothing is read, and runs of one seed share their tensors.

        Raises:
            ValueError: more entries of the teacher than there are.
        """
        fits = f"data.nonzero must be at most data.dims, {self.dims}, got {self.nonzero}"
        check(self.nonzero <= self.dims, fits)
        return _draw(self, seed)


@lru_cache(maxsize=256)
def _draw(data: LinearRegression, seed: int) -> Dataset:
    relevant = data.nonzero or data.dims
    teacher = torch.randn(data.dims, generator=generator(seed, "regression", "teacher")) / relevant**0.5
    teacher[relevant:] = 0

    def split(name: str, samples: int) -> Split:
        # Rows of dims + 1 numbers, the noise last: so fewer samples are the first of more.
        rows = torch.randn(samples, data.dims + 1, generator=generator(seed, "regression", name))
        inputs = rows[:, :-1].contiguous()
        return inputs, inputs @ teacher + data.noise * rows[:, -1]

    return Dataset.of(split("train", data.samples), split("test", data.test_samples), num_classes=1)
