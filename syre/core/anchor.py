"""The maths of syre: names, scales, the random draws, and the decay toward an anchor.

Notation (arXiv 2408.15495v3): ``w`` is what the forward pass sees, ``b`` the static random bias of Eq. (6) (the
*anchor*), ``theta = w - b``, ``lambda`` torch's ``weight_decay``, ``eta`` the learning rate, ``D`` the diagonal of Eq.
(7) (the *scales*).
"""

import hashlib
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

Sigma = float | Callable[[str, nn.Parameter], float]


# ---------------------------------------------------------------------------------------------------------------- names

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def canonical_name(name: str) -> str:
    """The name a parameter has in the plain model: ``_orig_mod.module.fc.weight`` -> ``fc.weight``.

    Strips what torch.compile, (Distributed)DataParallel, FSDP, activation checkpointing and parametrizations add. A
    leading ``module`` is always stripped, so a model that calls its own child ``module`` has the same names wrapped and
    plain.
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    if len(parts) >= 3 and parts[-3] == "parametrizations" and parts[-1] == "original":
        parts[-3:] = [parts[-2]]
    return ".".join(parts)


def drawn_as(model: nn.Module, name: str) -> str:
    """The name under which the fixed random tensors of a parameter (or module) are drawn: its canonical name.

    A model may say otherwise by a method ``drawn_as(name) -> name``: what is drawn under one name is equal. So the two
    networks of a pair (``syre.models.Pair``) share their anchors, as networks must that are to be interpolated.
    """
    rename = getattr(model, "drawn_as", None)
    return rename(canonical_name(name)) if rename else canonical_name(name)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One place where a parameter sits: ``module.<leaf>``, under its canonical name."""

    name: str
    module: nn.Module
    leaf: str
    parameter: nn.Parameter


def walk(model: nn.Module) -> Iterator[Slot]:
    """Every place of every parameter, in the order of ``named_parameters()``; a tied one once for each of its ends."""
    modules = dict(model.named_modules())
    for path, module in modules.items():
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            name = canonical_name(f"{path}.{leaf}" if path else leaf)
            owner, key = module, leaf
            if isinstance(module, ParametrizationList) and leaf == "original":  # sits at <owner>.parametrizations.<key>
                parent, key = path.rsplit("parametrizations.", 1)
                owner = modules[parent.rstrip(".")]
            yield Slot(name=name, module=owner, leaf=key, parameter=parameter)


def slots(model: nn.Module) -> dict[str, Slot]:
    """Canonical name -> slot, each parameter once: a tied parameter goes by the first of its names.

    Raises:
        ValueError: two parameters get the same canonical name.
    """
    found: dict[str, Slot] = {}
    seen: set[int] = set()
    for slot in walk(model):
        if id(slot.parameter) in seen:
            continue
        if slot.name in found:
            raise ValueError(f"two parameters have the canonical name {slot.name!r}: rename one of the modules")
        seen.add(id(slot.parameter))
        found[slot.name] = slot
    return found


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Canonical name -> parameter, each parameter once (the keys of anchors and scales)."""
    return {name: slot.parameter for name, slot in slots(model).items()}


# --------------------------------------------------------------------------------------------------------------- scales

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
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
    """The ``d`` in ``std = sigma / sqrt(d)`` for one parameter, from the table ``FAN_IN``.

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


def anchor_std(slot: Slot, sigma: Sigma) -> float:
    """Standard deviation of a parameter's anchor: ``sigma / sqrt(fan_in)``, or ``sigma(name, parameter)`` if callable.

    Source: arXiv 2408.15495v3, section 5.4 (sigma_0 = 0.01 / sqrt(d), 1/d the common initialisation variance).

    Raises:
        ValueError: the std is negative or not finite, or the kind of parameter is unknown.
    """
    value = float(sigma(slot.name, slot.parameter) if callable(sigma) else sigma)
    if not 0 <= value < math.inf:
        raise ValueError(f"sigma must be finite and >= 0, got {value} for parameter {slot.name!r}")
    return value if callable(sigma) else value / math.sqrt(fan_in(slot))


