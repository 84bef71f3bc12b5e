"""The library: weight decay toward a static random anchor, for any model and optimizer. Needs torch and numpy only."""

from .anchor import Sigma, anchor_std, checksum, draw_anchors, draw_scales, fan_in, philox
from .attach import attach, attach_anchors
from .decay import AddAnchor, Effect, Handle
from .handle import SharedAnchors, SyreHandle
from .names import canonical_name, canonical_parameters, drawn_as, slots
from .parametrization import merge, parametrize
