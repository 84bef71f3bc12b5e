"""The network of SimCLR: a ResNet18 and its projection head."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from syre.checks import among, check, count
from syre.models.base import Architecture, Model
from syre.models.layers import channels_last
from syre.models.resnet import STEMS, ResNetModule


class SimCLRModule(Model):
    """`z = head(backbone(x))`: the features that are kept after training, and the projections that the loss compares.

    Args:
        hidden, out: the head is Linear(8 * width, hidden), ReLU, Linear(hidden, out).
    """

    gives = "projections"

    def __init__(self, backbone: ResNetModule, hidden: int, out: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Linear(backbone.features, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Projections [batch, out], not normalised, of images [batch, channels, height, width]; with `features`, also
        what the head projects [batch, 8 * width]."""
        h = self.backbone(x)
        return (self.head(h), h) if features else self.head(h)


@dataclass(frozen=True, kw_only=True)
class SimCLR(Architecture):
    """Chen et al. 2020 (arXiv 2002.05709): ResNet18 with a head of two layers, without BatchNorm in the head."""

    width: int = 64
    stem: str = "imagenet"
    hidden: int = 512
    out: int = 128
    ranges: ClassVar = {"width": count, "hidden": count, "out": count, "stem": among(*STEMS)}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> SimCLRModule:
        """`outputs`, the number of classes, plays no part."""
        check(len(input_shape) == 3, f"SimCLR takes images [channels, height, width], not inputs of {input_shape}")
        backbone = ResNetModule(input_shape[0], 0, self.width, self.stem)
        channels_last(backbone)
        return SimCLRModule(backbone, self.hidden, self.out)
