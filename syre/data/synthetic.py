"""Data that a run draws for itself, from its seed."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from syre.checks import check, one_of
from syre.data.images import Dataset
from syre.seeding import generator


@dataclass(frozen=True, kw_only=True)
class RandomMatrix:
    """One symmetric matrix A [1, N, N] per seed: the data of the benchmark of section 6.2.

    `unstructured`: `A = (G + G^T) / sqrt(2 N)` with Gaussian G, whose spectrum is the semicircle on [-2, 2].
    `structured`: `A = diag(g)`, g ~ N(0, 1).
    """

    spectrum: str = "unstructured"
    size: int = 100

    def __post_init__(self) -> None:
        one_of("data.spectrum", self.spectrum, ("unstructured", "structured"))
        check(self.size > 1, f"data.size must be an integer > 1, got {self.size}")

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
    inputs, targets = a.unsqueeze(0), torch.zeros(1)
    return Dataset(train_inputs=inputs, train_targets=targets, test_inputs=inputs, test_targets=targets, num_classes=1)
