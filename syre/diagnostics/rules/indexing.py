"""Parts of tensors, and tensors of parts: slices, splits, indices, concatenations, paddings, what is written into."""

from typing import Any

import torch
from torch import Tensor

from syre.diagnostics.rules.family import Family
from syre.diagnostics.spaces import FIXED, SINGLE, Axis, Factor, fixed, length
from syre.diagnostics.tensors import tensors_of
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of("slice narrow")
def slices(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    k = kwargs["dim"] % len(label)
    total, start, step = args[0].shape[k], kwargs["start"] or 0, kwargs["step"]
    if step != 1:
        t.spaces.fix(label[k])
        return [*label[:k], fixed(result.shape[k]), *label[k + 1 :]]
    start = min(start + total if start < 0 else start, total)
    return t.parts.narrow(label, k, start, result.shape[k])


@RULES.of("select")
def selections(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0], zeros=True)
    k = args[1] % len(label)
    label = t.parts.narrow(label, k, args[2] % args[0].shape[k], 1)
    return [*label[:k], *label[k + 1 :]]


@RULES.of("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk tensor_split")
def splits(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    labels, start = [], 0
    for part in result:
        labels.append(
            t.parts.narrow(t.label(args[0], zeros=True), k, start, part.shape[k])
            if part.shape[k]
            else [fixed(n) for n in part.shape]
        )
        start += part.shape[k]
    return labels


@RULES.of("unbind")
def unbound(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    k = kwargs["dim"] % args[0].dim()
    labels = [t.parts.narrow(t.label(args[0], zeros=True), k, index, 1) for index in range(args[0].shape[k])]
    return [[*label[:k], *label[k + 1 :]] for label in labels]


@RULES.of("cat concat")
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
            axis = t.spaces.meet(axis, label[place], "sum")
        joined.append(axis)
    return joined


def whole(axis: Axis) -> Axis:
    """An axis of size 1, as a segment of a longer one, is an index of its own."""
    return ((Factor(FIXED, 1),),) if length(axis) == 1 else axis


@RULES.of("stack")
def stacks(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    labels = [t.label(part, zeros=True) for part in args[0]]
    k = kwargs["dim"] % result.dim()
    new, axes = fixed(len(labels)), []
    for some in zip(*labels, strict=True):
        if len(some) > 1 and new == fixed(len(labels)):
            new, axis = t.parts.stack(some)
        else:
            axis = some[0]
            for other in some[1:]:
                axis = t.spaces.meet(axis, other, "sum")
        axes.append(axis)
    return [*axes[:k], new, *axes[k:]]


@RULES.of("index_select")
def index_selections(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    k = args[1] % len(label)
    t.spaces.fix(label[k])
    t.fix(args[2])
    label[k] = fixed(result.shape[k])
    return label


@RULES.of("index")
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


@RULES.of("constant_pad_nd pad")
def paddings(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    if kwargs.get("value"):
        t.still(label)
    for k, size in enumerate(result.shape):
        if any(args[1][2 * (result.dim() - 1 - k) :][:2]):
            t.spaces.fix(label[k])
            label[k] = fixed(size)
    return label


@RULES.of("copy index_put scatter set index_add index_copy")
def writes(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """Nothing is said of what is written, or of where."""
    return None


@RULES.of("im2col unfold as_strided")
def windows(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return None
