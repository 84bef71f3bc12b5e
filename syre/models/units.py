"""The hidden units of a model: where their outputs are seen, what makes them and what takes them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

# Layers whose parameters have a row for each unit, and that torch initialises as `initial_rows` does.
LAYERS, NORMS = (nn.Linear, nn.Conv2d), (nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The units of one hidden layer: its neurons, or its channels.

    Attributes:
        name: of the layer, among the model's modules.
        place: the module whose output they are; `axis` of that is theirs.
        writers: the layer that makes them, and a norm if it is followed by one. Along axis 0 every parameter of these
            has an entry, or a row, for each unit.
        reader: the layer that takes them. Along axis 1 its weight has `copies` columns for each unit, those of a unit
            side by side: one, or as many as a channel has pixels where a Linear takes flattened channels.
    """

    name: str
    place: nn.Module
    writers: tuple[nn.Module, ...]
    reader: nn.Linear | nn.Conv2d
    axis: int = 1

    @property
    def count(self) -> int:
        return next(self.writers[0].parameters()).shape[0]

    @property
    def copies(self) -> int:
        return self.reader.weight.shape[1] // self.count

    def maps(self, output: Tensor) -> Tensor:
        """The output of `place` as [batch, units, positions]; a neuron has one position."""
        units = output.movedim(self.axis, 1)
        return units.flatten(2) if units.dim() > 2 else units.unsqueeze(2)

    def columns(self, units: Tensor) -> Tensor:
        """The columns, along axis 1 of the reader's weight, of these units, [len(units) * copies]."""
        within = torch.arange(self.copies, device=units.device)
        return (units.unsqueeze(1) * self.copies + within).flatten()

    def as_read(self, values: Tensor) -> Tensor:
        """Values by position, [..., units, positions], as the reader tells positions apart: [..., units, copies]."""
        return values if values.shape[-1] == self.copies else values.mean(-1, keepdim=True)

    def written(self) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
        """Module, leaf and parameter of all that the writers have."""
        for module in self.writers:
            for leaf, parameter in module.named_parameters(recurse=False):
                yield module, leaf, parameter


def initial_rows(module: nn.Module, leaf: str, rows: int, stream: Generator) -> Tensor:
    """New rows of a parameter as torch initialises it: U(-1, 1) / sqrt(fan_in) of a layer; 1 and 0 of a norm.

    Raises:
        ValueError: a kind of module of which this is not known.
    """
    parameter: Tensor = getattr(module, leaf)
    shape = (rows, *parameter.shape[1:])
    if isinstance(module, NORMS):
        return torch.ones(shape) if leaf == "weight" else torch.zeros(shape)
    if not isinstance(module, LAYERS):
        raise ValueError(f"it is not known how a {type(module).__name__} is initialised")
    bound = module.weight[0].numel() ** -0.5
    return bound * (2 * torch.rand(shape, generator=stream) - 1)
