"""Weight clipping: no weight leaves the range that it could have started in, times a factor."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from syre.checks import positive
from syre.core import Effect, Handle
from syre.core.scale import is_norm
from syre.regularizers import Regularizer
from syre.rivals.parts import alone, parameters_of


@dataclass(frozen=True, kw_only=True)
class WeightClipping(Regularizer):
    """After each step `w <- clip(w, -s, s)`, `s = bound / sqrt(fan_in)`: of weights and, with their layer's, of biases.

    s is `bound` times the largest weight of torch's initialisation. Gains and shifts of norms are free: the authors,
    who have none, do not say, and a gain of 1 is far outside.

    Source: Elsayed et al. 2024, arXiv 2407.01704, who clip all weights and biases and try bound 1, 2, 3, 4, 5.
    Compare: bound {0.5, 1, 1.5, 2, 3, 4, 5, 10}.

    scope: what decays, and is clipped.
    """

    name: ClassVar[str] = "weight_clipping"
    weight_decay: float = 0.0
    scope: str = "all"
    bound: float = 1.0
    ranges: ClassVar = {"bound": positive}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "WeightClippingHandle":
        return WeightClippingHandle(optimizer, model, self)


class WeightClippingHandle(Handle):
    """Clips the parameters after each step."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, settings: WeightClipping) -> None:
        found = parameters_of(model, settings.scope).values()
        self._bounds = [(slot.parameter, settings.bound * scale) for slot, scale in found if not is_norm(slot)]
        self.hooks = (optimizer.register_step_post_hook(lambda *_: self._clip()),)

    def effect(self) -> Effect:
        """None once detached. Raises ValueError while it is attached."""
        return alone(self)

    @torch.no_grad()
    def _clip(self) -> None:
        for parameter, bound in self._bounds:
            parameter.clamp_(-bound, bound)
