"""The anchors: the scale of each kind of parameter, the random draws, and the checksum that identifies them.

The anchor `b` is the static random bias of arXiv 2408.15495v3, Eq. (6); the scales are the diagonal `D` of Eq. (7).
"""

import hashlib
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .names import Slot, drawn_as, select
from .sharded import is_sharded, shard_like

Sigma = float | Callable[[str, nn.Parameter], float]
UNITS = ("relative", "absolute")  # of sigma


def named(sigma: Sigma) -> float | str:
    """What stands for sigma in a state: the number, or the name of the function."""
    return getattr(sigma, "__qualname__", "function") if callable(sigma) else sigma


# ---- scales ----------------------------------------------------------------------------------------------------------

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMALISE = (*_NORMS, *_INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

# kind of module | its parameters (by prefix) | fan_in: how many inputs one output sums over. A bias has the fan_in of
# its layer. The elementwise scale of a norm sums over nothing: it takes the width of its layer, the d of section 5.4.
# An embedding takes its dimension, as the output layer that it may be tied to does.
FAN_IN: tuple[tuple[tuple[type[nn.Module], ...], tuple[str, ...], Callable[[Any, str], int]], ...] = (
    ((nn.Linear,), ("weight", "bias"), lambda m, leaf: m.in_features),
    (_CONVS, ("weight", "bias"), lambda m, leaf: m.in_channels // m.groups * math.prod(m.kernel_size)),
    ((nn.Embedding, nn.EmbeddingBag), ("weight",), lambda m, leaf: m.embedding_dim),
    ((nn.MultiheadAttention,), ("k_proj_weight",), lambda m, leaf: m.kdim),
    ((nn.MultiheadAttention,), ("v_proj_weight",), lambda m, leaf: m.vdim),
    ((nn.MultiheadAttention,), ("in_proj_", "q_proj_weight", "bias_k", "bias_v"), lambda m, leaf: m.embed_dim),
    (
        (nn.RNNBase, nn.RNNCellBase),
        ("weight_", "bias_"),
        lambda m, leaf: getattr(m, leaf.replace("bias", "weight")).shape[1],
    ),
    ((*_NORMS, *_INSTANCE_NORMS), ("weight", "bias"), lambda m, leaf: m.num_features),
    ((nn.GroupNorm,), ("weight", "bias"), lambda m, leaf: m.num_channels),
    ((nn.LayerNorm, nn.RMSNorm), ("weight", "bias"), lambda m, leaf: math.prod(m.normalized_shape)),
)
# Bare parameters known by name, of which fan_in is the last dimension: the tokens of torchvision's and timm's vision
# transformers, as wide as the token; and a Gaussian policy's log std (stable-baselines3), as wide as its action.
TOKENS = ("class_token", "pos_embedding", "cls_token", "pos_embed")
BARE = (*TOKENS, "log_std")


def fan_in(slot: Slot) -> int:
    """The `d` in `std = sigma / sqrt(d)` for one parameter, from the table `FAN_IN`.

    Raises:
        ValueError: the kind of parameter is in no row of the table.
    """
    for kinds, leaves, rule in FAN_IN:
        if isinstance(slot.module, kinds) and slot.leaf.startswith(leaves):
            return int(rule(slot.module, slot.leaf))
    if slot.leaf in BARE:
        return slot.parameter.shape[-1]
    kind, shape = type(slot.module).__name__, tuple(slot.parameter.shape)
    raise ValueError(
        f"no known scale for parameter {slot.name!r} of {kind}, shape {shape}: "
        "pass sigma as a function (name, parameter) -> std, or leave the parameter out of the decayed groups"
    )


def is_gain(slot: Slot) -> bool:
    """Whether a parameter is the elementwise scale of a norm, which torch starts at 1."""
    return isinstance(slot.module, _NORMALISE) and slot.leaf == "weight"


def anchor_std(slot: Slot, sigma: Sigma, unit: str = "relative") -> float:
    """Standard deviation of a parameter's anchor, or `sigma(name, parameter)` itself if that is a function.

    unit: `"relative"`, `sigma / sqrt(fan_in)`, as in arXiv 2408.15495v3, section 5.4 (sigma_0 = 0.01 / sqrt(d), 1/d the
    common initialisation variance); `"absolute"`, sigma.

    Raises:
        ValueError: the std is negative or not finite, the unit unknown, or the kind of parameter (of a relative one).
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be relative (std = sigma / sqrt(fan_in)) or absolute (std = sigma), got {unit!r}")
    value = float(sigma(slot.name, slot.parameter) if callable(sigma) else sigma)
    if not 0 <= value < math.inf:
        raise ValueError(f"sigma must be finite and >= 0, got {value} for parameter {slot.name!r}")
    return value if callable(sigma) or unit == "absolute" else value / math.sqrt(fan_in(slot))


# ---- draws -----------------------------------------------------------------------------------------------------------


def philox(seed: int, purpose: str, name: str) -> np.random.Generator:
    """The random stream that belongs to (seed, purpose, name) alone.

    numpy's counter-based Philox, keyed by blake2: unlike `hash()` it is the same in every process, and unlike
    `torch.randn` on every device, thread count and CPU.
    """
    key = "\0".join((str(operator.index(seed)), purpose, name)).encode()
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little"))
    )


def draw_anchors(
    model: nn.Module,
    *,
    sigma: Sigma,
    seed: int,
    unit: str = "relative",
    gains: float = 0.0,
    anchor_dtype: torch.dtype | None = None,
    parameters: Collection[str] | None = None,
    whole: bool = False,
) -> dict[str, Tensor]:
    """Draw `b ~ N(0, sigma^2 / fan_in)` for every parameter: canonical name -> tensor of its shape, on its device.

    Source: arXiv 2408.15495v3, Eq. (6) and section 5.4. Drawn in float32 on the CPU, then moved and cast: the draw
    depends on the seed, the name and the shape, on nothing else.

    Args:
        sigma: in the unit below; or a function (canonical name, parameter) -> std.
        seed: any integer.
        unit: of sigma: `"relative"` to 1/sqrt(fan_in), or `"absolute"`, the std of every entry.
        gains: the mean of the anchors of norm gains (`is_gain`); all others have mean 0.
        anchor_dtype: default the parameter's; `torch.bfloat16` halves the memory (a rounded draw is just another
            draw).
        parameters: canonical names to draw for; default all.
        whole: leave each on the CPU, and whole where the parameter is sharded over processes (a DTensor).

    Raises:
        ValueError: sigma negative or not finite, an unknown unit, gains not finite, a parameter of unknown kind, an
            unknown name, a dtype that is not floating.
    """
    if anchor_dtype is not None and not anchor_dtype.is_floating_point:
        raise ValueError(f"anchor_dtype must be a floating dtype, got {anchor_dtype}")
    if not math.isfinite(gains):
        raise ValueError(f"gains must be a finite number, the mean of the anchors of norm gains, got {gains}")
    anchors = {}
    for name, slot in select(model, parameters).items():
        std = anchor_std(slot, sigma, unit)
        draw = philox(seed, "anchor", drawn_as(model, name)).standard_normal(
            tuple(slot.parameter.shape), dtype=np.float32
        )
        mean = np.float32(gains if is_gain(slot) else 0)
        anchors[name] = _like(slot.parameter, np.asarray(draw) * np.float32(std) + mean, anchor_dtype, whole)
    return anchors


def draw_scales(
    model: nn.Module, *, sigma_d: float, seed: int, parameters: Collection[str] | None = None, whole: bool = False
) -> dict[str, Tensor]:
    """Draw the diagonal `D_ii ~ U(1 - sqrt(3) sigma_d, 1 + sqrt(3) sigma_d)`, of mean 1 and std sigma_d.

    Source: arXiv 2408.15495v3, Eq. (7) and section 5.4; Theorem 3 asks for sigma_d = o(sigma). Names and
    shapes as `draw_anchors`; always in the parameter's own dtype, as in bfloat16 most entries of D would be equal.

    Raises:
        ValueError: sigma_d outside [0, 1/sqrt(3)), where some D_ii would not be positive; an unknown name.
    """
    if not 0 <= sigma_d < 1 / math.sqrt(3):
        raise ValueError(f"sigma_d must be in [0, 1/sqrt(3) = 0.577), so that D stays positive, got {sigma_d}")
    scales = {}
    for name, slot in select(model, parameters).items():
        uniform = philox(seed, "scale", drawn_as(model, name)).random(tuple(slot.parameter.shape), dtype=np.float32)
        diagonal = 1 + math.sqrt(3) * sigma_d * (2 * np.asarray(uniform, np.float64) - 1)
        scales[name] = _like(slot.parameter, diagonal, None, whole)
    return scales


def checksum(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """blake2 digest of names, dtypes, shapes and bytes: equal when the tensors are, on any device.

    Of a mapping in any order; of pairs as they come, in the order of their names.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()) if isinstance(tensors, Mapping) else tensors:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _like(parameter: Tensor, values: np.ndarray, dtype: torch.dtype | None, whole: bool) -> Tensor:
    """`values` on the parameter's device, in its memory format (foreach is fast only on equal strides), or its shard.

    `whole`: on the CPU, and no shard.
    """
    drawn = torch.from_numpy(np.asarray(values))
    if whole or is_sharded(parameter):
        full = drawn.to(dtype or parameter.dtype)
        return full if whole else shard_like(full, parameter)
    return torch.empty_like(parameter, dtype=dtype or parameter.dtype, requires_grad=False).copy_(drawn)
