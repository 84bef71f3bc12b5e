"""Optimizers: the settings of stock torch optimizers, and one batched optimizer that steps R of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from syre.checks import check, fraction, positive
from syre.core import SyreHandle, canonical_name
from syre.regularizers import FrozenHandle, Handle


class OptimizerSpec(Protocol):
    """Settings of an optimizer; decay is the regularizer's and is passed in."""

    def build(self, model: nn.Module, weight_decay: float) -> Optimizer: ...


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters as param groups, in the module's order: decayed where the model asks for decay.

    All of them, unless the model names the submodules that decay in an attribute `decayed`, as the beta-VAE does its
    encoder. What decays is also what syre anchors.
    """
    decayed: Sequence[str] | None = getattr(model, "decayed", None)
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


# Where learning rates differ, a replica of up to this many parameters is not worth an optimizer call of its own.
SMALL = 4096

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

    def __init__(self, flat: Tensor, optimizers: Sequence[Optimizer], models: Sequence[nn.Module],
                 handles: Sequence[Handle | None]) -> None:  # fmt: skip
        kinds = {type(optimizer) for optimizer in optimizers}
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        check(len(kinds) == 1 and kinds <= {torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW},
              f"an ensemble steps SGD, Adam or AdamW, all of one kind, got {names}")  # fmt: skip
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
        self.anchors, self.scales, self.mask, self.values = _stack_handles(flat, models, handles)

    @staticmethod
    def _segments(optimizers: Sequence[Optimizer]) -> list[Segment]:
        segments, start = [], 0
        for groups in zip(*(optimizer.param_groups for optimizer in optimizers), strict=True):
            size = sum(parameter.numel() for parameter in groups[0]["params"])
            segments.append(Segment(columns=slice(start, start + size), groups=list(groups)))
            start += size
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
        (flat, grad, first, second), (beta1, beta2) = lists, segment.groups[0]["betas"]
        adam(flat, grad, first, second, [], steps, fused=True, amsgrad=False, maximize=False, beta1=beta1,
             beta2=beta2, lr=lr, eps=segment.groups[0]["eps"], weight_decay=0.0)  # fmt: skip

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


def _stack_handles(
    flat: Tensor, models: Sequence[nn.Module], handles: Sequence[Handle | None]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Anchors, D, frozen mask and frozen values as [R, P] rows; None for what no replica has."""
    anchors, scales, mask, values = (_Rows(flat, models, default) for default in (0, 1, 0, 0))
    for row, handle in enumerate(handles):
        if isinstance(handle, SyreHandle):
            check(handle.form != "shift", "an ensemble takes syre in its constant-pull form")
            anchors.put(row, handle.anchors)
            scales.put(row, handle.scales)
        elif isinstance(handle, FrozenHandle):
            mask.put(row, {name: mask_ for name, (mask_, _) in handle.frozen.items()})
            values.put(row, {name: values_ for name, (_, values_) in handle.frozen.items()})
    frozen = mask.rows
    return anchors.rows, scales.rows, None if frozen is None else frozen.bool(), values.rows


class _Rows:
    """An [R, P] tensor like `flat`, made when something is first put into it; columns are found by parameter name."""

    def __init__(self, flat: Tensor, models: Sequence[nn.Module], default: float) -> None:
        self.flat, self.default = flat, default
        self.rows: Tensor | None = None
        named = [(canonical_name(name), parameter.numel()) for name, parameter in models[0].named_parameters()]
        ends = list(accumulate(size for _, size in named))
        self.columns = {name: slice(end - size, end) for (name, size), end in zip(named, ends, strict=True)}

    def put(self, row: int, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if self.rows is None:
                self.rows = torch.full_like(self.flat, self.default)
            self.rows[row, self.columns[canonical_name(name)]] = tensor.flatten().to(self.flat)
