"""The library: weight decay toward a static random anchor, for any model and optimizer. Needs torch and numpy only."""

from .anchor import (
    AddAnchor,
    Sigma,
    anchor_std,
    canonical_name,
    canonical_parameters,
    checksum,
    decay_coupled_,
    decay_decoupled_,
    draw_anchors,
    draw_scales,
    drawn_as,
    fan_in,
    philox,
    pull_coupled_,
    pull_decoupled_,
    shift_,
    slots,
)
from .attach import SyreHandle, attach, attach_anchors
from .parametrization import merge, parametrize

__all__ = [
    "AddAnchor",
    "Sigma",
    "SyreHandle",
    "anchor_std",
    "attach",
    "attach_anchors",
    "canonical_name",
    "canonical_parameters",
    "checksum",
    "decay_coupled_",
    "decay_decoupled_",
    "draw_anchors",
    "draw_scales",
    "drawn_as",
    "fan_in",
    "merge",
    "parametrize",
    "philox",
    "pull_coupled_",
    "pull_decoupled_",
    "shift_",
    "slots",
]
