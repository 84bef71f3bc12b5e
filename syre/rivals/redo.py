"""ReDo: dormant units are recycled."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from syre.checks import at_least, count
from syre.core import Effect
from syre.rivals.parts import Recycling, RecyclingHandle, alone


@dataclass(frozen=True, kw_only=True)
class Redo(Recycling):
    """Every `period` steps each unit with `E|h_i| / mean_j E|h_j| <= threshold` is replaced.

    E is the mean over the batch of that step, of a channel also over its pixels, j runs over the layer. New incoming
    weights are drawn as the model's first ones, outgoing weights are 0: the function of the network keeps all but what
    the dormant unit gave to it, and all where that was 0.

    Source: Sokar et al. 2023, arXiv 2302.12902, whose own values are threshold 0.1 (0.025 is another in use) and period
    1000. Compare: threshold {0.01, 0.025, 0.1, 0.3} x period {20, 156}. A period of 1000 would be a single check; 156
    is one in each task, 20 as many in 1,560 steps as the authors have in 78,000.
    """

    name: ClassVar[str] = "redo"
    weight_decay: float = 0.0
    scope: str = "all"
    threshold: float = 0.1
    period: int = 1000
    ranges: ClassVar = {"threshold": at_least, "period": count}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "RedoHandle":
        return RedoHandle(optimizer, model, self, seed)


class RedoHandle(RecyclingHandle):
    """Replaces dormant units in every `period`-th step."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, settings: Redo, seed: int) -> None:
        self.settings = settings
        super().__init__(optimizer, model, settings.name, seed)

    def effect(self) -> Effect:
        """None once detached. Raises ValueError while it is attached."""
        return alone(self)

    def due(self) -> bool:
        return (self.steps + 1) % self.settings.period == 0

    def measured(self, maps: Tensor) -> Tensor:
        return maps.abs().mean(2)

    def chosen(self, index: int, seen: Tensor) -> Tensor:
        return (seen <= self.settings.threshold * seen.mean()).nonzero().flatten()
