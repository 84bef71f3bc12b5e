"""A model that is nothing but its parameters: a point in R^N."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from syre.checks import positive
from syre.models.base import Architecture, Model
from syre.models.noise import Dropout


class PointModule(Model):
    """`f() = w` in R^N, kept as the weight [1, N] of a linear form, so that fan-in and rows mean what they always mean.

    Initialised `w_i ~ N(0, scale^2 / N)`. Dropout acts on the entries of w.
    """

    gives = "a point"
    leading_dims = True

    def __init__(self, size: int, scale: float) -> None:
        super().__init__()
        self.form = nn.Linear(size, 1, bias=False)
        nn.init.normal_(self.form.weight, std=scale / size**0.5)
        self.dropout = Dropout(size)

    def forward(self, _: Tensor, features: bool = False) -> Tensor:
        """w [..., 1, N]; the input (the data of the objective) is not looked at."""
        return self.dropout(self.form.weight)


@dataclass(frozen=True, kw_only=True)
class Point(Architecture):
    """A vector `w` of R^N, N from the data (section 6.2); `scale` is its initial norm."""

    scale: float = 1.0
    ranges: ClassVar = {"scale": positive}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        return PointModule(input_shape[-1], self.scale)
