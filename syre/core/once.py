"""The shift from init to init + b happens once in the life of a set of weights, whoever attaches how often.

A checkpoint holds weights and nothing else, so that what is exported is a plain state dict. That they are shifted is
known by four things:

1. **The module** that owns a parameter carries a mark, and the parameter too: by which anchors it was shifted, and a
   digest of some of its entries before. The mark goes along with copies and pickles of the model. Attaching anew (an
   optimizer that was rebuilt, a second fit) finds it and moves nothing, unless the weights are again what they were
   before the shift (a learning-rate finder puts them back): then they are shifted anew. Other anchors than the mark's
   are an error. Weights that are drawn anew in place keep the mark, until `forget`. Those that were not shifted, and
   are pulled all the same (frozen, or not there, when the others were), are marked as such: once trained, they are not
   shifted either. (A copy whose modules are then exchanged around their parameters, as for synchronised batch norms,
   has lost the marks of these.)
2. **The optimizer's state dict** says in its groups which anchors, and a digest of the weights before the shift.
   Loading that of another shift is a resume. If it comes after `attach`, and the weights have not been touched since,
   they had been loaded before, shifted already: the shift is taken back, to the last bit, whichever optimizer made it.
   If it came before, `attach` finds it in the groups and moves nothing.
3. **The handle's state dict**: loading it is a resume as well.
4. **The weights**: `b` is random, so what the weights hold of it can be measured, |b|^2 -> <w, b>. Large networks that
   were loaded without any of the above are recognised, with a warning; this asks for 8 standard errors.

What remains is a small network at a small sigma whose weights alone are loaded, before `attach`, into a new model:
nothing there can tell, and `start="keep"` has to say so. That holds for checkpoints from before this mechanism too.
"""

import hashlib
import math
import warnings
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

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


