"""Which hidden units of a network have become the same: the degree of symmetry of section 5.3."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from syre import metrics
from syre.batches import Batches
from syre.checks import all_fractions
from syre.learners import Learner
from syre.tasks.classification import Classification
from syre.trainer import Training


@dataclass(frozen=True, kw_only=True)
class NeuronSymmetry(Classification):
    """Classification by a network with one hidden layer; measures also how symmetric its weights are.

    For each t of `tolerances`: `duplicated/<t>`, hidden units whose incoming weights, bias and outgoing weights are
    those of another one within t of their length, and `symmetry/<t>`, units duplicated or dead (all weights within t of
    0, relative to the longest): the units on a mirror plane of the permutation symmetry, or without a function.
    """

    name: ClassVar[str] = "neuron_symmetry"
    tolerances: list[float] = field(default_factory=lambda: [1e-1, 1e-2])
    ranges: ClassVar = {"tolerances": all_fractions}

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        super().accept(model, data, settings)
        hidden_units({name: parameter.detach().unsqueeze(0) for name, parameter in model.named_parameters()})

    def evaluate(self, learner: Learner, batches: Batches, *, final: bool) -> dict[str, Tensor]:
        weights = hidden_units(learner.parameters())
        values = super().evaluate(learner, batches, final=final)
        for t in self.tolerances:
            values[f"duplicated/{t:g}"] = metrics.duplicated_neurons(weights, t)
            values[f"symmetry/{t:g}"] = metrics.symmetric_neurons(weights, t)
        return values


def hidden_units(parameters: Mapping[str, Tensor]) -> Tensor:
    """A row per hidden unit: incoming weights, bias, outgoing weights, [R, units, inputs + 1 + outputs].

    Args:
        parameters: of R networks with one hidden layer, in the order of their layers, each with a leading axis R.

    Raises:
        ValueError: parameters that are not two linear layers with biases.
    """
    shapes = [tuple(parameter.shape[1:]) for parameter in parameters.values()]
    match shapes:
        case [(units, _), (biases,), (_, into), (_,)] if units == biases == into:
            incoming, bias, outgoing, _ = parameters.values()
            return torch.cat([incoming, bias.unsqueeze(-1), outgoing.mT], -1)
    raise ValueError(
        "task=neuron_symmetry needs a network with one hidden layer (model=mlp or model=collapsed_mlp, "
        f"model.hidden=[100]), got parameters of shapes {shapes[:4]}"
    )
