"""Section 6.2: a benchmark of symmetry removal in which every symmetry is known."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre.batches import Batches
from syre.checks import all_positive, among, check
from syre.learners import Learner
from syre.metrics import degree_of_symmetry
from syre.tasks import needs
from syre.trainer import Task, Training


def factorisation(w: Tensor, a: Tensor) -> Tensor:
    """`(|A - w w^T|_F^2 - |A|_F^2) / 4 = |w|^4 / 4 - w^T A w / 2`; w [..., N], A [..., N, N] -> [...].

    Invariant under every reflection `w -> (I - 2 v_i v_i^T) w` in an eigenvector of A. The constant |A|^2 / 4 is left
    out.
    """
    norm = w.square().sum(-1)
    return (norm * norm / 2 - (w * _times(a, w)).sum(-1)) / 2


def spectral(w: Tensor, a: Tensor) -> Tensor:
    """`sum_i ((v_i^T w)^2 - a_i)^2 / 4` over the eigenpairs of A: the same N reflections, but 2^N minima."""
    values, vectors = torch.linalg.eigh(a)
    return (_times(vectors.mT, w).square() - values).square().sum(-1) / 4


def _times(a: Tensor, w: Tensor) -> Tensor:
    """A w; one matrix product where all replicas share one A (an expanded tensor), far faster than R of them."""
    if a.dim() > 2 and a.stride(0) == 0:
        return w @ a[0].mT
    return (a @ w.unsqueeze(-1)).squeeze(-1)


OBJECTIVES = {"factorisation": factorisation, "spectral": spectral}


@dataclass(frozen=True, kw_only=True)
class MatrixObjective(Task):
    """Minimise a function of w in R^N with the N reflection symmetries of a matrix A (section 6.2).

    The paper does not print its objective; `factorisation` is the candidate that fits what it states, `spectral`
    another.

    Measures: `objective` without dropout, and `symmetry/<c>`, the degree of symmetry `#{i : |v_i^T w| < c}` for each
    threshold c, in [0, N]; `rank`, N minus the degree at the first threshold.
    """

    name: ClassVar[str] = "matrix"
    objective: str = "factorisation"
    thresholds: list[float] = field(default_factory=lambda: [0.05])
    ranges: ClassVar = {"objective": among(*OBJECTIVES), "thresholds": all_positive}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.data_set(self.name, data)
        count, *shape = data.train_inputs.shape
        one = count == 1 and len(shape) == 2 and shape[0] == shape[1]
        check(one, f"task={self.name} needs one square matrix, as data=random_matrix is")
        needs.model(self.name, model, "a point")

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return OBJECTIVES[self.objective](output.squeeze(-2), inputs.squeeze(-3))

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        (inputs, _), *_ = batches.evaluation("train")
        w, a = learner.forward(inputs).squeeze(-2), inputs.squeeze(-3)
        vectors = torch.linalg.eigh(a).eigenvectors
        degrees = {f"symmetry/{c:g}": degree_of_symmetry(w, vectors, c) for c in self.thresholds}
        rank = w.shape[-1] - next(iter(degrees.values()))
        return {"loss": OBJECTIVES[self.objective](w, a), "rank": rank, **degrees}
