"""New tensors: full of one number, of zeros, or of numbers that tell their places apart."""

from typing import Any

from syre.diagnostics.rules.family import Family, shape_of
from syre.diagnostics.spaces import ZERO, alike, has_copies
from syre.diagnostics.tensors import tensors_of
from syre.diagnostics.trace import Trace

RULES = Family()


@RULES.of("ones full empty ones_like full_like empty_like new_ones new_full new_empty scalar_tensor")
def creations(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return [alike(size) for size in result.shape]


@RULES.of("zeros zeros_like new_zeros")
def nothing(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return [alike(size, ZERO) for size in result.shape]


@RULES.of("fill zero")
def filled(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    if any(value.dim() for value in tensors_of(args[1:])):
        return None
    t.still(label := t.label(args[0]))
    return [alike(size) for size in shape_of(result)] if not has_copies(label) else label


@RULES.of(
    """arange linspace eye tril triu rand randn randint randperm rand_like randn_like tril_indices triu_indices
    _local_scalar_dense item nonzero"""
)
def ranks(t: Trace, args: Any, kwargs: Any, result: Any) -> Any:
    return None
