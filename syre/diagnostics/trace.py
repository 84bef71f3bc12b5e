"""Follow the axes of all tensors through a forward pass, operation by operation: which of them are the same units?

Every operation that torch executes is seen below autograd (`TorchDispatchMode`), where few are left. Each has a rule,
which says what its result's axes are and what of them is the same; the units of one that has none are told apart, so
that what is said of the others holds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from syre.diagnostics.spaces import (
    ANY,
    FIXED,
    SINGLE,
    Axis,
    Factor,
    Segment,
    Space,
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

# f(c x) = c f(x): nothing is said of sign or scale.
LINEAR = """clone contiguous detach alias _to_copy to lift_fresh neg positive real conj dropout native_dropout
    feature_dropout alpha_dropout zeros_like_ _conj resolve_conj resolve_neg nan_to_num"""
# f(c x) = c f(x) for c > 0.
HOMOGENEOUS = "relu leaky_relu prelu _prelu_kernel abs rrelu rrelu_with_noise"
# f(-x) = -f(x).
ODD = "tanh sin tan erf asin atan sinh asinh atanh sign sgn hardshrink softshrink round trunc erfinv cbrt"
ANYTHING = """gelu silu sigmoid exp exp2 expm1 log log2 log10 log1p softplus hardswish hardsigmoid hardtanh relu6 elu
    selu celu mish log_sigmoid log_sigmoid_forward cos cosh acos acosh sqrt rsqrt square reciprocal logical_not isnan
    isinf isfinite floor ceil frac clamp clamp_min clamp_max threshold logit erfc lgamma digamma bitwise_not
    bernoulli"""
SUMS = "add sub rsub where lerp"
COMPARISONS = """eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor
    masked_fill fmod remainder atan2 floor_divide bitwise_left_shift bitwise_right_shift"""
CREATIONS = """zeros ones full empty zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty
    scalar_tensor"""
TOLD_APART = """arange linspace eye tril triu rand randn randint randperm rand_like randn_like tril_indices
    triu_indices _local_scalar_dense item nonzero"""
ALONG = "_softmax softmax _log_softmax log_softmax _safe_softmax"
ORDERED = "cumsum cumprod sort topk argmax argmin argsort flip roll cummax cummin logcumsumexp kthvalue median mode"
POOLS = """max_pool2d max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool3d upsample_nearest2d
    upsample_bilinear2d upsample_bicubic2d upsample_nearest1d upsample_linear1d upsample_trilinear3d upsample_nearest3d
    mkldnn_max_pool2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_nearest_exact2d reflection_pad2d
    reflection_pad1d replication_pad1d replication_pad2d replication_pad3d reflection_pad3d"""


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
        behind: rows of tables of which none was taken out: of their units nothing is known.
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
        self._labels: Any = WeakTensorKeyDictionary()
        self._raw: Any = WeakTensorKeyDictionary()  # what is computed of parameters alone
        self._written: set[int] = set()  # storages that were written into, index by index
        self._split: dict[int, tuple[int, int]] = {}  # the slow part of a split space -> the whole, and the fast part
        self._copies: dict[tuple[int, int], tuple[dict[int, int], dict[int, int]]] = {}

    # ---- labels ------------------------------------------------------------------------------------------------------

    def label(self, tensor: Tensor) -> Label:
        """The axes of a tensor; of one that no operation has made, told apart."""
        if (name := self._names.get(id(tensor))) is not None:
            if name not in self.axes:
                self.axes[name] = [self._new(name, k, size) for k, size in enumerate(tensor.shape)]
            return [self.spaces.resolve(axis) for axis in self.axes[name]]
        found = self._labels.get(tensor)
        copies = found is not None and any(f.space == ANY for axis in found for f in factors(axis))
        if found is None or len(found) != tensor.dim() or (copies and storage(tensor) in self._written):
            return [fixed(size) for size in tensor.shape]
        return [self.spaces.resolve(axis) for axis in found]

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
                space = max(f.space, g.space) if ANY in (f.space, g.space) else f.space
                if how == "sum":
                    self.spaces.require("sign", add(f.sign, g.sign, -1))
                    self.spaces.require("scale", add(f.scale, g.scale, -1))
                    segment.append(Factor(space, f.size, f.sign or g.sign, f.scale or g.scale))
                else:
                    times = -1 if how == "quotient" else 1
                    segment.append(Factor(space, f.size, add(f.sign, g.sign, times), add(f.scale, g.scale, times)))
            met.append(tuple(segment))
        return tuple(met)

    def pointwise(self, how: str, operands: Sequence[Any], shape: Sequence[int]) -> Label:
        """A sum, product or quotient entry by entry, with broadcasting."""
        labels = [self.label(operand) if isinstance(operand, Tensor) else [] for operand in operands]
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
                    self.read.add(self.variables[self.spaces.owners[variable]])

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
        if not axes or len(sizes) == 0:
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
            while width(taken) < size:
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
        """Segments of equal sizes, as the rows of a table: a stand-in, until one of them is taken out by `_pick`.

        They may be permuted, but not change sign or scale.
        """
        for segment in axis:
            self.spaces.still((segment,))
        self.spaces.spaces.append(Space(length(axis)))
        whole = Factor(len(self.spaces.spaces) - 1, length(axis))
        slow, fast = self.spaces.divide(whole, "product", [len(axis), width(axis[0])])
        self._split[slow.space] = (whole.space, fast.space)
        self.behind[whole.space] = list(axis)
        return ((slow, fast),)

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

        That holds as long as nothing has been said of the fast part.
        """
        slow = label[k][0][0]
        whole, fast = self._split[slow.space]
        parent = self.spaces.spaces[whole]
        if parent.kind == "product" and self._untouched(fast, len(parent.variables)):
            parts = {variable: self.spaces.split.pop(variable)[1] for variable in parent.variables}
            parent.kind, parent.parts = "", ()  # the product becomes a concatenation
            self.spaces.divide(Factor(whole, parent.size), "cat", [self.spaces.spaces[fast].size] * slow.size)
            for number, space in enumerate(self.spaces.spaces[whole].parts):
                renamed = {old: self.spaces.split[variable][number] for variable, old in parts.items()}
                moved: dict[int, int] = {}
                self._clone(fast, space, moved, renamed)
                self._copies[slow.space, number] = moved, renamed
            for number, segment in enumerate(self.behind.pop(whole, [])):
                self.spaces.match(((Factor(self.spaces.spaces[whole].parts[number], width(segment)),),), (segment,))
        picked = [*label[:k], SINGLE, *label[k + 1 :]]
        if (slow.space, index) not in self._copies:
            self.spaces.fix_space(slow.space)
            return picked
        moved, renamed = self._copies[slow.space, index]

        def copy(f: Factor) -> Factor:
            sign, scale = (tuple(sorted((renamed.get(v, v), m) for v, m in form)) for form in (f.sign, f.scale))
            return Factor(moved.get(f.space, f.space), f.size, sign, scale)

        return [tuple(tuple(copy(f) for f in segment) for segment in axis) for axis in picked]

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
        if it.kind:
            spaces.divide(Factor(new, it.size), it.kind, [spaces.spaces[part].size for part in it.parts])
            for number, (before, after) in enumerate(zip(it.parts, spaces.spaces[new].parts, strict=True)):
                renamed |= {spaces.split[v][number]: spaces.split[renamed[v]][number] for v in it.variables}
                self._clone(before, after, moved, renamed)

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
        result = func(*args, **kwargs)
        if rule is None:
            self.unknown.add(name)
            self.fix(*tensors_of(args), *tensors_of(kwargs.values()))
            return result
        label = rule(self, args, named(func, args, kwargs), result)
        if label is None:
            self.fix(*tensors_of(args), *tensors_of(kwargs.values()))
            return result
        outputs = result if isinstance(result, tuple | list) else [result]
        labels = label if label and isinstance(label[0], list) else [label] * len(outputs)
        inputs = tensors_of(args) + tensors_of(kwargs.values())
        raw = bool(inputs) and all(self._is_raw(tensor) for tensor in inputs)
        for output, axes in zip(outputs, labels, strict=False):
            if isinstance(output, Tensor) and id(output) not in self._names and output.dim() == len(axes):
                if args and output is args[0] and output._is_view():  # what it is a view of has changed too
                    self.still([*self.label(output), *axes])
                self._labels[output] = axes
                if raw:
                    self._raw[output] = True
        return result


