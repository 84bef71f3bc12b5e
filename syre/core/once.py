"""The shift from init to init + b happens once in the life of a set of weights, whoever attaches how often.

A checkpoint holds weights and nothing else, so that what is exported is a plain state dict. That they are shifted is
known by four things:

1. **The module** that owns a parameter carries a mark, and the parameter too: by which anchors it was shifted, and a
   digest of some of its entries before. The mark goes along with copies and pickles of the model. Attaching anew (an
   optimizer that was rebuilt, a second fit) finds it and moves nothing, unless the weights are again what they were
   before the shift (a learning-rate finder puts them back): then they are shifted anew. Other anchors than the mark's
   are an error. Weights that are drawn anew in place keep the mark, until `forget`. Those that were not shifted, and
   are pulled all the same (frozen, or not there, when the others were), are marked as such: once trained, they are not
   shifted either.
2. **The optimizer's state dict** says in its groups which anchors, and a digest of the weights before the shift.
   Loading that of another shift is a resume. If it comes after `attach`, and the weights have not been touched since,
   they had been loaded before, shifted already: the shift is taken back, to the last bit. If it came before, `attach`
   finds it in the groups and moves nothing.
3. **The handle's state dict**: loading it is a resume as well.
4. **The weights**: `b` is random, so what the weights hold of it can be measured, |b|^2 -> <w, b>. Large networks that
   were loaded without any of the above are recognised, with a warning; this asks for 8 standard errors.

What remains is a small network at a small sigma whose weights alone are loaded, before `attach`, into a new model:
nothing there can tell, and `start="keep"` has to say so. That holds for checkpoints from before this mechanism too.
"""

import hashlib
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .decay import shift_
from .names import Slot
from .sharded import agreed, is_sharded, local, whole
from .wrapped import outside

MARK = "_syre_shifted"  # attribute of a module: name of a parameter in it -> its mark
SAMPLE = 64  # entries of a parameter that its digest is made of
SURE = 8.0  # standard errors


def line(recipe: Mapping[str, Any]) -> str:
    """One line that says which anchors were drawn, the same in every process; empty if none were."""
    return " ".join(f"{key}={recipe[key]}" for key in ("seed", "sigma", "unit", "gains") if key in recipe)


def digests(parameters: Sequence[Tensor]) -> list[str]:
    """Of each, a digest of its shape and of entries at equal distances: read from the device in one go."""
    if not parameters:
        return []
    samples = [local(p).detach().reshape(-1) for p in parameters]
    samples = [flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE] for flat in samples]
    values = iter(torch.cat([sample.double().cpu() for sample in samples]).split([len(s) for s in samples]))
    return [
        hashlib.blake2b(repr(tuple(p.shape)).encode() + next(values).numpy().tobytes(), digest_size=8).hexdigest()
        for p in parameters
    ]


