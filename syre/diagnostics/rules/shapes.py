"""The same numbers in another shape: views, transposes, expansions, axes of size 1."""

from typing import Any

from syre.diagnostics.rules.family import Family, dims
from syre.diagnostics.spaces import ANY, SINGLE, Factor, alike, length
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of("view _unsafe_view reshape _reshape_alias view_copy unflatten flatten")
def views(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if result.dtype != args[0].dtype:  # its bytes, taken as other numbers
        return None
    return t.parts.reshape(t.label(args[0], zeros=True), args[0].shape, result.shape)


@RULES.of("permute")
def permutations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    return [label[k] for k in args[1]]


@RULES.of("transpose")
def transposes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    if label:
        a, b = dims([args[1], args[2]], len(label))
        label[a], label[b] = label[b], label[a]
    return label


@RULES.of("t numpy_T mT")
def transposed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return t.label(args[0], zeros=True)[::-1]


@RULES.of("expand")
def expansions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    label = [SINGLE] * (len(result.shape) - len(label)) + label
    return [alike(n) if length(axis) != n else axis for axis, n in zip(label, result.shape, strict=True)]


@RULES.of("repeat")
def repetitions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    label = [SINGLE] * (len(result.shape) - len(label)) + label
    if any(length(axis) != n and len(axis) > 1 for axis, n in zip(label, result.shape, strict=True)):
        return None
    return [
        axis if length(axis) == n else ((Factor(ANY, n // length(axis)), *axis[0]),)
        for axis, n in zip(label, result.shape, strict=True)
    ]


@RULES.of("unsqueeze")
def unsqueezed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    label.insert(args[1] % (len(label) + 1), SINGLE)
    return label


@RULES.of("squeeze")
def squeezed(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    where = dims(kwargs.get("dim"), len(label))
    return [axis for k, axis in enumerate(label) if k not in where or length(axis) > 1]
