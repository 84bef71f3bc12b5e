"""What the hooks do before and after a step: the constant pull, and the shift to theta and back."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import decay
from .follow import Followed, Part
from .rounding import add_rounded_, eager, entries, stream
from .sharded import local

# Optimizers whose decay is exactly `g += lambda w` (False) or `w -= eta lambda w` (True), and whose update does not
# otherwise depend on w. A group's own `decoupled_weight_decay` wins. Compared by `is`: a subclass may have any rule.
_COUPLED = ("SGD", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
_DECOUPLED = ("AdamW", "Muon")  # Muon came with torch 2.9
EXACT: dict[type[Optimizer], bool] = {
    kind: name in _DECOUPLED for name in (*_COUPLED, *_DECOUPLED) if (kind := getattr(torch.optim, name, None))
}

# A decoupled pull `eta lambda b` with a smaller factor than this may be below the last digit of a float32 weight. Such
# is added rounded stochastically, and to be cheap not to all entries: in turn to one of 64 parts of each tensor, 64
# times as much (at most 0.2 % of b). So at every moment all that was due has arrived, averaged over the entries. After
# 128 steps two parts are done in every second step, then 4, 8, 16 in every 16th: at most 1/64 of it is late.
SMALL = 2.0**-15
PARTS, MOST = 64, 16


class Pull:
    """The optimizer keeps its own decay of w towards 0; what is missing of a decay towards b is constant, and added."""

    def __init__(self, followed: Followed, kind: type[Optimizer], seed: int) -> None:
        self._followed, self._seed = followed, seed
        self._default_decoupled = EXACT.get(kind, False)
        self.steps: dict[str, int] = {}  # by name: in how many its pull was rounded

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            # The fused step unscales the gradient itself, and may skip itself: both after we have acted.
            raise RuntimeError("a fused optimizer under a GradScaler: use fused=False, form='shift', or bfloat16")
        closure, replace = closure_of(args, kwargs)
        if closure is None:
            self._before_update(optimizer)
            return None

        def pulled() -> Any:  # the gradient exists only once the closure has run
            loss = closure()
            self._before_update(optimizer)
            return loss

        return replace(pulled)

    @torch.no_grad()
    def _before_update(self, optimizer: Optimizer) -> None:
        for group, part in list(self._followed.decayed(optimizer)):  # all of them, before anything is written
            decoupled = self._is_decoupled(group)
            if decoupled and (part.scales is None or self._is_rounded(group, part)):
                continue  # after the update
            part = part.live(_has_grad)
            if not part.parameters:
                continue
            rate, anchors = float(group["weight_decay"]), part.anchors
            maximize = group.get("maximize", False)
            if decoupled and part.scales is not None:
                decay.decay_decoupled_(part.weights(), anchors, part.scales, lr=float(group["lr"]), weight_decay=rate)
                continue
            gradients = part.gradients()
            if any(grad.dtype not in decay.FULL for grad in gradients):  # whatever the weights have
                self._pull_rounded(part, gradients, rate if maximize else -rate)
            elif part.scales is not None:
                decay.decay_coupled_(gradients, part.weights(), anchors, part.scales, rate, maximize)
            else:
                decay.pull_coupled_(gradients, anchors, weight_decay=rate, maximize=maximize)

    def _pull_rounded(self, part: Part, gradients: Sequence[Tensor], rate: float) -> None:
        """A coupled pull on gradients of low precision, `rate * b`, or with D `rate * (w - D (w - b))`."""
        scales: Sequence[Tensor | None] = part.scales or [None] * len(part.names)
        for name, grad, w, b, scale in zip(part.names, gradients, part.weights(), part.anchors, scales, strict=True):
            if scale is not None:
                wide = torch.promote_types(torch.float32, w.dtype)
                b = w.to(wide) - scale.to(wide) * (w.to(wide) - b.to(wide))
            if grad.dtype in decay.FULL:
                grad.add_(b, alpha=rate)
            else:
                add_rounded_(grad, b, rate, stream(self._seed, self._count(name), name, grad.device))

    @torch.no_grad()
    def after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for group, part in self._followed.decayed(optimizer):
            if not self._is_decoupled(group):
                continue  # before the update
            rounded = self._is_rounded(group, part)
            if part.scales is not None and not rounded:
                continue
            part = part.live(_has_grad)
            if not part.parameters:
                continue
            lr, rate = float(group["lr"]), float(group["weight_decay"])
            if rounded and abs(lr * rate) < SMALL:
                self._pull_small(part, lr * rate)
            elif rounded:  # low precision, and too much of b to wait for
                scales: Sequence[Tensor | None] = part.scales or [None] * len(part.names)
                for name, *tensors, scale in zip(part.names, part.weights(), part.anchors, scales, strict=True):
                    bits = stream(self._seed, self._count(name), name, tensors[0].device)
                    add_rounded_(*tensors, lr * rate, bits, scale)
            else:
                decay.pull_decoupled_(part.weights(), part.anchors, lr=lr, weight_decay=rate)

    @eager
    def _pull_small(self, part: Part, rate: float) -> None:
        """A pull that is rounded: of those parameters together that have taken as many steps, mostly all."""
        alike: dict[int, list[int]] = {}
        for index, name in enumerate(part.names):
            alike.setdefault(self._count(name), []).append(index)
        for step, indices in alike.items():
            together = min(MOST, 1 << max(0, ((step - 1) // PARTS).bit_length() - 1))
            if step % together == 0:
                self._pull_parts(part.at(indices), rate, step, together)

    def _pull_parts(self, part: Part, rate: float, step: int, together: int) -> None:
        """The pull of 64 steps on some of 64 parts: `1 - (1 - eta lambda)^64`, for w has decayed as often."""
        amount = -math.expm1(PARTS * math.log1p(-rate))
        end = (step - 1) % PARTS + 1
        pairs = zip(part.weights(), part.anchors, *([] if part.scales is None else [part.scales]), strict=True)
        found = [entries(list(tensors), end - together, end, PARTS) for tensors in pairs]
        named = [(name, views) for name, views in zip(part.names, found, strict=True) if views is not None]
        if part.sharded:  # replicas of a tensor round alike, whatever other tensors a rank has beside it
            for name, views in named:
                add_rounded_(*views[:2], amount, stream(self._seed, step, name, views[0].device), *views[2:])
            return
        for device in dict.fromkeys(views[0].device for _, views in named):
            some = [views for _, views in named if views[0].device == device]
            joined = [torch.cat([views[i].reshape(-1) for views in some]) for i in range(len(some[0]))]
            add_rounded_(*joined[:2], amount, stream(self._seed, step, "", device), *joined[2:])
            rounded = joined[0].split([views[0].numel() for views in some])
            targets = [views[0] for views in some]
            torch._foreach_copy_(targets, [new.view_as(to) for new, to in zip(rounded, targets, strict=True)])

    def _count(self, name: str) -> int:
        self.steps[name] = self.steps.get(name, 0) + 1
        return self.steps[name]

    def _is_rounded(self, group: dict[str, Any], part: Part) -> bool:
        """Whether a decoupled pull would be lost, in part at least, in the last digit of w."""
        small = abs(float(group["lr"]) * float(group["weight_decay"])) < SMALL
        return part.dtype not in decay.FULL or (part.dtype is torch.float32 and small)

    def _is_decoupled(self, group: dict[str, Any]) -> bool:
        return bool(group.get("decoupled_weight_decay", self._default_decoupled))


AVERAGES: dict[type[Optimizer], str] = {torch.optim.ASGD: "ax"}  # the entry of a parameter's state


class Shift:
    """To theta = w - b before the step and back after it: exact for any update rule, and w is rounded once or twice.

    Averages of the weights in an optimizer's state (table `AVERAGES`) move along, and so are averages of w to whoever
    reads them; in the state of other optimizers, what stands for weights is theta.
    """

    def __init__(self, followed: Followed, kind: type[Optimizer]) -> None:
        self._followed = followed
        self._average = next((key for known, key in AVERAGES.items() if issubclass(kind, known)), "")
        self._state: Mapping[Any, Any] = {}
        self._shifted: list[Part] = []
        self._depth = 0

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._depth += 1
        if self._depth > 1:  # the step of a class that calls its parent's, for which torch calls the hooks again
            return None
        self.to_theta(optimizer)
        closure, replace = closure_of(args, kwargs)
        if closure is None:
            return None

        def at_w() -> Any:  # the closure's forward pass sees w, however often the optimizer calls it
            shifted = self._shifted
            self.restore()
            loss = closure()
            self._shifted = shifted
            self._move(-1)
            return loss

        return replace(at_w)

    def after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.restore()

    def failed(self) -> None:
        """After a step that raised, wherever."""
        self._depth = 0
        self.restore()

    def to_theta(self, optimizer: Optimizer) -> None:
        parts = [part.live(_may_move) for part in self._followed.anchored(optimizer)]
        for part in parts:
            if part.parameters and part.dtype not in decay.FULL:  # cast since
                decay.require_decayable(part.names[0], part.parameters[0])
        self._shifted, self._state = parts, optimizer.state
        self._move(-1)

    def restore(self) -> None:
        """Back to w, once, also after an exception."""
        self._move(+1)
        self._shifted = []

    @torch.no_grad()
    def _move(self, sign: int) -> None:
        for part in self._shifted:
            decay.shift_(part.weights(), part.anchors, sign=sign)
            if self._average:
                own = [self._state.get(p, {}).get(self._average) for p in part.parameters]
                there = [(local(mean), b) for mean, b in zip(own, part.anchors, strict=True) if mean is not None]
                decay.shift_([mean for mean, _ in there], [b for _, b in there], sign=sign)


def choose(kind: type[Optimizer], form: str | None, *, has_scales: bool) -> str:
    """`"pull"` or `"shift"`: what was asked for, or the pull where it is exact.

    Raises:
        ValueError: a form that there is not, or not for this optimizer, or not with D.
    """
    if form not in (None, "pull", "shift"):
        raise ValueError(f"form must be 'pull', 'shift' or None, got {form!r}")
    chosen = form or ("pull" if kind in EXACT else "shift")
    if chosen == "pull" and kind not in EXACT:
        raise ValueError(f"the constant pull is not known to be exact for {kind.__name__}: use form='shift' or None")
    if chosen == "shift" and has_scales:
        raise ValueError(
            "sigma_d > 0 has no shift form: it needs an optimizer whose decay rule is known "
            f"({', '.join(known.__name__ for known in EXACT)}) and form='pull' or None, "
            f"got {kind.__name__} and form={form!r}"
        )
    return chosen


def closure_of(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[[], Any] | None, Callable[[Callable[[], Any]], tuple[tuple[Any, ...], dict[str, Any]]]]:
    """The closure in `step(closure)`, and how to put another in its place. `args` begins with the optimizer."""
    if len(args) > 1:
        return args[1], lambda closure: ((args[0], closure, *args[2:]), kwargs)
    return kwargs.get("closure"), lambda closure: (args, {**kwargs, "closure": closure})


def _may_move(parameter: Tensor) -> bool:
    """Whether a step may move it: also one that was frozen, and has a gradient of zeros since."""
    return parameter.requires_grad or parameter.grad is not None


def _has_grad(parameter: Tensor) -> bool:
    return parameter.grad is not None
