"""Fully connected networks."""

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from syre.checks import check, one_of
from syre.models.noise import Dropout

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


class MLPModule(nn.Module):
    """`logits = W_L h_{L-1} + b_L`, `h_l = dropout(act(W_l h_{l-1} + b_l))`; inputs [..., batch, *input_shape].

    Initialised as torch initialises `nn.Linear`.
    """

    leading_dims = True  # the forward pass is written for any number of leading dimensions (see syre.ensemble)

    def __init__(self, sizes: list[int], activation: type[nn.Module], input_dims: int = 1) -> None:
        super().__init__()
        self.input_dims = input_dims
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.activation = activation()
        self.dropouts = nn.ModuleList(Dropout(size) for size in sizes[1:-1])

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [..., batch, classes]; with `features`, also the last hidden layer [..., batch, width]."""
        if self.input_dims > 1:
            x = x.flatten(-self.input_dims)
        for layer, dropout in zip(self.layers, self.dropouts, strict=False):
            x = dropout(self.activation(layer(x)))
        logits = self.layers[-1](x)
        return (logits, x) if features else logits


@dataclass(frozen=True, kw_only=True)
class MLP:
    """A fully connected network with these hidden widths; `[300, 300, 300]` is the 4-layer FCN of section 6.3."""

    hidden: list[int] = field(default_factory=lambda: [300, 300, 300])
    activation: str = "relu"

    def __post_init__(self) -> None:
        one_of("model.activation", self.activation, ACTIVATIONS)
        check(
            bool(self.hidden) and all(width > 0 for width in self.hidden),
            f"model.hidden must list positive widths, got {list(self.hidden)}",
        )

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        sizes = [prod(input_shape), *self.hidden, outputs]
        return MLPModule(sizes, ACTIVATIONS[self.activation], len(input_shape))