def named(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by their names, those left out too."""
    left_out = {argument.name: argument.default_value for argument in func._schema.arguments[len(args) :]}
    return {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | left_out | dict(kwargs)


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def tensors_of(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_of(value)
        elif isinstance(value, Mapping):
            found += tensors_of(value.values())
    return found


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
    return t.label(args[0])


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
    t.still(label, *(["scale"] if odd_bounds else []))
    if any(isinstance(other, Tensor) and other.dim() for other in args[1:]):
        return None
    return [label] * len(result) if isinstance(result, tuple) else label


@rule(SUMS)
def sums(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    operands = [v for k, v in kwargs.items() if k != "alpha"]
    return t.pointwise("sum", [o for o in operands if not zero(o)], result.shape)


@rule("maximum minimum fmin fmax")
def extremes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    for tensor in tensors_of(args):
        t.still(t.label(tensor), "sign")
    return t.pointwise("sum", args[:2], result.shape)


def zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


@rule("mul")
def products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.pointwise("product", args[:2], result.shape)


@rule("div true_divide")
def quotients(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if kwargs.get("rounding_mode"):
        return comparisons(t, args, kwargs, result)
    if not isinstance(args[0], Tensor):
        t.still(t.label(args[1]))
    return t.pointwise("quotient", args[:2], result.shape)


@rule("addcmul")
def addcmul(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    product = torch.empty_like(result)
    t._labels[product] = t.pointwise("product", args[1:3], result.shape)
    return t.pointwise("sum", [args[0], product], result.shape)


@rule("pow")
def powers(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    exponent = args[1]
    if not isinstance(args[0], Tensor) or isinstance(exponent, Tensor):
        for tensor in tensors_of(args):
            t.still(t.label(tensor))
        return t.pointwise("product", args[:2], result.shape)
    label = t.label(args[0])
    if exponent != int(exponent) or exponent < 1:
        t.still(label)
        return label
    times = int(exponent)
    return [
        tuple(
            tuple(Factor(f.space, f.size, multiply(f.sign, times), multiply(f.scale, times)) for f in segment)
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


@rule(TOLD_APART)
def told_apart(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return None


# ---- contractions ----------------------------------------------------------------------------------------------------


@rule("mm bmm")
def matrix_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    a, b = t.label(args[0]), t.label(args[1])
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
    return t.pointwise("sum", [args[0], product], result.shape)


@rule("mv dot")
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
    batch, heads = t._meet(q[0], k[0], "sum"), t._meet(q[1], k[1], "product")
    t.spaces.still(heads)
    heads = t._meet(heads, v[1], "sum") if length(v[1]) == length(heads) else heads
    t._meet(k[2], v[2], "sum")
    t.contract(q[3], k[3])
    for mask in (m for m in [*args[3:], kwargs.get("attn_mask"), kwargs.get("attn_bias")] if isinstance(m, Tensor)):
        label = t.label(mask)
        t.still(label)
        for place, axis in ((1, heads), (2, q[2]), (3, k[2])):
            if mask.dim() == 4 and mask.shape[place] > 1:
                t._meet(label[place], axis, "sum")
    t.heads.append(heads)
    return first_of(result, [batch, v[1], q[2], v[3]]) if length(v[1]) == shape_of(result)[1] else None


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
    t.still(label)
    for parameter, how in zip([p for p in args[2:4] if isinstance(p, Tensor)], ("product", "sum"), strict=False):
        for k, axis in enumerate(t.label(parameter)):
            place = len(label) - normalized + k
            if length(axis) > 1:
                label[place] = t._meet(label[place], axis, how)
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


@rule("aminmax amax amin max min prod var std var_mean std_mean logsumexp norm linalg_vector_norm any all")
def bent_reductions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if len(args) > 1 and isinstance(args[1], Tensor):  # max(a, b)
        return extremes(t, args, kwargs, result)
    t.still(t.label(args[0]))
    return reduced(t, args, kwargs, result)


def reduced(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """A sum over some axes, or another function that does not care for their order."""
    label, shape = t.label(args[0]), shape_of(result)
    gone = dims(kwargs.get("dim"), len(label))
    for k in gone:
        t.spaces.still(label[k])
    label = [SINGLE if k in gone else axis for k, axis in enumerate(label)]
    if len(shape) != len(label):
        label = [axis for k, axis in enumerate(label) if k not in gone]
    if len(shape) != len(label) or any(o.dtype == torch.int64 for o in tensors_of([result])):
        return None
    return [label] * len(result) if isinstance(result, tuple) else label


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
        t.spaces.fix(label[k])
    if len(shape) != len(label):
        label = [axis for k, axis in enumerate(label) if k not in dims(where, len(label))]
    axes = [axis if length(axis) == size else fixed(size) for axis, size in zip(label, shape, strict=True)]
    return [axes] * len(result) if isinstance(result, tuple) else axes


@rule(POOLS)
def pools(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label, shape = t.label(args[0]), shape_of(result)
    bent = [
        k
        for k, (axis, size) in enumerate(zip(label, shape, strict=True))
        if k >= len(shape) - 1 or length(axis) != size
    ]
    for k in range(min(bent), len(shape)):
        t.spaces.fix(label[k])
    if not isinstance(result, Tensor):
        t.still(label, "sign")
    axes = [axis if length(axis) == size else fixed(size) for axis, size in zip(label, shape, strict=True)]
    return [axes] * len(result) if isinstance(result, tuple) else axes


# ---- shapes ----------------------------------------------------------------------------------------------------------


@rule("view _unsafe_view reshape _reshape_alias view_copy unflatten flatten")
def views(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.reshape(t.label(args[0]), args[0].shape, result.shape)


@rule("permute")
def permutations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    return [label[k] for k in args[1]]


@rule("transpose")
def transposes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    if label:
        a, b = dims([args[1], args[2]], len(label))
        label[a], label[b] = label[b], label[a]
    return label


@rule("t numpy_T mT")
def transposed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.label(args[0])[::-1]


@rule("expand")
def expansions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    label = [SINGLE] * (len(result.shape) - len(label)) + label
    return [alike(n) if length(axis) != n else axis for axis, n in zip(label, result.shape, strict=True)]


@rule("repeat")
def repetitions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    label = [SINGLE] * (len(result.shape) - len(label)) + label
    if any(length(axis) != n and len(axis) > 1 for axis, n in zip(label, result.shape, strict=True)):
        return None
    return [
        axis if length(axis) == n else ((Factor(ANY, n // length(axis)), *axis[0]),)
        for axis, n in zip(label, result.shape, strict=True)
    ]


@rule("unsqueeze")
def unsqueezed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    label.insert(args[1] % (len(label) + 1), SINGLE)
    return label


@rule("squeeze")
def squeezed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    where = dims(kwargs.get("dim"), len(label))
    return [axis for k, axis in enumerate(label) if k not in where or length(axis) > 1]


@rule("slice narrow")
def slices(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    k = kwargs["dim"] % len(label)
    total, start, step = args[0].shape[k], kwargs["start"] or 0, kwargs["step"]
    if step != 1:
        t.spaces.fix(label[k])
        return [*label[:k], fixed(result.shape[k]), *label[k + 1 :]]
    start = min(start + total if start < 0 else start, total)
    if result.shape[k] == 0:
        return None
    return t.narrow(label, k, start, result.shape[k])


@rule("select")
def selections(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    k = args[1] % len(label)
    label = t.narrow(label, k, args[2] % args[0].shape[k], 1)
    return [*label[:k], *label[k + 1 :]]


@rule("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk tensor_split")
def splits(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    labels, start = [], 0
    for part in result:
        labels.append(
            t.narrow(t.label(args[0]), k, start, part.shape[k]) if part.shape[k] else [fixed(n) for n in part.shape]
        )
        start += part.shape[k]
    return labels


@rule("unbind")
def unbound(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    labels = [t.narrow(t.label(args[0]), k, index, 1) for index in range(args[0].shape[k])]
    return [[*label[:k], *label[k + 1 :]] for label in labels]


@rule("cat concat")
def concatenations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    parts = [part for part in args[0] if part.dim() == result.dim()]
    k = kwargs["dim"] % result.dim()
    labels = [t.label(part) for part in parts]
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
    labels = [t.label(part) for part in args[0]]
    k = kwargs["dim"] % result.dim()
    axes = labels[0]
    for label in labels[1:]:
        axes = [t._meet(a, b, "sum") for a, b in zip(axes, label, strict=True)]
    return [*axes[:k], fixed(len(labels)), *axes[k:]]


@rule("index_select")
def index_selections(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    k = args[1] % len(label)
    t.spaces.fix(label[k])
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
    added = result.dim() - (len(label) - len(used))
    new = [fixed(size) for size in result.shape[used[0] : used[0] + added]]
    return [*label[: used[0]], *new, *label[used[-1] + 1 :]]


@rule("constant_pad_nd pad")
def paddings(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    for k, size in enumerate(result.shape):
        if args[0].shape[k] != size:
            t.spaces.fix(label[k])
            label[k] = fixed(size)
    return label


@rule("copy index_put scatter fill set index_add index_copy")
def writes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """Into a tensor that others may see: nothing is said of what is written, or of where."""
    t._written.add(storage(args[0]))
    return None


@rule("im2col unfold as_strided")
def windows(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return None
