"""What is passed to the public functions: of the right kind, or an error that names it."""

import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn


def number(name: str, value: Any) -> float:
    """An argument as a number. Raises: TypeError that names it."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # the last of a tensor with several entries
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def integer(name: str, value: Any) -> int:
    """An argument as an integer. Raises: TypeError that names it."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def floating(name: str, value: Any) -> torch.dtype | None:
    """A dtype of floating numbers, or None. Raises: TypeError for no dtype, ValueError for one of others."""
    if not isinstance(value, torch.dtype | None):
        raise TypeError(f"{name} must be a torch.dtype, as torch.bfloat16, or None, got {value!r}")
    if value is not None and not value.is_floating_point:
        raise ValueError(f"{name} must be a floating dtype, got {value}")
    return value


def module(value: Any) -> nn.Module:
    """A model. Raises: TypeError."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(value).__name__}")
    return value


def tensors(name: str, value: Any) -> dict[str, Tensor]:
    """A mapping of names to tensors. Raises: TypeError that names it, or the first that is none."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of parameter names to tensors, got {type(value).__name__}")
    for key, one in value.items():
        if not isinstance(one, Tensor):
            raise TypeError(f"{name}[{key!r}] must be a tensor, got {type(one).__name__}")
    return cast(dict[str, Tensor], dict(value))
