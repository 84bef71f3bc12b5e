"""Linear mode connectivity: the test loss along the straight line between two trained networks."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre import metrics
from syre.batches import Batches
from syre.checks import check
from syre.learners import Learner
from syre.tasks import needs
from syre.tasks.classification import cross_entropy, represented
from syre.trainer import Task, Training


@dataclass(frozen=True, kw_only=True)
class ModeConnectivity(Task):
    """Cross-entropy of two networks A and B (`syre.models.Pair`); at the end also of those between them.

    Measures, on the test set, with `w(l) = (1 - l) A + l B`: `loss`, `accuracy` and the ranks of the last hidden layer,
    each the mean of A and B, and `distance`, `|A - B| / sqrt(|A|^2 + |B|^2)` over all weight matrices (0: equal, 1:
    orthogonal). At the end, for `points` values of l from 0 to 1:

    - `loss/<l>` and `accuracy/<l>`;
    - `worst/loss` and `worst/accuracy`;
    - `barrier/loss`, `L(1/2) - (L(0) + L(1)) / 2`, and `barrier/loss/max`, `max_l [L(l) - (1 - l) L(0) - l L(1)]`;
    - `barrier/accuracy` and `barrier/accuracy/max`, the same of the accuracy that is lost.

    Source: Lim et al. 2024 (arXiv 2405.20231): 25 points, the curve and its worst value; for their graph networks the
    barrier at the middle. The larger definition is that of Entezari et al. 2021 (arXiv 2110.06296).
    """

    name: ClassVar[str] = "mode_connectivity"
    points: int = 25

    def __post_init__(self) -> None:
        check(self.points >= 3 and self.points % 2 == 1, f"task.points must be odd and >= 3, got {self.points}")

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        needs.classes(self.name, data)
        needs.model(self.name, model, "two networks")
        part = settings.part(len(data.train_inputs))
        whole = "train.batch_size must be even for a pair of networks, in each of train.accumulate parts and processes"
        check(part % 2 == 0, f"{whole}, got {part} samples")

    def loss(self, output: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of the two networks' mean cross-entropies, each over its half of the batch."""
        return 2 * cross_entropy(output, targets)

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        line = torch.linspace(0, 1, self.points if final else 2, dtype=torch.float64).tolist()
        losses, accuracies, ends = [], [], []
        for at in line:
            loss, accuracy, features = _measure(learner, batches, at)
            losses.append(loss)
            accuracies.append(accuracy)
            if at in (0, 1):
                ends.append(_ranks(features))
        values = {"loss": (losses[0] + losses[-1]) / 2, "accuracy": (accuracies[0] + accuracies[-1]) / 2}
        values |= {name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]}
        values["distance"] = _distance(learner.parameters())
        if final:
            values |= {f"loss/{at:.4f}": loss for at, loss in zip(line, losses, strict=True)}
            values |= {f"accuracy/{at:.4f}": accuracy for at, accuracy in zip(line, accuracies, strict=True)}
            values |= {"worst/loss": torch.stack(losses).amax(0), "worst/accuracy": torch.stack(accuracies).amin(0)}
            values |= _barrier("barrier/loss", torch.stack(losses), line)
            values |= _barrier("barrier/accuracy", -torch.stack(accuracies), line)
        return values


def _measure(learner: Learner, batches: Batches, at: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [R], accuracy [R] and last hidden layer [R, n, width] of the networks at `at` on their lines."""
    output, features, targets = represented(learner, batches, "test", at=at)
    return cross_entropy(output, targets).double(), metrics.accuracy(output, targets), features


def _ranks(features: Tensor) -> dict[str, Tensor]:
    singular = metrics.singular_values(features)
    size = max(features.shape[-2:])
    return {"rank": metrics.numerical_rank(singular, size), "rank/effective": metrics.effective_rank(singular)}


def _distance(parameters: dict[str, Tensor]) -> Tensor:
    """`|A - B| / sqrt(|A|^2 + |B|^2)` over the weight matrices; stacked parameters [R, ...] -> [R]."""
    matrices = {name: weight.double().flatten(1) for name, weight in parameters.items() if weight.dim() > 2}
    a, b = (torch.cat([w for name, w in matrices.items() if name.startswith(f"nets.{i}.")], 1) for i in (0, 1))
    return (a - b).norm(dim=1) / (a.square() + b.square()).sum(1).sqrt()


def _barrier(name: str, curve: Tensor, line: list[float]) -> dict[str, Tensor]:
    """How far a curve [points, R] lies above the chord between its ends: at the middle, and at most."""
    at = torch.tensor(line, dtype=curve.dtype, device=curve.device).unsqueeze(1)
    above = curve - (1 - at) * curve[0] - at * curve[-1]
    return {name: above[len(line) // 2], f"{name}/max": above.amax(0)}
