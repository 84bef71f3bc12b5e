"""Convolutional networks, without normalisation or with layer norm."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, cast

from torch import Tensor, nn

from syre.checks import all_widths, among, at_least, check, count
from syre.models.base import Architecture, Model
from syre.models.layers import channels_last
from syre.models.noise import Dropout
from syre.models.units import Units


class ConvBlock(nn.Module):
    """`dropout(maxpool_2(relu(norm(conv(x)))))` of images [batch, channels, height, width].

    norm: none; or layer, over channels, height and width of each image, with a gain and a shift for each channel.
    """

    def __init__(
        self, channels_in: int, channels: int, kernel: int, padding: int, size: tuple[int, int], norm: str
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=padding)
        self.norm = nn.GroupNorm(1, channels) if norm == "layer" else nn.Identity()
        after = [(n + 2 * padding - kernel + 1) // 2 for n in size]
        self.size = (after[0], after[1])  # height and width of the output
        self.dropout = Dropout(channels, *self.size)

    def forward(self, x: Tensor) -> Tensor:
        # The pooling before relu, which is monotone: so the two commute, and a quarter of the units is left for it. But
        # after the norm, whose mean is over all units, and whose gains may be negative.
        return self.dropout(nn.functional.max_pool2d(self.norm(self.conv(x)), 2).relu())


class ContinualCNNModule(Model):
    """Convolutional blocks, a hidden layer `h = dropout(relu(norm(W x + b)))`, a linear output; torch's initialisation.

    The norms draw no random numbers: with them the other layers start where they start without.
    """

    gives = "logits"

    def __init__(
        self, input_shape: tuple[int, ...], channels: list[int], kernel: int, padding: int, hidden: int, norm: str,
        outputs: int,
    ) -> None:  # fmt: skip
        super().__init__()
        size = (input_shape[1], input_shape[2])
        self.blocks = nn.ModuleList()
        for before, after in pairwise([input_shape[0], *channels]):
            self.blocks.append(block := ConvBlock(before, after, kernel, padding, size, norm))
            size = block.size
            check(min(size) > 0, f"model.kernel {kernel} and model.padding {padding} leave nothing of {input_shape}")
        self.hidden = nn.Linear(channels[-1] * size[0] * size[1], hidden)
        self.norm = nn.LayerNorm(hidden) if norm == "layer" else nn.Identity()
        self.dropout = Dropout(hidden)
        self.output = nn.Linear(hidden, outputs)

    def units(self) -> tuple[Units, ...]:
        blocks = cast(list[ConvBlock], list(self.blocks))
        readers: list[nn.Conv2d | nn.Linear] = [*(block.conv for block in blocks[1:]), self.hidden]
        channels = [
            Units(name=f"blocks.{k}.conv", place=block.dropout, writers=(block.conv, block.norm), reader=reader)
            for k, (block, reader) in enumerate(zip(blocks, readers, strict=True))
        ]
        hidden = Units(name="hidden", place=self.dropout, writers=(self.hidden, self.norm), reader=self.output)
        return (*channels, hidden)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, classes]; with `features`, also the last hidden layer [batch, hidden]."""
        for block in self.blocks:
            x = block(x)
        x = self.dropout(self.norm(self.hidden(x.flatten(1))).relu())
        logits = self.output(x)
        return (logits, x) if features else logits


@dataclass(frozen=True, kw_only=True)
class ContinualCNN(Architecture):
    """Two convolutions, each with 2 x 2 max-pooling, and two fully connected layers: the CNN of section 6.6.

    Deviation: the widths, which the paper's text has lost, are set by what two CPU cores can train.

    norm: none, as in the paper; or layer, a layer norm (Ba et al. 2016, arXiv 1607.06450) before each ReLU.
    """

    channels: list[int] = field(default_factory=lambda: [16, 32])
    kernel: int = 5
    padding: int = 0
    hidden: int = 128
    norm: str = "none"
    ranges: ClassVar = {"channels": all_widths, "kernel": count, "padding": at_least, "hidden": count}
    ranges |= {"norm": among("none", "layer")}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        check(len(input_shape) == 3, f"a CNN takes images [channels, height, width], not inputs of shape {input_shape}")
        sizes = list(self.channels), self.kernel, self.padding, self.hidden
        return channels_last(ContinualCNNModule(input_shape, *sizes, self.norm, outputs))
