"""Classification: cross-entropy, accuracy, and the rank of what the network represents."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre import metrics
from syre.batches import Batches
from syre.checks import all_fractions, all_ranks
from syre.learners import Learner
from syre.tasks import needs
from syre.trainer import Task, Training


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Cross-entropy over classes; measures loss, accuracy and the ranks of the last hidden layer on the test set.

    `rank` is the numerical rank of the features (the tolerance of `torch.linalg.matrix_rank`), `rank/<t>` the number of
    eigenvalues of their covariance above t times the largest (the paper's measure; it does not print its threshold, so
    each of `thresholds` is recorded), next to the effective rank, the stable rank and the 99 % rule; `dead` counts
    units that are 0 on every sample. At the end also `eigenvalue/<i>`, the i-th largest, for each i of `spectrum`.
    """

    name: ClassVar[str] = "classification"
    thresholds: list[float] = field(default_factory=lambda: [1e-2, 1e-3, 1e-4])
    spectrum: list[int] = field(default_factory=list)
    ranges: ClassVar = {"thresholds": all_fractions, "spectrum": all_ranks}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.classes(self.name, data)
        needs.model(self.name, model, "logits")
        needs.batch(model, data, settings)

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(output, targets)

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        output, features, targets = represented(learner, batches, "test")
        values = {"loss": cross_entropy(output, targets), "accuracy": metrics.accuracy(output, targets)}
        return values | self._ranks(features, final)

    def _ranks(self, features: Tensor, final: bool) -> dict[str, Tensor]:
        eigenvalues, width = metrics.covariance_spectrum(features), features.shape[-1]
        values = {**metrics.ranks(features, eigenvalues, self.thresholds), "dead": metrics.dead_units(features)}
        if final:
            values |= {f"eigenvalue/{i}": eigenvalues[..., i - 1] for i in self.spectrum if i <= width}
        return values


def represented(learner: Learner, batches: Batches, split: str, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [R, n, out], last hidden layer [R, n, width] and targets [R, n] of a split, its inputs as they are."""
    forward = partial(learner.forward, features=True, **options)
    chunks = [(*forward(inputs), targets) for inputs, targets in batches.evaluation(split)]
    output, features, targets = (torch.cat(parts, 1) for parts in zip(*chunks, strict=True))
    return output, features, targets


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats; logits [..., batch, classes], targets [..., batch] -> [...]."""
    leading = targets.shape[:-1]
    if leading:  # classes not on the last axis: a softmax over that takes a CPU ten times longer
        logits, targets = logits.flatten(0, -3).mT, targets.flatten(0, -2)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none").mean(-1)
    return losses.view(leading) if leading else losses
