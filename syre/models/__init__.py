"""Models: a frozen dataclass each (the leaf of a config), whose `build(input_shape, outputs)` gives the module."""

from syre.models.mlp import MLP
from syre.models.noise import Dropout, Noisy
from syre.models.point import Point

__all__ = ["MLP", "Dropout", "Noisy", "Point"]
