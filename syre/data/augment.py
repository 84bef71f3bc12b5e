"""Random changes of images, a batch at a time on the batch's device, every image with its own draw.

    draws = augmentation.draw(len(pixels), generator(seed, "augment", step))
    views = augmentation.apply(pixels, draws)

`draw` takes all randomness from the generator, before the images are known, as CPU tensors whose first axis is the
image: the same slice of images and of draws gives the same slice of every view. `apply` is deterministic. Images that
are to undergo the same operation do so together, each with its own value (torchvision has one draw for a whole batch).

The operations are torchvision's on float images (`torchvision.transforms.v2.functional`). Only three channels have a
colour: otherwise saturation, hue and gray change nothing.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from syre.checks import Settings, above, at_least, check
from syre.extras import extra

Draws = dict[str, Tensor]
Affine = tuple[Tensor | float, Tensor | float, Tensor | float]
Operation = Callable[[Tensor, Tensor], Tensor]  # images [k, C, H, W] and a value for each [k, 1, 1, 1] -> images


class Augmentation(Settings, ABC):
    """What `AUGMENTATIONS` holds; `views` of each image."""

    prefix = "augment"
    views = 1

    @abstractmethod
    def draw(self, images: int, generator: torch.Generator) -> Draws:
        """What happens to each of so many images: CPU tensors [images, ...]."""

    @abstractmethod
    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Float pixels [n, C, H, W] -> [views * n, C, H, W], both in [0, 1]; first the first views of all images."""


@dataclass(frozen=True, kw_only=True)
class NoAugmentation(Augmentation):
    """The images as they are."""

    def draw(self, images: int, generator: torch.Generator) -> Draws:
        return {}

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        return pixels


@dataclass(frozen=True, kw_only=True)
class CropFlip(Augmentation):
    """Zero padding by an eighth of each side (4 of 32 pixels), a random crop of the old size, half the time a flip."""

    def draw(self, images: int, generator: torch.Generator) -> Draws:
        return {
            "crop": torch.rand(images, 2, generator=generator),  # row and column, as shares of those there are
            "flip": torch.rand(images, generator=generator) < 0.5,
        }

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        height, width = pixels.shape[-2:]
        rows, columns = height // 8, width // 8  # of padding, on each side
        corners = (draws["crop"] * torch.tensor([2 * rows + 1, 2 * columns + 1])).long()
        top, left = _moved(corners, pixels).unbind(1)
        windows = pad(pixels, (columns, columns, rows, rows)).unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(len(pixels), device=pixels.device), :, top, left]
        flipped = _moved(draws["flip"].nonzero().squeeze(1), pixels)
        return cropped.index_copy_(0, flipped, cropped.index_select(0, flipped).flip(-1))