# ---------------------------------------------------------------------------------------------------------------- draws


def philox(seed: int, purpose: str, name: str) -> np.random.Generator:
    """The random stream that belongs to (seed, purpose, name) alone.

    numpy's counter-based Philox, keyed by blake2: unlike ``hash()`` it is the same in every process, and unlike
    ``torch.randn`` on every device, thread count and CPU.
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
    anchor_dtype: torch.dtype | None = None,
    parameters: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Draw ``b ~ N(0, sigma^2 / fan_in)`` for every parameter: canonical name -> tensor of its shape, on its device.

    Source: arXiv 2408.15495v3, Eq. (6) and section 5.4. Drawn in float32 on the CPU, then moved and cast: the draw
    depends on the seed, the name and the shape, on nothing else.

    Args:
        sigma: relative to 1/sqrt(fan_in); or a function (canonical name, parameter) -> absolute std.
        seed: any integer.
        anchor_dtype: default the parameter's; ``torch.bfloat16`` halves the memory (a rounded draw is just another
            draw).
        parameters: canonical names to draw for; default all.

    Raises:
        ValueError: sigma negative or not finite, a parameter of unknown kind, an unknown name, a dtype that is not
            floating.
    """
    if anchor_dtype is not None and not anchor_dtype.is_floating_point:
        raise ValueError(f"anchor_dtype must be a floating dtype, got {anchor_dtype}")
    anchors = {}
    for name, slot in _select(model, parameters).items():
        std = anchor_std(slot, sigma)
        draw = philox(seed, "anchor", drawn_as(model, name)).standard_normal(
            tuple(slot.parameter.shape), dtype=np.float32
        )
        anchors[name] = _like(slot.parameter, np.asarray(draw) * np.float32(std), anchor_dtype)
    return anchors


def draw_scales(
    model: nn.Module, *, sigma_d: float, seed: int, parameters: Collection[str] | None = None
) -> dict[str, Tensor]:
    """Draw the diagonal ``D_ii ~ U(1 - sqrt(3) sigma_d, 1 + sqrt(3) sigma_d)``, of mean 1 and std sigma_d.

    Source: arXiv 2408.15495v3, Eq. (7) and section 5.4; Theorem 3 asks for sigma_d = o(sigma). Names and
    shapes as ``draw_anchors``; always in the parameter's own dtype, as in bfloat16 most entries of D would be equal.

    Raises:
        ValueError: sigma_d outside [0, 1/sqrt(3)), where some D_ii would not be positive; an unknown name.
    """
    if not 0 <= sigma_d < 1 / math.sqrt(3):
        raise ValueError(f"sigma_d must be in [0, 1/sqrt(3) = 0.577), so that D stays positive, got {sigma_d}")
    scales = {}
    for name, slot in _select(model, parameters).items():
        uniform = philox(seed, "scale", drawn_as(model, name)).random(tuple(slot.parameter.shape), dtype=np.float32)
        scales[name] = _like(
            slot.parameter, 1 + math.sqrt(3) * sigma_d * (2 * np.asarray(uniform, np.float64) - 1), None
        )
    return scales


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """blake2 digest of names, dtypes, shapes and bytes: equal when the tensors are, on any device, in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_start(start: str) -> None:
    """Raise ValueError unless ``start`` is one of the two start points."""
    if start not in ("shift", "keep"):
        raise ValueError(f"start must be 'shift' (w_0 = init + b) or 'keep' (w_0 = init), got {start!r}")


def require_full_precision(name: str, parameter: Tensor) -> None:
    """Raise ValueError unless the parameter is float32 or float64: bfloat16 rounds a pull of 1e-3 of a weight away."""
    if parameter.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"parameter {name!r} is {parameter.dtype}, in which the pull toward the anchor would be rounded away: "
            "keep the parameters in float32 (or float64) and compute in low precision with torch.autocast"
        )


def _select(model: nn.Module, names: Collection[str] | None) -> dict[str, Slot]:
    found = slots(model)
    if names is None:
        return found
    if unknown := sorted(set(names) - found.keys()):
        raise ValueError(f"the model has no parameter named {unknown[0]!r}; it has {', '.join(found)}")
    return {name: slot for name, slot in found.items() if name in names}


def _like(parameter: Tensor, values: np.ndarray, dtype: torch.dtype | None) -> Tensor:
    """``values`` on the parameter's device, in its memory format (foreach is fast only on equal strides)."""
    like = torch.empty_like(parameter, dtype=dtype or parameter.dtype, requires_grad=False)
    return like.copy_(torch.from_numpy(np.asarray(values)))


