"""One optimizer that steps R replicas at once, each by its own settings, as R stock ones would."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from syre.checks import check
from syre.core.decay import Effect
from syre.core.names import canonical_parameters

# Where learning rates differ, a replica of up to this many parameters is not worth an optimizer call of its own.
SMALL = 4096
GROUPS = "replicas of one ensemble must have as many parameters"

Coefficient = float | Tensor


@lru_cache(maxsize=64)  # a GPU would have to be waited for at every step
def _coefficient(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Coefficient:
    """A float where all replicas agree, else a column [R, 1], not to be written to."""
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The columns of one param group and its settings, one number per replica each."""

    columns: slice
    groups: list[dict[str, Any]]

    def setting(self, key: str, like: Tensor) -> Coefficient:
        return _coefficient(tuple(float(group[key]) for group in self.groups), like.dtype, like.device)

    def rates(self) -> dict[float, list[int]]:
        """The learning rates, each with the replicas that have it."""
        found: dict[float, list[int]] = {}
        for row, group in enumerate(self.groups):
            found.setdefault(float(group["lr"]), []).append(row)
        return found

    def one(self, key: str) -> Any:
        """A setting that must not differ between replicas."""
        values = [group.get(key) for group in self.groups]
        check(all(value == values[0] for value in values), f"replicas of one ensemble must share {key}, got {values}")
        return values[0]


