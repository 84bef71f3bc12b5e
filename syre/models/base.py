"""The base classes of the modules, and of the settings that they are built from."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from syre.checks import Settings
from syre.models.units import Units


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

    def units(self) -> tuple[Units, ...]:
        """Its hidden units, layer by layer from the input on; none where it does not say."""
        return ()


class Architecture(Settings, ABC):
    """The settings of a model: a frozen dataclass, the leaf of a config."""

    prefix = "model"

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
        """The module for inputs of this shape, started from torch's global generator."""


def has_running_statistics(module: nn.Module) -> bool:
    """Whether it keeps running statistics, as BatchNorm does: what it computes then depends on all earlier batches."""
    return any(isinstance(part, _NormBase) and part.track_running_stats for part in module.modules())