# ---------------------------------------------------------------------------------------------------------------- decay


class AddAnchor(nn.Module):
    """``w = theta + b``, Eq. (6), as a parametrization: b is a buffer, so it is saved and moved with the model."""

    anchor: Tensor

    def __init__(self, anchor: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchor", anchor)

    def forward(self, theta: Tensor) -> Tensor:
        return theta + self.anchor

    def right_inverse(self, w: Tensor) -> Tensor:
        return w - self.anchor


# One foreach operation (three with D) over the lists of one parameter group, in place. Whatever dtype the anchors have,
# the result has that of the parameters. `weight_decay` is lambda, 1/step after the factor lr; `lr` is eta.


def pull_coupled_(grads: list[Tensor], anchors: list[Tensor], *, weight_decay: float, maximize: bool = False) -> None:
    """``g -= lambda b``, before an optimizer that adds ``lambda w``: together ``g + lambda (w - b)`` (SGD, Adam).

    With ``maximize`` the optimizer negates g before it decays, and the pull changes sign. Lists of equal shapes.
    """
    torch._foreach_add_(grads, anchors, alpha=weight_decay if maximize else -weight_decay)


def pull_decoupled_(parameters: list[Tensor], anchors: list[Tensor], *, lr: float, weight_decay: float) -> None:
    """``w += eta lambda b``, after an optimizer that took off ``eta lambda w``: ``w - eta lambda (w - b)`` (AdamW)."""
    torch._foreach_add_(parameters, anchors, alpha=lr * weight_decay)


def decay_coupled_(
    grads: list[Tensor],
    parameters: list[Tensor],
    anchors: list[Tensor],
    scales: list[Tensor],
    *,
    weight_decay: float,
    maximize: bool = False,
) -> None:
    """``g += lambda (D (w - b) - w)``, before an optimizer adds ``lambda w``: Eq. (7), ``g + lambda D (w - b)``."""
    sign = -1.0 if maximize else 1.0
    torch._foreach_addcmul_(grads, parameters, scales, value=sign * weight_decay)
    torch._foreach_addcmul_(grads, anchors, scales, value=-sign * weight_decay)
    torch._foreach_add_(grads, parameters, alpha=-sign * weight_decay)


def decay_decoupled_(
    parameters: list[Tensor], anchors: list[Tensor], scales: list[Tensor], *, lr: float, weight_decay: float
) -> None:
    """``w <- [w - eta lambda D (w - b)] / (1 - eta lambda)``: Eq. (7), before an optimizer that multiplies by the rest.

    Its own decay, ``w *= 1 - eta lambda``, then leaves ``w - eta lambda D (w - b)``. Takes one temporary copy of w.

    Raises:
        ValueError: eta lambda = 1, where the optimizer's own decay forgets w.
    """
    rate = lr * weight_decay
    if rate == 1:
        raise ValueError("sigma_d > 0 with decoupled decay needs lr * weight_decay != 1")
    offsets = torch._foreach_sub(parameters, anchors)
    torch._foreach_addcmul_(parameters, offsets, scales, value=-rate)
    torch._foreach_mul_(parameters, 1 / (1 - rate))


def shift_(parameters: list[Tensor], anchors: list[Tensor], *, sign: int) -> None:
    """``w += sign b``: with -1 from w to theta, with +1 back (Eq. (6) to the letter, for any update rule)."""
    if parameters:
        torch._foreach_add_(parameters, anchors, alpha=sign)
