"""Linear functions whose coefficients are products of parameters."""

from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import ClassVar, cast

from torch import Tensor, nn

from syre.checks import count
from syre.models.base import Architecture, Model


class DiagonalLinearModule(Model):
    """`f(x) = x . (u_1 * ... * u_depth)`, entrywise products; inputs [..., batch, d] -> [..., batch, 1].

    Each u is the weight [1, d] of a linear form, initialised as torch initialises `nn.Linear` (std 1/sqrt(3 d)), so
    that fan-in and rows mean what they always mean.
    """

    gives = "a linear form"
    leading_dims = True

    def __init__(self, size: int, depth: int) -> None:
        super().__init__()
        self.factors = nn.ModuleList(nn.Linear(size, 1, bias=False) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        weights = [cast(nn.Linear, factor).weight for factor in self.factors]
        return nn.functional.linear(x, reduce(mul, weights), None)


@dataclass(frozen=True, kw_only=True)
class DiagonalLinear(Architecture):
    """A diagonal linear network without biases; depth 1 is linear regression, depth 2 the "spred" model of section 6.1.

    Neuron i, x_i u_1i ... u_depth,i, is dead where all its factors are 0: at depth 2 the mirror plane of the symmetry
    `(u_1i, u_2i) -> (-u_1i, -u_2i)`.
    """

    depth: int = 2
    ranges: ClassVar = {"depth": count}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return DiagonalLinearModule(input_shape[-1], self.depth)
