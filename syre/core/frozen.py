"""Entries of parameters held fixed, as step hooks on a stock optimizer."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .decay import Effect, Handle
from .names import canonical_name

Frozen = dict[str, tuple[Tensor, Tensor]]  # parameter -> mask of its frozen entries, and their values


def draw_frozen(weight: Tensor, count: int, kappa: float, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """A mask with `count` entries in each row (output unit or channel) of `weight`, and values `kappa * N(0, 1)`."""
    rows = weight.flatten(1)
    order = torch.rand(rows.shape, generator=stream).argsort(1)
    mask = torch.zeros(rows.shape, dtype=torch.bool)
    mask.scatter_(1, order[:, :count], True)
    values = kappa * torch.randn(rows.shape, generator=stream)
    return mask.view_as(weight).to(weight.device), values.view_as(weight).to(weight)


class FrozenHandle(Handle):
    """Holds entries of parameters at fixed values: their gradients are 0, and they are written back after each step."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, frozen: Frozen) -> None:
        self.frozen = frozen
        self._entries = [(weight, *frozen[name]) for name, weight in model.named_parameters() if name in frozen]
        self.hooks = (
            optimizer.register_step_pre_hook(lambda *_: self._mask_gradients()),
            optimizer.register_step_post_hook(lambda *_: self._write_back()),
        )
        self._write_back()

    def effect(self) -> Effect:
        """The frozen entries; nothing once detached."""
        return Effect(frozen={canonical_name(name): held for name, held in self.frozen.items()} if self.hooks else {})

    @torch.no_grad()
    def _mask_gradients(self) -> None:
        for weight, mask, _ in self._entries:
            if weight.grad is not None:
                weight.grad.masked_fill_(mask, 0)

    @torch.no_grad()
    def _write_back(self) -> None:
        for weight, mask, values in self._entries:
            torch.where(mask, values, weight, out=weight)
