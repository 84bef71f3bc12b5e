"""Self-normalized resets: a unit is replaced that has been silent for longer than it ever is."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.checks import count, open_fraction
from syre.core import Effect
from syre.rivals.parts import Recycling, RecyclingHandle, alone

GROWTH, WINDOWS = 2, 2  # of a threshold that was too short; and the longest one, in windows


@dataclass(frozen=True, kw_only=True)
class SelfNormalizedResets(Recycling):
    """A unit silent for as long as the `1 - rejection` percentile of its own silences, or longer, is replaced.

    A unit fires in a step if it is above 0 for any sample of the batch (a channel: at any pixel). Its age a_i is the
    number of steps since it last did. After each step of the optimizer: if it fired, a_i is noted as one of its
    inter-firing times, and a_i <- 0; else a_i <- a_i + 1. A unit with `a_i >= tau_i` is replaced: its incoming weights
    are drawn as the model's first ones, its outgoing weights are 0; its a_i is noted too, and becomes 0.

    After every `window` steps each tau_i is set anew, by what was noted in them and by nothing before: to the
    `1 - rejection` percentile of the times >= 1; or, where that is not below tau_i (what is longer cannot be noted), to
    2 tau_i. It stays within 1 and 2 windows, begins at one window, and is 1 for a unit of which nothing was noted.

    Source: Farias & Jozefiak 2025, arXiv 2410.20098. Their Algorithm 1 leaves open how the distribution is kept; this
    is how the authors' code keeps it, with times in steps instead of samples (a silent batch counts as its samples
    there), and with the end of a task as the end of a window. Deviation: their biases start at 0, ours as the model's
    do. Compare: rejection {0.01, 0.03, 0.1, 0.3} x window {39, 156}: a quarter of a task, and a task.
    """

    name: ClassVar[str] = "self_normalized_resets"
    weight_decay: float = 0.0
    scope: str = "all"
    rejection: float = 0.05
    window: int = 156
    ranges: ClassVar = {"rejection": open_fraction, "window": count}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "SelfNormalizedResetsHandle":
        return SelfNormalizedResetsHandle(optimizer, model, self, seed)


class SelfNormalizedResetsHandle(RecyclingHandle):
    """Keeps age, threshold and the inter-firing times of every unit, and replaces those silent for too long."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, settings: SelfNormalizedResets, seed: int) -> None:
        super().__init__(optimizer, model, settings.name, seed)
        self.settings = settings
        longest = WINDOWS * settings.window
        places = [(layer.count, layer.reader.weight.device) for layer in self.layers]
        self.age = [torch.zeros(n, dtype=torch.int64, device=device) for n, device in places]
        self.threshold = [torch.full_like(age, settings.window) for age in self.age]
        self.times = [torch.zeros(n, longest + 1, dtype=torch.int32, device=device) for n, device in places]

    def effect(self) -> Effect:
        """None once detached. Raises ValueError while it is attached."""
        return alone(self)

    def state(self) -> dict[str, list[Tensor]]:
        return {"age": self.age, "threshold": self.threshold, "times": self.times}

    def measured(self, maps: Tensor) -> Tensor:
        return (maps > 0).any(2).to(maps)

    def chosen(self, index: int, seen: Tensor) -> Tensor:
        age, fired = self.age[index], seen > 0
        self._note(index, fired)
        age.copy_(torch.where(fired, 0, age + 1))
        late = age >= self.threshold[index]
        self._note(index, late)
        age.masked_fill_(late, 0)
        return late.nonzero().flatten()

    def _note(self, index: int, which: Tensor) -> None:
        """Note the ages of these units."""
        self.times[index].scatter_add_(1, self.age[index].unsqueeze(1), which.int().unsqueeze(1))

    def finish(self) -> None:
        if self.steps % self.settings.window:
            return
        for threshold, times in zip(self.threshold, self.times, strict=True):
            longest = times.shape[1] - 1
            noted = times[:, 1:].cumsum(1)
            total = noted[:, -1:]
            # The first time that reaches the percentile; 0 of none reaches any.
            reached = noted >= (1 - self.settings.rejection) * total
            percentile = reached.int().argmax(1) + 1
            shorter = percentile < threshold
            threshold.copy_(torch.where(shorter, percentile, GROWTH * threshold).clamp_(1, longest))
            times.zero_()
