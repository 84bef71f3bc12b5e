"""Layers of the networks of this package: stock ones where they do, else one that runs on stacked parameters too."""

import torch
from torch import Tensor, nn

NARROWEST = 16  # input channels: the block of oneDNN's kernels on AVX-512; 8 on AVX2


def takes_channels_last(module: nn.Module) -> bool:
    """Whether a module can be trained in channels-last memory: not with a narrow strided 1 x 1 convolution.

    With fewer than `NARROWEST` input channels the gradient of its weights, taken by oneDNN on a CPU, writes past the
    end of its workspace (uxlfoundation/oneDNN issue 6035; seen with AVX2 at 2 to 7 channels: wrong gradients, or a
    crash).
    """
    return not any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1 and m.in_channels < NARROWEST
        for m in module.modules()
    )


def channels_last(module: nn.Module) -> nn.Module:
    """The module, with its weights in channels-last memory: twice as fast on a CPU, and what tensor cores want.

    One that does not take it stays as it is.
    """
    return module.to(memory_format=torch.channels_last) if takes_channels_last(module) else module


class Activation(nn.Module):
    """An elementwise `function` of `width` units: the place where a regularizer may put another (see `FiGLU`)."""

    def __init__(self, function: nn.Module, width: int) -> None:
        super().__init__()
        self.function, self.width = function, width

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class FiGLU(nn.Module):
    """`x -> sigmoid(C x) * x` with a fixed matrix C [n, n]: no permutation of the units leaves it as it is.

    Source: the sigma-asymmetric networks of Lim et al. 2024 (arXiv 2405.20231). Shapes: x [..., batch, n].
    """

    gate: Tensor

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(nn.functional.linear(x, self.gate, None)) * x


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the last axis; its scale and shift [..., n] may be stacked as x [..., batch, n] is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 1:
            return super().forward(x)
        normal = nn.functional.layer_norm(x, self.normalized_shape, eps=self.eps)
        return normal * self.weight.unsqueeze(-2) + self.bias.unsqueeze(-2)
