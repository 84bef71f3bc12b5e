"""The scale of each parameter's anchor: `std = sigma / sqrt(d)`, `d` (the fan-in) from a table, or from a stated rule.

Source: arXiv 2408.15495v3, section 5.4 (sigma_0 = 0.01 / sqrt(d), 1/d the common initialisation variance); the scales
are the diagonal `D` of Eq. (7).
"""

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, type_before_parametrizations

from . import arguments
from .names import Slot, select
from .wrapped import outside

Sigma = float | Callable[[str, nn.Parameter], float | None]
UNITS = ("relative", "absolute")  # of sigma
BASE = 0.01  # the sigma of the rule, where sigma is a function and answers None


class GuessedScale(UserWarning):
    """Some anchors have a scale by the general rule, or parameters have none: the message names every kind."""


# ---- the table: kinds of torch, never announced ----------------------------------------------------------------------

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
    ((nn.Bilinear,), ("weight", "bias"), lambda m, leaf: m.in1_features * m.in2_features),
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

# ---- the rule: everything else, announced ----------------------------------------------------------------------------

# Kinds of other libraries that their shape would misread: class of the module | leaf | layout, an `i` for each of the
# dimensions that an output sums over (or the attribute of the module that says the sum).
BY_NAME: tuple[tuple[str, str, str], ...] = (
    (r"Conv1D", r"weight", "io"),  # transformers' GPT-2
    (r"AMSoftmaxLoss", r"weight", "io"),
    (r"XLNetRelativeAttention", r"[qkvr]", "ioo"),  # out: heads x their width
    (r"XLNetRelativeAttention", r"o", "oii"),
    (r"FunnelRelMultiheadAttention", r"r_kernel", "ioo"),
    (r"CsmCodebooksHead|GroupedLinearLayer", r"weight", "nio"),
    (r"RecurrentGemmaRglru", r"\w+_gate_weight", "nio"),
    (r"DbrxExpertGLU", r"w2", "ffn_hidden_size"),  # (experts x in, out)
    (r"Sam\w*PositionalEmbedding", r"positional_embedding", "io"),  # random Fourier features of a position
    (r".*", r"\w*(proj|projection|projection_weight)", "io"),  # bare: CLIP's text_projection, Gemma 3's projector
    (r".*", r"attention_biases", "io"),  # a bias of each head by offset, as T5's embedding has it: LeViT and its like
    (r".*", r"relative_position_bias_table", "oi"),  # Swin, BEiT
    (r".*", r"rpb|relative_position_bias_table", "ioo"),  # MaxViT from TensorFlow, NAT
    (r".*", r"lora_embedding_A", "io"),  # PEFT's, rank x vocabulary
    (r"Embedding", r"lora_A", "io"),  # loralib's
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What one parameter gets.

    Attributes:
        name: its canonical name.
        kind: class of the module and leaf, `Linear.weight`.
        shape: of the parameter.
        std: of its anchor; None for none.
        fan_in: the d of `std = sigma / sqrt(d)`; None where no d enters.
        rule: where it is from, in words.
        known: whether by the table `FAN_IN` or by `sigma` itself, so that there is nothing to announce.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    std: float | None
    fan_in: int | None
    rule: str
    known: bool

    def __str__(self) -> str:
        std = "none" if self.std is None else f"{self.std:.3g}"
        return f"{self.name} {list(self.shape)} {self.kind}: std {std}, {self.rule}"


@dataclass(frozen=True, kw_only=True)
class _Fan:
    """How many inputs one output sums over (None: the parameter is left out), and how that is known."""

    d: int | None
    rule: str
    known: bool = False


def fan_in(slot: Slot) -> int:
    """The `d` in `std = sigma / sqrt(d)` for one parameter: from the table `FAN_IN`, else by the rule.

    The rule, first row that fits. "Large" is a dimension over 1.

    | parameter | d | for instance |
    |---|---|---|
    | tied to one of the table | that one's | the bias of BERT's head |
    | half of a `weight_norm` | of the weight that it makes | `parametrizations.weight.original0` |
    | one entry, or none | left out: no symmetry to break | `logit_scale`, a temperature, `skipinit_gain` |
    | listed in `BY_NAME` | as it multiplies | GPT-2's `Conv1D.weight`, (in, out) |
    | a bias of a matrix or layer in its module | of that one | `gate_up_proj_bias` |
    | one large dimension | its length | RMSNorm look-alikes, layer scales, mask tokens, a scale for each head |
    | a weight of a module that says its `in_features` | these | a linear layer of another library |
    | experts, three dimensions | their input | (E, out, in) under `F.linear`, (E, in, out) under `x @ W` |
    | a convolution by its attributes | in_channels / groups * kernel | `CondConv2d` |
    | a kernel, four dimensions | all but the first | a convolution without these attributes |
    | positions by channel, (1, d, h, h) | d | Hiera's `pos_embed_win` |
    | anything else | the last dimension | tokens, queries, tables, (out, in) and (n, out, in) matrices |

    Raises:
        ValueError: a parameter that is left out.
    """
    if (d := _fan(slot).d) is None:
        raise ValueError(f"parameter {slot.name!r} has one entry, hence no symmetry to break, no fan_in and no anchor")
    return d


def _fan(slot: Slot) -> _Fan:
    for end in (slot, *slot.ties):
        if (d := _listed(end)) is not None:
            return _Fan(d=d, rule="table" if end is slot else f"tied to {end.name}", known=True)
    owner, leaf = slot.place
    if isinstance(slot.module, ParametrizationList):
        whole = getattr(slot.module, "original1", slot.parameter)  # of weight_norm: shaped as the weight
        made = _fan(replace(slot, module=owner, leaf=leaf, parameter=whole, place=(owner, leaf), ties=[]))
        return replace(made, rule="as the weight it makes")
    if slot.parameter.numel() <= 1:
        return _Fan(d=None, rule="one entry")
    d, rule = _by_shape(owner, leaf, slot.parameter)
    return _Fan(d=d, rule=rule)


def _listed(slot: Slot) -> int | None:
    """By the table, and by the names of bare parameters."""
    if (d := _in_table(slot.module, slot.leaf)) is None and slot.leaf in BARE and slot.parameter.dim():
        return _by_channel(slot.parameter) or slot.parameter.shape[-1]
    return d


def _in_table(module: nn.Module, leaf: str) -> int | None:
    for kinds, leaves, rule in FAN_IN:
        if isinstance(module, kinds) and leaf.startswith(leaves):
            return int(rule(module, leaf))
    return None


def _by_shape(module: nn.Module, leaf: str, parameter: Tensor) -> tuple[int, str]:
    """The rule, for more than one entry."""
    shape = parameter.shape
    large = [size for size in shape if size > 1]
    for called, leaves, layout in BY_NAME:
        if re.fullmatch(called, _kind_of(module)) and re.fullmatch(leaves, leaf):
            if hasattr(module, layout):
                return int(getattr(module, layout)), layout
            if len(layout) == len(shape):
                sums = [i for i, role in enumerate(layout) if role == "i"]
                return math.prod(shape[i] for i in sums), f"dimension {' x '.join(map(str, sums))}"
    if "bias" in leaf and (matrix := _matrix_of(module, leaf)) is not None:
        return _by_shape(module, *matrix)[0], f"as {matrix[0]}"
    if len(large) == 1:
        if leaf == "bias" and (layer := _layer_before(module, large[0])) is not None:
            return layer
        return large[0], "its length"
    weight = "weight" in leaf or "kernel" in leaf
    if weight and (inputs := getattr(module, "in_features", None)) in shape and isinstance(inputs, int):
        return inputs, "in_features"
    if _is_stack(module, parameter):
        return _of_stack(module, parameter), "the input of an expert"
    if weight and (d := _of_convolution(module)) is not None:
        return d, "in_channels / groups * kernel_size"
    if weight and (len(shape) > 3 or (len(shape) == 3 and hasattr(module, "kernel_size"))):
        return math.prod(shape[1:]), "all dimensions but the first"
    if "pos" in leaf and (d := _by_channel(parameter)) is not None:
        return d, "dimension 1, positions by channel"
    return shape[-1], "last dimension"


def _kind_of(module: nn.Module) -> str:
    """The class of a module, before parametrizations change it."""
    return type_before_parametrizations(module).__name__


def _matrix_of(module: nn.Module, leaf: str) -> tuple[str, Tensor] | None:
    """The parameter of the same module that a bias belongs to: `bias` to `weight`, `x_bias` to `x_weight` or `x`."""
    own = dict(module.named_parameters(recurse=False))
    for name in (leaf.replace("bias", "weight"), leaf.removesuffix("_bias")):
        matrix = own.get(name)
        if name != leaf and matrix is not None and matrix.dim() > 1 and matrix.numel() > 1:
            return name, matrix
    return None


def _layer_before(module: nn.Module, length: int) -> tuple[int, str] | None:
    """Of a bias that its module adds to the output of a layer: that layer's, and its name."""
    for name, child in module.named_children():
        out = getattr(child, "out_features", getattr(child, "out_channels", None))
        if out == length and (d := _in_table(child, "weight")) is not None:
            return d, f"as {name}"
    return None


def _is_stack(module: nn.Module, parameter: Tensor) -> bool:
    """Whether it holds one matrix for each expert: a class that is called so, or says whether it is transposed."""
    return parameter.dim() == 3 and ("expert" in _kind_of(module).lower() or hasattr(module, "is_transposed"))


def _of_stack(module: nn.Module, parameter: Tensor) -> int:
    """The input of each expert: the last dimension under `F.linear`, the middle one under `x @ W`.

    transformers' modules say which (`is_transposed`). Else the first layer must fit onto the second, (E, 2 m, n) onto
    (E, n, m) as (out, in), (E, n, 2 m) onto (E, m, n) as (in, out): of a gated pair only one does.
    """
    _, middle, last = parameter.shape
    transposed = getattr(module, "is_transposed", None)
    if transposed is None:
        stacks = {name: p for name, p in module.named_parameters(recurse=False) if p.dim() == 3}
        up = next((p for name, p in stacks.items() if re.match("gate|up", name)), None)
        down = next((p for name, p in stacks.items() if name.startswith("down")), None)
        if up is not None and down is not None:
            transposed = up.shape[2] != down.shape[1] and up.shape[1] == down.shape[2]
    return middle if transposed else last


def _of_convolution(module: nn.Module) -> int | None:
    channels, groups, kernel = (getattr(module, name, None) for name in ("in_channels", "groups", "kernel_size"))
    kernel = kernel if isinstance(kernel, tuple) else (kernel,)
    if isinstance(channels, int) and isinstance(groups, int) and all(isinstance(size, int) for size in kernel):
        return channels // groups * math.prod(kernel)
    return None


def _by_channel(parameter: Tensor) -> int | None:
    """The channels of positions on a square, (1, d, h, h)."""
    shape = parameter.shape
    return shape[1] if len(shape) == 4 and shape[0] == 1 and shape[2] == shape[3] != shape[1] else None


def is_norm(slot: Slot) -> bool:
    """Whether a parameter is of one of torch's norms."""
    return isinstance(slot.module, _NORMALISE)


def is_gain(slot: Slot) -> bool:
    """Whether a parameter is the elementwise scale of one of torch's norms, which torch starts at 1.

    Their look-alikes in other libraries are none: some, Gemma's for one, multiply by 1 + w and start at 0, and a name
    does not tell which.
    """
    return is_norm(slot) and slot.leaf == "weight"


# ---- what each gets --------------------------------------------------------------------------------------------------


def decayable(parameter: Tensor) -> bool:
    """Whether a parameter has a dtype in which the pull toward an anchor is not rounded away."""
    return parameter.dtype in (torch.float32, torch.float64)


def padding(slot: Slot) -> list[int]:
    """The rows of an embedding that stand for no token: torch gives them no gradient, and they begin as 0."""
    ends = [end.module for end in (slot, *slot.ties) if isinstance(end.module, nn.Embedding | nn.EmbeddingBag)]
    return [module.padding_idx for module in ends if module.padding_idx is not None]


def scale_of(slot: Slot, sigma: Sigma, unit: str = "relative") -> Scale:
    """What one parameter gets, as `anchor_std` says.

    Raises:
        TypeError: sigma, or what it gives as a function, is no number.
        ValueError: the std is negative or not finite, or the unit unknown.
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be relative (std = sigma / sqrt(fan_in)) or absolute (std = sigma), got {unit!r}")
    value = sigma(slot.name, slot.parameter) if callable(sigma) else sigma
    answered = callable(sigma) and value is not None
    value = BASE if value is None else arguments.number(f"sigma of {slot.name!r}", value)
    if not 0 <= value < math.inf:
        raise ValueError(f"sigma must be finite and >= 0, got {value} for parameter {slot.name!r}")
    owner, leaf = slot.place
    kind = f"{_kind_of(owner)}.{leaf}" + f".{slot.leaf}" * isinstance(slot.module, ParametrizationList)
    common: dict[str, Any] = {"name": slot.name, "kind": kind, "shape": tuple(slot.parameter.shape)}
    if answered:
        return Scale(**common, std=value, fan_in=None, rule="sigma(name, parameter)", known=True)
    fan = _fan(slot)
    if not fan.d:
        rule = fan.rule if fan.d is None else "empty, or of an empty input"
        return Scale(**common, std=None, fan_in=None, rule=rule, known=False)
    if unit == "absolute":
        return Scale(**common, std=value, fan_in=None, rule="sigma", known=True)
    return Scale(**common, std=value / math.sqrt(fan.d), fan_in=fan.d, rule=fan.rule, known=fan.known)


def anchor_std(slot: Slot, sigma: Sigma, unit: str = "relative") -> float | None:
    """Standard deviation of a parameter's anchor; None for a parameter that is left out (see `fan_in`).

    sigma: a number, or a function (canonical name, parameter) -> std; where it answers None the parameter has what a
    sigma of 0.01 in this unit gives it.
    unit: `"relative"`, `sigma / sqrt(fan_in)`, as in arXiv 2408.15495v3, section 5.4; `"absolute"`, sigma.

    Raises:
        ValueError: the std is negative or not finite, or the unit unknown.
    """
    return scale_of(slot, sigma, unit).std


def scale_table(
    model: nn.Module, sigma: Sigma = BASE, unit: str = "relative", parameters: Collection[str] | None = None
) -> list[Scale]:
    """What each parameter of a model gets, in the model's order: `print(*scale_table(model), sep="\\n")`.

    Needs the shapes only, so the model may be on torch's meta device.

    Raises:
        ValueError: as `anchor_std`; an unknown name.
    """
    return [scale_of(slot, sigma, unit) for slot in select(model, parameters).values()]


def anchored(found: Mapping[str, Slot], sigma: Sigma, unit: str, strict: bool) -> dict[str, float]:
    """Canonical name -> std of those that get an anchor. One warning names all that the rule decided.

    A frozen parameter, which does not move, is never among those: it has its anchor (for when it is trained later),
    unless its dtype cannot be decayed, or the rule would have to decide and is not wanted.

    Raises:
        ValueError: as `anchor_std`; with strict: there are such parameters. The message names all.
    """
    stds: dict[str, float] = {}
    guessed: list[Scale] = []
    for name, slot in found.items():
        frozen = not slot.parameter.requires_grad
        if frozen and not decayable(slot.parameter):
            continue
        scale = scale_of(slot, sigma, unit)
        if not scale.known and not frozen:
            guessed.append(scale)
        if scale.std is not None and not (frozen and strict and not scale.known):
            stds[name] = scale.std
    if guessed and strict:
        named = "; ".join(f"{scale.name!r} of {scale.kind}, shape {scale.shape}" for scale in guessed)
        raise ValueError(
            f"no known scale for {named}: pass sigma as a function (name, parameter) -> std, None for all others, "
            "leave them out of the decayed groups, or let the rule of syre.core.fan_in decide (strict=False)"
        )
    if guessed:
        warnings.warn(_announcement(guessed), GuessedScale, stacklevel=outside())
    return stds


def _announcement(guessed: Iterable[Scale]) -> str:
    """One line, by kinds."""
    kinds: defaultdict[tuple[str, str], list[Scale]] = defaultdict(list)
    for scale in guessed:
        kinds[scale.kind, scale.rule].append(scale)
    ruled = [(kind, rule, same) for (kind, rule), same in kinds.items() if same[0].std is not None]
    left = [(kind, rule, same) for (kind, rule), same in kinds.items() if same[0].std is None]

    def listed(rows: list[tuple[str, str, list[Scale]]]) -> Iterator[str]:
        for kind, rule, same in rows:
            sizes = sorted({scale.fan_in for scale in same if scale.fan_in is not None})
            d = f"d = {_sizes(sizes)}, {rule}" if sizes else ""
            yield f"{kind}" + f" x {len(same)}" * (len(same) > 1) + f" ({d})" * bool(d)

    parts = []
    if ruled:
        parts.append(f"the scale of these anchors, sigma/sqrt(d), goes by their shape: {'; '.join(listed(ruled))}")
    if left:
        parts.append(f"no anchor, as they have one entry: {'; '.join(listed(left))}")
    return f"{'. '.join(parts)}. (strict=True makes this an error; sigma may be a function, see syre.attach)"


def _sizes(sizes: list[int]) -> str:
    return ", ".join(map(str, sizes)) if len(sizes) < 4 else f"{sizes[0]} to {sizes[-1]}"
