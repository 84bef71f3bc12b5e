"""Optimizers: the settings of stock torch optimizers."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from syre.checks import check, fraction, positive
from syre.models.base import Model


class OptimizerSpec(Protocol):
    """Settings of an optimizer; decay is the regularizer's and is passed in."""

    def build(self, model: nn.Module, weight_decay: float) -> Optimizer: ...


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters as param groups, in the module's order: decayed where the model asks for decay.

    All of them, unless the model names the submodules that decay in an attribute `decayed`, as the beta-VAE does its
    encoder. What decays is also what syre anchors.
    """
    decayed = model.decayed if isinstance(model, Model) else None
    if decayed is None:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    parts = groupby(model.named_parameters(), lambda named: named[0].split(".")[0] in decayed)
    return [
        {"params": [parameter for _, parameter in part], "weight_decay": weight_decay if decays else 0.0}
        for decays, part in parts
    ]


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum; decay is coupled, `g += lambda w`."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        positive("optim.lr", self.lr)
        fraction("optim.momentum", self.momentum)
        check(not self.nesterov or self.momentum > 0, "optim.nesterov=true needs optim.momentum > 0")

    def build(self, model: nn.Module, weight_decay: float) -> Optimizer:
        return torch.optim.SGD(
            decay_groups(model, weight_decay), lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True
        )


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam; decay is coupled, `g += lambda w`, as in the paper's experiments; `decoupled` makes it AdamW."""

    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    decoupled: bool = False

    def __post_init__(self) -> None:
        positive("optim.lr", self.lr)
        positive("optim.eps", self.eps)
        check(len(self.betas) == 2, f"optim.betas must be two numbers, got {list(self.betas)}")
        for beta in self.betas:
            fraction("optim.betas", beta)

    def build(self, model: nn.Module, weight_decay: float) -> Optimizer:
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        betas = (self.betas[0], self.betas[1])
        return kind(decay_groups(model, weight_decay), lr=self.lr, betas=betas, eps=self.eps, fused=True)
