"""Operators of images, signals and volumes: pooling, resizing, padding by what is inside, shuffles of pixels."""

from functools import partial
from typing import Any

from syre.diagnostics.rules.family import Family, shape_of
from syre.diagnostics.spaces import fixed
from syre.diagnostics.trace import Trace

RULES = Family()

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


def pools(mixed: int, bent: bool, t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    label = t.label(args[0])
    if bent:
        t.still(label, "sign")
    for axis in label[-mixed:]:
        t.spaces.fix(axis)
    axes = [*label[:-mixed], *map(fixed, shape_of(result)[-mixed:])]
    return [axes] * len(result) if isinstance(result, tuple) else axes


for _kinds, _bent in ((POOLS, False), (MAXIMA, True)):
    for _mixed, _names in _kinds.items():
        RULES.of(_names)(partial(pools, _mixed, _bent))


@RULES.of("pixel_shuffle channel_shuffle pixel_unshuffle")
def shuffles(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    """Of channels: c r r as c, or groups n as n groups. (What is made of the image's axes is ordered.)"""
    label, swapped = t.label(args[0]), "groups" in kwargs
    place, size = 1 if swapped else -3, args[0].shape[1 if swapped else -3]
    if "downscale_factor" in kwargs:
        for axis in label[-2:]:
            t.spaces.fix(axis)
        label[-3] = t.parts.regroup([label[-3], fixed(result.shape[-3] // size)], [result.shape[-3]])[0]
    elif swapped:
        parts = t.parts.regroup([label[place]], [args[1], size // args[1]])
        label[place] = t.parts.regroup(parts[::-1], [size])[0]
    else:
        parts = t.parts.regroup([label[place]], [result.shape[-3], size // result.shape[-3]])
        for axis in [parts[1], *label[-2:]]:
            t.spaces.fix(axis)
        label[place] = parts[0]
    return label if swapped else [*label[:-2], *map(fixed, result.shape[-2:])]
