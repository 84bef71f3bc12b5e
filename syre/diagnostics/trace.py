"""Follow the axes of all tensors through a forward pass, operation by operation: which of them are the same units?

Every operation that torch executes is seen below autograd (`TorchDispatchMode`), where few are left. Each has a rule,
which says what its result's axes are and what of them is the same; the units of one that has none are told apart, so
that what is said of the others holds.

What is not seen: numbers that leave torch as copies (`tolist`) and come back, and what another input would have taken
through other layers, such as an expert that no row was sent to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from syre.diagnostics.spaces import (
    ANY,
    FIXED,
    SINGLE,
    ZERO,
    Axis,
    Factor,
    Form,
    Segment,
    Spaces,
    add,
    alike,
    factors,
    fixed,
    length,
    multiply,
    width,
)

Label = list[Axis]  # of a tensor: an axis for each of its dimensions

# f(c x) = c f(x): nothing is said of sign or scale. (Of numbers, that is: not where these become integers or bools.)
LINEAR = """clone contiguous detach alias _to_copy to lift_fresh neg positive real conj dropout native_dropout
    feature_dropout _conj resolve_conj resolve_neg nan_to_num"""
# f(c x) = c f(x) for c > 0.
HOMOGENEOUS = "relu leaky_relu prelu _prelu_kernel rrelu rrelu_with_noise"
# f(-x) = -f(x).
ODD = "tanh sin tan erf asin atan sinh asinh atanh sign sgn hardshrink softshrink round trunc erfinv cbrt"
ANYTHING = """gelu silu sigmoid exp exp2 expm1 log log2 log10 log1p softplus hardswish hardsigmoid hardtanh relu6 elu
    selu celu mish log_sigmoid log_sigmoid_forward acos acosh sqrt rsqrt logical_not isnan
    isinf isfinite floor ceil frac clamp clamp_min clamp_max threshold logit erfc lgamma digamma bitwise_not
    bernoulli"""
SUMS = "add sub rsub where lerp"
COMPARISONS = """eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor
    masked_fill fmod remainder atan2 floor_divide bitwise_left_shift bitwise_right_shift"""
CREATIONS = """ones full empty ones_like full_like empty_like new_ones new_full new_empty
    scalar_tensor"""
TOLD_APART = """arange linspace eye tril triu rand randn randint randperm rand_like randn_like tril_indices
    triu_indices _local_scalar_dense item nonzero"""
ALONG = "_softmax softmax _log_softmax log_softmax _safe_softmax"
ORDERED = "cumsum cumprod sort topk argmax argmin argsort flip roll cummax cummin logcumsumexp kthvalue median mode"
# By how many of the last axes they mix; those of MAXIMA are bent.
POOLS = {
    1: "upsample_nearest1d upsample_linear1d _upsample_nearest_exact1d reflection_pad1d replication_pad1d avg_pool1d",
    2: """avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool2d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_nearest_exact2d reflection_pad2d replication_pad2d""",
    3: """avg_pool3d _adaptive_avg_pool3d adaptive_avg_pool3d upsample_trilinear3d upsample_nearest3d
        _upsample_nearest_exact3d replication_pad3d reflection_pad3d""",
}
MAXIMA = {
    1: "max_pool1d",
    2: "max_pool2d max_pool2d_with_indices adaptive_max_pool2d mkldnn_max_pool2d",
    3: "max_pool3d max_pool3d_with_indices adaptive_max_pool3d mkldnn_max_pool3d",
}


def names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


class Trace(TorchDispatchMode):
    """The spaces of a network, while it is executed under this mode.

    Args:
        parameters: name -> tensor, parameters and buffers, of which each has spaces of its own to begin with.

    Attributes:
        spaces: what was found.
        axes: name -> the axes of a parameter that the forward pass has used.
        read: (name, dimension) of the axes that were contracted with what a layer read.
        heads: axes along which what was computed was multiplied with what was computed, one by one: of heads.
        unknown: names of operations without a rule.
        behind: the rows of tables of which none was taken out: what is said of the table is said of them at the end.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.spaces = Spaces()
        self.axes: dict[str, Label] = {}
        self.variables: dict[int, tuple[str, int]] = {}  # variable -> the axis of a parameter that it is of
        self.read: set[tuple[str, int]] = set()
        self.heads: list[Axis] = []
        self.behind: dict[int, list[Segment]] = {}  # the whole of a table of rows -> its rows
        self.unknown: set[str] = set()
        self._names = {id(tensor): name for name, tensor in parameters.items()}
        self._kept = parameters  # so that no id is given anew
        self._homes: dict[int, list[str]] = {}  # storage -> the parameters in it
        self._labels: Any = WeakTensorKeyDictionary()
        self._raw: Any = WeakTensorKeyDictionary()  # what is computed of parameters alone
        self._turned: Tensor | None = None  # whose axes an operation in place has just moved
        self._given_up: Any = WeakTensorKeyDictionary()  # what was split into parts that are not said to be views
        self._written: dict[int, StorageWeakRef] = {}  # storages that were written into (held: no id is given anew)
        self._split: dict[int, tuple[int, int]] = {}  # the slow part of a split space -> the whole, and the fast part
        self._pickings: dict[int, _Picking] = {}  # the slow part of a split space -> what was made of it
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
        if turned or (copies(found) and storage(tensor) in self._written):
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

    # ---- how axes meet -----------------------------------------------------------------------------------------------

    def _meet(self, a: Axis, b: Axis, how: str) -> Axis:
        """Two axes of the same units: the forms of what comes of a sum, a product or a quotient of their tensors."""
        a, b = self.spaces.match(a, b)
        met: list[Segment] = []
        for s, t in zip(a, b, strict=True):
            segment = []
            for f, g in zip(s, t, strict=True):
                space = max(f.space, g.space) if min(f.space, g.space) <= ANY else f.space
                if (how != "sum" and f.space == ZERO) or (how == "product" and g.space == ZERO):
                    segment.append(Factor(ZERO, f.size))
                elif how == "sum" and ZERO in (f.space, g.space):
                    segment.append(g if f.space == ZERO else f)
                elif how == "sum":
                    self.spaces.require("sign", add(f.sign, g.sign, -1))
                    self.spaces.require("scale", add(f.scale, g.scale, -1))
                    segment.append(Factor(space, f.size, f.sign or g.sign, f.scale or g.scale))
                else:
                    times = -1 if how == "quotient" else 1
                    segment.append(Factor(space, f.size, add(f.sign, g.sign, times), add(f.scale, g.scale, times)))
            met.append(tuple(segment))
        return tuple(met)

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
                axis = self._meet(alike(shape[k]), axis, how)
            for _, other in here[1:]:
                axis = self._meet(axis, other, how)
            result.append(axis)
        return result

    def contract(self, a: Axis, b: Axis) -> None:
        """sum_i a_i b_i: the same units, whose forms are opposite."""
        for f in factors(self._meet(a, b, "product")):
            self.spaces.require("sign", f.sign)
            self.spaces.require("scale", f.scale)

    def _reads(self, tensor: Tensor, dimension: int) -> None:
        """Note that a layer reads by this axis of a parameter (or of a view of one)."""
        if self._is_raw(tensor):
            for factor in factors(self.label(tensor)[dimension]):
                for variable, _ in factor.sign:
                    if (owner := self.spaces.owners[variable]) in self.variables:
                        self.read.add(self.variables[owner])

    def _is_raw(self, tensor: Tensor) -> bool:
        return id(tensor) in self._names or tensor in self._raw

    # ---- shapes ------------------------------------------------------------------------------------------------------

    def reshape(self, label: Label, old: Sequence[int], new: Sequence[int]) -> Label:
        result: Label = []
        i = j = 0
        while i < len(old) or j < len(new):
            k, m = i + 1, j + 1
            have, want = prod(old[i:k]), prod(new[j:m])
            while have != want:
                if (have < want and k < len(old)) or m >= len(new):
                    k += 1
                    have = prod(old[i:k])
                else:
                    m += 1
                    want = prod(new[j:m])
            result += self._regroup(label[i:k], list(new[j:m]))
            i, j = k, m
        return result[: len(new)] + [SINGLE] * (len(new) - len(result))

    def _regroup(self, axes: Label, sizes: list[int]) -> Label:
        """Axes, one after the other, as one or several of other sizes."""
        axes = [axis for axis in axes if length(axis) > 1]
        if not axes:
            return [fixed(size) for size in sizes]
        if len(axes) == 1 and len(axes[0]) == sizes[0] > 1 and len({width(segment) for segment in axes[0]}) == 1:
            axes = [self._rows(axes[0])]
        if any(len(axis) > 1 for axis in axes[1:]) or (len(axes[0]) > 1 and sum(size > 1 for size in sizes) > 1):
            for axis in axes:
                self.spaces.fix(axis)
            return [fixed(size) for size in sizes]
        inner = tuple(factor for axis in axes[1:] for factor in axis[0])
        joined = tuple((*segment, *inner) for segment in axes[0])
        if sum(size > 1 for size in sizes) == 1:
            return [joined if size > 1 else SINGLE for size in sizes]
        rest = list(joined[0])
        result: Label = []
        for size in sizes:
            taken: list[Factor] = []
            while width(taken) < size and size % width(taken) == 0:
                factor, need = rest.pop(0), size // width(taken)
                if factor.size > need:
                    if factor.size % need or (factor.space >= 0 and self.spaces.spaces[factor.space].kind):
                        self.spaces.fix((joined[0],))
                        return [fixed(size) for size in sizes]
                    whole = factor.space
                    factor, left = self.spaces.divide(factor, "product", [need, factor.size // need])
                    rest.insert(0, left)
                    if whole >= 0:
                        self._split[factor.space] = (whole, left.space)
                taken.append(factor)
            if width(taken) != size:
                self.spaces.fix((joined[0],))
                return [fixed(size) for size in sizes]
            result.append((tuple(taken),))
        return result

    def _rows(self, axis: Axis) -> Axis:
        """Segments of equal sizes, as the rows of a table: a stand-in, until one of them is taken out by `_pick`."""
        whole = self.spaces.new(length(axis))
        slow, fast = self.spaces.divide(whole, "product", [len(axis), width(axis[0])])
        self._split[slow.space] = (whole.space, fast.space)
        self.behind[whole.space] = list(axis)
        return ((slow, fast),)

    def stack(self, axes: Sequence[Axis]) -> tuple[Axis, Axis]:
        """A new axis along which these are one after the other, and the axis that they have in common."""
        axis = axes[0]
        if any(len(other) != 1 or factors_of(other) != factors_of(axis) for other in axes) and all(map(is_row, axes)):
            ((slow, fast),) = self._rows(tuple(other[0] for other in axes))
            return ((slow,),), ((fast,),)
        for other in axes[1:]:
            axis = self._meet(axis, other, "sum")
        return fixed(len(axes)), axis

    def narrow(self, label: Label, k: int, start: int, size: int) -> Label:
        """Indices start, ..., start + size - 1 of dimension k."""
        axis = label[k]
        if size == length(axis):
            return label
        if size == 1 and len(axis) == 1 and len(axis[0]) == 1 and axis[0][0].space in self._split:
            return self._pick(label, k, start)
        todo, place, pieces = list(axis), 0, []
        while todo and place < start + size:
            segment = todo.pop(0)
            end = place + width(segment)
            edge = start if place < start < end else start + size if place < start + size < end else 0
            if edge:
                both = self.spaces.cut(segment, edge - place)
                if both is None:
                    self.spaces.fix(axis)
                    return [*label[:k], fixed(size), *label[k + 1 :]]
                todo[:0] = both
                continue
            if place >= start:
                pieces.append(segment)
            place = end
        kept: Axis = tuple(pieces) if size > 1 else SINGLE
        if size == 1:
            self.spaces.fix(tuple(pieces))
        return [*label[:k], kept, *label[k + 1 :]]

    def _pick(self, label: Label, k: int, index: int) -> Label:
        """One index of the slow part of a split axis, as q, k and v are of one: of each the fast part is another space.

        That holds as long as nothing is said of the two parts but this: `finish` looks whether it was so.
        """
        slow = label[k][0][0].space
        picked = [*label[:k], SINGLE, *label[k + 1 :]]
        if slow not in self._pickings and not self._take_apart(slow):
            self.spaces.fix_space(slow)
            return picked
        moved, renamed = self._copy(self._pickings[slow], index)

        def copy(f: Factor) -> Factor:
            return Factor(moved.get(f.space, f.space), f.size, rename(f.sign, renamed), rename(f.scale, renamed))

        return [tuple(tuple(copy(f) for f in segment) for segment in axis) for axis in picked]

    def _take_apart(self, slow: int) -> bool:
        """Make the product of a slow and a fast part a concatenation, as many as the slow part counts."""
        whole, fast = self._split[slow]
        parent = self.spaces.spaces[whole]
        count = len(parent.variables)
        if parent.kind != "product" or not (self._untouched(fast, count) and self._untouched(slow, count)):
            return False
        parts = {variable: self.spaces.split.pop(variable) for variable in parent.variables}
        parent.kind, parent.parts = "", ()
        sizes = [self.spaces.spaces[fast].size] * self.spaces.spaces[slow].size
        self.spaces.divide(Factor(whole, parent.size), "cat", sizes)
        self._pickings[slow] = _Picking(slow, fast, self.spaces.spaces[whole].parts, parts)
        rows = self.behind.pop(whole, [])
        for index in range(len(rows)):
            forms: list[Form] = [((self.spaces.split[v][index], 1),) for v in parts]
            part = Factor(self.spaces.spaces[whole].parts[index], sizes[0], forms[0], forms[0])
            self._meet(((part,),), (rows[index],), "sum")
        return True

    def _copy(self, picking: "_Picking", index: int) -> tuple[dict[int, int], dict[int, int]]:
        """Part number `index`, split as the fast part is: of its spaces, and of their variables, which became which."""
        moved: dict[int, int] = {}
        renamed = {old[1]: self.spaces.split[variable][index] for variable, old in picking.variables.items()}
        self._clone(picking.fast, picking.parts[index], moved, renamed)
        return moved, renamed

    def _untouched(self, space: int, variables: int) -> bool:
        """Whether nothing but splits has happened to a space, and to its parts."""
        it = self.spaces.spaces[space]
        alone = it.kind in ("", "product") and not it.fixed and len(it.variables) == variables
        return alone and all(self._untouched(part, variables) for part in it.parts)

    def _clone(self, old: int, new: int, moved: dict[int, int], renamed: dict[int, int]) -> None:
        """Split `new` as `old` is; note which space, and which variable, became which."""
        spaces = self.spaces
        moved[old] = new
        it = spaces.spaces[old]
        if it.kind in ("product", "cat"):
            copies = spaces.divide(
                Factor(spaces.root(new), it.size), it.kind, [spaces.spaces[p].size for p in it.parts]
            )
            for number, (before, after) in enumerate(zip(it.parts, copies, strict=True)):
                if after.space < 0:  # `new` was split in another way
                    spaces.fix_space(old)
                    return
                renamed |= {
                    spaces.split[v][number]: spaces.split[renamed[v]][number] for v in it.variables if v in renamed
                }
                self._clone(before, after.space, moved, renamed)

    def _used(
        self, slow: int, fast: int, variables: list[int], split: Mapping[int, tuple[int, ...]] | None = None
    ) -> bool:
        """Whether anything is said of a slow and a fast part, beside what is said of each index of the slow one."""
        split = self.spaces.split if split is None else split
        along = {split[variable][0] for variable in variables}
        count = len(variables)
        said = any(variable in along for _, form in self.spaces.equations for variable, _ in form)
        return said or not (self._untouched(fast, count) and self._untouched(slow, count))

    def finish(self) -> None:
        """Close what was left open until all of the forward pass was seen."""
        for slow, (whole, fast) in self._split.items():
            if whole in self.behind and self._used(slow, fast, self.spaces.spaces[whole].variables[:1]):
                for segment in self.behind[whole]:
                    variable = self.spaces.split[self.spaces.spaces[whole].variables[0]]
                    self.spaces.require("sign", ((variable[0], 1),))
                    self.spaces.require("scale", ((variable[0], 1),))
                    form: Form = ((variable[1], 1),)
                    self._meet(((Factor(fast, width(segment), form, form),),), (segment,), "sum")
                self.spaces.fix_space(slow)
        for picking in self._pickings.values():
            if self._used(picking.slow, picking.fast, list(picking.variables), picking.variables):
                for space in (picking.fast, *picking.parts):  # what was made of the whole tells more of them
                    self.spaces.fix_space(space)
            self.spaces.fix_space(picking.slow)
            for index in range(len(picking.parts)):
                renamed = self._copy(picking, index)[1]
                for kind, form in list(self.spaces.equations):
                    if any(variable in renamed for variable, _ in form):
                        self.spaces.require(kind, rename(form, renamed))

    # ---- the mode ----------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        rule = RULES.get(name) or RULES.get(name.rstrip("_"))
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
        raw = bool(inputs) and all(self._is_raw(tensor) for tensor in inputs)
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

    def _ruled(self, name: str, rule: "Rule | None", func: Any, args: Any, kwargs: Any, result: Any) -> Any:
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
        if any(copies(self.label(other)) for other in others) or copies(before) or len(before) != len(after):
            for axis in [*before, *after]:
                self.spaces.fix(axis)
            self._written[home] = StorageWeakRef(tensor.untyped_storage())
        else:
            for old, new in zip(before, after, strict=True):
                self.spaces.match(old, new)


@dataclass
class _Picking:
    """A split space of which indices of the slow part were taken out: the parts that there are in its place.

    `variables`: of the whole -> what they were split into, for the slow and for the fast part.
    """

    slow: int
    fast: int
    parts: tuple[int, ...]
    variables: dict[int, tuple[int, ...]]


def rename(form: Form, names: Mapping[int, int]) -> Form:
    return tuple(sorted((names.get(variable, variable), multiple) for variable, multiple in form))


def copies(label: Label) -> bool:
    return any(factor.space <= ANY for axis in label for factor in factors(axis))


def not_zero(label: Label) -> Label:
    """Where a tensor is 0 it is at least the same everywhere."""
    if not any(factor.space == ZERO for axis in label for factor in factors(axis)):
        return label
    return [
        tuple(tuple(Factor(ANY, f.size) if f.space == ZERO else f for f in segment) for segment in axis)
        for axis in label
    ]


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


def storage(tensor: Tensor) -> int:
    """Where its numbers are; 0 of one that has them in several places."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided and not tensor.is_nested else 0


def memory(tensor: Tensor) -> tuple[int, int]:
    """Its first byte, and the one after its last; the same ones twice, where it has none of its own."""
    if not storage(tensor) or not tensor.numel() or tensor.data_ptr() == 0:
        return 0, 0
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors in one storage share some of its bytes."""
    spans = memory(a), memory(b)
    if max(spans[0][0], spans[1][0]) >= min(spans[0][1], spans[1][1]):
        return False
    if a.element_size() != b.element_size() or a.is_contiguous() or b.is_contiguous():
        return True
    seen = torch.zeros(a.untyped_storage().nbytes() // a.element_size(), dtype=torch.bool)
    seen.as_strided(a.shape, a.stride(), a.storage_offset()).fill_(True)
    return bool(seen.as_strided(b.shape, b.stride(), b.storage_offset()).any())


def tensors_of(values: Iterable[Any]) -> list[Tensor]:
    """Those in lists, tuples, sets, mappings, dataclasses and objects, in one another."""
    found: list[Tensor] = []
    todo, seen = list(values), set[int]()
    while todo:
        value = todo.pop(0)
        if isinstance(value, Tensor):
            found.append(value)
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        todo[:0] = inside(value)
    return found


def inside(value: Any) -> list[Any]:
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return []


# ---- rules: (trace, arguments, keyword arguments, result) -> axes of the result; None: its units are told apart ------

Rule = Callable[[Trace, Sequence[Any], Mapping[str, Any], Any], Any]
RULES: dict[str, Rule] = {}


def rule(text: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names(text), function))
        return function

    return register


def dims(value: Any, total: int) -> list[int]:
    values = range(total) if value is None or value == [] else [value] if isinstance(value, int) else value
    return [v % total for v in values] if total else []


def shape_of(result: Any) -> tuple[int, ...]:
    return tuple((result[0] if isinstance(result, tuple | list) else result).shape)


@rule(LINEAR)
def linear(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    if shape_of(result) and kinds_of(first(result)) < kinds_of(args[0]):
        t.still(label)
    return label


def first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple | list) else result


def kinds_of(tensor: Tensor) -> int:
    """What its numbers can be: not negative, integers, or any."""
    return 2 if tensor.is_floating_point() or tensor.is_complex() else int(tensor.dtype.is_signed)


@rule(HOMOGENEOUS)
def homogeneous(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    t.still(t.label(args[0]), "sign")
    if len(args) > 1 and isinstance(args[1], Tensor):  # the slopes of prelu
        t.still(t.label(args[1]))
    return t.pointwise("product", args[:2], result.shape)


@rule(ODD)
def odd(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    t.still(label, "scale")
    return label


@rule(ANYTHING)
def anything(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if not isinstance(args[0], Tensor):
        return None
    label = t.label(args[0])
    low, high = (kwargs.get(bound, kwargs.get(f"{bound}_val")) for bound in ("min", "max"))
    odd_bounds = isinstance(low, int | float) and isinstance(high, int | float) and low == -high
    rectifier = (low is None) != (high is None) and zero(high if low is None else low)
    t.still(label, *(["scale"] if odd_bounds else ["sign"] if rectifier else []))
    if any(isinstance(other, Tensor) and other.dim() for other in args[1:]):
        return None
    return [label] * len(result) if isinstance(result, tuple) else label


@rule("abs")
def lengths(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return times(t.label(args[0]), 0, 1)


@rule("cos cosh")
def even(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    t.still(label, "scale")
    return times(label, 0)


@rule(SUMS)
def sums(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    operands = [v for k, v in kwargs.items() if k != "alpha"]
    return t.pointwise("sum", [o for o in operands if not zero(o)], result.shape, zeros=True)


@rule("maximum minimum fmin fmax")
def extremes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    for tensor in tensors_of(args):
        t.still(t.label(tensor), "sign")
    return t.pointwise("sum", args[:2], result.shape)


def zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


@rule("fill zero")
def filled(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if any(value.dim() for value in tensors_of(args[1:])):
        return None
    t.still(label := t.label(args[0]))
    return [alike(size) for size in shape_of(result)] if not copies(label) else label


@rule("mul")
def products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.pointwise("product", args[:2], result.shape, zeros=True)


@rule("div true_divide")
def quotients(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if kwargs.get("rounding_mode"):
        return comparisons(t, args, kwargs, result)
    return t.pointwise("quotient", args[:2], result.shape)


@rule("reciprocal")
def reciprocals(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return times(t.label(args[0]), -1)


@rule("addcmul")
def addcmul(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    product = torch.empty_like(result)
    t._labels[product] = t.pointwise("product", args[1:3], result.shape)
    return t.pointwise("sum", [args[0], product], result.shape)


@rule("pow square")
def powers(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    exponent = args[1] if len(args) > 1 else 2
    if not isinstance(args[0], Tensor) or isinstance(exponent, Tensor):
        for tensor in tensors_of(args):
            t.still(t.label(tensor))
        return t.pointwise("product", args[:2], result.shape)
    label = t.label(args[0])
    if isinstance(exponent, complex) or not 1 <= exponent < 100 or exponent != int(exponent):
        t.still(label)
        return label
    return times(label, int(exponent))


def times(label: Label, sign: int, scale: int | None = None) -> Label:
    """With multiples of the forms."""
    by = sign, sign if scale is None else scale
    return [
        tuple(
            tuple(Factor(f.space, f.size, multiply(f.sign, by[0]), multiply(f.scale, by[1])) for f in segment)
            for segment in axis
        )
        for axis in label
    ]


@rule(COMPARISONS)
def comparisons(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    for tensor in tensors_of(args):
        t.still(t.label(tensor))
    return t.pointwise("product", args[:2], result.shape)


@rule(CREATIONS)
def creations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return [alike(size) for size in result.shape]


@rule("zeros zeros_like new_zeros")
def nothing(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return [alike(size, ZERO) for size in result.shape]


@rule(TOLD_APART)
def ranks(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return None


# ---- contractions ----------------------------------------------------------------------------------------------------


@rule("mm bmm")
def matrix_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    a, b = t.label(args[0], zeros=True), t.label(args[1], zeros=True)
    t._reads(args[1], -2)
    t._reads(args[0], -1)
    t.contract(a[-1], b[-2])
    batch = [t._meet(x, y, "product") for x, y in zip(a[:-2], b[:-2], strict=True)]
    if batch and not t._is_raw(args[0]) and not t._is_raw(args[1]):
        t.heads += batch
    return [*batch, a[-2], b[-1]]


@rule("addmm baddbmm")
def sum_of_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    product = torch.empty_like(result)
    t._labels[product] = matrix_products(t, args[1:3], kwargs, result)
    return t.pointwise("sum", [args[0], product], result.shape, zeros=True)


@rule("mv dot vdot")
def vector_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    a, b = t.label(args[0]), t.label(args[1])
    t._reads(args[0], -1)
    t.contract(a[-1], b[0])
    return a[:-1]


@rule("convolution _convolution")
def convolutions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    x, weight, bias, transposed, groups = t.label(args[0]), t.label(args[1]), args[2], args[6], args[8]
    batched = len(x) == len(weight)
    channels = x[1] if batched else x[0]
    for axis in x[2 if batched else 1 :]:
        t.spaces.fix(axis)
    for axis in weight[2:]:
        t.spaces.fix(axis)
    rows, columns = (0, 1) if not transposed else (1, 0)
    t._reads(args[1], columns)
    if groups == 1:
        t.contract(channels, weight[columns])
        out = weight[rows]
    else:
        grouped, size = (weight[0], args[1].shape[0])
        outer, inner = t._regroup([grouped], [groups, size // groups])
        own, within = t._regroup([channels], [groups, length(channels) // groups])
        group = t._meet(own, outer, "product")
        t.contract(within, inner if transposed else weight[1])
        last = weight[1] if transposed else inner
        out = t._regroup([group, last], [groups * length(last)])[0]
    label = [*([x[0]] if batched else []), out, *(fixed(size) for size in shape_of(result)[2 if batched else 1 :])]
    if bias is not None:
        place = 1 if batched else 0
        label[place] = t._meet(label[place], t.label(bias)[0], "sum")
    return label


@rule("embedding")
def embeddings(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    table = t.label(args[0])
    t.spaces.fix(table[0])
    return [*t.label(args[1]), table[1]]


ATTENTIONS = """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
    _scaled_dot_product_fused_attention_overrideable"""


@rule(ATTENTIONS)
def attention(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    q, k, v = (t.label(argument) for argument in args[:3])
    if not length(q[1]) == length(k[1]) == length(v[1]):
        return None
    t.contract(q[3], k[3])
    batch, heads = (t._meet(q[n], k[n], "product") for n in (0, 1))
    scores = [batch, heads, q[2], k[2]]
    t.still(scores)
    if kwargs.get("is_causal"):
        scores[2:] = [t.apart(axis) for axis in scores[2:]]
    for mask in (m for m in (kwargs.get("attn_mask"), kwargs.get("attn_bias")) if isinstance(m, Tensor)):
        label = t.label(mask)
        t.still(label)
        for place, axis in zip(range(4 - len(label), 4), label, strict=True):
            if length(axis) > 1:
                scores[place] = t._meet(scores[place], axis, "sum")
    t.contract(scores[3], v[2])
    batch, heads = (t._meet(scores[n], v[n], "product") for n in (0, 1))
    t.heads.append(heads)
    return first_of(result, [batch, heads, scores[2], v[3]])


# ---- norms -----------------------------------------------------------------------------------------------------------


@rule(
    """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    miopen_batch_norm _batch_norm_no_update _batch_norm_with_update batch_norm"""
)
def batch_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """(x - mean) / std * weight + bias: the sign of x goes through; its scale would, but for eps."""
    label = t.label(args[0])
    weight, bias = kwargs["weight"], kwargs["bias"]
    mean, variance = kwargs.get("running_mean"), kwargs.get("running_var")
    axis = label[1]
    t.spaces.still(axis, "scale")
    t.still([label[0], *label[2:]])
    if isinstance(mean, Tensor):
        running = t.label(mean)[0]
        t.spaces.still(running, "scale")
        axis = t._meet(axis, running, "sum")
    if isinstance(variance, Tensor):
        running = t.label(variance)[0]
        t.spaces.still(running)
        axis = t._meet(axis, running, "product")
    if weight is not None:
        axis = t._meet(axis, t.label(weight)[0], "product")
    if bias is not None:
        axis = t._meet(axis, t.label(bias)[0], "sum")
    return first_of(result, [label[0], axis, *label[2:]])


def first_of(result: Any, label: Label) -> Any:
    """The axes of the first of several results; the others are statistics, of which nothing is said."""
    if not isinstance(result, tuple | list):
        return label
    return [label] + [[fixed(size) for size in o.shape] if isinstance(o, Tensor) else [] for o in result[1:]]


@rule("native_layer_norm layer_norm _fused_rms_norm rms_norm")
def layer_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label, normalized = t.label(args[0]), len(args[1])
    t.still(label, *(["scale"] if "bias" not in kwargs else []))  # without a mean it does not see signs
    for parameter, how in ((kwargs.get("weight"), "product"), (kwargs.get("bias"), "sum")):
        for k, axis in enumerate(t.label(parameter) if parameter is not None else []):
            place = len(label) - normalized + k
            if length(axis) > 1:
                label[place] = t._meet(label[place], axis, how)
    return first_of(result, label)


@rule("_weight_norm_interface")
def weight_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """g v / |v|, with |v| over all axes but one: of v, its sign counts there, and nothing else."""
    label, sizes = t.label(args[0]), t.label(args[1])
    kept = kwargs["dim"] % len(label)
    for k, axis in enumerate(label):
        if k != kept:
            t.spaces.still(axis, "scale")
        elif length(axis) > 1:
            (signs,) = times([axis], 1, 0)
            label[k] = t._meet(signs, sizes[k], "product")
    return first_of(result, label)


@rule("native_group_norm group_norm")
def group_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    groups = kwargs["group"]
    t.still(label)
    if groups > 1:
        parts = t._regroup([label[1]], [groups, args[0].shape[1] // groups])
        label[1] = t._regroup(parts, [args[0].shape[1]])[0]
    for parameter, how in ((args[1], "product"), (args[2], "sum")):
        if parameter is not None:
            label[1] = t._meet(label[1], t.label(parameter)[0], how)
    return first_of(result, label)


@rule("sum mean nansum")
def linear_reductions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return reduced(t, args, kwargs, result)


@rule("aminmax amax amin max min prod var std var_mean std_mean logsumexp any all")
def bent_reductions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if len(args) > 1 and isinstance(args[1], Tensor):  # max(a, b)
        return extremes(t, args, kwargs, result)
    t.still(t.label(args[0]))
    return reduced(t, args, kwargs, result)


@rule("norm linalg_vector_norm")
def norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    t.still(label, "scale")
    return rest(times(label, 0), dims(kwargs.get("dim"), len(label)), result.dim())


def reduced(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """A sum over some axes, or another function that does not care for their order."""
    label, shape = t.label(args[0]), shape_of(result)
    gone = dims(kwargs.get("dim"), len(label))
    for k in gone:
        t.spaces.still(label[k])
    if any(o.dtype == torch.int64 for o in tensors_of([result])):
        return None
    label = rest(label, gone, len(shape))
    return [label] * len(result) if isinstance(result, tuple) else label


def rest(label: Label, gone: Sequence[int], dimensions: int) -> Label:
    """The axes that are left: with those that are gone of size 1, or without them."""
    if dimensions == len(label):
        return [SINGLE if k in gone else axis for k, axis in enumerate(label)]
    return [axis for k, axis in enumerate(label) if k not in gone]


@rule(ALONG)
def along(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    t.still(label)
    return label


@rule(ORDERED)
def ordered(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """One axis has an order; what happens on the others is the same, unit by unit."""
    label = t.label(args[0])
    where = kwargs.get("dim", kwargs.get("dims"))
    if where is None or where == [] or any(isinstance(a, Tensor) for a in args[1:]):
        return None
    shape = shape_of(result)
    t.still(label)
    for k in dims(where, len(label)):
        label[k] = t.apart(label[k])
    if len(shape) != len(label):
        label = [axis for k, axis in enumerate(label) if k not in dims(where, len(label))]
    axes = [axis if length(axis) == size else fixed(size) for axis, size in zip(label, shape, strict=True)]
    return [axes] * len(result) if isinstance(result, tuple) else axes


def pools(mixed: int, bent: bool, t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    if bent:
        t.still(label, "sign")
    for axis in label[-mixed:]:
        t.spaces.fix(axis)
    axes = [*label[:-mixed], *map(fixed, shape_of(result)[-mixed:])]
    return [axes] * len(result) if isinstance(result, tuple) else axes


for _kinds, _bent in ((POOLS, False), (MAXIMA, True)):
    for _mixed, _text in _kinds.items():
        RULES.update(dict.fromkeys(names(_text), partial(pools, _mixed, _bent)))


# ---- shapes ----------------------------------------------------------------------------------------------------------


@rule("view _unsafe_view reshape _reshape_alias view_copy unflatten flatten")
def views(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if result.dtype != args[0].dtype:  # its bytes, taken as other numbers
        return None
    return t.reshape(t.label(args[0], zeros=True), args[0].shape, result.shape)


@rule("pixel_shuffle channel_shuffle pixel_unshuffle")
def shuffles(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """Of channels: c r r as c, or groups n as n groups. (What is made of the image's axes is ordered.)"""
    label, swapped = t.label(args[0]), "groups" in kwargs
    place, size = 1 if swapped else -3, args[0].shape[1 if swapped else -3]
    if "downscale_factor" in kwargs:
        for axis in label[-2:]:
            t.spaces.fix(axis)
        label[-3] = t._regroup([label[-3], fixed(result.shape[-3] // size)], [result.shape[-3]])[0]
    elif swapped:
        parts = t._regroup([label[place]], [args[1], size // args[1]])
        label[place] = t._regroup(parts[::-1], [size])[0]
    else:
        parts = t._regroup([label[place]], [result.shape[-3], size // result.shape[-3]])
        for axis in [parts[1], *label[-2:]]:
            t.spaces.fix(axis)
        label[place] = parts[0]
    return label if swapped else [*label[:-2], *map(fixed, result.shape[-2:])]


@rule("permute")
def permutations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    return [label[k] for k in args[1]]


@rule("transpose")
def transposes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    if label:
        a, b = dims([args[1], args[2]], len(label))
        label[a], label[b] = label[b], label[a]
    return label


@rule("t numpy_T mT")
def transposed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.label(args[0], zeros=True)[::-1]


@rule("expand")
def expansions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    label = [SINGLE] * (len(result.shape) - len(label)) + label
    return [alike(n) if length(axis) != n else axis for axis, n in zip(label, result.shape, strict=True)]


@rule("repeat")
def repetitions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    label = [SINGLE] * (len(result.shape) - len(label)) + label
    if any(length(axis) != n and len(axis) > 1 for axis, n in zip(label, result.shape, strict=True)):
        return None
    return [
        axis if length(axis) == n else ((Factor(ANY, n // length(axis)), *axis[0]),)
        for axis, n in zip(label, result.shape, strict=True)
    ]


@rule("unsqueeze")
def unsqueezed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    label.insert(args[1] % (len(label) + 1), SINGLE)
    return label


@rule("squeeze")
def squeezed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    where = dims(kwargs.get("dim"), len(label))
    return [axis for k, axis in enumerate(label) if k not in where or length(axis) > 1]


@rule("slice narrow")
def slices(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    k = kwargs["dim"] % len(label)
    total, start, step = args[0].shape[k], kwargs["start"] or 0, kwargs["step"]
    if step != 1:
        t.spaces.fix(label[k])
        return [*label[:k], fixed(result.shape[k]), *label[k + 1 :]]
    start = min(start + total if start < 0 else start, total)
    return t.narrow(label, k, start, result.shape[k])


@rule("select")
def selections(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    k = args[1] % len(label)
    label = t.narrow(label, k, args[2] % args[0].shape[k], 1)
    return [*label[:k], *label[k + 1 :]]


@rule("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk tensor_split")
def splits(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    labels, start = [], 0
    for part in result:
        labels.append(
            t.narrow(t.label(args[0], zeros=True), k, start, part.shape[k])
            if part.shape[k]
            else [fixed(n) for n in part.shape]
        )
        start += part.shape[k]
    return labels


@rule("unbind")
def unbound(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    labels = [t.narrow(t.label(args[0], zeros=True), k, index, 1) for index in range(args[0].shape[k])]
    return [[*label[:k], *label[k + 1 :]] for label in labels]


@rule("glu")
def gates(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    size = result.shape[k]
    values, gate = (t.narrow(t.label(args[0]), k, start, size) for start in (0, size))
    t.still(gate)
    return [t._meet(a, b, "product") for a, b in zip(values, gate, strict=True)]


@rule("cat concat")
def concatenations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    parts = [part for part in args[0] if part.dim() == result.dim()]
    k = kwargs["dim"] % result.dim()
    labels = [t.label(part, zeros=True) for part in parts]
    joined = []
    for place in range(result.dim()):
        if place == k:
            segments = [
                s for label, part in zip(labels, parts, strict=True) if part.shape[k] for s in whole(label[place])
            ]
            joined.append(tuple(segments) if result.shape[k] > 1 else SINGLE)
            continue
        axis = labels[0][place]
        for label in labels[1:]:
            axis = t._meet(axis, label[place], "sum")
        joined.append(axis)
    return joined


def whole(axis: Axis) -> Axis:
    """An axis of size 1, as a segment of a longer one, is an index of its own."""
    return ((Factor(FIXED, 1),),) if length(axis) == 1 else axis


@rule("stack")
def stacks(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    labels = [t.label(part, zeros=True) for part in args[0]]
    k = kwargs["dim"] % result.dim()
    new, axes = fixed(len(labels)), []
    for some in zip(*labels, strict=True):
        if len(some) > 1 and new == fixed(len(labels)):
            new, axis = t.stack(some)
        else:
            axis = some[0]
            for other in some[1:]:
                axis = t._meet(axis, other, "sum")
        axes.append(axis)
    return [*axes[:k], new, *axes[k:]]


def is_row(axis: Axis) -> bool:
    """Whether it is one segment, of units that are not told apart."""
    return len(axis) == 1 and any(factor.space >= 0 for factor in axis[0])


def factors_of(axis: Axis) -> list[tuple[int, int]]:
    return [(factor.space, factor.size) for factor in factors(axis)]


@rule("index_select")
def index_selections(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    k = args[1] % len(label)
    t.spaces.fix(label[k])
    t.fix(args[2])
    label[k] = fixed(result.shape[k])
    return label


@rule("index")
def indexings(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """x[:, i, j]: with one run of indices, whose axes take the place of those that they index."""
    label, indices = t.label(args[0]), list(args[1])
    used = [k for k, index in enumerate(indices) if isinstance(index, Tensor)]
    if (
        not used
        or used != list(range(used[0], used[-1] + 1))
        or any(i.dtype == torch.bool for i in tensors_of(indices))
    ):
        return None
    for k in used:
        t.spaces.fix(label[k])
    t.fix(*tensors_of(indices))
    added = result.dim() - (len(label) - len(used))
    new = [fixed(size) for size in result.shape[used[0] : used[0] + added]]
    return [*label[: used[0]], *new, *label[used[-1] + 1 :]]


@rule("constant_pad_nd pad")
def paddings(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    if kwargs.get("value"):
        t.still(label)
    for k, size in enumerate(result.shape):
        if any(args[1][2 * (result.dim() - 1 - k) :][:2]):
            t.spaces.fix(label[k])
            label[k] = fixed(size)
    return label


@rule("copy index_put scatter set index_add index_copy")
def writes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """Nothing is said of what is written, or of where."""
    return None


@rule("im2col unfold as_strided")
def windows(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return None
