"""Noise on the gradients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from syre.checks import at_least
from syre.core import Effect
from syre.optim import decayed
from syre.regularizers import Regularizer
from syre.rivals.parts import GradientHandle, alone
from syre.seeding import generator, restore_generator


@dataclass(frozen=True, kw_only=True)
class Noisy(Regularizer):
    """`g <- g + std * xi` before each step, xi ~ N(0, 1) for every entry, of a stream of the run's own.

    Source: Neelakantan et al. 2015, arXiv 1511.06807, whose variance `eta / (1 + t)^0.55` with eta 0.01, 0.3 or 1 falls
    with the steps t; here it does not, for a sequence of tasks has no end to settle for. Joudaki et al. 2025, arXiv
    2510.00304, name noise as a way out of the manifolds of cloned units, on which gradients alone hold a network.
    Compare: std {1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3}. In 1,560 steps of SGD (learning rate 0.01, momentum
    0.9) it alone moves a weight by about 4 std; torch starts the 512 weights of a unit within 0.044.

    scope: what decays, and has noise.
    """

    name: ClassVar[str] = "noisy"
    weight_decay: float = 0.0
    scope: str = "all"
    std: float = 0.01
    ranges: ClassVar = {"std": at_least}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "NoisyHandle":
        return NoisyHandle(optimizer, model, self, seed)


class NoisyHandle(GradientHandle):
    """Adds noise to the gradients before each step: the same in all processes that train one run."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, settings: Noisy, seed: int) -> None:
        self.std = settings.std
        self.parameters = list(decayed(model, settings.scope).values())
        self.stream = generator(seed, settings.name, device=self.parameters[0].device)
        super().__init__(optimizer)

    def effect(self) -> Effect:
        """None once detached. Raises ValueError while it is attached."""
        return alone(self)

    def progress(self) -> dict[str, Any]:
        return {"stream": self.stream.get_state()}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        restore_generator(self.stream, progress["stream"])

    def add(self) -> None:
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        for grad in grads:
            grad += self.std * torch.randn(grad.shape, generator=self.stream, device=grad.device, dtype=grad.dtype)
