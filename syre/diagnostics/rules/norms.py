"""Layers that normalize: batch, layer, group and weight norms."""

from typing import Any

from torch import Tensor

from syre.diagnostics.rules.family import Family, first_of
from syre.diagnostics.spaces import length, times
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of(
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
        axis = t.spaces.meet(axis, running, "sum")
    if isinstance(variance, Tensor):
        running = t.label(variance)[0]
        t.spaces.still(running)
        axis = t.spaces.meet(axis, running, "product")
    if weight is not None:
        axis = t.spaces.meet(axis, t.label(weight)[0], "product")
    if bias is not None:
        axis = t.spaces.meet(axis, t.label(bias)[0], "sum")
    return first_of(result, [label[0], axis, *label[2:]])


@RULES.of("native_layer_norm layer_norm _fused_rms_norm rms_norm")
def layer_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label, normalized = t.label(args[0]), len(args[1])
    t.still(label, *(["scale"] if "bias" not in kwargs else []))  # without a mean it does not see signs
    for parameter, how in ((kwargs.get("weight"), "product"), (kwargs.get("bias"), "sum")):
        for k, axis in enumerate(t.label(parameter) if parameter is not None else []):
            place = len(label) - normalized + k
            if length(axis) > 1:
                label[place] = t.spaces.meet(label[place], axis, how)
    return first_of(result, label)


@RULES.of("_weight_norm_interface")
def weight_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """g v / |v|, with |v| over all axes but one: of v, its sign counts there, and nothing else."""
    label, sizes = t.label(args[0]), t.label(args[1])
    kept = kwargs["dim"] % len(label)
    for k, axis in enumerate(label):
        if k != kept:
            t.spaces.still(axis, "scale")
        elif length(axis) > 1:
            (signs,) = times([axis], 1, 0)
            label[k] = t.spaces.meet(signs, sizes[k], "product")
    return first_of(result, label)


@RULES.of("native_group_norm group_norm")
def group_norms(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    groups = kwargs["group"]
    t.still(label)
    if groups > 1:
        parts = t.parts.regroup([label[1]], [groups, args[0].shape[1] // groups])
        label[1] = t.parts.regroup(parts, [args[0].shape[1]])[0]
    for parameter, how in ((args[1], "product"), (args[2], "sum")):
        if parameter is not None:
            label[1] = t.spaces.meet(label[1], t.label(parameter)[0], how)
    return first_of(result, label)
