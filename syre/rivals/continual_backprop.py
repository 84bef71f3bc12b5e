"""Continual backprop: in every step a small share of the units, those of the least utility, is replaced."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.checks import at_least, fraction, share
from syre.core import Effect
from syre.rivals.parts import Recycling, RecyclingHandle, alone


@dataclass(frozen=True, kw_only=True)
class ContinualBackprop(Recycling):
    """Of the units older than `maturity` steps, a share `rate` is replaced in each step: those of the least utility.

    After each step of the optimizer, for each layer l of units i with ages a_i (in steps):

        u_i <- decay u_i + (1 - decay) sum_k E|h_i| |w_ki|,    m_i <- decay m_i + (1 - decay) E h_i,    a_i <- a_i + 1,
        c_l <- c_l + rate * #{i: a_i > maturity},

    E the mean over the batch and k over the outgoing weights; the floor(c_l) mature units of the least
    `u_i / (1 - decay^a_i)` are replaced, and c_l keeps the rest. Of a unit that is replaced the mean contribution,
    `w_ki m_i / (1 - decay^a_i)`, moves to the bias of k; then its incoming weights are drawn as the model's first ones,
    its outgoing weights, u_i, m_i and a_i are 0. For a convolution h_i is the mean over the pixels.

    Source: Dohare et al. 2024 (Nature 632), Eq. (1) and Algorithm 1; bias correction and mean contribution as in arXiv
    2108.06325. The authors have decay 0.99 and rates of 1e-4 to 1e-6, maturity 100 on permuted MNIST, with one sample a
    step; 1e-4 and 10,000 on the ant. Deviation: their biases start at 0, ours as the model's do.
    Compare: rate {1e-4, 1e-3, 1e-2, 1e-1} x maturity {20, 100}. A rate of 1e-4 replaces at most 20 of the 128 units of
    the last hidden layer in 1,560 steps, and 1e-5 two: so the authors' largest is the smallest here.
    """

    name: ClassVar[str] = "continual_backprop"
    weight_decay: float = 0.0
    scope: str = "all"
    rate: float = 1e-4
    maturity: int = 100
    decay: float = 0.99
    ranges: ClassVar = {"rate": share, "maturity": at_least, "decay": fraction}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "ContinualBackpropHandle":
        return ContinualBackpropHandle(optimizer, model, self, seed)


class ContinualBackpropHandle(RecyclingHandle):
    """Keeps utility, mean and age of every unit, and replaces the least useful."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, settings: ContinualBackprop, seed: int) -> None:
        super().__init__(optimizer, model, settings.name, seed)
        self.settings = settings
        weights = [layer.reader.weight for layer in self.layers]
        self.utility = [w.new_zeros(layer.count) for w, layer in zip(weights, self.layers, strict=True)]
        self.mean = [w.new_zeros(layer.count, layer.copies) for w, layer in zip(weights, self.layers, strict=True)]
        # On the CPU: how many units are to be replaced is then known without waiting for a GPU.
        self.age = [torch.zeros(layer.count, dtype=torch.int64) for layer in self.layers]
        self.owed = [torch.zeros((), dtype=torch.float64) for _ in self.layers]

    def effect(self) -> Effect:
        """None once detached. Raises ValueError while it is attached."""
        return alone(self)

    def state(self) -> dict[str, list[Tensor]]:
        return {"utility": self.utility, "mean": self.mean, "age": self.age, "owed": self.owed}

    def measured(self, maps: Tensor) -> Tensor:
        return torch.stack([maps.abs(), maps], 1)

    def chosen(self, index: int, seen: Tensor) -> Tensor:
        layer, settings = self.layers[index], self.settings
        size, mean = layer.as_read(seen)
        outgoing = layer.reader.weight.abs().movedim(1, 0).flatten(1).sum(1).view_as(size)
        self.utility[index].lerp_((size * outgoing).sum(1), 1 - settings.decay)
        self.mean[index].lerp_(mean, 1 - settings.decay)
        self.age[index] += 1
        mature = (self.age[index] > settings.maturity).nonzero().flatten()
        self.owed[index] += settings.rate * len(mature)
        number = int(self.owed[index])
        self.owed[index] -= number
        if not number:
            return mature[:0]
        mature = mature.to(seen.device)
        utility = self.utility[index] / self._correction(index, seen)
        return mature[utility[mature].topk(number, largest=False).indices]

    def _correction(self, index: int, like: Tensor) -> Tensor:
        """`1 - decay^age` of each unit."""
        return (1 - self.settings.decay ** self.age[index].double()).to(like)

    def before_replacing(self, index: int, units: Tensor) -> None:
        reader, mean = self.layers[index].reader, self.mean[index]
        if reader.bias is not None:
            means = mean[units] / self._correction(index, mean)[units].unsqueeze(1)
            outgoing = reader.weight[:, self.layers[index].columns(units)]
            reader.bias += outgoing.unsqueeze(-1).flatten(2).sum(2) @ means.flatten()  # over the places of a kernel
        self.utility[index][units] = 0
        mean[units] = 0
        self.age[index][units.cpu()] = 0
