"""A diagnosis of a checkpoint: what can be said of a model without its code."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from syre.core.names import canonical_name
from syre.core.sharded import is_sharded
from syre.diagnostics import advice, rows, weights
from syre.diagnostics.diagnosis import Diagnosis
from syre.diagnostics.files import CheckpointError as CheckpointError
from syre.diagnostics.files import load as load

# Tensors of these names move with a model and are not trained.
BUFFERS = {
    "running_mean", "running_var", "num_batches_tracked", "position_ids", "token_type_ids", "inv_freq", "masked_bias",
    "mask", "attn_mask", "attention_mask", "causal_mask", "relative_position_index", "relative_coords_table", "pe",
    "weight_u", "_u", "_v", "total_ops", "total_params", "n_averaged",
}  # fmt: skip
ANCHOR = ".0.anchor"  # beside `original` in the module form of syre, whose weights are the sum
WHY = (
    "a checkpoint has no code: nothing says which columns read which row, hence which equal rows are twins, which "
    "activations and heads there are, or what the layers compute; syre.diagnose(model, batches) tells"
)


def diagnose_state(state: Mapping[str, Tensor]) -> Diagnosis:
    """What a state dict tells without the code of the model: the ranks of its matrices, their dead and equal rows.

    Names lose the prefixes of wrappers, as `syre.core.canonical_name` says, buffers are told from parameters by their
    names, and tied tensors count once. Weights are those that the forward pass sees: `syre.parametrize`'s with the
    anchor, pruned ones with the mask. Entries of `weights` also have "duplicate_rows" and "opposite_rows": how many
    rows equal another one, or its negative, with their entries of the module's bias; None if too short to tell.
    `model` also has "buffers", how many tensors those are.

    Raises:
        CheckpointError: no parameters, parts of them (DTensors), or NaN or infinite numbers: a run that diverged.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"a state dict maps names to tensors, and this is a {type(state).__name__}")
    named = _canonical({name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)})
    parameters = {name: tensor for name, tensor in named.items() if not _is_buffer(name, tensor)}
    kept = _once(parameters)
    if not kept:
        raise CheckpointError(f"a state dict of {len(named)} tensors, and no parameter among them")
    for name, tensor in kept.items():
        if is_sharded(tensor):
            raise CheckpointError(f"{name} is one process's part of a tensor: save a full state dict")
    _refuse_not_finite(kept)
    entries = weights.measure(kept)
    for entry in entries:
        entry["duplicate_rows"], entry["opposite_rows"] = _equal_rows(entry["name"], parameters)
    count = sum(tensor.numel() for tensor in kept.values())
    kind = {"class": "state dict", "parameters": count, "tensors": len(kept), "buffers": len(named) - len(parameters)}
    left = [name for name, tensor in kept.items() if tensor.dim() >= 2 and not weights.is_matrix(tensor)]
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    also = f"; left out, as no matrices of real numbers: {', '.join(left[:3])}{more}" if left else ""
    diagnosis = Diagnosis(
        model=kind,
        structure={"source": "none", "inputs": "", "why": WHY + also, "unread": []},
        units=[],
        weights=entries,
        heads=[],
        features=None,
        training=None,
    )
    diagnosis["verdict"] = advice.judge(diagnosis)
    diagnosis["advice"] = advice.advise(diagnosis)
    return diagnosis


def _canonical(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Canonical name -> what the forward pass sees; a name stays as it is where two would become the same."""
    seen = dict(state)
    for name, tensor in state.items():
        anchor, mask = (name.removesuffix(end) + other for end, other in ((".original", ANCHOR), ("_orig", "_mask")))
        if name.endswith(".original") and anchor in state and state[anchor].shape == tensor.shape:
            seen[name] = tensor + seen.pop(anchor)
        if name.endswith("_orig") and mask in state and state[mask].shape == tensor.shape:  # torch.nn.utils.prune
            seen[name.removesuffix("_orig")] = seen.pop(name) * seen.pop(mask)
    times = Counter(map(canonical_name, seen))
    short = {name: canonical_name(name) for name in seen}
    return {short[name] if times[short[name]] == 1 else name: tensor for name, tensor in seen.items()}


def _is_buffer(name: str, tensor: Tensor) -> bool:
    """As far as the name tells, and the shape [1, 1, n, n] of what GPT-2 calls a bias, its causal mask."""
    leaf = name.rpartition(".")[2]
    return leaf in BUFFERS or (leaf == "bias" and tensor.dim() == 4 and tensor.shape[:2] == (1, 1))


def _once(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor under the first of its names."""
    kept: dict[Any, tuple[str, Tensor]] = {}
    for name, tensor in tensors.items():
        known = tensor.layout == torch.strided and tensor.numel() > 0 and not tensor.is_meta
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()) if known else name
        kept.setdefault(place, (name, tensor))
    return dict(kept.values())


def _refuse_not_finite(tensors: Mapping[str, Tensor]) -> None:
    def broken(tensor: Tensor) -> int:
        if not (tensor.is_floating_point() and tensor.layout == torch.strided) or tensor.is_meta:
            return 0
        return int((~tensor.isfinite()).sum())

    counts = {name: count for name, tensor in tensors.items() if (count := broken(tensor))}
    if counts:
        name, count = next(iter(counts.items()))
        of = f"{count} of the {tensors[name].numel()} numbers of {name} are NaN or infinite"
        raise CheckpointError(f"{of}, as are some of {len(counts)} tensors in all: the run diverged")


def _equal_rows(name: str, tensors: Mapping[str, Tensor]) -> tuple[int, int] | tuple[None, None]:
    stem, dot, leaf = name.rpartition(".")
    matrix = weights.as_rows(tensors[name])
    bias = tensors.get(f"{stem}{dot}{leaf.replace('weight', 'bias')}") if "weight" in leaf else None
    return rows.equal_rows(matrix, bias if bias is not None and bias.shape == matrix.shape[:1] else None)
