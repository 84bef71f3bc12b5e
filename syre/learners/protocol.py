"""What the trainer steps: replicas, the learner that holds them, and how many of them one learner should hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.core.decay import Continues, Handle, Renews, Varies

Loss = Callable[..., Tensor]  # (output [..., batch, ...], *batch) -> [...]: the mean over the batch, per replica

# Working set up to which replicas gain from sharing a step: above it they push one another out of the cache.
CACHE_BYTES = 24 * 2**20
MOST_REPLICAS = 64


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One run, ready to train: a module, a stock optimizer, what its regularizer attached, and its noise stream."""

    model: nn.Module
    optimizer: Optimizer
    handle: Handle | None = None
    noise: torch.Generator

    def renew(self, parameters: Mapping[str, Tensor], stage: int) -> None:
        """Let the handle, if it does that, change the weights (name -> tensor) with which task `stage` begins."""
        if isinstance(self.handle, Renews):
            self.handle.renew(parameters, stage)

    def vary(self, stage: int) -> bool:
        """Let the handle, if it acts otherwise in each task, act as in task `stage`; whether it does."""
        if isinstance(self.handle, Varies):
            self.handle.vary(stage)
            return True
        return False

    def progress(self) -> dict[str, Any]:
        """What a checkpoint keeps of the handle, if it has a state of its own."""
        return {"handle": self.handle.progress()} if isinstance(self.handle, Continues) else {}

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Give the handle, if it has a state of its own, the one in this checkpoint."""
        if isinstance(self.handle, Continues):
            self.handle.go_on(state["handle"])


class Learner(Protocol):
    """What the trainer needs: R replicas that can be evaluated and stepped. The leading axis R is always there."""

    size: int
    replicas: list[Replica]

    def forward(self, *inputs: Tensor, train: bool = False, **options: Any) -> Any: ...

    def step(self, loss_fn: Loss, batch: Sequence[Tensor], *, lr_factor: float, clip: float | None) -> Tensor: ...

    def enter(self, stage: int) -> None:
        """Begin task `stage`: what renews the weights between tasks does so now, and what varies is that task's."""

    def vary(self, stage: int) -> None:
        """Be inside task `stage`, before a state from there is loaded: the weights stay."""

    def parameters(self) -> dict[str, Tensor]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def replicas_per_process(parameters: int, activations: int, batch: int, *, memory: int = CACHE_BYTES) -> int:
    """How many replicas to stack: as many as fit, `R (6 P + 3 B A) * 4 bytes <= memory`, at most 64.

    On a CPU what must fit is the cache; a GPU gains from every replica that fits its memory.

    Args:
        parameters: P, of one replica (weights, gradient, two moments, anchor, one temporary: 6 copies).
        activations: A, hidden and output units per sample (forward, backward, one temporary: 3 copies).
        batch: B, samples per step.
        memory: bytes.

    Returns:
        R; 1 (a lone run on a stock optimizer) where stacking would not gain. Measured by `make bench`.
    """
    fit = memory // (4 * (6 * parameters + 3 * batch * activations))
    return 1 if fit < 4 else min(fit, MOST_REPLICAS)


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees; else it goes back to the kernel, which zeroes it, page by page, for the next.

    Having once freed a block, glibc keeps up to twice its size; 32 MiB is the most it learns from. The block itself is
    never touched, and costs nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
