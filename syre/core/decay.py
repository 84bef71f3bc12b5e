"""The maths of the decay toward an anchor, and what a handle says that it does to the run that it is attached to.

Notation (arXiv 2408.15495v3): `w` is what the forward pass sees, `b` the anchor, `theta = w - b`, `lambda`
torch's `weight_decay`, `eta` the learning rate, `D` the diagonal of Eq. (7) (the *scales*).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .sharded import is_sharded

# ---- what is attached to a run ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a handle does to the steps of one run, by canonical parameter names: so an ensemble repeats it by rows.

    Attributes:
        anchors: b, toward which a parameter decays; 0 for those left out.
        scales: the diagonal of D; 1 for those left out.
        frozen: (mask, values) of the entries that are held fixed: their gradients are 0, their values written back.
    """

    anchors: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    frozen: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Handle:
    """What a regularizer attached to a run: it says what it does there, and how to take it off again.

    Attributes:
        hooks: all that was registered on the optimizer; empty once detached.
    """

    hooks: Sequence[RemovableHandle] = ()

    def effect(self) -> Effect:
        """All that it does to a step. Every class says so itself, as one that inherits from it may do more.

        Raises:
            ValueError: an ensemble could not repeat it.
        """
        raise NotImplementedError

    def detach(self) -> None:
        """Remove the hooks. The weights stay where they are."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = ()


def effect_of(handle: Handle | None) -> Effect:
    """What a handle says that it does to a step; it says so itself, not the class that its own class extends.

    Raises:
        ValueError: it does not say, or an ensemble could not repeat it.
    """
    if handle is None:
        return Effect()
    if "effect" not in vars(type(handle)) or not isinstance(effect := handle.effect(), Effect):
        raise ValueError("this handle does not state its effect on a step (syre.core.Effect)")
    return effect


@runtime_checkable
class Renews(Protocol):
    """A handle that changes the weights of a run between two tasks."""

    def renew(self, parameters: Mapping[str, Tensor], stage: int) -> None:
        """Write the weights with which task `stage` begins into `parameters` (name -> tensor)."""


@runtime_checkable
class Varies(Protocol):
    """A handle that acts otherwise in each task of a sequence."""

    def vary(self, stage: int) -> None:
        """Act as in task `stage` from now on, whatever it did before: so a run can go on inside any task."""


@runtime_checkable
class Continues(Protocol):
    """A handle with a state of its own, without which a run that is resumed would be another one."""

    def progress(self) -> dict[str, Any]:
        """Counters, averages, random streams: tensors and plain numbers, for the checkpoint."""

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take over such a state."""


# ---- what can be decayed ---------------------------------------------------------------------------------------------


def require_start(start: str) -> None:
    """Raise ValueError unless `start` is one of the two start points."""
    if start not in ("shift", "keep"):
        raise ValueError(f"start must be 'shift' (w_0 = init + b) or 'keep' (w_0 = init), got {start!r}")


FULL = (torch.float32, torch.float64)  # in which a sum with the pull is more than its last digit


def require_decayable(name: str, parameter: Tensor, stochastic: bool = False) -> None:
    """Raise ValueError unless the parameter is a float32 or float64 tensor that is there.

    A bfloat16 weight rounds a pull of 1e-3 of itself away: `stochastic` takes those too, and float16.
    """
    if parameter.is_meta:
        raise ValueError(f"parameter {name!r} is on the meta device: give it its values first (to_empty, and an init)")
    if parameter.is_complex():
        raise ValueError(f"parameter {name!r} is complex, and anchors are real: leave it out of the decayed groups")
    if parameter.dtype not in FULL and not (stochastic and parameter.dtype in (torch.bfloat16, torch.float16)):
        raise ValueError(
            f"parameter {name!r} is {parameter.dtype}, in which the pull toward the anchor would be rounded away: "
            "keep the parameters in float32 (or float64) and compute in low precision with torch.autocast, or "
            "attach(..., stochastic_rounding=True), which rounds the pull stochastically, so that it arrives on "
            "average (in the pull form, that is with an optimizer of `EXACT`)"
        )


def require_whole(name: str, parameter: Tensor) -> None:
    """Raise ValueError for a DTensor, which cannot be parametrized."""
    if is_sharded(parameter):
        raise ValueError(f"parameter {name!r} is a DTensor, a shard of one: use syre.attach, which takes it")


# ---- the decay -------------------------------------------------------------------------------------------------------


class AddAnchor(nn.Module):
    """`w = theta + b`, Eq. (6), as a parametrization: b is a buffer, so it is saved and moved with the model."""

    anchor: Tensor

    def __init__(self, anchor: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchor", anchor)

    def forward(self, theta: Tensor) -> Tensor:
        return theta + self.anchor

    def right_inverse(self, w: Tensor) -> Tensor:
        return w - self.anchor


# One foreach operation (three with D) over the lists of one parameter group, in place. Whatever dtype the anchors have,
# the result has that of the parameters. `weight_decay` is lambda, 1/step after the factor lr; `lr` is eta.
Tensors = list[Tensor]


def pull_coupled_(grads: Tensors, anchors: Tensors, *, weight_decay: float, maximize: bool = False) -> None:
    """`g -= lambda b`, before an optimizer that adds `lambda w`: together `g + lambda (w - b)` (SGD, Adam).

    With `maximize` the optimizer negates g before it decays, and the pull changes sign. Lists of equal shapes.
    """
    torch._foreach_add_(grads, anchors, alpha=weight_decay if maximize else -weight_decay)


def pull_decoupled_(parameters: Tensors, anchors: Tensors, *, lr: float, weight_decay: float) -> None:
    """`w += eta lambda b`, after an optimizer that took off `eta lambda w`: `w - eta lambda (w - b)` (AdamW)."""
    torch._foreach_add_(parameters, anchors, alpha=lr * weight_decay)


def decay_coupled_(
    grads: Tensors, parameters: Tensors, anchors: Tensors, scales: Tensors, weight_decay: float, maximize: bool = False
) -> None:
    """`g += lambda (D (w - b) - w)`, before an optimizer adds `lambda w`: Eq. (7), `g + lambda D (w - b)`."""
    sign = -1.0 if maximize else 1.0
    torch._foreach_addcmul_(grads, parameters, scales, value=sign * weight_decay)
    torch._foreach_addcmul_(grads, anchors, scales, value=-sign * weight_decay)
    torch._foreach_add_(grads, parameters, alpha=-sign * weight_decay)


def decay_decoupled_(parameters: Tensors, anchors: Tensors, scales: Tensors, *, lr: float, weight_decay: float) -> None:
    """`w <- [w - eta lambda D (w - b)] / (1 - eta lambda)`: Eq. (7), before an optimizer that multiplies by the rest.

    Its own decay, `w *= 1 - eta lambda`, then leaves `w - eta lambda D (w - b)`. Takes one temporary copy of w.

    Raises:
        ValueError: eta lambda = 1, where the optimizer's own decay forgets w.
    """
    rate = lr * weight_decay
    if rate == 1:
        raise ValueError("sigma_d > 0 with decoupled decay needs lr * weight_decay != 1")
    offsets = torch._foreach_sub(parameters, anchors)
    torch._foreach_addcmul_(parameters, offsets, scales, value=-rate)
    torch._foreach_mul_(parameters, 1 / (1 - rate))


def shift_(parameters: Tensors, anchors: Tensors, *, sign: int) -> None:
    """`w += sign b`: with -1 from w to theta, with +1 back (Eq. (6) as written, for any update rule)."""
    if parameters:
        torch._foreach_add_(parameters, anchors, alpha=sign)
