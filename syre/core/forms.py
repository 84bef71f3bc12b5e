"""What the hooks do before and after a step: the constant pull, and the shift to theta and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import decay
from .follow import Followed, Key, Part
from .rounding import add_rounded_, stream

# Optimizers whose decay is exactly `g += lambda w` (False) or `w -= eta lambda w` (True), and whose update does not
# otherwise depend on w. A group's own `decoupled_weight_decay` wins. Compared by `is`: a subclass may have any rule.
_COUPLED = ("SGD", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
_DECOUPLED = ("AdamW", "Muon")  # Muon came with torch 2.9
EXACT: dict[type[Optimizer], bool] = {
    kind: name in _DECOUPLED for name in (*_COUPLED, *_DECOUPLED) if (kind := getattr(torch.optim, name, None))
}

# A decoupled pull `eta lambda b` with a smaller factor than this may be below the last digit of a float32 weight. It is
# gathered over steps and added rounded stochastically: after each of the first 32 steps, then ever more rarely, so that
# what waits is at most 1/32 of all that was due, never more than 16 steps of it, and a factor no larger than this.
SMALL = 2.0**-10
WAITS, SHARE = 16, 32


@dataclass(kw_only=True)
class Gathered:
    """The pull of one part that is still to be added: a factor of b."""

    amount: float = 0.0
    waiting: int = 0  # steps
    steps: int = 0  # since it was attached
    part: Part | None = None  # whose it is; None: of those that take the next step

    def due(self) -> bool:
        return self.waiting >= min(WAITS, 1 + self.steps // SHARE) or self.amount >= SMALL

    def belongs_to(self, part: Part) -> bool:
        mine = self.part
        same = mine is None or mine is part
        return same or [*map(id, mine.parameters)] == [*map(id, part.parameters)]  # type: ignore[union-attr]


class Pull:
    """The optimizer keeps its own decay of w towards 0; what is missing of a decay towards b is constant, and added."""

    def __init__(self, followed: Followed, kind: type[Optimizer], seed: int) -> None:
        self._followed, self._seed = followed, seed
        self._default_decoupled = EXACT.get(kind, False)
        self.gathered: dict[Key, Gathered] = {}

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
        for (index, dtype), group, part in self._followed.decayed(optimizer):
            decoupled = self._is_decoupled(group)
            if decoupled and (part.scales is None or self._is_small(group, part)):
                continue  # after the update
            part = part.live(_has_grad)
            if not part.parameters:
                continue
            rate, anchors = float(group["weight_decay"]), part.anchors
            maximize = group.get("maximize", False)
            if decoupled and part.scales is not None:
                decay.decay_decoupled_(part.weights(), anchors, part.scales, lr=float(group["lr"]), weight_decay=rate)
            elif part.scales is not None:
                decay.decay_coupled_(part.gradients(), part.weights(), anchors, part.scales, rate, maximize)
            elif part.dtype in decay.FULL:
                decay.pull_coupled_(part.gradients(), anchors, weight_decay=rate, maximize=maximize)
            else:
                counter = self.gathered.setdefault((index, f"{dtype} gradients"), Gathered())
                counter.steps += 1
                self._round(part, part.gradients(), rate if maximize else -rate, counter.steps)

    @torch.no_grad()
    def after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for key, group, part in self._followed.decayed(optimizer):
            if not self._is_decoupled(group):
                continue  # before the update
            small = self._is_small(group, part)
            if part.scales is not None and not small:
                continue
            part = part.live(_has_grad)
            if not part.parameters:
                continue
            lr, rate = float(group["lr"]), float(group["weight_decay"])
            if small:
                self._gather(key, part, lr * rate)
            else:
                decay.pull_decoupled_(part.weights(), part.anchors, lr=lr, weight_decay=rate)

    def _gather(self, key: Key, part: Part, amount: float) -> None:
        gathered = self.gathered.setdefault(key, Gathered())
        if not gathered.belongs_to(part):
            self._add(gathered)
        gathered.part = part
        gathered.amount = gathered.amount * (1 - amount) + amount  # what is added waits decaying, as w does
        gathered.waiting += 1
        gathered.steps += 1
        if gathered.due():
            self._add(gathered)

    def _add(self, gathered: Gathered) -> None:
        if gathered.part is not None:
            self._round(gathered.part, gathered.part.weights(), gathered.amount, gathered.steps)
        gathered.amount, gathered.waiting = 0.0, 0

    def _round(self, part: Part, targets: list[Tensor], amount: float, count: int) -> None:
        scales: Sequence[Tensor | None] = part.scales or [None] * len(targets)
        for name, target, anchor, scale in zip(part.names, targets, part.anchors, scales, strict=True):
            add_rounded_(target, anchor, amount, stream(self._seed, count, name, target.device), scale)

    def _is_small(self, group: dict[str, Any], part: Part) -> bool:
        """Whether a decoupled pull would be lost, in part at least, in the last digit of w."""
        return part.dtype is not torch.float64 and (
            part.dtype is not torch.float32 or abs(float(group["lr"]) * float(group["weight_decay"])) < SMALL
        )

    def _is_decoupled(self, group: dict[str, Any]) -> bool:
        return bool(group.get("decoupled_weight_decay", self._default_decoupled))

    # ---- what a resume needs

    def state(self) -> dict[int, dict[str, tuple[float, int, int]]]:
        """By group and dtype: what is gathered, over how many steps, after how many."""
        found: dict[int, dict[str, tuple[float, int, int]]] = {}
        for (index, dtype), own in self.gathered.items():
            found.setdefault(index, {})[dtype] = (own.amount, own.waiting, own.steps)
        return found

    def load(self, index: int, state: dict[str, tuple[float, int, int]]) -> None:
        for dtype, (amount, waiting, steps) in state.items():
            self.gathered[index, dtype] = Gathered(amount=amount, waiting=waiting, steps=steps)


class Shift:
    """To theta = w - b before the step and back after it: exact for any update rule, and w is rounded once or twice."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
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
        self._shifted = [part.live(lambda p: p.requires_grad) for part in self._followed.anchored(optimizer)]
        self._move(-1)

    def restore(self) -> None:
        """Back to w, once, also after an exception."""
        self._move(+1)
        self._shifted = []

    @torch.no_grad()
    def _move(self, sign: int) -> None:
        for part in self._shifted:
            decay.shift_(part.weights(), part.anchors, sign=sign)


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


def _has_grad(parameter: Tensor) -> bool:
    return parameter.grad is not None
