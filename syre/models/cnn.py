"""Convolutional networks without normalisation."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from syre.checks import all_widths, at_least, check, count
from syre.models.base import Architecture, Model
from syre.models.layers import channels_last
from syre.models.noise import Dropout


class ConvBlock(nn.Module):
    """`dropout(maxpool_2(relu(conv(x))))` of images [batch, channels, height, width]."""

    def __init__(self, channels_in: int, channels: int, kernel: int, padding: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, padding=padding)
        after = [(n + 2 * padding - kernel + 1) // 2 for n in size]
        self.size = (after[0], after[1])  # height and width of the output
        self.dropout = Dropout(channels, *self.size)

    def forward(self, x: Tensor) -> Tensor:
        # The pooling first: relu is monotone, so the two commute, and a quarter of the units is left for it.
        return self.dropout(nn.functional.max_pool2d(self.conv(x), 2).relu())


class ContinualCNNModule(Model):
    """Convolutional blocks, a hidden layer `h = dropout(relu(W x + b))` and a linear output; torch's initialisation."""

    gives = "logits"

    def __init__(
        self, input_shape: tuple[int, ...], channels: list[int], kernel: int, padding: int, hidden: int, outputs: int
    ) -> None:
        super().__init__()
        size = (input_shape[1], input_shape[2])
        self.blocks = nn.ModuleList()
        for before, after in pairwise([input_shape[0], *channels]):
            self.blocks.append(block := ConvBlock(before, after, kernel, padding, size))
            size = block.size
            check(min(size) > 0, f"model.kernel {kernel} and model.padding {padding} leave nothing of {input_shape}")
        self.hidden = nn.Linear(channels[-1] * size[0] * size[1], hidden)
        self.dropout = Dropout(hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, classes]; with `features`, also the last hidden layer [batch, hidden]."""
        for block in self.blocks:
            x = block(x)
        x = self.dropout(self.hidden(x.flatten(1)).relu())
        logits = self.output(x)
        return (logits, x) if features else logits


@dataclass(frozen=True, kw_only=True)
class ContinualCNN(Architecture):
    """Two convolutions, each with 2 x 2 max-pooling, and two fully connected layers: the CNN of section 6.6.

    Deviation: the widths, which the paper's text has lost, are set by what two CPU cores can train.
    """

    channels: list[int] = field(default_factory=lambda: [16, 32])
    kernel: int = 5
    padding: int = 0
    hidden: int = 128
    ranges: ClassVar = {"channels": all_widths, "kernel": count, "padding": at_least, "hidden": count}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        check(len(input_shape) == 3, f"a CNN takes images [channels, height, width], not inputs of shape {input_shape}")
        channels = list(self.channels)
        return channels_last(ContinualCNNModule(input_shape, channels, self.kernel, self.padding, self.hidden, outputs))
