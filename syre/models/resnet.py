"""ResNet18 for images of 32 x 32: torchvision's blocks, of any width, behind one of two stems."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from syre.checks import among, check, count
from syre.extras import extra
from syre.models.base import Architecture, Model
from syre.models.layers import channels_last

STEMS = ("cifar", "imagenet")


class _Conv3x3(nn.Conv2d):
    """A 3 x 3 convolution with padding 1 and stride 1, which sees only its middle in an image of one pixel.

    There, in the last stage behind the large stem, it is the same and up to ten times faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (1, 1):
            return super().forward(x)
        return nn.functional.linear(x.flatten(1), self.weight[..., 1, 1]).view(*x.shape[:1], -1, 1, 1)


class ResNetModule(Model):
    """torchvision's `resnet18` of `width` channels (64 there) in its first stage; same parameter names, same start.

    Args:
        channels: of the images.
        outputs: logits; 0 leaves the classifier out, and the penultimate features are the output.
        width: channels of the four stages are 1, 2, 4 and 8 times this.
        stem: `imagenet`, torchvision's 7 x 7 convolution of stride 2 and max-pooling; `cifar`, a 3 x 3 convolution of
            stride 1 without pooling, which leaves a 32 x 32 image its size.
    """

    gives = "logits"

    def __init__(self, channels: int, outputs: int, width: int, stem: str) -> None:
        super().__init__()
        large = stem == "imagenet"
        self.stride = 32 if large else 8  # pixels of an image, in each direction, to one of the last stage
        self.conv1 = nn.Conv2d(channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.layer1 = _stage(width, width)
        self.layer2 = _stage(width, 2 * width)
        self.layer3 = _stage(2 * width, 4 * width)
        self.layer4 = _stage(4 * width, 8 * width)
        self.features = 8 * width
        self.fc = nn.Linear(self.features, outputs) if outputs else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.kernel_size == (3, 3) and module.stride == (1, 1):
                    module.__class__ = _Conv3x3

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, outputs] of images [batch, channels, height, width]; with `features`, also what is before
        the classifier [batch, 8 * width]."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        x = x.mean((2, 3))
        if self.fc is None:
            return x
        return (self.fc(x), x) if features else self.fc(x)


def _stage(before: int, after: int) -> nn.Sequential:
    """Two residual blocks, the first of stride 2 where the width changes."""
    with extra("repro"):
        from torchvision.models.resnet import BasicBlock  # here, for `import syre` to need torch alone

    shortcut = None
    if before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))
    return nn.Sequential(BasicBlock(before, after, 1 if before == after else 2, shortcut), BasicBlock(after, after))


@dataclass(frozen=True, kw_only=True)
class ResNet18(Architecture):
    """He et al. 2016 (arXiv 1512.03385), torchvision's variant; 11.2 million parameters at width 64."""

    width: int = 64
    stem: str = "cifar"
    ranges: ClassVar = {"width": count, "stem": among(*STEMS)}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        check(len(input_shape) == 3, f"a ResNet takes images [channels, height, width], not inputs of {input_shape}")
        return channels_last(ResNetModule(input_shape[0], outputs, self.width, self.stem))
