"""Tensors wherever they are: inside of what a model takes and returns, and in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


def tensors_of(values: Iterable[Any]) -> list[Tensor]:
    """Those in lists, tuples, sets, mappings, dataclasses and objects, in one another."""
    found: list[Tensor] = []
    todo, seen = list(values), set[int]()
    while todo:
        value = todo.pop(0)
        if isinstance(value, Tensor):
            found.append(value)
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        todo[:0] = inside(value)
    return found


def inside(value: Any) -> list[Any]:
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, None) for field in fields(value)]
    return []


def storage(tensor: Tensor) -> int:
    """Where its numbers are; 0 of one that has them in several places."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided and not tensor.is_nested else 0


def memory(tensor: Tensor) -> tuple[int, int]:
    """Its first byte, and the one after its last; the same ones twice, where it has none of its own."""
    if not storage(tensor) or not tensor.numel() or tensor.data_ptr() == 0:
        return 0, 0
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors in one storage share some of its bytes."""
    spans = memory(a), memory(b)
    if max(spans[0][0], spans[1][0]) >= min(spans[0][1], spans[1][1]):
        return False
    if a.element_size() != b.element_size() or a.is_contiguous() or b.is_contiguous():
        return True
    seen = torch.zeros(a.untyped_storage().nbytes() // a.element_size(), dtype=torch.bool)
    seen.as_strided(a.shape, a.stride(), a.storage_offset()).fill_(True)
    return bool(seen.as_strided(b.shape, b.stride(), b.storage_offset()).any())
