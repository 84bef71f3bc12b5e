"""Fully connected networks."""

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from syre.checks import all_widths, among, share
from syre.models.base import Architecture, Model
from syre.models.layers import Activation, LayerNorm
from syre.models.noise import Dropout
from syre.models.units import Units

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}
NORMS: dict[str, type[nn.Module]] = {"none": nn.Identity, "layer": LayerNorm}


class MLPModule(Model):
    """`logits = W_L h_{L-1} + b_L`, `h_l = dropout(act(norm(W_l h_{l-1} + b_l)))`; inputs [..., batch, *input_shape].

    Initialised as torch initialises `nn.Linear`.
    """

    gives = "logits"
    leading_dims = True
    bookkeeping = ("identical",)
    identical = 0  # neurons of the last hidden layer that started as copies of its first one, which counts

    def __init__(
        self, sizes: list[int], activation: type[nn.Module], input_dims: int = 1, norm: type[nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.input_dims = input_dims
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(norm(size) for size in sizes[1:-1])
        self.activations = nn.ModuleList(Activation(activation(), size) for size in sizes[1:-1])
        self.dropouts = nn.ModuleList(Dropout(size) for size in sizes[1:-1])

    def units(self) -> tuple[Units, ...]:
        layers = cast(list[nn.Linear], list(self.layers))
        parts = enumerate(zip(pairwise(layers), self.norms, self.dropouts, strict=True))
        return tuple(
            Units(name=f"layers.{k}", place=dropout, writers=(layer, norm), reader=reader)
            for k, ((layer, reader), norm, dropout) in parts
        )

    @torch.no_grad()
    def collapse(self, count: int) -> None:
        """Make the first `count` neurons of the last hidden layer copies of the first: incoming, bias and outgoing."""
        self.identical = count
        incoming, biases, outgoing, _ = list(self.layers.parameters())[-4:]
        for rows in (incoming, biases, outgoing.T):
            rows[:count] = rows[0].clone()

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [..., batch, classes]; with `features`, also the last hidden layer [..., batch, width]."""
        if self.input_dims > 1:
            x = x.flatten(-self.input_dims)
        for layer, norm, activation, dropout in zip(
            self.layers, self.norms, self.activations, self.dropouts, strict=False
        ):
            x = dropout(activation(norm(layer(x))))
        logits = self.layers[-1](x)
        return (logits, x) if features else logits


@dataclass(frozen=True, kw_only=True)
class MLP(Architecture):
    """A fully connected network with these hidden widths; `[300, 300, 300]` is the 4-layer FCN of section 6.3."""

    hidden: list[int] = field(default_factory=lambda: [300, 300, 300])
    activation: str = "relu"
    ranges: ClassVar = {"activation": among(*ACTIVATIONS), "hidden": all_widths}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> MLPModule:
        sizes = [prod(input_shape), *self.hidden, outputs]
        return MLPModule(sizes, ACTIVATIONS[self.activation], len(input_shape))


@dataclass(frozen=True, kw_only=True)
class CollapsedMLP(MLP):
    """An MLP that starts on a fixed point of the permutations of its last hidden layer (section 4).

    identical: the fraction of that layer's neurons that start as copies of its first one; the other neurons start as
        they would without it.
    """

    identical: float = 0.9
    ranges: ClassVar = {"identical": share}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> MLPModule:
        module = super().build(input_shape, outputs)
        module.collapse(round(self.identical * self.hidden[-1]))
        return module
