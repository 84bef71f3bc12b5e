"""What the layers of a model read on given batches: ranks, dead and duplicated units of the features.

The features of a layer are the matrix [samples, width] that its weights multiply: the outputs of the activation, norm
or attention before it. They are taken from the products themselves, as torch dispatches them, so no module has to be of
a known kind, a layer that is a bare parameter counts as any other, and no hook is ever put on the model.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from inspect import Parameter, signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from syre.core.names import Slot, slots
from syre.core.sharded import is_sharded
from syre.core.wrapped import as_model
from syre.diagnostics.undisturbed import undisturbed, unwrapped
from syre.metrics import covariance_spectrum, dead_units, effective_rank, stable_rank, threshold_rank

ROWS = 2048  # samples per layer, and inputs in all
SHOWN = 64  # eigenvalues
LOW = 1e-3  # of the largest eigenvalue
TOLERANCE = 1e-2  # between the features of duplicated units, of length 1
CONSTANT = 1e-6  # std over root mean square, below which a unit is constant but for rounding
ACTIVE = 8  # samples on which a unit is not 0, to be compared with others: on fewer they are alike by chance
EPS = torch.finfo(torch.float32).eps
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def measure(model: nn.Module, batches: Any, *, rows: int = ROWS) -> list[dict[str, Any]]:
    """The entries `features` of a diagnosis, one for each matrix of features that a layer with weights reads.

    In the order of the forward pass, and named by the first layer that reads them; q, k and v of an attention, which
    read the same, are one entry ("read_by" lists all). What the model reads of the batch itself is no feature; its
    output is one, "output", where no layer makes it (an encoder without a head). Images are rows times positions.

    The model runs in eval mode under no_grad and is left as it was: training flags, buffers, random states. All
    numbers but "dead" and "width" are of at most `rows` samples, chosen at random with a fixed seed among all that
    pass; "dead" counts units that are 0 (below float32's rounding of the layer's largest value) on every one that
    passes. Batches are read until each layer has had that many samples, or `rows` inputs have passed.

    Ranks and eigenvalues are of the centred features, so that constant ones have rank 0: `rank` counts singular values
    above max(n, d) eps(float32) times the largest, or eps(bfloat16, float16) for features of such a type;
    `full` is min(n - 1, d). `low` is a share of the first `full` eigenvalues, the others being 0 by construction.
    `eigenvalues` are over the largest. "duplicates": the features of two units, of length 1, differ by at most 0.01 but
    for a sign, before and after centring; units that are constant, or 0 but on 7 samples, are none. Where features are
    not finite all numbers are None but "width" and "samples".

    Args:
        batches: one batch or an iterable of them (a DataLoader). A batch is a tensor; a tuple or list (inputs, targets,
            ...), of which the first is passed to the model; or a dict of keyword arguments, of which those that the
            forward pass has are passed, labels too. A list of tensors is one batch. They go to the model's device.

    Raises:
        TypeError: no model, or batches that hold no tensors.
        ValueError: no batch, an empty one, or one on which the forward pass fails; sharded parameters.
    """
    plain = unwrapped(as_model(model))
    require_whole(plain, "features are of whole parameters")
    found = slots(plain)
    seen = _Seen(found, rows)
    passed = 0
    with undisturbed(plain), unmoved(batches):
        for batch in each(batches):
            passed += _forward(plain, call_of(plain, batch), seen)
            if passed >= rows or (seen.layers and all(layer.passed >= rows for layer in seen.layers.values())):
                break
        if not passed:
            raise ValueError("batches are empty: pass at least one batch with at least one row")
        return [_entry(layer) for layer in seen.layers.values()]


def require_whole(model: nn.Module, why: str) -> None:
    """Raise, in one line that begins with `why`, if each process has a part of the parameters only."""
    flat = any(kind.__name__ == "FullyShardedDataParallel" for m in model.modules() for kind in type(m).__mro__)
    if flat or any(map(is_sharded, model.parameters())):
        raise ValueError(f"{why}, and these are sharded (FSDP, tensor parallel): gather them into a plain model first")


# ---- batches ---------------------------------------------------------------------------------------------------------


def each(batches: Any) -> Iterator[Any]:
    """The batches, of one or of an iterable of them."""
    if isinstance(batches, Tensor | Mapping):
        yield batches
    elif isinstance(batches, list | tuple):
        several = all(isinstance(part, list | tuple | Mapping) for part in batches)
        yield from batches if several else [batches]
    elif isinstance(batches, Iterable) and not isinstance(batches, str | bytes) and not hasattr(batches, "__array__"):
        yield from batches
    else:
        raise TypeError(f"batches must be tensors, or tuples or dicts of them, got {_words(batches)}")


def call_of(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of one batch, what the forward pass is called with, on the model's device."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    first = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(_plain(first))):
        raise TypeError(f"a batch must be a tensor, or a tuple or dict of tensors, got {_words(batch)}")
    first = tree_map_only(Tensor, lambda tensor: tensor.to(device), _plain(first))
    if isinstance(first, Tensor):
        return (first,), {}
    if not isinstance(first, Mapping):
        return tuple(first), {}
    parameters = signature(model.forward).parameters.values()
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
        return (), dict(first)
    taken = {one.name for one in parameters if one.kind is not Parameter.POSITIONAL_ONLY}
    if not taken & first.keys():
        has, wants = ", ".join(map(str, first)), ", ".join(taken)
        raise ValueError(f"the batch is a dict with {has}, and the forward pass takes {wants}: pass the inputs alone")
    return (), {name: value for name, value in first.items() if name in taken}


def _plain(batch: Any) -> Any:
    """A dict of any other mapping, as the BatchEncoding of a tokenizer is."""
    return dict(batch) if isinstance(batch, Mapping) else batch


def _forward(model: nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]], seen: "_Seen") -> int:
    """Run the model on one batch; the number of its rows."""
    tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    count = tensors[0].shape[0] if tensors[0].dim() else 1
    if not tensors[0].numel():
        return 0
    args, kwargs = arguments
    try:
        with seen.watching(tensors):
            seen.returned(model(*args, **kwargs))
    except Exception as error:
        shapes = ", ".join(f"{list(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors)
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"the forward pass fails on a batch of {shapes}: {reason}") from error
    return count


def _words(thing: Any) -> str:
    kind = type(thing).__name__
    if isinstance(thing, list | tuple | Mapping):
        inside = thing.values() if isinstance(thing, Mapping) else thing
        return f"a {kind} of {', '.join(sorted({type(part).__name__ for part in inside})) or 'nothing'}"
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


@contextmanager
def unmoved(batches: Any) -> Iterator[None]:
    """Afterwards, the random states that a DataLoader has of its own are what they were."""
    held = [getattr(batches, "generator", None), getattr(getattr(batches, "sampler", None), "generator", None)]
    states = [(one, one.get_state()) for one in held if isinstance(one, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


# ---- the forward pass ------------------------------------------------------------------------------------------------


class _From(IntEnum):
    """Where a tensor that depends on the batch comes from."""

    BATCH = 0  # no layer has touched it
    LAYER = 1
    PRODUCT = 2  # a layer's product itself, its bias added: not what others would call features


PRODUCTS = {
    "mm": 0,
    "bmm": 0,
    "mv": 0,
    "_grouped_mm": 0,
    "addmm": 1,
    "baddbmm": 1,
    "addmv": 1,
}  # name -> where the two factors are
RECURRENT = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"}  # which take the features first, and then weights
# What leaves a product what it is: views, casts, a bias, and what turns logits into probabilities.
VIEWS = {"view", "_unsafe_view", "t", "transpose", "permute", "squeeze", "unsqueeze", "expand", "select", "slice"}
KEEP = VIEWS | {
    "alias",
    "detach",
    "clone",
    "_to_copy",
    "add",
    "add_",
    "mul",
    "div",
    "_softmax",
    "_log_softmax",
    "sigmoid",
}


@dataclass
class _Layer:
    """The features that a layer reads: some rows of them, and the largest absolute value of each unit in all.

    Rows are chosen by the smallest of random numbers of their own, one for each that passes: all are equally likely,
    and no more are kept than are wanted, however many batches come.
    """

    name: str
    rows: int
    read_by: list[str]
    passed: int = 0
    peaks: Tensor | None = None
    kept: Tensor | None = None
    keys: Tensor = field(default_factory=lambda: torch.zeros(0))
    stream: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def add(self, features: Tensor) -> None:
        """Features [batch, rows, width]."""
        groups, length, width = features.shape
        peaks = torch.maximum(features.amax((0, 1)), -features.amin((0, 1)))
        if self.kept is not None and self.kept.shape[1] != width:
            return  # a layer that reads now this and now that: its first
        self.peaks = peaks if self.peaks is None else torch.maximum(self.peaks, peaks)
        self.passed += groups * length
        keys = torch.cat([self.keys, torch.rand(groups * length, generator=self.stream)])
        chosen = keys.argsort()[: self.rows].sort().values
        old, new = chosen[chosen < len(self.keys)], chosen[chosen >= len(self.keys)] - len(self.keys)
        new, old = new.to(features.device), old.to(features.device)
        fresh = features[new // length, new % length]
        self.kept = fresh if self.kept is None else torch.cat([self.kept[old], fresh])
        self.keys = keys[chosen]


class _Seen(TorchDispatchMode):
    """Follows parameters and batch through every operation, and takes the features where the two are multiplied.

    `weights` has what is made of parameters alone (a transposed or a normalised weight) with the name of the largest
    one; `data` all that depends on the batch. Both forget what the forward pass has let go.
    """

    supports_higher_order_operators = True

    def __init__(self, found: Mapping[str, Slot], rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.layers: dict[str, _Layer] = {}
        self.parameters = [(slot.parameter, _layer_name(slot)) for slot in found.values()]
        self.weights = WeakTensorKeyDictionary()
        self.data = WeakTensorKeyDictionary()
        self.read = WeakTensorKeyDictionary()  # storage owner -> {what of it, in which version: the layer it is of}

    def watching(self, inputs: Iterable[Tensor]) -> "_Seen":
        """As a context: one forward pass on these inputs."""
        self.weights, self.data, self.read = (WeakTensorKeyDictionary() for _ in range(3))
        self.weights.update(self.parameters)
        self.data.update((tensor, _From.BATCH) for tensor in inputs)
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):  # an operator that calls functions (flex attention)
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():  # which leaves `linear` whole
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        name = func._schema.name.removeprefix("aten::")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        weights = [self.weights[tensor] for tensor in tensors if tensor in self.weights]
        data = [self.data[tensor] for tensor in tensors if tensor in self.data]
        product = bool(weights and data) and self.take(name, args)
        out = func(*args, **kwargs)
        if product or (weights and "embedding" in name):
            level = _From.PRODUCT if product and name not in RECURRENT else _From.LAYER
        elif data:
            through = name in KEEP and min(data) == _From.PRODUCT
            level = _From.PRODUCT if through else min(_From.LAYER, max(data))
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if func._schema.is_mutable:  # what is written to a part is in the whole
            results += [base for result in results if (base := _owner(result)) is not result]
        for result in results:
            if data:
                self.data[result] = level
                self.weights.pop(result, None)
            elif weights:
                self.weights[result] = _largest(tensors, self.weights)
        return out

    def take(self, name: str, args: Any) -> bool:
        """Whether the operation multiplies data by a weight; if it is features that it multiplies, they are kept."""
        if name in PRODUCTS:
            left, right = args[PRODUCTS[name] : PRODUCTS[name] + 2]
            if (left in self.weights) == (right in self.weights):
                return False
            source, weight = (left, right) if right in self.weights else (right, left)
            if weight.dim() < 2:
                return False
            across = source.mT if source is right and source.dim() > 1 else source
            features = across.reshape(1, -1, across.shape[-1])
        elif "convolution" in name:
            source, weight = args[:2]
            features = source.flatten(2).mT if source.dim() > 2 else source[None]
        elif name in RECURRENT:
            source = args[0]
            weight = args[1] if isinstance(args[1], Tensor) else args[1][0]
            features = source.flatten(0, -2)[None]
        else:
            return False
        if weight not in self.weights or source not in self.data:
            return False
        if self.data[source] != _From.BATCH:
            self.keep(self.weights[weight], source, features)
        return True

    def keep(self, reader: str, source: Tensor, features: Tensor) -> None:
        """Under the name of the first layer that reads this part of this tensor, as it is now."""
        if source.layout is not torch.strided or source.is_nested or source.dtype not in FLOATS:
            return
        owner = _owner(source)
        version = 0 if source.is_inference() else source._version
        part = (version, source.storage_offset(), tuple(source.shape), source.stride())
        known = self.read.setdefault(owner, {})
        new = part not in known
        name = known.setdefault(part, reader)
        layer = self.layers.setdefault(name, _Layer(name, self.rows, []))
        if reader not in layer.read_by:
            layer.read_by.append(reader)
        if new:
            layer.add(features.detach())

    def returned(self, result: Any) -> None:
        """Take what the model returns as features too, if it is a matrix of them that no layer made."""
        leaves = tree_leaves(dict(result) if isinstance(result, Mapping) else result)
        first = next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() >= 2), None)
        if first is None or self.data.get(first) != _From.LAYER:
            return
        features = first.flatten(2).mT if first.dim() > 3 else first.reshape(1, -1, first.shape[-1])
        self.keep("output", first, features)


def _owner(tensor: Tensor) -> Tensor:
    """What it is a view of; itself, if of nothing, or in inference mode, where that is not known."""
    base = None if tensor.is_inference() else tensor._base
    return tensor if base is None else base


def _largest(tensors: list[Tensor], names: Mapping[Tensor, str]) -> str:
    """The name of the largest of the parameters that something is made of."""
    return names[max((tensor for tensor in tensors if tensor in names), key=Tensor.numel)]


def _layer_name(slot: Slot) -> str:
    """What reads with this parameter: the name of its module; that of the parameter, where a module has several.

    A tied one goes by the place that is no embedding, which multiplies nothing.
    """
    place = next((one for one in (slot, *slot.ties) if not isinstance(one.module, nn.Embedding)), slot)
    head, _, split = place.name.partition(".parametrizations.")
    name = f"{head}.{split.partition('.')[0]}" if split else head
    return name.removesuffix(".weight")


# ---- the numbers -----------------------------------------------------------------------------------------------------


def _entry(layer: _Layer) -> dict[str, Any]:
    features, peaks = cast(Tensor, layer.kept), cast(Tensor, layer.peaks)
    samples, width = features.shape
    entry: dict[str, Any] = {"name": layer.name, "read_by": layer.read_by, "width": width, "samples": samples}
    if features.device.type == "mps":  # which knows no float64
        features, peaks = features.cpu(), peaks.cpu()
    if not (peaks.isfinite().all() and features.isfinite().all()):
        names = ("rank", "rank/effective", "rank/stable", "full", "dead", "duplicates", "low", "eigenvalues")
        return entry | dict.fromkeys(names)
    full = min(samples - 1, width)
    eigenvalues = _spectrum(features)
    singular = (eigenvalues * samples).sqrt()
    smallest = max(max(samples, width) * EPS, torch.finfo(features.dtype).eps)
    top = eigenvalues[:full]
    scale = float(eigenvalues[0]) or 1.0
    shown = top[torch.linspace(0, max(full - 1, 0), min(full, SHOWN)).round().long().to(top.device)]
    numbers = torch.stack([threshold_rank(singular, smallest), effective_rank(singular), stable_rank(singular)])
    rank, effective, stable = numbers.tolist()
    peaks = peaks.double()
    return entry | {
        "rank": rank,
        "rank/effective": effective,
        "rank/stable": stable,
        "full": float(full),
        "dead": int(dead_units(peaks[None], float(peaks.max()) * EPS)),
        "duplicates": _duplicates(features),
        "low": float((top <= LOW * scale).double().mean()) if full else 0.0,
        "eigenvalues": (shown / scale).tolist(),
    }


def _spectrum(features: Tensor) -> Tensor:
    """`covariance_spectrum`, centred, in descending order; by the smaller of the two products."""
    samples, width = features.shape
    if width <= samples:
        return covariance_spectrum(features)
    centred = features.double()
    centred = centred - centred.mean(0)
    rounding = width * torch.finfo(torch.float64).eps * features.double().square().sum(-1).mean()
    found = covariance_spectrum(centred.mT, centered=False) * (width / samples)
    return torch.cat([found.where(found > rounding, 0), found.new_zeros(width - samples)])


def _duplicates(features: Tensor) -> int:
    """Units whose features, of length 1, are those of another one but for a sign; 1024 units at a time."""
    h = features.double()
    centred = h - h.mean(0)
    varies = (centred.norm(dim=0) > CONSTANT * h.norm(dim=0)) & ((h != 0).sum(0) >= ACTIVE)
    h, centred = (part[:, varies] / part[:, varies].norm(dim=0) for part in (h, centred))
    least = 1 - TOLERANCE**2 / 2  # |u - v|^2 = 2 - 2 <u, v>
    count = torch.zeros((), dtype=torch.long, device=h.device)
    for start in range(0, h.shape[1], 1024):
        own = h[:, start : start + 1024]
        plain, moved = own.mT @ h, centred[:, start : start + 1024].mT @ centred
        alike = (plain.abs() >= least) & (moved.abs() >= least) & (plain * moved > 0)
        count += (alike.sum(-1) > 1).sum()  # itself is one
    return int(count)
