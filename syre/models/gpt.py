"""Language models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from syre.checks import check, count
from syre.models.base import Architecture, Model
from syre.models.layers import Activation

STD = 0.02  # of all weights at the start; GPT-2's


class CausalAttention(nn.Module):
    """Self-attention in which a token attends to itself and to those before it; x [batch, tokens, width].

    `qkv.weight` holds the rows of all queries, then of all keys and of all values, each head by head, as the
    `in_proj_weight` of `torch.nn.MultiheadAttention`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [batch, heads, tokens, size]
        return self.out(scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """`x += attention(norm(x))`, then `x += mlp(norm(x))`."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), CausalAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), Activation(nn.GELU(), mlp), nn.Linear(mlp, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPTModule(Model):
    """Logits of the next token at each place, `head(norm(blocks(tokens + positions)))`; tokens [batch, context]."""

    gives = "next tokens"

    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.heads = heads
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:  # what is added to the residual stream, twice a block, is smaller
                added = name.endswith(("attention.out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=STD / (2 * depth) ** 0.5 if added else STD)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [batch, tokens, vocabulary]; with `features`, also the residual stream after each block.

        The stream is [batch, depth, tokens, width]. There may be fewer tokens than the context.
        """
        x = self.tokens(x) + self.positions.weight[: x.shape[-1]]
        stream = []
        for block in self.blocks:
            x = block(x)
            stream.append(x)
        logits = self.head(self.norm(x))
        return (logits, torch.stack(stream, 1)) if features else logits


def attention_pairs(parameters: Mapping[str, Tensor], heads: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each block and head the pairs A, B whose product `A^T B` is all that attention sees of them.

    `query_key`: W_Q^T W_K; `output_value`: W_O W_V. From stacked parameters, each [R, ...]; A and B are
    [R, blocks, heads, head size, width].
    """
    qkv, out = (
        torch.stack([p for name, p in parameters.items() if name.endswith(f"attention.{part}.weight")], 1)
        for part in ("qkv", "out")
    )
    q, k, v = qkv.unflatten(2, (3, heads, -1)).unbind(2)
    return {"query_key": (q, k), "output_value": (out.mT.unflatten(2, (heads, -1)), v)}


@dataclass(frozen=True, kw_only=True)
class GPT(Architecture):
    """A decoder-only transformer: pre-norm, GELU, learned positions, GPT-2's start, no dropout.

    The last layer has weights of its own: tied to the tokens' they would be decayed as two things at once.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    ranges: ClassVar = {"width": count, "depth": count, "heads": count}

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = f"model.width must be a multiple of model.heads={self.heads}, got {self.width}"
        check(self.width % self.heads == 0, fits)

    def build(self, input_shape: tuple[int, ...], outputs: int) -> GPTModule:
        check(len(input_shape) == 1, f"a GPT takes tokens [context], not inputs of shape {input_shape}")
        return GPTModule(outputs, input_shape[0], self.width, self.depth, self.heads)
