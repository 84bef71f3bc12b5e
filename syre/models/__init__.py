"""Models: a frozen dataclass each (the leaf of a config), whose `build(input_shape, outputs)` gives the module."""

from syre.models.cnn import ContinualCNN
from syre.models.linear import DiagonalLinear
from syre.models.mlp import MLP, CollapsedMLP
from syre.models.noise import Dropout, Noisy
from syre.models.pair import Pair
from syre.models.point import Point
from syre.models.resnet import ResNet18
from syre.models.simclr import SimCLR
from syre.models.vae import BetaVAE
from syre.models.vit import ViT

__all__ = [
    "MLP",
    "BetaVAE",
    "CollapsedMLP",
    "ContinualCNN",
    "DiagonalLinear",
    "Dropout",
    "Noisy",
    "Pair",
    "Point",
    "ResNet18",
    "SimCLR",
    "ViT",
]
