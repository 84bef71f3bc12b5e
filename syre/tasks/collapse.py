"""Section 4 and appendix C: training from a start at which neurons are identical."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from syre import metrics
from syre.batches import Batches
from syre.checks import check, positive
from syre.learners import Learner
from syre.models.mlp import MLPModule
from syre.tasks.classification import Classification
from syre.tasks.neurons import hidden_units
from syre.trainer import Training

TWO_LAYERS = 4  # parameters: two weights, two biases


@dataclass(frozen=True, kw_only=True)
class CollapsedStart(Classification):
    """Classification; measures also how far the neurons that started identical have come apart.

    A neuron of the last hidden layer is its incoming weights, bias and outgoing weights. `distance` is `|P v| / |v|`
    over the neurons v that started identical, in [0, 1]: P takes off their mean, so that it is exactly 0 while they are
    equal (the fixed points of their permutations, `P v = 0`) and near 1 once they have nothing in common. NaN where no
    two started equal. `duplicated`: neurons, of all, that have another within 1 % of their length.
    """

    name: ClassVar[str] = "collapsed_start"

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        super().accept(model, data, settings)
        fits = isinstance(model, MLPModule)
        check(fits, f"task={self.name} needs model=collapsed_mlp or model=mlp, got {type(model).__name__}")

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        values = super().evaluate(learner, batches, final=final)
        neurons = hidden_units(dict(list(learner.parameters().items())[-TWO_LAYERS:]))
        counts = [replica.model.identical for replica in learner.replicas]
        values["distance"] = torch.stack([_distance(v[:n]) for v, n in zip(neurons, counts, strict=True)])
        values["duplicated"] = metrics.duplicated_neurons(neurons)
        return values


def _distance(neurons: Tensor) -> Tensor:
    """`|P v| / |v|`; exact: in float64, the mean of equal float32 numbers is that number."""
    if len(neurons) < 2:
        return torch.tensor(torch.nan, dtype=torch.float64, device=neurons.device)
    v = neurons.double()
    return (v - v.mean(0)).norm() / v.norm()


@dataclass(frozen=True, kw_only=True)
class TangentKernel(CollapsedStart):
    """CollapsedStart; measures also two ranks that Propositions 2 and 3 bound, of the last two layers (appendix C).

    `rank/ntk`: of the tangent kernel `J J^T` of the first `images` training images, J the Jacobian of their outputs by
    the d parameters of the two layers, [images * outputs, d]. `rank/gradient`: of `sum g g^T` over the gradients
    `g = J^T (softmax - onehot)` of the single losses of as many images as J has rows. Both are ranks of J and of the
    matrix of the g themselves, in float64 by the tolerance of `torch.linalg.matrix_rank`; `.../1e-06` counts singular
    values above 1e-6 of the largest, and `.../effective` is the effective rank.

    With n neurons of which k are equal, c classes, m inputs and an activation without symmetries of its own, the kernel
    has at most rank `(n - k + 1)(m + 1 + c) + c`. In each g the part of a neuron's outgoing weights sums to 0 over the
    classes: at most `(n - k + 1)(m + c) + c - 1`. ReLU takes off one more per neuron, whose scale it may share out.
    """

    name: ClassVar[str] = "tangent_kernel"
    images: int = 200
    ranges: ClassVar = {"images": positive}

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        values = super().evaluate(learner, batches, final=final)
        parameters = learner.parameters()
        rows = self.images * list(parameters.values())[-1].shape[-1]
        chunks: list[tuple[Tensor, Tensor]] = []
        for chunk in batches.evaluation("train"):
            chunks.append(chunk)
            if sum(targets.shape[1] for _, targets in chunks) >= rows:
                break
        found = []
        for k, replica in enumerate(learner.replicas):  # one by one: a chunk is a view that all replicas may share
            weights = {name: parameter[k].double() for name, parameter in parameters.items()}
            inputs, targets = (
                torch.cat([part[k, :rows] for part in parts])[:rows] for parts in zip(*chunks, strict=True)
            )
            kernel = jacobian(replica.model.eval(), weights, inputs[: self.images].double())
            moment = gradients(replica.model, weights, inputs.double(), targets)
            found.append(_ranks("ntk", kernel) | _ranks("gradient", moment))
        return values | {name: torch.stack([ranks[name] for ranks in found]) for name in found[0]}


def jacobian(model: nn.Module, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Derivatives of the outputs by the parameters of the last two layers, [batch * outputs, d]."""
    layers = dict(list(weights.items())[-TWO_LAYERS:])
    each = vmap(jacrev(lambda layers, x: functional_call(model, weights | layers, (x,))), (None, 0))(layers, inputs)
    return torch.cat([part.flatten(2) for part in each.values()], 2).flatten(0, 1)


def gradients(model: nn.Module, weights: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """Gradients of the cross-entropy of each sample by the parameters of the last two layers, [batch, d]."""

    def loss(layers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, weights | layers, (x,)), y)

    layers = dict(list(weights.items())[-TWO_LAYERS:])
    each = vmap(grad(loss), (None, 0, 0))(layers, inputs, targets)
    return torch.cat([part.flatten(1) for part in each.values()], 1)


def _ranks(name: str, matrix: Tensor) -> dict[str, Tensor]:
    finite = matrix.isfinite().all()
    singular = torch.linalg.svdvals(matrix.where(finite, 0)).where(finite, torch.nan)  # it raises on NaN
    return {
        f"rank/{name}": metrics.numerical_rank(singular, max(matrix.shape), torch.finfo(matrix.dtype).eps),
        f"rank/{name}/1e-06": metrics.threshold_rank(singular, 1e-6),
        f"rank/{name}/effective": metrics.effective_rank(singular),
    }
