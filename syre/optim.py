"""Optimizers: the settings of stock torch optimizers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from syre.checks import Settings, check, each, fraction, one_of, positive
from syre.core.scale import TOKENS
from syre.models.base import Model


class OptimizerSpec(Settings, ABC):
    """Settings of an optimizer; decay is the regularizer's and is passed in."""

    prefix = "optim"

    @abstractmethod
    def build(self, model: nn.Module, weight_decay: float, scope: str = "all") -> Optimizer:
        """The stock optimizer of the model's parameters; `scope` as in `decay_groups`."""


SCOPES = ("all", "matrices", "weights")  # of the decay


def decayed(model: nn.Module, scope: str = "all") -> dict[str, nn.Parameter]:
    """The parameters that decay, by name, and which syre anchors: where the model asks for it, and within the scope.

    A model may name the submodules that decay in an attribute `decayed`, as the beta-VAE does its encoder.

    Args:
        scope: `"all"` of them; the `"matrices"`, those of two and more dimensions: no biases, no norms; or the
            `"weights"`, the matrices but for the tokens of a vision transformer, which are biases of its sequence.
    """
    one_of("regularizer.scope", scope, SCOPES)
    parts = model.decayed if isinstance(model, Model) else None
    named = model.named_parameters()
    inside = {name: parameter for name, parameter in named if parts is None or name.split(".")[0] in parts}
    if scope == "all":
        return inside
    free = TOKENS if scope == "weights" else ()
    return {name: p for name, p in inside.items() if p.dim() >= 2 and name.split(".")[-1] not in free}


def decay_groups(model: nn.Module, weight_decay: float, scope: str = "all") -> list[dict[str, Any]]:
    """The parameters as param groups, in the module's order; those that do not decay (`decayed`) at weight_decay 0."""
    names = decayed(model, scope)
    parts = groupby(model.named_parameters(), lambda named: named[0] in names)
    return [
        {"params": [parameter for _, parameter in part], "weight_decay": weight_decay if decays else 0.0}
        for decays, part in parts
    ]


@dataclass(frozen=True, kw_only=True)
class SGD(OptimizerSpec):
    """Stochastic gradient descent with momentum; decay is coupled, `g += lambda w`."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    ranges: ClassVar = {"lr": positive, "momentum": fraction}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not self.nesterov or self.momentum > 0, "optim.nesterov=true needs optim.momentum > 0")

    def build(self, model: nn.Module, weight_decay: float, scope: str = "all") -> Optimizer:
        return torch.optim.SGD(
            decay_groups(model, weight_decay, scope),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            fused=True,
        )


@dataclass(frozen=True, kw_only=True)
class Adam(OptimizerSpec):
    """Adam; decay is coupled, `g += lambda w`, as in the paper's experiments; `decoupled` makes it AdamW."""

    lr: float = 1e-3
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    decoupled: bool = False
    ranges: ClassVar = {"lr": positive, "eps": positive, "betas": each(fraction)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.betas) == 2, f"optim.betas must be two numbers, got {list(self.betas)}")

    def build(self, model: nn.Module, weight_decay: float, scope: str = "all") -> Optimizer:
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        betas = (self.betas[0], self.betas[1])
        return kind(decay_groups(model, weight_decay, scope), lr=self.lr, betas=betas, eps=self.eps, fused=True)
