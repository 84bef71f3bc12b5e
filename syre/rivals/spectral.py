"""Spectral regularization: the largest singular value of every layer is drawn to 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.checks import at_least
from syre.core import Effect
from syre.core.scale import is_gain
from syre.regularizers import Regularizer
from syre.rivals.parts import GradientHandle, alone, parameters_of
from syre.seeding import generator

FIRST = 30  # iterations before the first step, from a random vector; one in each step after that


@dataclass(frozen=True, kw_only=True)
class Spectral(Regularizer):
    """`l(w) + strength * (sum_W (sigma(W)^2 - 1)^2 + sum_b |b|^4)`, sigma the largest singular value of a matrix.

    By power iteration: u and v, kept between the steps, are brought one iteration further in each, and
    `4 strength sigma (sigma^2 - 1) u v^T` with `sigma = u^T W v` is added to the gradient of a matrix of weights,
    `4 strength |b|^2 b` to that of a vector of biases. (After a bound on the norm of the gradient, as weight decay is.)
    The kernels of a convolution are the matrix [channels out, channels in * height * width]. The gains of a norm are
    the diagonal matrix that they are: sigma is the largest of them in absolute value; its shifts are biases.

    Source: Lewandowski et al. 2025, arXiv 2406.06811v2, with their k = 2; `(sigma^k - 1)^2` of weights and
    `|b|^(2 k)` of biases. Ours: what is said above of gains, and of convolutions as usual with spectral norms (Yoshida
    & Miyato 2017, arXiv 1705.10941). Others who compare it try strengths 1e-4, 1e-3 and 1e-2.
    Compare: strength {1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3}.

    scope: what decays, and is in the sums.
    """

    name: ClassVar[str] = "spectral"
    weight_decay: float = 0.0
    scope: str = "all"
    strength: float = 1e-3
    ranges: ClassVar = {"strength": at_least}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "SpectralHandle":
        return SpectralHandle(optimizer, model, self, seed)


class SpectralHandle(GradientHandle):
    """Adds the gradient of the spectral penalty before each step."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, settings: Spectral, seed: int) -> None:
        self.strength = settings.strength
        found = {name: slot for name, (slot, _) in parameters_of(model, settings.scope).items()}
        self.matrices = {name: slot.parameter for name, slot in found.items() if slot.parameter.dim() > 1}
        self.gains = [slot.parameter for name, slot in found.items() if name not in self.matrices and is_gain(slot)]
        gains = {id(gain) for gain in self.gains}
        rest = [slot.parameter for name, slot in found.items() if name not in self.matrices]
        self.biases = [parameter for parameter in rest if id(parameter) not in gains]
        self.left: dict[str, Tensor] = {}  # the u of each matrix
        for name, weight in self.matrices.items():
            drawn = torch.randn(weight.shape[0], generator=generator(seed, settings.name, name))
            self.left[name] = drawn.to(weight)
            for _ in range(FIRST):
                self._iterate(name)
        super().__init__(optimizer)

    def effect(self) -> Effect:
        """None once detached. Raises ValueError while it is attached."""
        return alone(self)

    def progress(self) -> dict[str, Any]:
        return {"left": self.left}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        for name, vector in self.left.items():
            vector.copy_(progress["left"][name])

    @torch.no_grad()
    def _iterate(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """One iteration further: sigma, u and v."""
        matrix, left = self.matrices[name].flatten(1), self.left[name]
        right = nn.functional.normalize(matrix.mT @ left, dim=0)
        product = matrix @ right
        left.copy_(nn.functional.normalize(product, dim=0))
        return left @ product, left, right

    def add(self) -> None:
        for name, weight in self.matrices.items():
            if weight.grad is not None:
                sigma, left, right = self._iterate(name)
                weight.grad += (self._slope(sigma) * torch.outer(left, right)).view(weight.shape)
        for bias in self.biases:
            if bias.grad is not None:
                bias.grad += 4 * self.strength * bias.square().sum() * bias
        for gain in self.gains:
            if gain.grad is not None:
                at = gain.abs().argmax()
                gain.grad[at] += self._slope(gain[at])

    def _slope(self, sigma: Tensor) -> Tensor:
        """The derivative of `strength (sigma^2 - 1)^2`."""
        return 4 * self.strength * sigma * (sigma.square() - 1)
