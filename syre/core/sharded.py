"""Tensors of which each process holds a part: torch's DTensor, as FSDP2 (`fully_shard`) and tensor parallel make them.

A rank draws each anchor whole, on the CPU, and keeps its part: the very numbers that one process would hold, without a
word between ranks. Sums are then done part by part, since every operation of syre is elementwise.
"""

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor. Asked by name: the import takes a second."""
    return any(kind.__name__ == "DTensor" for kind in type(tensor).__mro__)


def local(tensor: Tensor) -> Tensor:
    """The part of it that this process holds; the tensor itself, if it is whole. Writing to it writes to the tensor."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        return cast(Any, tensor).to_local()


def whole(tensor: Tensor) -> Tensor:
    """All of it, asked of all ranks together; the tensor itself, if it is whole."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def agreed(digests: Sequence[str], tensors: Sequence[Tensor]) -> str:
    """One digest of the digests of tensors, or of the parts of them that are here, which is the same on every rank.

    Of sharded tensors it asks all ranks, which have to call it together, for theirs: once for each mesh of ranks.
    """
    known: list[str] = []
    parts: dict[Any, list[str]] = {}
    devices = {}
    for digest, tensor in zip(digests, tensors, strict=True):
        if is_sharded(tensor):
            mesh = cast(Any, tensor).device_mesh
            parts.setdefault(mesh, []).append(digest)
            devices[mesh] = local(tensor).device
        else:
            known.append(digest)
    for mesh, mine in parts.items():
        row = torch.tensor([[*bytes.fromhex(_digest(mine))]], dtype=torch.uint8, device=devices[mesh])
        rows = _of_torch("DTensor").from_local(row, mesh, [_of_torch("Shard")(0)] * mesh.ndim)
        known.append(bytes(whole(rows).flatten().tolist()).hex())
    return _digest(known)


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("".join(texts).encode(), digest_size=8).hexdigest()


def _of_torch(name: str) -> Any:
    """What torch.distributed.tensor has, which was private before torch 2.5. Its import takes a second."""
    from torch.distributed import tensor

    if hasattr(tensor, name):
        return getattr(tensor, name)
    from torch.distributed import _tensor

    return getattr(_tensor, name)


def shard_like(full: Tensor, parameter: Tensor) -> Tensor:
    """`full`, the same in every process, laid out over the processes as `parameter` is; itself, if that is whole."""
    if not is_sharded(parameter) or is_sharded(full):
        return full
    distribute_tensor = _of_torch("distribute_tensor")
    # Without a source rank nothing is sent: each takes its own part of what it has (torch >= 2.6).
    quiet = {"src_data_rank": None} if "src_data_rank" in inspect.signature(distribute_tensor).parameters else {}
    of = cast(Any, parameter)
    return distribute_tensor(full.to(local(parameter).device), of.device_mesh, of.placements, **quiet)


def gradient(parameter: Tensor) -> Tensor:
    """The part of its gradient that belongs to the part of it that is here.

    A gradient that is still to be summed over processes (tensor parallel leaves such) is summed first, and kept so.
    """
    grad = parameter.grad
    assert grad is not None
    if is_sharded(grad) and cast(Any, grad).placements != cast(Any, parameter).placements:
        grad = cast(Any, grad).redistribute(placements=cast(Any, parameter).placements)
        parameter.grad = grad
    return local(grad)
