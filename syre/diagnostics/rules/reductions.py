"""What runs along axes: sums, maxima and other statistics of them, softmax, cumulative sums, sorting."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from syre.diagnostics.rules.elementwise import extremes
from syre.diagnostics.rules.family import Family, dims, shape_of
from syre.diagnostics.spaces import SINGLE, Label, fixed, length, times
from syre.diagnostics.tensors import tensors_of
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of("sum mean nansum")
def linear_reductions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return reduced(t, args, kwargs, result)


@RULES.of("aminmax amax amin max min prod var std var_mean std_mean logsumexp any all")
def bent_reductions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if len(args) > 1 and isinstance(args[1], Tensor):  # max(a, b)
        return extremes(t, args, kwargs, result)
    t.still(t.label(args[0]))
    return reduced(t, args, kwargs, result)


@RULES.of("norm linalg_vector_norm")
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


@RULES.of("_softmax softmax _log_softmax log_softmax _safe_softmax")
def along(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    t.still(label)
    return label


@RULES.of("cumsum cumprod sort topk argmax argmin argsort flip roll cummax cummin logcumsumexp kthvalue median mode")
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
