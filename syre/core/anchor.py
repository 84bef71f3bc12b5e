"""The anchors: the random draws, and the checksum that identifies them.

The anchor `b` is the static random bias of arXiv 2408.15495v3, Eq. (6); the scales are the diagonal `D` of Eq. (7).
"""

import hashlib
import math
import operator
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from . import arguments
from .names import Slot, drawn_as, select
from .scale import Sigma, anchored, is_gain, padding, scale_of
from .sharded import is_sharded, shard_like


def named(sigma: Sigma) -> float | str:
    """What stands for sigma in a state: the number, or a function's name (and `given_by` for what it gives)."""
    return getattr(sigma, "__qualname__", "function") if callable(sigma) else sigma


def given_by(sigma: Sigma, unit: str, slots: Iterable[Slot]) -> dict[str, float]:
    """Name -> std of what a function gives these; of a number nothing, for it says all."""
    found = {slot.name: scale_of(slot, sigma, unit).std for slot in slots} if callable(sigma) else {}
    return {name: std for name, std in found.items() if std is not None}


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
    strict: bool = False,
    whole: bool = False,
) -> dict[str, Tensor]:
    """Draw `b ~ N(0, sigma^2 / fan_in)` for every parameter: canonical name -> tensor of its shape, on its device.

    Without an anchor are parameters of one entry that are not of a kind of torch's (a temperature, `logit_scale`: there
    is no symmetry to break), empty ones, and frozen ones that cannot be decayed (bfloat16, quantised, complex). That of
    an embedding is 0 at its `padding_idx`, which has to stay 0.

    Source: arXiv 2408.15495v3, Eq. (6) and section 5.4. Drawn in float32 on the CPU, then moved and cast: the draw
    depends on the seed, the name and the shape, on nothing else.

    Args:
        sigma: in the unit below; or a function (canonical name, parameter) -> std, or None for what a sigma of 0.01 in
            this unit gives.
        seed: any integer.
        unit: of sigma: `"relative"` to 1/sqrt(fan_in), or `"absolute"`, the std of every entry.
        gains: the mean of the anchors of norm gains (`is_gain`); all others have mean 0.
        anchor_dtype: default the parameter's; `torch.bfloat16` halves the memory (a rounded draw is just another
            draw).
        parameters: canonical names to draw for; default all.
        strict: raise where the table `FAN_IN` does not know a trained parameter, instead of going by the rule of
            `fan_in` and announcing it once (`GuessedScale`).
        whole: leave each on the CPU, and whole where the parameter is sharded over processes (a DTensor).

    Raises:
        TypeError: no model; an argument that is no number, or no dtype.
        ValueError: sigma negative or not finite, an unknown unit, gains not finite, an unknown name, a dtype that is
            not floating; with strict, parameters of unknown kind (the message names all).
    """
    sigma = sigma if callable(sigma) else arguments.number("sigma", sigma)
    seed, gains, model = arguments.integer("seed", seed), arguments.number("gains", gains), arguments.module(model)
    anchor_dtype = arguments.floating("anchor_dtype", anchor_dtype)
    if not math.isfinite(gains):
        raise ValueError(f"gains must be a finite number, the mean of the anchors of norm gains, got {gains}")
    anchors = {}
    found = select(model, parameters)
    for name, std in anchored(found, sigma, unit, strict).items():
        slot = found[name]
        draw = philox(seed, "anchor", drawn_as(model, name)).standard_normal(
            tuple(slot.parameter.shape), dtype=np.float32
        )
        mean = np.float32(gains if is_gain(slot) else 0)
        values = np.asarray(draw) * np.float32(std) + mean
        for row in padding(slot):
            values[row] = 0
        anchors[name] = _like(slot.parameter, values, anchor_dtype, whole)
    return anchors


def draw_scales(
    model: nn.Module, *, sigma_d: float, seed: int, parameters: Collection[str] | None = None, whole: bool = False
) -> dict[str, Tensor]:
    """Draw the diagonal `D_ii ~ U(1 - sqrt(3) sigma_d, 1 + sqrt(3) sigma_d)`, of mean 1 and std sigma_d.

    Source: arXiv 2408.15495v3, Eq. (7) and section 5.4; Theorem 3 asks for sigma_d = o(sigma). Names and
    shapes as `draw_anchors`; always in the parameter's own dtype, as in bfloat16 most entries of D would be equal.

    Raises:
        TypeError: no model; an argument that is no number.
        ValueError: sigma_d outside [0, 1/sqrt(3)), where some D_ii would not be positive; an unknown name.
    """
    sigma_d, seed, model = (
        arguments.number("sigma_d", sigma_d),
        arguments.integer("seed", seed),
        arguments.module(model),
    )
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