class BatchedOptimizer:
    """SGD with momentum, Adam or AdamW on R parameter vectors at once: `flat [R, P]`, row k by its own settings.

    It is built from R stock optimizers and what the regularizers attached to them, reads lr, momentum, betas, eps and
    weight_decay from their param groups, and takes the same steps as they would (tested to 1e-10 in float64). Anchors
    (`g -= lambda b` coupled, `w += eta lambda b` decoupled), the diagonal D of Eq. (7) and frozen entries act by row.

    Raises:
        ValueError: an optimizer other than torch's SGD, Adam and AdamW, options beyond the above, or replicas that
            differ in kind, betas, eps or nesterov.
    """

    def __init__(
        self, flat: Tensor, optimizers: Sequence[Optimizer], model: nn.Module, effects: Sequence[Effect]
    ) -> None:
        kinds = {type(optimizer) for optimizer in optimizers}
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        known = len(kinds) == 1 and kinds <= {torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW}
        check(known, f"an ensemble steps SGD, Adam or AdamW, all of one kind, got {names}")
        self.kind = kinds.pop()
        self.flat, self.steps = flat, 0
        self.segments = self._segments(optimizers)
        for segment in self.segments:
            unsupported = [key for key in ("amsgrad", "maximize", "dampening") if segment.one(key)]
            check(not unsupported, f"an ensemble does not step with {', '.join(unsupported)}")
            for key in ("betas", "eps", "nesterov"):  # those that this kind has
                segment.one(key)
        self.decoupled = self.kind is not torch.optim.SGD and bool(self.segments[0].one("decoupled_weight_decay"))
        adaptive = self.kind is not torch.optim.SGD
        momentum = not adaptive and any(group["momentum"] for segment in self.segments for group in segment.groups)
        self.first = torch.zeros_like(flat) if adaptive or momentum else None
        self.second = torch.zeros_like(flat) if adaptive else None
        self.take(model, effects)

    def take(self, model: nn.Module, effects: Sequence[Effect]) -> None:
        """Have the handles of the R replicas act on their rows as they now say."""
        frozen = [effect.frozen for effect in effects]
        mask = _rows(self.flat, model, [{name: mask for name, (mask, _) in its.items()} for its in frozen], 0)
        self.mask = None if mask is None else mask.bool()
        values = [{name: values for name, (_, values) in its.items()} for its in frozen]
        self.values = _rows(self.flat, model, values, 0)
        self.anchors = _rows(self.flat, model, [effect.anchors for effect in effects], 0)
        self.scales = _rows(self.flat, model, [effect.scales for effect in effects], 1)

    @staticmethod
    def _segments(optimizers: Sequence[Optimizer]) -> list[Segment]:
        """The columns between any two places where a param group of some replica ends."""
        sizes = [[sum(p.numel() for p in group["params"]) for group in o.param_groups] for o in optimizers]
        ends = [list(accumulate(own)) for own in sizes]
        check(len({own[-1] for own in ends}) == 1, GROUPS)
        segments, start = [], 0
        for end in sorted({end for own in ends for end in own} - {0}):
            groups = [o.param_groups[bisect_left(own, end)] for o, own in zip(optimizers, ends, strict=True)]
            segments.append(Segment(columns=slice(start, end), groups=groups))
            start = end
        return segments

    @torch.no_grad()
    def step(self, grad: Tensor, lr_factor: float = 1.0) -> None:
        """One step along `grad [R, P]` (overwritten), every learning rate multiplied by `lr_factor`."""
        self.steps += 1
        if self.mask is not None:
            grad.masked_fill_(self.mask, 0)
        for segment in self.segments:
            lr, decay = (segment.setting(key, self.flat) for key in ("lr", "weight_decay"))
            if self.decoupled:
                self._decay_(self.flat, segment.columns, lr * decay * -lr_factor)
            else:
                self._decay_(grad, segment.columns, decay)
            if self.kind is torch.optim.SGD:
                self._sgd_(segment, grad, lr, lr_factor)
            elif isinstance(lr, Tensor) and self.flat[0, segment.columns].numel() <= SMALL:
                self._adam_(segment, grad, lr, lr_factor)
            else:
                self._adam_fused_(segment, grad, lr, lr_factor)
        if self.mask is not None and self.values is not None:
            torch.where(self.mask, self.values, self.flat, out=self.flat)

    def _decay_(self, target: Tensor, columns: slice, factor: Coefficient) -> None:
        """`target += factor * D * (w - b)` on these columns; D = 1 and b = 0 where syre is not attached."""
        offset = self.flat[:, columns]
        if self.anchors is not None:
            offset = offset - self.anchors[:, columns]
        if self.scales is not None:
            offset = offset * self.scales[:, columns]
        if isinstance(factor, Tensor):
            target[:, columns].addcmul_(offset, factor)
        elif factor != 0:
            target[:, columns].add_(offset, alpha=factor)

    def _sgd_(self, segment: Segment, grad: Tensor, lr: Coefficient, lr_factor: float) -> None:
        grad, flat = grad[:, segment.columns], self.flat[:, segment.columns]
        if self.first is not None:
            momentum = segment.setting("momentum", flat)
            buffer = self.first[:, segment.columns].mul_(momentum).add_(grad)
            grad = grad + buffer * momentum if segment.one("nesterov") else buffer
        _descend_(flat, grad, lr, lr_factor)

    def _adam_(self, segment: Segment, grad: Tensor, lr: Coefficient, lr_factor: float) -> None:
        assert self.first is not None
        assert self.second is not None
        grad, flat, first, second = (t[:, segment.columns] for t in (grad, self.flat, self.first, self.second))
        beta1, beta2 = segment.one("betas")
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        root = second.sqrt().div_((1 - beta2**self.steps) ** 0.5).add_(segment.one("eps"))
        _descend_(flat, first / root, lr, lr_factor / (1 - beta1**self.steps))

    def _adam_fused_(self, segment: Segment, grad: Tensor, lr: Coefficient, lr_factor: float) -> None:
        """The same by torch's own fused kernel, one pass over memory instead of a dozen: a call for each learning rate.

        All rows as one tensor where they have one learning rate and lie side by side, else as a list of rows.
        """
        assert self.first is not None
        assert self.second is not None
        blocks = [t[:, segment.columns] for t in (self.flat, grad, self.first, self.second)]
        before, device = float(self.steps - 1), self.flat.device  # filled in on the device, not copied to it
        if not isinstance(lr, Tensor) and blocks[0].is_contiguous():
            self._fused(segment, [[block] for block in blocks], [torch.full((), before, device=device)], lr * lr_factor)
            return
        lists = [block.unbind() for block in blocks]
        steps = torch.full((len(self.flat),), before, device=device).unbind()  # the call counts up each of them
        for rate, rows in segment.rates().items():
            some, its_steps = [[of[row] for row in rows] for of in lists], [steps[row] for row in rows]
            self._fused(segment, some, its_steps, rate * lr_factor)

    def _fused(self, segment: Segment, lists: list[list[Tensor]], steps: list[Tensor], lr: float) -> None:
        """torch's fused step of weights, gradients, first and second moments; decay is done already."""
        (flat, grad, first, second), group = lists, segment.groups[0]
        (beta1, beta2), fixed = group["betas"], {"eps": group["eps"], "weight_decay": 0.0}
        rates = {"lr": lr, "beta1": beta1, "beta2": beta2}
        adam(flat, grad, first, second, [], steps, fused=True, amsgrad=False, maximize=False, **rates, **fixed)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for mine, saved in ((self.first, state["first"]), (self.second, state["second"])):
            if mine is not None:
                mine.copy_(saved)


def _descend_(flat: Tensor, direction: Tensor, lr: Coefficient, factor: float) -> None:
    if isinstance(lr, Tensor):
        flat.sub_(direction * (lr * factor))
    else:
        flat.sub_(direction, alpha=lr * factor)


def _rows(flat: Tensor, model: nn.Module, tensors: Sequence[Mapping[str, Tensor]], default: float) -> Tensor | None:
    """Tensors by canonical parameter name, a mapping for each row, as [R, P] like `flat`; None where there are none."""
    if not any(tensors):
        return None
    rows, start, columns = torch.full_like(flat, default), 0, {}
    for name, parameter in canonical_parameters(model).items():
        columns[name] = slice(start, start := start + parameter.numel())
    for row, its in zip(rows, tensors, strict=True):
        for name, tensor in its.items():
            check(name in columns, f"a handle acts on {name!r}, and the model has no such parameter")
            row[columns[name]] = tensor.flatten().to(flat)
    return rows
