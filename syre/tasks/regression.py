"""Regression: half the squared error, the neurons that are alive, and the closed form that ridge regression has."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre.batches import Batches
from syre.checks import all_positive, at_least, check, count
from syre.core import draw_anchors
from syre.core.decay import effect_of
from syre.data.linear_regression import LinearRegression
from syre.learners import Learner
from syre.metrics.spectra import count_where
from syre.models.linear import DiagonalLinear
from syre.seeding import derive_seed
from syre.tasks import needs
from syre.trainer import Measurement, Task, Training


def half_squared_error(output: Tensor, targets: Tensor) -> Tensor:
    """`mean (output - y)^2 / 2`, whose Hessian in the coefficients is `A = X^T X / n`; [..., n, 1], [..., n] -> [...].

    With torch's weight decay gamma, `(A + gamma I) w = X^T y / n` at the minimum.
    """
    return (output.squeeze(-1) - targets).square().mean(-1) / 2


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """Half the mean squared error of a diagonal linear network, and how many of its d neurons are alive.

    A neuron is alive at c where its coefficient, the product of its factors, exceeds c in absolute value. `rank` counts
    them at the first of `thresholds`; `rank/free` only those without an entry that W-fix holds fixed. At the end also
    `rank/<c>` for each threshold, and `free`, the number of neurons without such an entry (d without W-fix).
    """

    name: ClassVar[str] = "regression"
    thresholds: list[float] = field(default_factory=lambda: [1e-3, 1e-2, 1e-4, 1e-6])
    ranges: ClassVar = {"thresholds": all_positive}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.data_set(self.name, data)
        vectors = data.train_inputs.dim() == 2 and data.train_targets.is_floating_point()
        have = "as data=linear_regression and data=diabetes have them"
        check(vectors, f"task={self.name} needs vectors with a real target each, {have}")
        needs.model(self.name, model, "a linear form")

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return half_squared_error(output, targets)

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        chunks = [(learner.forward(inputs), targets) for inputs, targets in batches.evaluation("test")]
        output, targets = (torch.cat(parts, 1) for parts in zip(*chunks, strict=True))
        coefficients = torch.stack(list(learner.parameters().values())).prod(0).squeeze(1)  # [R, d]
        held = _held(learner, coefficients)
        alive = {c: coefficients.abs() > c for c in self.thresholds}
        first = alive[self.thresholds[0]]
        values = {
            "loss": half_squared_error(output, targets),
            "rank": count_where(first, coefficients),
            "rank/free": count_where(first & ~held, coefficients),
        }
        if final:
            values |= {f"rank/{c:g}": count_where(alive[c], coefficients) for c in self.thresholds}
            values["free"] = (~held).sum(-1).double()
        return values


def _held(learner: Learner, like: Tensor) -> Tensor:
    """Which neurons [R, d] have an entry that W-fix holds fixed."""
    held = torch.zeros_like(like, dtype=torch.bool)
    for row, replica in zip(held, learner.replicas, strict=True):
        for mask, _ in effect_of(replica.handle).frozen.values():
            row |= mask.view(-1)
    return held


def ridge_solution(x: Tensor, y: Tensor, weight_decay: float, centre: Tensor) -> Tensor:
    """Minimum of `|X w - y|^2 / (2 n) + gamma / 2 |w - b|^2`, b the centre: `(A + gamma I)^-1 (X^T y / n + gamma b)`.

    Source: arXiv 2408.15495v3, Eq. (13). With b = 0 it is the ridge solution. At
    gamma = 0 it is the limit, the least-squares solution nearest to b. Shapes: x [n, d], y [n], b [d] -> [d].
    """
    a, moment = x.mT @ x / len(x), x.mT @ y / len(x)
    shrunk = a + weight_decay * torch.eye(len(a), dtype=x.dtype)
    return centre + torch.linalg.pinv(shrunk, hermitian=True) @ (moment - a @ centre)


@dataclass(frozen=True, kw_only=True)
class Ridge(Measurement):
    """The closed form that a trained linear model with syre should reach, with its data, its anchor and in float64.

    sigma 0 is ridge regression. Measures `loss` and `rank`, coefficients above 1e-3, as `Regression` does at depth 1.
    """

    samples: int
    dims: int = 100
    noise: float = 0.5
    test_samples: int = 1000
    weight_decay: float = 0.0
    sigma: float = 0.0
    ranges: ClassVar = {"samples": count, "dims": count, "test_samples": count}
    ranges |= {"noise": at_least, "weight_decay": at_least, "sigma": at_least}

    def measure(self, seed: int) -> dict[str, float]:
        names = ("samples", "dims", "noise", "test_samples")
        data = LinearRegression(**{name: getattr(self, name) for name in names}).load(seed=seed)
        model: Any = DiagonalLinear(depth=1).build(data.input_shape, data.num_classes)
        (anchor,) = draw_anchors(model, sigma=self.sigma, seed=derive_seed(seed, "anchor")).values()
        x, y = data.train_inputs.double(), data.train_targets.double()
        w = ridge_solution(x, y, self.weight_decay, anchor[0].double())
        return {
            "loss": half_squared_error(data.test_inputs.double() @ w.unsqueeze(1), data.test_targets.double()).item(),
            "rank": (w.abs() > 1e-3).sum().item(),
        }
