"""Functions of one tensor, entry by entry, and of two: sums, products, quotients, comparisons."""

from typing import Any

from torch import Tensor

from syre.diagnostics.rules.family import Family, first, shape_of
from syre.diagnostics.spaces import times
from syre.diagnostics.tensors import tensors_of
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of(
    """clone contiguous detach alias _to_copy to lift_fresh neg positive real conj dropout native_dropout
    feature_dropout _conj resolve_conj resolve_neg nan_to_num"""
)
def linear(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """f(c x) = c f(x): nothing is said of sign or scale. (Of numbers: not where these become integers or bools.)"""
    label = t.label(args[0], zeros=True)
    if shape_of(result) and kinds_of(first(result)) < kinds_of(args[0]):
        t.still(label)
    return label


def kinds_of(tensor: Tensor) -> int:
    """What its numbers can be: not negative, integers, or any."""
    return 2 if tensor.is_floating_point() or tensor.is_complex() else int(tensor.dtype.is_signed)


@RULES.of("relu leaky_relu prelu _prelu_kernel rrelu rrelu_with_noise")
def homogeneous(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """f(c x) = c f(x) for c > 0."""
    t.still(t.label(args[0]), "sign")
    if len(args) > 1 and isinstance(args[1], Tensor):  # the slopes of prelu
        t.still(t.label(args[1]))
    return t.pointwise("product", args[:2], result.shape)


@RULES.of("tanh sin tan erf asin atan sinh asinh atanh sign sgn hardshrink softshrink round trunc erfinv cbrt")
def odd(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """f(-x) = -f(x)."""
    label = t.label(args[0])
    t.still(label, "scale")
    return label


@RULES.of(
    """gelu silu sigmoid exp exp2 expm1 log log2 log10 log1p softplus hardswish hardsigmoid hardtanh relu6 elu selu celu
    mish log_sigmoid log_sigmoid_forward acos acosh sqrt rsqrt logical_not isnan isinf isfinite floor ceil frac clamp
    clamp_min clamp_max threshold logit erfc lgamma digamma bitwise_not bernoulli"""
)
def anything(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """f of which neither is true; a clamp may be odd, or homogeneous, by its bounds."""
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


@RULES.of("abs")
def lengths(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """f(-x) = f(x), and f(c x) = c f(x) for c > 0."""
    return times(t.label(args[0]), 0, 1)


@RULES.of("cos cosh")
def even(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """f(-x) = f(x)."""
    label = t.label(args[0])
    t.still(label, "scale")
    return times(label, 0)


@RULES.of("add sub rsub where lerp")
def sums(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    operands = [v for k, v in kwargs.items() if k != "alpha"]
    return t.pointwise("sum", [o for o in operands if not zero(o)], result.shape, zeros=True)


@RULES.of("maximum minimum fmin fmax")
def extremes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    for tensor in tensors_of(args):
        t.still(t.label(tensor), "sign")
    return t.pointwise("sum", args[:2], result.shape)


def zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


@RULES.of("mul")
def products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.pointwise("product", args[:2], result.shape, zeros=True)


@RULES.of("div true_divide")
def quotients(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if kwargs.get("rounding_mode"):
        return comparisons(t, args, kwargs, result)
    return t.pointwise("quotient", args[:2], result.shape)


@RULES.of("reciprocal")
def reciprocals(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return times(t.label(args[0]), -1)


@RULES.of("addcmul")
def addcmul(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    product = t.stand_in(t.pointwise("product", args[1:3], result.shape), like=result)
    return t.pointwise("sum", [args[0], product], result.shape)


@RULES.of("pow square")
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


@RULES.of(
    """eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor masked_fill fmod
    remainder atan2 floor_divide bitwise_left_shift bitwise_right_shift"""
)
def comparisons(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    for tensor in tensors_of(args):
        t.still(t.label(tensor))
    return t.pointwise("product", args[:2], result.shape)


@RULES.of("glu")
def gates(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    size = result.shape[k]
    values, gate = (t.parts.narrow(t.label(args[0]), k, start, size) for start in (0, size))
    t.still(gate)
    return [t.spaces.meet(a, b, "product") for a, b in zip(values, gate, strict=True)]