def share(weights: Sequence[Tensor], anchors: Sequence[Tensor]) -> tuple[float, float]:
    """How much of b the weights hold: 0 before a shift, 1 after it, 2 after two; and its standard error.

    `sum_t a_t <w_t, b_t> / sum_t a_t |b_t|^2` over the tensors t, a_t = 1 / mean square of w_t. As b is independent of
    weights that never saw it, the numerator has variance `sum_t a_t^2 |w_t|^2 std(b_t)^2`. Without anchors (0, inf).
    Of sharded tensors it asks all ranks, which have to call it together.
    """
    numbers = []
    for weight, anchor in zip(weights, anchors, strict=True):
        w, b = (t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in (weight, anchor))
        numbers.append(torch.stack([_dot(w, b), _dot(b, b), _dot(w, w)]).double().cpu())
    over = signal = noise = 0.0
    for weight, (both, own, power) in zip(weights, (n.tolist() for n in numbers), strict=True):
        count = weight.numel()
        if own > 0 and power > 0:
            a = count / power
            over, signal, noise = over + a * both, signal + a * own, noise + a * a * power * own / count
    return (over / signal, math.sqrt(noise) / signal) if signal > 0 else (0.0, math.inf)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """`<a, b>` of two whole or sharded tensors; of whole ones without a temporary copy, however they are laid out."""
    if is_sharded(a) or a.stride() != b.stride() or a.dtype is not b.dtype:
        return whole((a * b).sum())
    order = sorted(range(a.dim()), key=a.stride, reverse=True)
    return torch.dot(a.permute(order).reshape(-1), b.permute(order).reshape(-1))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which parameters a shift moves, by what, and which are only marked. Making it changes nothing."""

    slots: Mapping[str, Slot]
    anchors: Mapping[str, Tensor]  # of those that move
    less: Mapping[str, float]  # the means of some anchors, which are no part of the shift
    by: str
    marked: Collection[str]  # all that are shifted after it, or were not to be
    unmoved: Collection[str]  # frozen now, and pulled if they are trained later

    def carry_out(self) -> "Shifted | None":
        """Move and mark; what can be taken back until the first step, if anything moved."""
        parameters = [self.slots[name].parameter for name in self.anchors]
        before = dict(zip(self.anchors, digests(parameters), strict=True))
        copies = [p.detach().clone() for p in parameters]
        try:
            self._shift(parameters)
        except BaseException:
            _copy_back(parameters, copies)
            raise
        for name in self.marked:
            earlier = _mark_of(self.slots[name]) or {}
            if name in before or not earlier.get("kept"):
                _mark(self.slots[name], {"by": self.by, "before": before.get(name, earlier.get("before", ""))})
        keep(self.slots, self.unmoved, self.by)
        held = {name: (p, copy) for name, p, copy in zip(self.anchors, parameters, copies, strict=True)}
        return Shifted(held, before) if held else None

    @torch.no_grad()
    def _shift(self, parameters: Sequence[Tensor]) -> None:
        shift_([local(p) for p in parameters], [local(anchor) for anchor in self.anchors.values()], sign=+1)
        for name, mean in self.less.items():
            local(self.slots[name].parameter).sub_(mean)


def plan(
    slots: Mapping[str, Slot], anchors: Mapping[str, Tensor], by: str, *, resumed: bool,
    less: Mapping[str, float] | None = None,
) -> Plan:  # fmt: skip
    """What the start w = init + b takes: nothing of weights that are shifted already. Frozen ones stay.

    Args:
        by: the `line` of the anchors.
        resumed: the optimizer's state says that the weights are those of a run with these anchors.
        less: name -> the mean of its anchor, where that is no part of the shift (gains).

    Raises:
        ValueError: the weights were shifted by other anchors.
    """
    trained = [name for name in anchors if slots[name].parameter.requires_grad]
    marks = {name: mark for name in trained if (mark := _mark_of(slots[name])) is not None}
    marks = {name: mark for name, mark in marks.items() if mark["by"] == by or not mark.get("kept")}
    known = [*marks]
    now = dict(zip(known, digests([slots[name].parameter for name in known]), strict=True))
    back = {name for name in known if marks[name]["before"] == now[name]}  # put back since
    for name in known:
        if name not in back and marks[name]["by"] != by:
            other = marks[name]["by"]
            raise ValueError(
                f"parameter {name!r} was shifted by other anchors ({other}; these are {by}), which is not undone: "
                "build the model anew, or train on toward these anchors with start='keep'"
            )
    _doubt(slots, anchors, [name for name in known if name not in back and not marks[name].get("kept")])
    new = [name for name in trained if name not in marks]
    if resumed or _hold(slots, anchors, new):
        new = []
    moved = [name for name in trained if name in new or (name in back and not resumed)]
    means = {name: mean for name, mean in (less or {}).items() if name in moved}
    unmoved = [name for name in anchors if name not in trained and _mark_of(slots[name]) is None]
    own = {name: anchors[name] for name in moved}
    return Plan(slots=slots, anchors=own, less=means, by=by, marked=trained, unmoved=unmoved)


def keep(slots: Mapping[str, Slot], names: Collection[str], by: str) -> None:
    """Mark parameters that are pulled toward their anchors without having been shifted."""
    here = [name for name in names if name in slots]
    for name, digest in zip(here, digests([slots[name].parameter for name in here]), strict=True):
        _mark(slots[name], {"by": by, "before": digest, "kept": True})


def _mark(slot: Slot, mark: dict[str, Any]) -> None:
    """On the module, for copies of it; and on the parameter, for another module that takes it over."""
    vars(slot.module).setdefault(MARK, {})[slot.leaf] = mark
    setattr(slot.parameter, MARK, mark)


def _mark_of(slot: Slot) -> dict[str, Any] | None:
    mark: dict[str, Any] | None = vars(slot.module).get(MARK, {}).get(slot.leaf)
    return getattr(slot.parameter, MARK, None) if mark is None else mark


def _hold(slots: Mapping[str, Slot], anchors: Mapping[str, Tensor], names: Sequence[str]) -> bool:
    """Whether unmarked weights hold their anchors already, beyond doubt; with a word if they do."""
    held, error = share([slots[name].parameter for name in names], [anchors[name] for name in names])
    if not (held > 0.5 and held > SURE * error):
        return False
    warnings.warn(
        f"the weights hold these anchors already ({held:.2f} +- {error:.2f} of b), so they are not shifted again: "
        "start='keep' says so without a warning",
        stacklevel=outside(),
    )
    return True


def _doubt(slots: Mapping[str, Slot], anchors: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """A word if marked weights hold much less of the anchors than once, beyond doubt: they may have been drawn anew."""
    weights = {name: slots[name].parameter for name in names}
    if lacks(weights, anchors):
        held, error = share([*weights.values()], [anchors[name] for name in names])
        warnings.warn(
            f"the weights were shifted before, and hold {held:.2f} +- {error:.2f} of the anchors by now; they are not "
            "shifted again. If they have been drawn anew since, call syre.core.forget(model) first",
            stacklevel=outside(),
        )


def lacks(weights: Mapping[str, Tensor], anchors: Mapping[str, Tensor]) -> bool:
    """Whether weights hold much less of their anchors than once, beyond doubt."""
    held, error = share([*weights.values()], [anchors[name] for name in weights])
    return held < 0.5 and 1 - held > SURE * error


def forget(model: nn.Module) -> None:
    """Take the marks off a model whose weights were drawn anew in place: the next `attach` shifts them."""
    for owner in (*model.modules(), *model.parameters()):
        vars(owner).pop(MARK, None)


class Shifted:
    """Weights that were shifted just now, and what they were: the way back until they are touched.

    Attributes:
        start: a digest of what they were, the same on every rank: what follows from it has to be, too.
    """

    def __init__(self, held: Mapping[str, tuple[Tensor, Tensor]], digest_of: Mapping[str, str]) -> None:
        """By name: a parameter and a copy of what it was; and the digest of that."""
        self._copies = {name: copy for name, (_, copy) in held.items()}
        self._held = list(held.values())
        self.start = agreed([digest_of[name] for name in held], [p for p, _ in self._held])
        self.renew()

    def before(self) -> Mapping[str, Tensor]:
        """What the weights were."""
        return self._copies

    def renew(self) -> None:
        """Count what has been written so far as no touch."""
        self._after = digests([p for p, _ in self._held])

    def untouched(self, current: Collection[Tensor]) -> bool:
        """Whether all are still in `current`, and have the values that they had, on whatever device."""
        identities = {id(p) for p in current}
        parameters = [p for p, _ in self._held]
        return all(id(p) in identities for p in parameters) and digests(parameters) == self._after

    @torch.no_grad()
    def take_back(self, current: Collection[Tensor]) -> bool:
        """To the last bit what they were, if they are untouched."""
        if not self.untouched(current):
            return False
        _copy_back([p for p, _ in self._held], [copy for _, copy in self._held])
        return True


@torch.no_grad()
def _copy_back(parameters: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    for p, copy in zip(parameters, copies, strict=True):
        local(p).copy_(local(copy))