@dataclass(frozen=True, kw_only=True)
class RandAugment(Augmentation):
    """`CropFlip`, then so many operations of torchvision's fourteen, drawn with replacement (arXiv 1909.13719).

    The defaults are those of kentaroy47's vision-transformers-cifar10. Deviation: pixels stay floats; there they are
    rounded to 8 bits after each operation.

    Args:
        magnitude, bins: the strength of all operations is magnitude / (bins - 1) of the largest.
    """

    operations: int = 2
    magnitude: int = 14
    bins: int = 31
    ranges: ClassVar = {"operations": at_least, "bins": above(2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = f"one of 0, ..., {self.bins - 1} (bins - 1)"
        check(0 <= self.magnitude < self.bins, f"augment.magnitude must be {allowed}, got {self.magnitude}")

    def draw(self, images: int, generator: torch.Generator) -> Draws:
        draws = CropFlip().draw(images, generator)
        operations = torch.randint(len(RANDAUGMENT), (images, self.operations), generator=generator)
        negative = torch.rand(images, self.operations, generator=generator) < 0.5
        start, change, signed = torch.tensor([row[1:] for row in RANDAUGMENT.values()])[operations].unbind(-1)
        sign = 1 - 2 * signed * negative
        return {**draws, "operations": operations, "values": start + sign * change * self.magnitude / (self.bins - 1)}

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        functions = [row.function for row in RANDAUGMENT.values()]
        return _operated(CropFlip().apply(pixels, draws), functions, draws["operations"], draws["values"])


@dataclass(frozen=True, kw_only=True)
class SimClr(Augmentation):
    """Two views: a random crop resized to the image's size, half the time a flip, colour jitter, and 1 in 5 times gray.

    As Patacchiola & Storkey have it: torchvision's RandomResizedCrop with scale .08 to 1 and ratio 3/4 to 4/3, and
    ColorJitter(.8, .8, .8, .2) 4 in 5 times, its four changes in an order of the image's own; no blur.

    Args:
        strength: of the colour jitter; 0.5 gives Chen et al.'s (.4, .4, .4, .1).
    """

    strength: float = 1.0
    views = 2

    def __post_init__(self) -> None:
        check(0 <= self.strength <= 2.5, f"augment.strength must be in [0, 2.5], got {self.strength}")

    def draw(self, images: int, generator: torch.Generator) -> Draws:
        each = (images, self.views)
        uniform = lambda *shape: torch.rand(*each, *shape, generator=generator)  # noqa: E731
        draws = {"shape": uniform(ATTEMPTS, 2), "crop": uniform(2), "flip": uniform() < 0.5}
        order = uniform(4).argsort(-1).where(uniform(1) < 0.8, IDENTITY)
        gray = torch.where(uniform(1) < 0.2, GRAY, IDENTITY)
        change = 0.8 * self.strength
        low, high = torch.tensor([[max(0, 1 - change)] * 3 + [-change / 4], [1 + change] * 3 + [change / 4]])
        values = torch.cat([low + (high - low) * uniform(4), torch.zeros(*each, 2)], -1)
        operations = torch.cat([order, gray], -1)
        return {**draws, "operations": operations, "values": values.gather(-1, operations)}

    def apply(self, pixels: Tensor, draws: Draws) -> Tensor:
        draws = {name: draw.transpose(0, 1).flatten(0, 1) for name, draw in draws.items()}  # [views * images, ...]
        box = boxes(draws["shape"], draws["crop"], *pixels.shape[-2:])
        resized = resized_crop(pixels.repeat(self.views, 1, 1, 1), box, draws["flip"])
        return _operated(resized, JITTER, draws["operations"], draws["values"])


def _moved(tensor: Tensor, pixels: Tensor) -> Tensor:
    return tensor.to(pixels.device, non_blocking=True)


def _operated(pixels: Tensor, functions: Sequence[Operation], operations: Tensor, values: Tensor) -> Tensor:
    """What becomes of image i by function operations[i, 0] with value values[i, 0], then by operations[i, 1], ...

    Each function is called once per column, for all images that need it.
    """
    for chosen, value in zip(operations.unbind(1), values.unbind(1), strict=True):
        order = chosen.argsort(stable=True)
        sizes = chosen.bincount(minlength=len(functions)).tolist()
        images = pixels.index_select(0, _moved(order, pixels)).split(sizes)
        own = _moved(value[order], pixels).to(pixels.dtype).view(-1, 1, 1, 1).split(sizes)
        parts = [f(x, v) for f, x, v in zip(functions, images, own, strict=True) if len(x)]
        pixels = torch.cat(parts).index_select(0, _moved(order.argsort(), pixels))
    return pixels


# Crops.

ATTEMPTS = 10  # at a crop that fits into the image


def boxes(shape: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """[n, 4]: top, left, height and width of RandomResizedCrop's crops, from uniform draws.

    Args:
        shape: [n, attempts, 2], for area and log-ratio. The first attempt that fits is taken, else the largest centred
            crop of an allowed ratio.
        corner: [n, 2].
    """
    area = (0.08 + 0.92 * shape[..., 0]) * (height * width)
    ratio = (math.log(4 / 3) * (2 * shape[..., 1] - 1)).exp()
    sizes = torch.stack([(area / ratio).sqrt().round(), (area * ratio).sqrt().round()], -1)
    whole = torch.tensor([height, width])
    fits = ((sizes > 0) & (sizes <= whole)).all(-1)
    first = fits.byte().argmax(1)
    largest = torch.tensor([min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))])
    fitting = fits.any(1, keepdim=True)
    size = sizes[torch.arange(len(sizes)), first].where(fitting, largest)
    return torch.cat([torch.where(fitting, (corner * (whole - size + 1)).floor(), (whole - size) // 2), size], 1)


def resized_crop(x: Tensor, box: Tensor, flip: Tensor) -> Tensor:
    """The crops `box` [n, 4] at the images' own size, by bilinear interpolation, mirrored where `flip` [n].

    Antialiasing would change nothing, as no crop is larger than the image.
    """
    top, left, height, width = _moved(box, x).to(x.dtype).view(-1, 4, 1, 1, 1).unbind(1)
    down, across = ((torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / n for n in x.shape[-2:])
    across = torch.where(_moved(flip, x).view(-1, 1, 1, 1), 1 - across, across)
    source = lambda share, start, size: start + torch.minimum((share * size).clamp(min=0.5), size - 0.5)  # noqa: E731
    resized = _sampled(x, source(down.unsqueeze(1), top, height), source(across, left, width), "bilinear")
    return resized.clamp_(0, 1)  # the four weights of a pixel may add up to a rounding error more than 1


def _sampled(x: Tensor, rows: Tensor, columns: Tensor, mode: str) -> Tensor:
    """The images at these places, in pixels from the upper left corner; both broadcastable to [n, 1, H, W]."""
    height, width = x.shape[-2:]
    grid = torch.stack(torch.broadcast_tensors(columns * (2 / width) - 1, rows * (2 / height) - 1), -1).squeeze(1)
    return grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)


# Operations: images [k, C, H, W], a value for each [k, 1, 1, 1].


def identity(x: Tensor, v: Tensor) -> Tensor:
    return x


def _warped(x: Tensor, column: Affine, row: Affine) -> Tensor:
    """At (x, y) from the centre, the pixel nearest to the place that column and row, (a, b, c) for a x + b y + c, give.

    Black beyond the image.
    """
    height, width = x.shape[-2:]
    down, across = (torch.arange(n, device=x.device, dtype=x.dtype) + (1 - n) / 2 for n in (height, width))
    down = down.unsqueeze(1)
    columns, rows = (a * across + b * down + c for a, b, c in (column, row))
    return _sampled(x, rows + height / 2, columns + width / 2, "nearest")


def shear_x(x: Tensor, v: Tensor) -> Tensor:
    """Each row moved by v times its distance from the upper edge."""
    return _warped(x, (1, v, v * (x.shape[-2] / 2)), (0, 1, 0))


def shear_y(x: Tensor, v: Tensor) -> Tensor:
    return _warped(x, (1, 0, 0), (v, 1, v * (x.shape[-1] / 2)))


def translate_x(x: Tensor, v: Tensor) -> Tensor:
    """Moved by a share v of the width, in whole pixels."""
    return _warped(x, (1, 0, -(v * x.shape[-1]).trunc()), (0, 1, 0))


def translate_y(x: Tensor, v: Tensor) -> Tensor:
    return _warped(x, (1, 0, 0), (0, 1, -(v * x.shape[-2]).trunc()))


def rotate(x: Tensor, v: Tensor) -> Tensor:
    """By v degrees, counter-clockwise."""
    cos, sin = v.deg2rad().cos(), v.deg2rad().sin()
    return _warped(x, (cos, -sin, 0), (sin, cos, 0))


def brightness(x: Tensor, v: Tensor) -> Tensor:
    return (x * v).clamp_(0, 1)


def contrast(x: Tensor, v: Tensor) -> Tensor:
    return _blend(x, _luma(x).mean((1, 2, 3), keepdim=True), v)


def saturation(x: Tensor, v: Tensor) -> Tensor:
    return _blend(x, _luma(x), v) if x.shape[1] == 3 else x


def gray(x: Tensor, v: Tensor) -> Tensor:
    return _luma(x).expand_as(x) if x.shape[1] == 3 else x


def sharpness(x: Tensor, v: Tensor) -> Tensor:
    """Away from the mean of the 3 x 3 pixels around, the one in the middle counted five times; the edge stays."""
    if min(x.shape[-2:]) < 3:
        return x
    inner = x[..., 1:-1, 1:-1]
    rows = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]  # 10 times faster here than avg_pool2d
    sharp = x.clone()
    sharp[..., 1:-1, 1:-1] = _blend(inner, (around + 4 * inner) / 13, v)
    return sharp


def hue(x: Tensor, v: Tensor) -> Tensor:
    """The hue, as in HSV, moved by v turns.

    A channel is m - c clamp(2 - |6 t - 2|, 0, 1), with the channels' maximum m and range c, where t is the hue plus
    5/6, 1/2 or 1/6 (mod 1) for red, green or blue.
    """
    if x.shape[1] != 3:
        return x
    r, g, b = x.split(1, dim=1)
    largest = torch.maximum(torch.maximum(r, g), b)
    spread = largest - torch.minimum(torch.minimum(r, g), b)
    sector = torch.where(largest == r, g - b, torch.where(largest == g, b - r + 2 * spread, r - g + 4 * spread))
    turn = sector / spread.clamp(min=1e-12).mul_(6) + v
    channels = torch.tensor([5, 3, 1], dtype=x.dtype).view(1, 3, 1, 1) / 6 + 1  # + 1: frac is of positive numbers
    t = (turn + _moved(channels, x)).frac_()
    return largest - t.mul_(6).sub_(2).abs_().neg_().add_(2).clamp_(0, 1).mul_(spread)


def posterize(x: Tensor, v: Tensor) -> Tensor:
    """Rounded down to v bits."""
    levels = v.round().exp2()
    return torch.minimum((x * levels).floor_(), levels - 1).div_(levels)


def solarize(x: Tensor, v: Tensor) -> Tensor:
    """Inverted where at least v."""
    return torch.where(x >= v, 1 - x, x)


def auto_contrast(x: Tensor, v: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]."""
    low = x.amin((2, 3), keepdim=True)
    spread = x.amax((2, 3), keepdim=True) - low
    return torch.where(spread > 0, ((x - low) / spread).clamp_(0, 1), x)


def equalize(x: Tensor, v: Tensor) -> Tensor:
    """Each channel's histogram, of 256 values, made flat."""
    with extra("repro"):
        from torchvision.transforms.v2.functional import equalize  # here, for `import syre` to need torch alone

    return equalize(x)


def _luma(x: Tensor) -> Tensor:
    """[k, 1, H, W]; of images without colours, the mean channel."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    r, g, b = x.split(1, dim=1)
    return (0.2989 * r).add_(g, alpha=0.587).add_(b, alpha=0.114)


def _blend(x: Tensor, other: Tensor, v: Tensor) -> Tensor:
    return (x * v).add_(other * (1 - v)).clamp_(0, 1)


class _Row(NamedTuple):
    """At strength s in [0, 1] an operation has the value start + change s; if signed, + or -, as often."""

    function: Operation
    start: float = 0.0
    change: float = 0.0
    signed: bool = False


RANDAUGMENT = {
    "Identity": _Row(identity),
    "ShearX": _Row(shear_x, 0, 0.3, True),
    "ShearY": _Row(shear_y, 0, 0.3, True),
    "TranslateX": _Row(translate_x, 0, 150 / 331, True),
    "TranslateY": _Row(translate_y, 0, 150 / 331, True),
    "Rotate": _Row(rotate, 0, 30, True),
    "Brightness": _Row(brightness, 1, 0.9, True),
    "Color": _Row(saturation, 1, 0.9, True),
    "Contrast": _Row(contrast, 1, 0.9, True),
    "Sharpness": _Row(sharpness, 1, 0.9, True),
    "Posterize": _Row(posterize, 8, -4),
    "Solarize": _Row(solarize, 1, -1),
    "AutoContrast": _Row(auto_contrast),
    "Equalize": _Row(equalize),
}
JITTER = (brightness, contrast, saturation, hue, identity, gray)
IDENTITY, GRAY = JITTER.index(identity), JITTER.index(gray)

AUGMENTATIONS: dict[str, Augmentation] = {
    "none": NoAugmentation(),
    "crop_flip": CropFlip(),
    "randaugment": RandAugment(),
    "simclr": SimClr(),
}
