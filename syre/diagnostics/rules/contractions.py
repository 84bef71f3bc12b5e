"""Sums over axes that two tensors have in common: matrix products, convolutions, embeddings, attention."""

from typing import Any

from torch import Tensor

from syre.diagnostics.rules.family import Family, first_of, shape_of
from syre.diagnostics.spaces import fixed, length
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of("mm bmm")
def matrix_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    a, b = t.label(args[0], zeros=True), t.label(args[1], zeros=True)
    t.note_read(args[1], -2)
    t.note_read(args[0], -1)
    t.spaces.contract(a[-1], b[-2])
    batch = [t.spaces.meet(x, y, "product") for x, y in zip(a[:-2], b[:-2], strict=True)]
    if batch and not t.is_raw(args[0]) and not t.is_raw(args[1]):
        t.heads += batch
    return [*batch, a[-2], b[-1]]


@RULES.of("addmm baddbmm")
def sum_of_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    product = t.stand_in(matrix_products(t, args[1:3], kwargs, result), like=result)
    return t.pointwise("sum", [args[0], product], result.shape, zeros=True)


@RULES.of("mv dot vdot")
def vector_products(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    a, b = t.label(args[0]), t.label(args[1])
    t.note_read(args[0], -1)
    t.spaces.contract(a[-1], b[0])
    return a[:-1]


@RULES.of("convolution _convolution")
def convolutions(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    x, weight, bias, transposed, groups = t.label(args[0]), t.label(args[1]), args[2], args[6], args[8]
    batched = len(x) == len(weight)
    channels = x[1] if batched else x[0]
    for axis in x[2 if batched else 1 :]:
        t.spaces.fix(axis)
    for axis in weight[2:]:
        t.spaces.fix(axis)
    rows, columns = (0, 1) if not transposed else (1, 0)
    t.note_read(args[1], columns)
    if groups == 1:
        t.spaces.contract(channels, weight[columns])
        out = weight[rows]
    else:
        grouped, size = (weight[0], args[1].shape[0])
        outer, inner = t.parts.regroup([grouped], [groups, size // groups])
        own, within = t.parts.regroup([channels], [groups, length(channels) // groups])
        group = t.spaces.meet(own, outer, "product")
        t.spaces.contract(within, inner if transposed else weight[1])
        last = weight[1] if transposed else inner
        out = t.parts.regroup([group, last], [groups * length(last)])[0]
    label = [*([x[0]] if batched else []), out, *(fixed(size) for size in shape_of(result)[2 if batched else 1 :])]
    if bias is not None:
        place = 1 if batched else 0
        label[place] = t.spaces.meet(label[place], t.label(bias)[0], "sum")
    return label


@RULES.of("embedding")
def embeddings(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    table = t.label(args[0])
    t.spaces.fix(table[0])
    return [*t.label(args[1]), table[1]]


@RULES.of(
    """_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
    _scaled_dot_product_fused_attention_overrideable"""
)
def attention(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    q, k, v = (t.label(argument) for argument in args[:3])
    if not length(q[1]) == length(k[1]) == length(v[1]):
        return None
    t.spaces.contract(q[3], k[3])
    batch, heads = (t.spaces.meet(q[n], k[n], "product") for n in (0, 1))
    scores = [batch, heads, q[2], k[2]]
    t.still(scores)
    if kwargs.get("is_causal"):
        scores[2:] = [t.apart(axis) for axis in scores[2:]]
    for mask in (m for m in (kwargs.get("attn_mask"), kwargs.get("attn_bias")) if isinstance(m, Tensor)):
        label = t.label(mask)
        t.still(label)
        for place, axis in zip(range(4 - len(label), 4), label, strict=True):
            if length(axis) > 1:
                scores[place] = t.spaces.meet(scores[place], axis, "sum")
    t.spaces.contract(scores[3], v[2])
    batch, heads = (t.spaces.meet(scores[n], v[n], "product") for n in (0, 1))
    t.heads.append(heads)
    return first_of(result, [batch, heads, scores[2], v[3]])