def _samples(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Of each, entries at equal distances, on the CPU: read from a device in one go for each dtype."""
    flat = [local(p).detach().reshape(-1) for p in parameters]
    flat = [entries[:: max(1, len(entries) // SAMPLE)][:SAMPLE] for entries in flat]
    alike: dict[Any, list[int]] = {}
    for index, entries in enumerate(flat):
        alike.setdefault((entries.device, entries.dtype), []).append(index)
    found: dict[int, Tensor] = {}
    for indices in alike.values():
        read = torch.cat([flat[i] for i in indices]).cpu().split([len(flat[i]) for i in indices])
        found |= dict(zip(indices, read, strict=True))
    return [found[index] for index in range(len(flat))]


def digests(parameters: Sequence[Tensor]) -> list[str]:
    """Of each, a digest of its shape and of entries at equal distances, whatever its device and its precision."""
    return [
        hashlib.blake2b(repr(tuple(p.shape)).encode() + values.double().numpy().tobytes(), digest_size=8).hexdigest()
        for p, values in zip(parameters, _samples(parameters), strict=True)
    ]


def _sums(parameters: Sequence[Tensor]) -> list[tuple[str, int]]:
    """Of each, its dtype and the sum of all its entries as integers, exact on every device: a few rows change it."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    found = [local(p).detach() for p in parameters]
    return [(str(p.dtype), int(p.view(integers[p.element_size()]).sum(dtype=torch.int64))) for p in found]


def share(weights: Sequence[Tensor], anchors: Sequence[Tensor], means: Sequence[float] = ()) -> tuple[float, float]:
    """How much of b the weights hold: 0 before a shift, 1 after it, 2 after two; and its standard error.

    `sum_t a_t <w_t, b_t> / sum_t a_t |b_t|^2` over the tensors t, a_t = 1 / mean square of w_t. As b is independent of
    weights that never saw it, the numerator has variance `sum_t a_t^2 |w_t|^2 std(b_t)^2`. Without anchors (0, inf).
    Of sharded tensors it asks all ranks, which have to call it together.

    means: those of the anchors, which are no part of the shift, and are taken off them; none: all 0.
    """
    numbers = []
    for weight, anchor, mean in zip(weights, anchors, means or [0.0] * len(weights), strict=True):
        w, b = (t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in (weight, anchor))
        b = b - mean if mean else b
        numbers.append(torch.stack([_dot(w, b), _dot(b, b), _dot(w, w)]).cpu().double())
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
    stds: Mapping[str, float]  # of the anchors, where a function gave them

    def carry_out(self) -> "Shifted | None":
        """Move and mark, or neither; the way back until the first step, if anything moved, now or before."""
        parameters = [self.slots[name].parameter for name in self.anchors]
        before = dict(zip(self.anchors, digests(parameters), strict=True))
        copies = [p.detach().clone() for p in parameters]
        slots = [self.slots[name] for name in (*self.marked, *self.unmoved)]
        marks = [_marks_of(slot) for slot in slots]
        try:
            self._shift(parameters)
            for name in self.marked:
                earlier = _mark_of(self.slots[name]) or {}
                if name in before or not earlier.get("kept"):
                    own = {"before": before.get(name, earlier.get("before", ""))}
                    _mark(self.slots[name], own | _made_by(self.by, name, self.stds))
            keep(self.slots, self.unmoved, self.by, self.stds)
            ways = {
                name: Way(module=weakref.ref(slot.module), leaf=slot.leaf, copy=copy, digest=before[name], by=self.by,
                          after=_packed(after))
                for name, copy, after in zip(self.anchors, copies, _samples(parameters), strict=True)
                for slot in [self.slots[name]]
            }  # fmt: skip
            for name in self.marked:
                slot = self.slots[name]
                way = _ways.get(slot.module, {}).get(slot.leaf)
                if name not in ways and way is not None and way.by == self.by and _untouched([way]):
                    ways[name] = way
            return Shifted(ways) if ways else None
        except BaseException:
            _copy_back(parameters, copies)
            for slot, both in zip(slots, marks, strict=True):
                _put_back_marks(slot, both)
            raise

    @torch.no_grad()
    def _shift(self, parameters: Sequence[Tensor]) -> None:
        shift_([local(p) for p in parameters], [local(anchor) for anchor in self.anchors.values()], sign=+1)
        for name, mean in self.less.items():
            local(self.slots[name].parameter).sub_(mean)


def plan(
    slots: Mapping[str, Slot], anchors: Mapping[str, Tensor], by: str, *, resumed: bool,
    less: Mapping[str, float] | None = None, stds: Mapping[str, float] | None = None,
) -> Plan:  # fmt: skip
    """What the start w = init + b takes: nothing of weights that are shifted already. Frozen ones stay.

    Args:
        by: the `line` of the anchors.
        resumed: the optimizer's state says that the weights are those of a run with these anchors.
        less: name -> the mean of its anchor, where that is no part of the shift (gains).
        stds: name -> the std of its anchor, where `by` does not say it all (a function).

    Raises:
        ValueError: the weights were shifted by other anchors.
    """
    trained, means = [name for name in anchors if slots[name].parameter.requires_grad], less or {}
    stds = stds or {}
    marks = {name: mark for name in trained if (mark := _mark_of(slots[name])) is not None}
    others = {name: mark for name, mark in marks.items() if not _is_made_by(mark, by, name, stds)}
    marks = {name: mark for name, mark in marks.items() if name not in others or not mark.get("kept")}
    known = [*marks]
    now = dict(zip(known, digests([slots[name].parameter for name in known]), strict=True))
    kept = [name for name in known if marks[name].get("kept")]
    sums = dict(zip(kept, _sums([slots[name].parameter for name in kept]), strict=True))
    back = {name for name in known if marks[name]["before"] == now[name]}  # put back since, or never trained
    for name in kept:
        (was, total), (is_now, its) = marks[name].get("sum", sums[name]), sums[name]
        back -= {name} if was == is_now and total != its else set()  # a few rows were trained
    for name in known:
        if name not in back and name in others:
            was, mine = (_said(made) for made in (marks[name], _made_by(by, name, stds)))
            raise ValueError(
                f"parameter {name!r} was shifted by other anchors ({was}; these are {mine}), which is not undone: "
                "build the model anew, or train on toward these anchors with start='keep'"
            )
    _doubt(slots, anchors, [name for name in known if name not in back and name not in kept], means)
    new = [name for name in trained if name not in marks]
    if resumed or _hold(slots, anchors, new, means):
        new = []
    moved = [name for name in trained if name in new or (name in back and not resumed)]
    unmoved = [name for name in anchors if name not in trained and _mark_of(slots[name]) is None]
    own = {name: anchors[name] for name in moved}
    less = {name: mean for name, mean in means.items() if name in moved}
    return Plan(slots=slots, anchors=own, less=less, by=by, stds=stds, marked=trained, unmoved=unmoved)


def _made_by(by: str, name: str, stds: Mapping[str, float]) -> dict[str, Any]:
    """What a mark says of the anchor."""
    return {"by": by, "std": stds[name]} if name in stds else {"by": by}


def _said(made: Mapping[str, Any]) -> str:
    return f"{made['by']}, std {made['std']:g}" if "std" in made else str(made["by"])


def _is_made_by(mark: Mapping[str, Any], by: str, name: str, stds: Mapping[str, float]) -> bool:
    return bool(mark["by"] == by and mark.get("std") == stds.get(name))


def keep(slots: Mapping[str, Slot], names: Collection[str], by: str, stds: Mapping[str, float]) -> None:
    """Mark parameters that are pulled toward their anchors without having been shifted.

    Those that are trained by now are never shifted; the others are by a new optimizer, until they are trained.
    """
    here = [name for name in names if name in slots and (_mark_of(slots[name]) or {"kept": True}).get("kept")]
    parameters = [slots[name].parameter for name in here]
    for name, digest, total in zip(here, digests(parameters), _sums(parameters), strict=True):
        trained = slots[name].parameter.requires_grad
        own = {"before": "" if trained else digest, "sum": total, "kept": True}
        _mark(slots[name], own | _made_by(by, name, stds))


def _mark(slot: Slot, mark: dict[str, Any]) -> None:
    """On the module, for copies of it; and on the parameter, for another module that takes it over."""
    vars(slot.module).setdefault(MARK, {})[slot.leaf] = mark
    setattr(slot.parameter, MARK, mark)


def _mark_of(slot: Slot) -> dict[str, Any] | None:
    mark: dict[str, Any] | None = vars(slot.module).get(MARK, {}).get(slot.leaf)
    return getattr(slot.parameter, MARK, None) if mark is None else mark


def _marks_of(slot: Slot) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """That on the module and that on the parameter."""
    return vars(slot.module).get(MARK, {}).get(slot.leaf), getattr(slot.parameter, MARK, None)


def _put_back_marks(slot: Slot, marks: tuple[dict[str, Any] | None, dict[str, Any] | None]) -> None:
    places = (vars(slot.module).setdefault(MARK, {}), slot.leaf), (vars(slot.parameter), MARK)
    for (place, key), mark in zip(places, marks, strict=True):
        place.pop(key, None)
        if mark is not None:
            place[key] = mark


def share_of(
    weights: Mapping[str, Tensor], anchors: Mapping[str, Tensor], means: Mapping[str, float]
) -> tuple[float, float]:
    """`share`, by name."""
    return share([*weights.values()], [anchors[name] for name in weights], [means.get(name, 0.0) for name in weights])


def _hold(
    slots: Mapping[str, Slot], anchors: Mapping[str, Tensor], names: Sequence[str], means: Mapping[str, float]
) -> bool:
    """Whether unmarked weights hold their anchors already, beyond doubt; with a word if they do."""
    held, error = share_of({name: slots[name].parameter for name in names}, anchors, means)
    if not (held > 0.5 and held > SURE * error):
        return False
    warnings.warn(
        f"the weights hold these anchors already ({held:.2f} +- {error:.2f} of b), so they are not shifted again: "
        "start='keep' says so without a warning",
        stacklevel=outside(),
    )
    return True


def _doubt(
    slots: Mapping[str, Slot], anchors: Mapping[str, Tensor], names: Sequence[str], means: Mapping[str, float]
) -> None:
    """A word if marked weights hold much less of the anchors than once, beyond doubt: they may have been drawn anew."""
    weights = {name: slots[name].parameter for name in names}
    if lacks(weights, anchors, means):
        held, error = share_of(weights, anchors, means)
        warnings.warn(
            f"the weights were shifted before, and hold {held:.2f} +- {error:.2f} of the anchors by now; they are not "
            "shifted again. If they have been drawn anew since, call syre.core.forget(model) first",
            stacklevel=outside(),
        )


def lacks(weights: Mapping[str, Tensor], anchors: Mapping[str, Tensor], means: Mapping[str, float]) -> bool:
    """Whether weights hold much less of their anchors than once, beyond doubt."""
    held, error = share_of(weights, anchors, means)
    return held < 0.5 and 1 - held > SURE * error


def forget(model: nn.Module) -> None:
    """Take the marks off a model whose weights were drawn anew in place: the next `attach` shifts them."""
    for owner in (*model.modules(), *model.parameters()):
        vars(owner).pop(MARK, None)


@dataclass(kw_only=True)
class Way:
    """The way back of one parameter: what it was before its shift, and some entries after it, to tell a touch by.

    It holds the module, weakly, and not the parameter: torch swaps only tensors that nobody refers to weakly.

    Attributes:
        digest: of what it was.
        by: the `line` of the anchors.
        after: the entries, as `_packed` has them.
    """

    module: "weakref.ref[nn.Module]"
    leaf: str
    copy: Tensor
    digest: str
    by: str
    after: tuple[torch.dtype, bytes]

    def parameter(self) -> Tensor | None:
        """What is there now."""
        if (module := self.module()) is None:
            return None
        found = dict(module._parameters.items()).get(self.leaf)  # that of a scripted module is no dict
        if found is None and self.leaf in getattr(module, "parametrizations", ()):
            found = getattr(cast(Any, module).parametrizations[self.leaf], "original", None)
        return found


class Shifted:
    """Weights that were shifted, by this optimizer or one before it, and not touched since: the way back.

    Attributes:
        start: a digest of what they were, the same on every rank: what follows from it has to be, too.
    """

    def __init__(self, ways: Mapping[str, Way]) -> None:
        """By name."""
        self._ways = ways
        digests, parameters = [way.digest for way in ways.values()], [way.parameter() for way in ways.values()]
        self.start = agreed(digests, [p for p in parameters if p is not None])

    def before(self) -> Mapping[str, Tensor]:
        """What the weights were."""
        return {name: way.copy for name, way in self._ways.items()}

    def renew(self) -> None:
        """Count what has been written so far as no touch."""
        there = [(way, p) for way in self._ways.values() if (p := way.parameter()) is not None]
        for (way, _), entries in zip(there, _samples([p for _, p in there]), strict=True):
            way.after = _packed(entries)

    def remember(self) -> None:
        """Let an optimizer that is built anew find the way back, until `forget_ways`."""
        for way in self._ways.values():
            if (module := way.module()) is not None:
                _ways.setdefault(module, {})[way.leaf] = way

    def untouched(self) -> bool:
        """Whether all have the values that they had, on whatever device, cast or not."""
        return _untouched([*self._ways.values()])

    @torch.no_grad()
    def take_back(self) -> bool:
        """To the last bit what they were, if they are untouched. They had been shifted before, and are marked so."""
        ways = [*self._ways.values()]
        taken = _untouched(ways)
        for way in ways:
            module, p = way.module(), way.parameter()
            if taken and module is not None and p is not None:
                local(p).copy_(local(way.copy))
                for mark in (vars(module).get(MARK, {}).get(way.leaf), getattr(p, MARK, None)):
                    if mark is not None:
                        mark["before"] = ""
            if module is not None and _ways.get(module, {}).get(way.leaf) is way:
                del _ways[module][way.leaf]
        return taken


_ways: "weakref.WeakKeyDictionary[nn.Module, dict[str, Way]]" = weakref.WeakKeyDictionary()


def forget_ways(model: nn.Module) -> None:
    """Once the weights are trained there is no way back."""
    for module in model.modules():
        _ways.pop(module, None)


def _packed(entries: Tensor) -> tuple[torch.dtype, bytes]:
    """Out of torch's memory, which is counted."""
    return entries.dtype, entries.contiguous().view(torch.uint8).numpy().tobytes()


def _unpacked(dtype: torch.dtype, content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _untouched(ways: Sequence[Way]) -> bool:
    parameters = [p for way in ways if (p := way.parameter()) is not None]
    if [local(p).shape for p in parameters] != [local(way.copy).shape for way in ways]:  # gone, sharded or cut since
        return False
    pairs = [(now, _unpacked(*way.after).to(now.dtype)) for now, way in zip(_samples(parameters), ways, strict=True)]
    return all(torch.allclose(now, then, rtol=0, atol=0, equal_nan=True) for now, then in pairs)


@torch.no_grad()
def _copy_back(parameters: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    for p, copy in zip(parameters, copies, strict=True):
        local(p).copy_(local(copy))
