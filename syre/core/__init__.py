"""The library: weight decay toward a static random anchor, for any model and optimizer. Needs torch and numpy only."""

from .anchor import checksum, draw_anchors, draw_scales, philox
from .attach import attach, attach_anchors
from .decay import AddAnchor, Effect, Handle
from .handle import SharedAnchors, SyreHandle
from .names import canonical_name, canonical_parameters, drawn_as, slots
from .once import forget
from .parametrization import merge, parametrize
from .scale import GuessedScale, Scale, Sigma, anchor_std, fan_in, scale_table
