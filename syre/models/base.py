"""The base class of the modules: what one may say of itself."""

from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


class Model(nn.Module):
    """What a module may say of itself, and what holds where it says nothing, as of any other `nn.Module`.

    It may also have a method `drawn_as(name) -> name` (see `syre.core.drawn_as`).

    Attributes:
        gives: what its forward pass gives, in the words of `syre.models`.
        leading_dims: whether its forward pass takes inputs and parameters with any number of leading axes: an ensemble
            then runs it as it is, and otherwise under `torch.func.vmap`.
        decayed: the submodules whose parameters decay, and so have anchors; None: all of it.
        bookkeeping: plain attributes that the forward pass does not read: the replicas of an ensemble may differ in
            them.
    """

    gives: ClassVar[str] = "nothing of that kind"
    leading_dims: ClassVar[bool] = False
    decayed: ClassVar[tuple[str, ...] | None] = None
    bookkeeping: ClassVar[tuple[str, ...]] = ()


def has_running_statistics(module: nn.Module) -> bool:
    """Whether it keeps running statistics, as BatchNorm does: what it computes then depends on all earlier batches."""
    return any(isinstance(part, _NormBase) and part.track_running_stats for part in module.modules())
