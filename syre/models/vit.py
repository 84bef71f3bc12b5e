"""Vision transformers."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor, nn

from syre.checks import check, count, fraction
from syre.extras import extra
from syre.models.base import Architecture, Model
from syre.models.layers import Activation
from syre.models.noise import Dropout

if TYPE_CHECKING:
    from torchvision.models import VisionTransformer


class ViTModule(Model):
    """torchvision's vision transformer, with its last layer apart from the rest: `logits = heads(vit(x))`.

    `vit(x)` is the class token after the last norm. Only what a run must be able to reach is exchanged: dropout draws
    from the generator of the run, and the activation of each MLP block may be replaced. Without the prefix `vit.` the
    parameters have torchvision's names.
    """

    gives = "logits"

    def __init__(self, vit: "VisionTransformer", rate: float) -> None:
        super().__init__()
        self.vit, self.heads = vit, vit.heads
        vit.heads = nn.Sequential()
        tokens = (vit.seq_length, vit.hidden_dim)
        vit.encoder.dropout = Dropout(*tokens)
        for block in vit.encoder.layers:
            mlp = cast(nn.Sequential, block.mlp)  # Linear, GELU, Dropout, Linear, Dropout
            block.dropout, mlp[4] = Dropout(*tokens), Dropout(*tokens)
            mlp[1], mlp[2] = Activation(mlp[1], vit.mlp_dim), Dropout(vit.seq_length, vit.mlp_dim)
        for module in vit.modules():
            if isinstance(module, Dropout):
                module.rate.fill_(rate)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, classes]; with `features`, also the last hidden layer [batch, dim]."""
        x = self.vit(x)
        logits = self.heads(x)
        return (logits, x) if features else logits


@dataclass(frozen=True, kw_only=True)
class ViT(Architecture):
    """A pre-norm vision transformer with a class token and learned positions (B.5); torchvision's, and its init.

    The settings are those of kentaroy47's vision-transformers-cifar10, which the paper cites. Deviations: torchvision
    starts the positions at std 0.02 instead of 1, and the last layer and the class token at 0.
    """

    patch: int = 4
    dim: int = 512
    depth: int = 6
    heads: int = 8
    mlp: int = 512
    dropout: float = 0.0
    ranges: ClassVar = {"patch": count, "dim": count, "depth": count, "heads": count, "mlp": count, "dropout": fraction}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.dim % self.heads == 0, f"model.dim must be a multiple of model.heads={self.heads}, got {self.dim}")

    def build(self, input_shape: tuple[int, ...], outputs: int) -> ViTModule:
        with extra("repro"):
            from torchvision.models import VisionTransformer  # here, so that other models do without

        square = len(input_shape) == 3 and input_shape[1] == input_shape[2]
        check(square, f"a ViT takes square images [channels, size, size], not inputs of shape {input_shape}")
        channels, size = input_shape[:2]
        check(size % self.patch == 0, f"model.patch must divide the image size {size}, got {self.patch}")
        vit = VisionTransformer(size, self.patch, self.depth, self.heads, self.dim, self.mlp, num_classes=outputs)
        if channels != 3:
            vit.conv_proj = nn.Conv2d(channels, self.dim, self.patch, self.patch)
            nn.init.trunc_normal_(vit.conv_proj.weight, std=1 / math.sqrt(channels * self.patch**2))
            nn.init.zeros_(vit.conv_proj.bias)
        return ViTModule(vit, self.dropout)
