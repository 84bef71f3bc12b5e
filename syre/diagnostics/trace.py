"""Follow the axes of all tensors through a forward pass, operation by operation: which of them are the same units?

Every operation that torch executes is seen below autograd (`TorchDispatchMode`), where few are left. Each has a rule,
which says what its result's axes are and what of them is the same; the units of one that has none are told apart, so
that what is said of the others holds.

What is not seen: numbers that leave torch as copies (`tolist`) and come back, and what another input would have taken
through other layers, such as an expert that no row was sent to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from syre.diagnostics.parts import Parts
from syre.diagnostics.spaces import (
    SINGLE,
    Axis,
    Label,
    Spaces,
    alike,
    factors,
    fixed,
    has_copies,
    length,
    not_zero,
)
from syre.diagnostics.tensors import memory, overlap, storage, tensors_of

# (trace, arguments, all arguments by name, result) -> axes of the result; None: its units are told apart
Rule = Callable[["Trace", Sequence[Any], Mapping[str, Any], Any], Any]


class Trace(TorchDispatchMode):
    """The spaces of a network, while it is executed under this mode.

    Args:
        parameters: name -> tensor, parameters and buffers, of which each has spaces of its own to begin with.
        rules: name of an operator -> its rule: those of `syre.diagnostics.rules`.

    Attributes:
        spaces: what was found.
        parts: what was split and stacked: `parts.finish` closes what the forward pass has left open of it.
        axes: name -> the axes of a parameter that the forward pass has used.
        read: (name, dimension) of the axes that were contracted with what a layer read.
        heads: axes along which what was computed was multiplied with what was computed, one by one: of heads.
        unknown: names of operations without a rule.
    """

    def __init__(self, parameters: Mapping[str, Tensor], rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self.rules = rules
        self.spaces = Spaces()
        self.parts = Parts(self.spaces)
        self.axes: dict[str, Label] = {}
        self.variables: dict[int, tuple[str, int]] = {}  # variable -> the axis of a parameter that it is of
        self.read: set[tuple[str, int]] = set()
        self.heads: list[Axis] = []
        self.unknown: set[str] = set()
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        self._kept = parameters  # so that no id is given anew
        self._homes: dict[int, list[str]] = {}  # storage -> the parameters in it
        self._labels: Any = WeakTensorKeyDictionary()
        self._raw: Any = WeakTensorKeyDictionary()  # what is computed of parameters alone
        self._turned: Tensor | None = None  # whose axes an operation in place has just moved
        self._given_up: Any = WeakTensorKeyDictionary()  # what was split into parts that are not said to be views
        self._written: dict[int, StorageWeakRef] = {}  # storages that were written into (held: no id is given anew)
        for name, tensor in parameters.items():
            self._homes.setdefault(storage(tensor), []).append(name)
        for home in self._homes.values():  # numbers that are in two parameters
            for name in home:
                if any(overlap(parameters[name], parameters[other]) for other in home if other != name):
                    self.fix(parameters[name])

    # ---- labels ------------------------------------------------------------------------------------------------------

    def label(self, tensor: Tensor, *, zeros: bool = False) -> Label:
        """The axes of a tensor; of one that no operation has made, told apart. (`zeros`: with what of it is 0.)"""
        if (name := self._names.get(id(tensor))) is not None:
            if name not in self.axes:
                self.axes[name] = [self._new(name, k, size) for k, size in enumerate(tensor.shape)]
            return [self.spaces.resolve(axis) for axis in self.axes[name]]
        found = self._labels.get(tensor)
        if found is None:
            self._labels[tensor] = found = told_apart(tensor)
            self.fix(*self._beneath(tensor))
        turned = len(found) != tensor.dim() and tensor is not self._turned
        if turned or (has_copies(found) and storage(tensor) in self._written):
            return told_apart(tensor)
        resolved = [self.spaces.resolve(axis) for axis in found]
        return resolved if zeros else not_zero(resolved)

    def _beneath(self, tensor: Tensor) -> list[Tensor]:
        """Known tensors whose numbers are those of one that no operation has made: that of a numpy array, maybe."""
        start, end = memory(tensor)
        known = [*self._labels, *self._kept.values()]
        return [other for other in known if other is not tensor and memory(other)[0] < end and start < memory(other)[1]]

    def _new(self, name: str, dimension: int, size: int) -> Axis:
        if size == 1:
            return SINGLE
        factor = self.spaces.new(size)
        self.variables[factor.sign[0][0]] = (name, dimension)
        return ((factor,),)

    # ---- what rules say ----------------------------------------------------------------------------------------------

    def fix(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            for axis in self.label(tensor):
                self.spaces.fix(axis)

    def apart(self, axis: Axis) -> Axis:
        """The axis, with its units told apart: of copies too, which are none any more."""
        self.spaces.fix(axis)
        return fixed(length(axis))

    def still(self, label: Iterable[Axis], *kinds: str) -> None:
        for axis in label:
            self.spaces.still(axis, *kinds)

    def pointwise(self, how: str, operands: Sequence[Any], shape: Sequence[int], *, zeros: bool = False) -> Label:
        """A sum, product or quotient entry by entry, with broadcasting. `zeros`: what is 0 is told from what is not."""
        labels = [self.label(operand, zeros=zeros) if isinstance(operand, Tensor) else [] for operand in operands]
        result: Label = []
        for k in range(-len(shape), 0):
            here = [
                (n, label[k]) for n, label in enumerate(labels) if len(label) >= -k and length(label[k]) == shape[k]
            ]
            if shape[k] == 1 or not here:
                result.append(fixed(shape[k]))
                continue
            if how == "sum" and len(here) < len(operands):  # the same number is added to all units
                for _, axis in here:
                    self.spaces.still(axis)
                here = [(n, not_zero([axis])[0]) for n, axis in here]
            axis = here[0][1]
            if how == "quotient" and here[0][0] > 0:
                axis = self.spaces.meet(alike(shape[k]), axis, how)
            for _, other in here[1:]:
                axis = self.spaces.meet(axis, other, how)
            result.append(axis)
        return result

    def stand_in(self, label: Label, *, like: Tensor) -> Tensor:
        """A tensor of these axes, for what an operator computes on the way and does not return."""
        tensor = torch.empty_like(like)
        self._labels[tensor] = label
        return tensor

    def note_read(self, tensor: Tensor, dimension: int) -> None:
        """Note that a layer reads by this axis of a parameter (or of a view of one)."""
        if self.is_raw(tensor):
            for factor in factors(self.label(tensor)[dimension]):
                for variable, _ in factor.sign:
                    if (owner := self.spaces.owners[variable]) in self.variables:
                        self.read.add(self.variables[owner])

    def is_raw(self, tensor: Tensor) -> bool:
        """Whether it is a parameter, or computed of parameters alone."""
        return id(tensor) in self._names or tensor in self._raw

    # ---- the mode ----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        rule = self.rules.get(name) or self.rules.get(name.rstrip("_"))
        if rule is None:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        changed = written(func, args, kwargs)
        before = [self.label(tensor) for tensor in changed]
        result = func(*args, **kwargs)
        turned = bool(changed) and torch.Tag.inplace_view in func.tags
        self._turned = changed[0] if turned else None
        label = self._ruled(name, rule, func, args, kwargs, result)
        if label is None:
            self.fix(*tensors_of(args), *tensors_of(kwargs.values()))
            self._turned = None
            for tensor in changed:
                self._labels[tensor] = told_apart(tensor)
                self._written[storage(tensor)] = StorageWeakRef(tensor.untyped_storage())
            return result
        outputs = result if isinstance(result, tuple | list) else [result]
        labels = label if label and isinstance(label[0], list) else [label] * len(outputs)
        inputs = tensors_of(args) + tensors_of(kwargs.values())
        raw = bool(inputs) and all(self.is_raw(tensor) for tensor in inputs)
        for output, axes in zip(outputs, labels, strict=False):
            if isinstance(output, Tensor) and output.dim() == len(axes):
                for tensor, old in zip(changed, before, strict=True):
                    if tensor is output and not turned:
                        self._overwritten(tensor, old, axes)
                if id(output) not in self._names:
                    self._turned = None
                    self._labels[output] = axes
                    if raw:
                        self._raw[output] = True
        self.fix(*(tensor for tensor in changed if all(tensor is not output for output in outputs)))
        if name.startswith("unsafe_"):
            self._given_up[args[0]] = True
        return result

    def _ruled(self, name: str, rule: Rule | None, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """What its rule says of an operation; None, too, of a call that the rule was not written for."""
        if rule is None:
            self.unknown.add(name)
            return None
        outputs = tensors_of([result])
        if outputs and not func._schema.is_mutable and all(tensor.numel() == 0 for tensor in outputs):
            return [told_apart(tensor) for tensor in outputs]
        try:
            return rule(self, args, named(func, args, kwargs), result)
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
            self.unknown.add(name)
            return None

    def _overwritten(self, tensor: Tensor, before: Label, after: Label) -> None:
        """In place: others that have the same numbers keep their axes, which must be those of the new numbers too."""
        home = storage(tensor)
        known = [other for other in self._labels if other is not tensor and other not in self._given_up]
        known += [self._kept[name] for name in self._homes.get(home, []) if self._kept[name] is not tensor]
        others = [other for other in known if storage(other) == home and overlap(tensor, other)]
        if not others and id(tensor) not in self._names:
            return
        self.still([*before, *after])
        if any(has_copies(self.label(other)) for other in others) or has_copies(before) or len(before) != len(after):
            for axis in [*before, *after]:
                self.spaces.fix(axis)
            self._written[home] = StorageWeakRef(tensor.untyped_storage())
        else:
            for old, new in zip(before, after, strict=True):
                self.spaces.match(old, new)


def told_apart(tensor: Tensor) -> Label:
    return [fixed(size) for size in tensor.shape]


def written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a call writes into."""
    if not func._schema.is_mutable:
        return []
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    marked = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return tensors_of(given[name] for name in marked if name in given)


def named(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by their names, those left out too."""
    left_out = {argument.name: argument.default_value for argument in func._schema.arguments[len(args) :]}
    return {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | left_out | dict(kwargs)
