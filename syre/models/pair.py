"""Two networks trained side by side, and the straight line between them."""

from dataclasses import dataclass, field
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from syre.checks import all_widths, among, check
from syre.models.base import Architecture, Model
from syre.models.mlp import ACTIVATIONS, NORMS, MLPModule


class PairModule(Model):
    """Networks A and B of one architecture; the first half of a batch goes through A, the second through B.

    A batch is a random draw, so the two see other samples in another order, and each is trained as it would be alone on
    batches of half the size: no parameter is shared, and the loss is the sum of theirs. With `shared`, what a
    regularizer draws for a parameter of B (anchor, D, frozen entries) is what it draws for that of A.
    """

    gives = "two networks"
    leading_dims = True
    bookkeeping = ("shared",)

    def __init__(self, nets: list[MLPModule], *, shared: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.batch_axis = -1 - nets[0].input_dims
        self.shared = shared

    def drawn_as(self, name: str) -> str:
        """The name under which the fixed random tensors of `name` are drawn (see `syre.core.drawn_as`)."""
        return name.replace("nets.1.", "nets.0.", 1) if self.shared and name.startswith("nets.1.") else name

    def forward(self, x: Tensor, at: float | None = None, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The logits [..., batch, classes] of the two networks, each on its half of the batch.

        With `at`, those of the network with parameters `(1 - at) A + at B` on the whole batch; with `features`, also
        its last hidden layer.
        """
        if at is not None:
            a, b = (dict(net.named_parameters()) for net in self.nets)
            between = {name: (1 - at) * a[name] + at * b[name] for name in a}
            return functional_call(self.nets[0], between, (x,), {"features": features})
        check(x.shape[self.batch_axis] % 2 == 0, "train.batch_size must be even for a pair of networks")
        halves = x.chunk(2, self.batch_axis)
        return torch.cat([net(half) for net, half in zip(self.nets, halves, strict=True)], -2)


@dataclass(frozen=True, kw_only=True)
class Pair(Architecture):
    """Two fully connected networks with different initial weights (Lim et al. 2024: 3 x 512, LayerNorm, GELU).

    `shared`: whether they share their anchors and frozen entries, without which there is no reason to be connected.
    """

    hidden: list[int] = field(default_factory=lambda: [512, 512, 512])
    activation: str = "gelu"
    norm: str = "layer"
    shared: bool = True
    ranges: ClassVar = {"activation": among(*ACTIVATIONS), "norm": among(*NORMS), "hidden": all_widths}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        sizes = [prod(input_shape), *self.hidden, outputs]
        kinds = ACTIVATIONS[self.activation], len(input_shape), NORMS[self.norm]
        return PairModule([MLPModule(sizes, *kinds) for _ in range(2)], shared=self.shared)
