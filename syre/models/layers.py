"""Layers of the networks of this package: stock ones where they do, else one that runs on stacked parameters too."""

import torch
from torch import Tensor, nn


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
