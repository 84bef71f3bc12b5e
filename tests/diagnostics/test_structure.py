"""Sets of units: what is said of each kind of operation is true (the changed network computes the same), and complete.

Of the sets of a network a row says: how many units, of which kind, and by how many independent changes of sign and of
scale they may differ: "8:1:0" are eight neurons with one change of sign; "4h:0:0" are four heads.
"""

import copy
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from syre.core.names import canonical_name
from syre.diagnostics.structure import Inputs, Structure, Units, changed, guesses, named_tensors, read
from syre.diagnostics.tensors import tensors_of
from tests.core import architectures


def summary(structure: Structure) -> list[str]:
    kinds = {"units": "", "heads": "h"}
    return sorted(f"{one.count}{kinds[one.kind]}:{one.signs}:{one.scales}" for one in structure.units)


def started(model: nn.Module) -> nn.Module:
    """In float64, with numbers that are told apart: no biases of 0, no gains of 1."""
    model = model.double().eval()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.rand_like(tensor) / 2
            tensor.data = tensor.data + noise + (0.5 if "running_var" in name else 0.1 if tensor.dim() == 1 else 0)
    return model


@torch.no_grad()
def drawn(model: nn.Module, std: float | None = None) -> nn.Module:
    """In float64, as it was drawn, or its matrices with this deviation; vectors and statistics with noise."""
    model = model.double().eval()
    for name, tensor in model.named_buffers():
        if "running_var" in name:
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        elif "running_mean" in name:
            tensor.copy_(0.1 * torch.randn_like(tensor))
    for parameter in model.parameters():
        if parameter.dim() < 2:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif std is not None:
            parameter.normal_(0, std)
    return model


def numbers(output: Any) -> list[Tensor]:
    return [t for t in tensors_of([output]) if t.is_floating_point() or t.is_complex()]


def placed(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names that the model has for them."""
    names = [name for name, _ in [*model.named_parameters(), *model.named_buffers()]]
    return {name: tensors[canonical_name(name)] for name in names if canonical_name(name) in tensors}


def apart(model: nn.Module, structure: Structure, inputs: Inputs, *, kept: Callable[[Units], Units] = lambda u: u):
    """How far the output of the changed network is from that of the model, relative to its size."""
    parameters = named_tensors(model)
    some = replace(structure, units=tuple(kept(one) for one in structure.units))
    other = changed(some, parameters, torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = (
            numbers(functional_call(one, placed(one, tensors), copy.deepcopy(inputs.args), dict(inputs.kwargs)))
            for one, tensors in ((copy.deepcopy(model), parameters), (copy.deepcopy(model), other))
        )
    return max(float((x - y).abs().max() / x.abs().max().clamp(min=1e-9)) for x, y in zip(a, b, strict=True))


def without_reader(units: Units) -> Units:
    """The change of what makes the units, without that of what reads them; of nothing else, the last is left out."""
    made = tuple(at for at in units.entries if not at.read)
    return replace(units, entries=made if 0 < len(made) < len(units.entries) else units.entries[:-1])


def holds(model: nn.Module, inputs: Inputs, expected: str, *, rounding: float = 1e-12, idle: bool = False) -> Structure:
    """The sets are those; their changes change nothing; and, unless idle, each without a half of it does."""
    structure = read(model, inputs)
    assert summary(structure) == sorted(expected.split())
    assert apart(model, structure, inputs) < rounding
    for number, units in enumerate(structure.units):  # control
        only = replace(structure, units=(units,))
        if not idle and len(units.entries) > 1 and not is_idle(units):
            assert apart(model, only, inputs, kept=without_reader) > 1e-7, (number, units.name)
    return structure


def is_idle(units: Units) -> bool:
    """Whether nothing reads them, or nothing makes them: then a half of the change is none."""
    return len({at.read for at in units.entries}) < 2


# ---- one operation between two layers --------------------------------------------------------------------------------


class Between(nn.Module):
    """A linear layer of 8 units, an operation on what it gives, and a linear layer."""

    @torch.no_grad()
    def __init__(self, operation: Callable[..., Tensor]):
        super().__init__()
        self.first, self.own = nn.Linear(5, 8).double(), nn.ParameterList()
        self.operation, self.last = operation, None
        size = self.middle(torch.randn(3, 5, dtype=torch.float64)).shape[-1]
        self.last = nn.Linear(size, 2)

    def middle(self, x: Tensor) -> Tensor:
        number = -1

        def own(*shape: int) -> Tensor:
            """A parameter of the operation's own: the first, the second ..."""
            nonlocal number
            number += 1
            if self.last is None:
                self.own.append(nn.Parameter(torch.randn(shape, dtype=torch.float64)))
            return self.own[number]

        return self.operation(self.first(x), own)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(x))


def halves(f: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda h, own: f(*h.chunk(2, -1))


def then(h: Tensor, *steps: Callable[[Tensor], Any]) -> Tensor:
    """In-place operations, one after the other."""
    for step in steps:
        step(h)
    return h


def written_into(fill: Callable[[Tensor, Tensor], Any], use: Callable[[Tensor], Tensor] = lambda z: z):
    """What `use` gives of zeros, of which a view was taken before `fill` wrote into them."""

    def operation(h: Tensor, own: Any) -> Tensor:
        z = torch.zeros_like(h)
        view = use(z)
        fill(z, h)
        return view.reshape(len(h), -1)

    return operation


def in_view(h: Tensor, own: Any) -> Tensor:
    z = torch.zeros(len(h), 1, 8, dtype=h.dtype)
    z[:, 0].add_(h)
    return z.flatten(1)


def used_again(change: Callable[[Tensor, Tensor], Any]) -> Callable[..., Tensor]:
    """A view that is read after the tensor has changed."""

    def operation(h: Tensor, own: Any) -> Tensor:
        view = h.view(-1, 2, 4)
        change(h, own(8))
        return view.flatten(1)

    return operation


BETWEEN: dict[str, tuple[Callable[..., Tensor], str]] = {
    # entry by entry
    "identity": (lambda h, own: h, "8:1:1"),
    "relu": (lambda h, own: h.relu(), "8:0:1"),
    "leaky_relu": (lambda h, own: F.leaky_relu(h, 0.2), "8:0:1"),
    "prelu": (lambda h, own: F.prelu(h, own(1)), "8:0:1"),
    "prelu of each": (lambda h, own: F.prelu(h, own(8)), "8:0:1"),
    "rrelu": (lambda h, own: F.rrelu(h), "8:0:1"),
    "clamp at 0": (lambda h, own: h.clamp(min=0), "8:0:1"),
    "threshold": (lambda h, own: F.threshold(h, 0.1, 0.0), "8:0:0"),
    "abs": (lambda h, own: h.abs(), "8:1:1"),
    "square": (lambda h, own: h.square(), "8:1:1"),
    "relu squared": (lambda h, own: h.relu().square(), "8:0:1"),
    "x * x": (lambda h, own: h * h, "8:1:1"),
    "x ** 3": (lambda h, own: h**3, "8:1:1"),
    "x ** 0": (lambda h, own: h**0 * h, "8:0:0"),
    "|x| ** 1.5": (lambda h, own: h.abs() ** 1.5, "8:1:0"),
    "2 ** x": (lambda h, own: 2.0**h, "8:0:0"),
    "x ** parameter": (lambda h, own: h.abs() ** own(8), "8:1:0"),
    "1 / x": (lambda h, own: 1 / h, "8:1:1"),
    "reciprocal": (lambda h, own: h.reciprocal(), "8:1:1"),
    "tanh": (lambda h, own: h.tanh(), "8:1:0"),
    "sin": (lambda h, own: h.sin(), "8:1:0"),
    "cos": (lambda h, own: h.cos(), "8:1:0"),
    "softsign": (lambda h, own: F.softsign(h), "8:1:0"),
    "softshrink": (lambda h, own: F.softshrink(h, 0.1), "8:1:0"),
    "hardtanh": (lambda h, own: F.hardtanh(h), "8:1:0"),
    "hardtanh of -1 and 2": (lambda h, own: F.hardtanh(h, -1.0, 2.0), "8:0:0"),
    "relu6": (lambda h, own: F.relu6(h), "8:0:0"),
    "gelu": (lambda h, own: F.gelu(h), "8:0:0"),
    "sigmoid": (lambda h, own: h.sigmoid(), "8:0:0"),
    "silu": (lambda h, own: F.silu(h), "8:0:0"),
    "exp": (lambda h, own: h.exp(), "8:0:0"),
    "elu": (lambda h, own: F.elu(h), "8:0:0"),
    "logsigmoid": (lambda h, own: F.logsigmoid(h), "8:0:0"),
    "tanh * sigmoid": (lambda h, own: h.tanh() * h.sigmoid(), "8:0:0"),
    "x / (1 + x^2)": (lambda h, own: h / (1 + h**2), "8:1:0"),
    "1 - x": (lambda h, own: 1 - h, "8:0:0"),
    "x + 0": (lambda h, own: h + 0, "8:1:1"),
    "x > 0": (lambda h, own: (h > 0).double(), "8:0:0"),
    "where": (lambda h, own: torch.where(h > 0, h, 0.1 * h), "8:0:0"),
    "masked_fill": (lambda h, own: h.masked_fill(h < 0, -1.0), "8:0:0"),
    "to bool": (lambda h, own: (h - own(8)).bool().double() * h, "8:0:0"),
    "to integers": (lambda h, own: (10 * h).long().double(), "8:0:0"),
    "maximum of two": (lambda h, own: torch.maximum(h, own(8)), "8:0:1"),
    "maximum with a number": (lambda h, own: torch.maximum(h, own(1)), "8:0:0"),
    "lerp": (lambda h, own: torch.lerp(h, own(8), 0.3), "8:0:0"),
    "addcmul": (lambda h, own: torch.addcmul(h, own(8), own(8)), "8:2:2"),
    "addcdiv": (lambda h, own: torch.addcdiv(h, own(8), own(8).abs() + 1), ""),
    "atan2": (lambda h, own: torch.atan2(h, own(8)), "8:0:0"),
    "remainder": (lambda h, own: torch.remainder(h, 0.7), "8:0:0"),
    "complex": (lambda h, own: (h * 1j).abs(), "8:1:1"),
    "nan_to_num": (lambda h, own: h.nan_to_num(), "8:1:1"),
    "dropout": (lambda h, own: F.dropout(h, 0.5, training=False), "8:1:1"),
    # with another tensor
    "+ a number": (lambda h, own: h + 1, "8:0:0"),
    "+ one for all": (lambda h, own: h + own(1), "8:0:0"),
    "+ one for each": (lambda h, own: h + own(8), "8:1:1"),
    "* one for all": (lambda h, own: h * own(1), "8:1:1"),
    "* one for each": (lambda h, own: h * own(8), "8:2:2"),
    "/ one for each": (lambda h, own: h / own(8), "8:2:2"),
    "one for each / x": (lambda h, own: own(8) / h, "8:2:2"),
    "parameter / its norm": (lambda h, own: h * F.normalize(own(8), dim=0), "8:2:1"),
    "+ arange": (lambda h, own: h + torch.arange(8.0), ""),
    "* ones added up": (lambda h, own: h * torch.ones(8).cumsum(0), ""),
    "* ones added up in place": (lambda h, own: h * torch.ones(8).cumsum_(0), ""),
    "* ones pooled at the edge": (lambda h, own: h * F.avg_pool1d(torch.ones(1, 1, 8), 3, 1, 1)[0, 0], ""),
    "* random numbers": (lambda h, own: h * torch.empty(8).uniform_(generator=torch.Generator().manual_seed(0)), ""),
    "cos(0) * x": (lambda h, own: torch.zeros(8).cos() * h + torch.zeros(8).cos().cumsum(0), ""),
    "0 + x": (lambda h, own: torch.zeros(3, 8) + h, "8:1:1"),
    "0 * x + x": (lambda h, own: torch.zeros(8) * own(8) + h, "8:1:1"),
    "0 + 1 + x": (lambda h, own: torch.zeros(8) + 1 + h, "8:0:0"),
    "0 == 0": (lambda h, own: (torch.zeros(8) == 0) + h, "8:0:0"),
    "0 written over": (lambda h, own: then(torch.zeros(8), lambda z: z[:4].copy_(own(4))) + h, ""),
    "row 0 of a table": (lambda h, own: F.embedding(torch.zeros(3, dtype=torch.int64), own(5, 8)) + h, "8:1:1"),
    "sigmoid(0) + x": (lambda h, own: torch.zeros(8).sigmoid() + h, "8:0:0"),
    "* ones": (lambda h, own: h * torch.ones(8), "8:1:1"),
    "- mean": (lambda h, own: h - h.mean(-1, keepdim=True), "8:0:0"),
    "* max": (lambda h, own: h * h.amax(-1, keepdim=True), "8:0:0"),
    "* max, by max": (lambda h, own: h * h.max(-1, keepdim=True).values, ""),
    "/ norm": (lambda h, own: h / h.norm(dim=-1, keepdim=True), "8:1:0"),
    "/ deviation": (lambda h, own: h / h.std(-1, keepdim=True), "8:0:0"),
    "- logsumexp": (lambda h, own: h - h.logsumexp(-1, keepdim=True), "8:0:0"),
    "softmax": (lambda h, own: h.softmax(-1), "8:0:0"),
    "softmax over the batch": (lambda h, own: h.softmax(0), "8:0:0"),
    "sum": (lambda h, own: h.sum(-1, keepdim=True).expand(-1, 8), "8:0:0 8:0:0"),
    "all of item": (lambda h, own: h * h.sum().item(), "8:0:0"),
    "one of item": (lambda h, own: h * h[0, 0].item(), "7:1:1"),
    # norms
    "layer_norm": (lambda h, own: F.layer_norm(h, (8,), own(8), own(8)), "8:1:1"),
    "layer_norm without weight": (lambda h, own: F.layer_norm(h, (8,), None, own(8)), "8:0:0"),
    "layer_norm without bias": (lambda h, own: F.layer_norm(h, (8,), own(8)), "8:1:1"),
    "layer_norm in two": (lambda h, own: F.layer_norm(h.view(-1, 2, 4), (2, 4), own(2, 4)).flatten(1), "2:1:1 4:1:1"),
    "layer_norm over a part": (lambda h, own: F.layer_norm(h.view(-1, 2, 4), (4,), own(4)).flatten(1), "2:0:0 4:1:1"),
    "rms_norm": (lambda h, own: F.rms_norm(h, (8,), own(8)), "8:2:1"),
    "rms_norm by hand": (lambda h, own: own(8) * h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5), "8:2:1"),
    "batch_norm": (lambda h, own: F.batch_norm(h, own(8).detach(), own(8).detach().exp(), own(8), own(8)), "8:2:1"),
    "batch_norm of a batch": (lambda h, own: F.batch_norm(h, None, None, own(8), own(8), True), "8:2:1"),
    "batch_norm along the units": (lambda h, own: F.batch_norm(h.T, None, None, own(3), None, True).T, "8:0:0"),
    "group_norm": (lambda h, own: F.group_norm(h, 2, own(8), own(8)), "2:1:1 4:1:1"),
    "group_norm of one": (lambda h, own: F.group_norm(h, 1, own(8), own(8)), "8:1:1"),
    "instance_norm": (lambda h, own: F.instance_norm(h[..., None] * own(3), None, None, own(8))[..., 0], "8:2:1"),
    # along an order
    "sort": (lambda h, own: h.sort(-1).values, ""),
    "topk of all": (lambda h, own: h.topk(8, -1).values, ""),
    "topk": (lambda h, own: h.topk(3, -1).values, ""),
    "cumsum": (lambda h, own: h.cumsum(-1), ""),
    "cumsum over the batch": (lambda h, own: h.cumsum(0), "8:0:0"),
    "flip": (lambda h, own: h.flip(-1), ""),
    "flip of the batch": (lambda h, own: h.flip(0), "8:0:0"),
    "roll": (lambda h, own: h.roll(1, -1), ""),
    "roll of all": (lambda h, own: h.roll(1), ""),
    "argmax": (lambda h, own: F.one_hot(h.argmax(-1), 8).double() * h, ""),
    "a table by argmax of a parameter": (lambda h, own: h * own(6)[own(8, 6).argmax(1)], ""),
    "a table by topk of a parameter": (lambda h, own: h * own(6).index_select(0, own(8, 6).topk(1).indices[:, 0]), ""),
    # shapes
    "cat with itself": (lambda h, own: torch.cat([h, h], -1), "8:1:1"),
    "cat of relu and of its mirror": (lambda h, own: torch.cat([h.relu(), (-h).relu()], -1), "8:0:1"),
    "cat with a parameter": (lambda h, own: torch.cat([h, own(1, 3).expand(len(h), -1)], -1), "3:1:1 8:1:1"),
    "cat with zeros": (lambda h, own: torch.cat([h, h.new_zeros(len(h), 3)], -1), "3:1:1 8:1:1"),
    "cat of units one by one": (lambda h, own: torch.cat([h[:, k:k + 1] for k in range(8)], -1), ""),
    "stack": (lambda h, own: torch.stack([h, h.tanh()], -1).flatten(1), "8:1:0"),
    "stack before": (lambda h, own: torch.stack([h, h.relu()], 1).flatten(1), "8:0:1"),
    "stack of two, added up": (halves(lambda a, b: torch.stack([a, b]).sum(0)), "4:1:1"),
    "stack of two, summed over all": (halves(lambda a, b: torch.cat([a, b, torch.stack([a, b]).sum(0).pow(2)
                                                                     .sum(-1, keepdim=True)], -1)), "4:1:0"),
    "stack of two, not used": (halves(lambda a, b: (torch.stack([a, b]), torch.cat([a, b], -1))[1]), "4:1:1 4:1:1"),
    "stack of two, flattened": (halves(lambda a, b: torch.stack([a, b], -1).flatten(1)), "4:1:1"),
    "stack of two, taken out": (halves(lambda a, b: torch.cat(torch.stack([a.tanh(), b.relu()]).unbind(0), -1)),
                                "4:0:1 4:1:0"),
    "unbind and stack": (lambda h, own: torch.stack(h.unbind(-1)[::-1], -1), ""),
    "gated": (halves(lambda a, b: a * b.sigmoid()), "4:1:1"),
    "glu": (lambda h, own: F.glu(h, -1), "4:1:1"),
    "bilinear": (halves(lambda a, b: a * b), "4:2:2"),
    "halves the other way round": (halves(lambda a, b: torch.cat([b, a.tanh()], -1)), "4:1:0 4:1:1"),
    "halves, one not read": (halves(lambda a, b: a), "4:1:1 4:1:1"),
    "split": (lambda h, own: torch.cat(h.split([3, 5], -1)[::-1], -1), "3:1:1 5:1:1"),
    "tensor_split": (lambda h, own: torch.cat(h.tensor_split(3, -1)[::-1], -1), "2:1:1 3:1:1 3:1:1"),
    "slice": (lambda h, own: h[:, 2:6], "2:1:1 2:1:1 4:1:1"),
    "slice by steps": (lambda h, own: h[:, ::2], ""),
    "select": (lambda h, own: h[:, 3:4] * own(4), "3:1:1 4:1:1 4:1:1"),
    "index": (lambda h, own: h[:, [3, 1, 2]], ""),
    "index_select": (lambda h, own: h.index_select(-1, torch.tensor([3, 1])), ""),
    "boolean index": (lambda h, own: h[:, torch.arange(8) > 3], ""),
    "gather": (lambda h, own: h.gather(-1, torch.arange(8).flip(0)[None].expand(len(h), -1)), ""),
    "two axes": (lambda h, own: h.view(-1, 2, 4).transpose(1, 2).flatten(1), "2:1:1 4:1:1"),
    "two axes, one summed": (lambda h, own: h.view(-1, 2, 4).sum(1), "2:0:0 4:1:1"),
    "two axes, the last one ordered": (lambda h, own: h.view(-1, 2, 4).cumsum(2).flatten(1), "2:0:0"),
    "two axes of other sizes": (lambda h, own: torch.cat([h, h[:, :4]], -1).view(-1, 3, 4).reshape(-1, 12), "4:1:1"),
    "axes that cut through one another": (lambda h, own: (h[:, :6].reshape(-1, 2, 3) * own(2, 3)).view(-1, 3, 2)
                                          .flatten(1), "2:1:1"),
    "expand": (lambda h, own: h[:, None].expand(-1, 3, -1).flatten(1), "3:0:0 8:1:1"),
    "repeat": (lambda h, own: h.repeat(1, 3), "3:0:0 8:1:1"),
    "repeat_interleave": (lambda h, own: h.repeat_interleave(3, -1), "3:0:0 8:1:1"),
    "pad": (lambda h, own: F.pad(h, (0, 2)), ""),
    "pad and cut": (lambda h, own: F.pad(h, (2, -2)), ""),
    "pad of the batch with ones": (lambda h, own: F.pad(h, (0, 0, 0, 1), value=1.0), "8:0:0"),
    "pad of the batch with zeros": (lambda h, own: F.pad(h, (0, 0, 0, 1)), "8:1:1"),
    "nothing": (lambda h, own: torch.cat([h, h[:, 8:] * 2, h.view(-1, 2, 4)[:, :0].flatten(1)], -1), "2:1:1 4:1:1"),
    "bytes as other numbers": (lambda h, own: h.view(torch.int64).bitwise_and(1).double() * h, ""),
    "pixel_shuffle": (lambda h, own: F.pixel_shuffle(h.view(-1, 8, 1, 1), 2).flatten(1), "2:1:1"),
    "channel_shuffle": (lambda h, own: F.channel_shuffle(h.view(-1, 8, 1, 1), 2).flatten(1), "2:1:1 4:1:1"),
    "unfold": (lambda h, own: h.unfold(-1, 3, 1).flatten(1), ""),
    "tril": (lambda h, own: (h[:, :, None] * h[:, None]).tril().flatten(1), ""),
    "trace": (lambda h, own: (h[:, :, None] * h[:, None]).diagonal(0, 1, 2), ""),
    "outer": (lambda h, own: (h[:, :, None] * h[:, None]).flatten(1), "8:1:1"),
    "einsum": (lambda h, own: torch.einsum("bi,ij,bj->bi", h, own(8, 8), h), "8:2:2"),
    "einsum over two": (lambda h, own: torch.einsum("bi,ik,kj->bj", h, own(8, 3), own(3, 6)), "3:1:1 6:1:1 8:1:1"),
    "matmul of three": (lambda h, own: (h.view(-1, 2, 4) @ own(4, 3)).flatten(1), "2:1:1 3:1:1 4:1:1"),
    "pools of the same size": (lambda h, own: F.avg_pool2d(h.view(-1, 1, 8, 1).repeat(1, 1, 1, 2), 3, 1, 1).flatten(1),
                               ""),
    "upsample": (lambda h, own: F.interpolate(h[:, :, None], scale_factor=2.0).flatten(1), "8:1:1"),
    "upsample of the units": (lambda h, own: F.interpolate(h[:, None], scale_factor=2.0).flatten(1), ""),
    "max_pool of the units": (lambda h, own: F.max_pool1d(h[:, None], 2).flatten(1), ""),
    # in place
    "relu_": (lambda h, own: F.relu(h, inplace=True), "8:0:1"),
    "relu_ of a slice": (lambda h, own: then(h, lambda h: h[:, :4].relu_()), "4:0:0 4:1:1"),
    "0 into a slice": (lambda h, own: then(h, lambda h: h[:, :4].fill_(0)), "4:0:0 4:1:1"),
    "1 into a slice": (lambda h, own: then(h, lambda h: h[:, :4].fill_(1)), "4:0:0 4:1:1"),
    "a parameter into a slice": (lambda h, own: then(h, lambda h: h[:, :4].copy_(own(4))), "4:1:1"),
    "a slice into another": (lambda h, own: then(h, lambda h: h[:, :4].copy_(h[:, 4:])), ""),
    "index_put": (lambda h, own: then(h, lambda h: h.index_put_((torch.tensor([0]),), own(8))), ""),
    "scatter": (lambda h, own: h.scatter(1, torch.zeros(len(h), 1, dtype=torch.int64), 1.0), ""),
    "unsqueeze_": (lambda h, own: h.unsqueeze_(1).flatten(1), "8:1:1"),
    "transpose_": (lambda h, own: h.view(-1, 2, 4).transpose_(1, 2).flatten(1), "2:1:1 4:1:1"),
    "into zeros": (written_into(lambda z, h: z.add_(h)), "8:1:1"),
    "into zeros, seen by a view": (written_into(lambda z, h: z.add_(h), lambda z: z.view(-1, 2, 4)), ""),
    "copied into zeros, seen by a view": (written_into(lambda z, h: z.copy_(h), lambda z: z.view(-1, 2, 4)), ""),
    "into zeros by out=": (written_into(lambda z, h: torch.mul(h, 2, out=z), lambda z: z.view(-1, 2, 4)), ""),
    "into a part of zeros": (written_into(lambda z, h: z[:, :4].add_(h[:, 4:])), "4:1:1"),
    "into a view of zeros": (in_view, ""),
    "a view after a product": (used_again(lambda h, w: h.mul_(w)), "2:0:0 4:0:0"),
    "a view after a sum": (used_again(lambda h, w: h.add_(w)), "2:0:0 4:0:0"),
    "unsafe_split": (lambda h, own: torch.cat([p.tanh_() for p in torch.unsafe_split(h, 4, 1)], -1), "4:1:0 4:1:0"),
    "data": (lambda h, own: h.data * h, "8:1:1"),
    "numpy": (lambda h, own: h * torch.as_tensor(h.detach().numpy()).mean(), ""),
    # taken apart, as q, k and v are
    "three of one": (lambda h, own: three(h @ own(8, 12), lambda q, k, v: [q, k.tanh(), v.relu()]),
                     "4:0:1 4:1:0 4:1:1 8:1:1"),
    "three of one, added up elsewhere": (lambda h, own: three(h @ own(8, 12), added=True), "8:1:1"),
    "three of one, bent before": (lambda h, own: three(h @ own(8, 12), bent=True), "8:1:1"),
    "three of one, scaled before": (lambda h, own: three(h @ own(8, 12), by=own(3, 1)), "4:1:1 8:1:1"),
}  # fmt: skip

UNKNOWN = {"addcdiv": ("addcdiv",), "gather": ("gather",), "trace": ("diagonal",), "* random numbers": ("uniform_",)}


def three(
    h: Tensor, f: Callable = lambda q, k, v: [q, k, v], added: bool = False, bent: bool = False, by: Any = 1.0
) -> Tensor:
    """What `f` makes of three parts of twelve units, and maybe something made of all three together."""
    x = h.view(-1, 3, 4) * by
    x = x.relu() if bent else x
    parts = f(*x.unbind(1))
    return torch.cat([*parts, x.sum(1).pow(2).sum(-1, keepdim=True)] if added else parts, -1)


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_said_of_the_units_between_two_layers_is_true_and_complete(name):
    operation, expected = BETWEEN[name]
    torch.manual_seed(0)
    model, x = started(Between(operation)), Inputs((torch.randn(3, 5, dtype=torch.float64),))
    structure = holds(model, x, expected, idle=name in ("0 into a slice", "1 into a slice"))
    assert structure.unknown == UNKNOWN.get(name, ())


# ---- whole networks --------------------------------------------------------------------------------------------------


class Made(nn.Module):
    """Modules and parameters by their names, and what is made of them."""

    def __init__(self, forward: Callable[..., Any], **parts: Any):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.made = forward

    def forward(self, *args: Any) -> Any:
        return self.made(self, *args)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


@dataclass
class Pair:
    a: Any
    b: Any


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def attention(bias: Callable[[Any], Tensor] | None = None, fused: bool = False, **more: Any) -> Made:
    """Of 6 features, with 4 heads of 3."""

    def forward(m: Made, x: Tensor) -> Tensor:
        q, k, v = (heads_of(layer(x), 4) for layer in (m.q, m.k, m.v))
        if fused:
            mask = bias(m) if bias else None
            y = F.scaled_dot_product_attention(q, k, v, mask, is_causal="causal" in more)
            return m.o(y.transpose(1, 2).flatten(2))
        return m.o(attend(q, k, v, bias(m) if bias else 0.0))

    parts = {name: nn.Linear(6, 12) for name in "qkv"}
    return Made(forward, **parts, o=nn.Linear(12, 5), **{k: v for k, v in more.items() if k != "causal"})


def packed(m: Made, x: Tensor) -> Tensor:
    """As in a vision transformer: q, k and v of one matrix."""
    q, k, v = m.qkv(x).view(*x.shape[:2], 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
    return m.o(attend(q, k, v))


def interleaved(m: Made, x: Tensor) -> Tensor:
    """As in GPT-NeoX and BLOOM: of each head q, k and v."""
    q, k, v = (part[..., 0, :].transpose(1, 2) for part in m.qkv(x).view(*x.shape[:2], 4, 3, 3).split(1, -2))
    return m.o(attend(q, k, v))


def with_bias_by_cat(m: Made, x: Tensor) -> Tensor:
    """As in BEiT and EVA: a bias of q and of v, and none of k."""
    qkv = F.linear(x, m.qkv.weight, torch.cat([m.q_bias, torch.zeros(12, dtype=x.dtype), m.v_bias]))
    q, k, v = qkv.reshape(*x.shape[:2], 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
    return m.o(attend(q, k, v))


def rotary(m: Made, x: Tensor) -> Tensor:
    q, k, v = (heads_of(layer(x), 4) for layer in (m.q, m.k, m.v))
    angle = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.1], dtype=x.dtype)
    cos, sin = (f(angle).repeat(1, 2) for f in (torch.cos, torch.sin))
    q, k = (z * cos + torch.cat([-z[..., 2:], z[..., :2]], -1) * sin for z in (q, k))
    return m.o(attend(q, k, v))


def grouped_query(m: Made, x: Tensor) -> Tensor:
    q, k, v = (heads_of(layer(x), n) for layer, n in ((m.q, 4), (m.k, 2), (m.v, 2)))
    k, v = (z[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for z in (k, v))
    return m.o(attend(q, k, v))


def queries(m: Made, x: Tensor, causal: bool = False) -> Tensor:
    """Of learned queries: these may be permuted, if what comes of them is added up, and they see all."""
    q = m.q[None, None].expand(len(x), 1, -1, -1)
    return F.scaled_dot_product_attention(q, x[:, None], x[:, None], is_causal=causal).sum((1, 2))


def masked(m: Made, x: Tensor) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(2, dtype=x.dtype)
    padding = torch.arange(4)[:, None] == torch.tensor([4, 3])
    return m.t(*[m.a(x)] * 3, key_padding_mask=padding, attn_mask=mask)[0]


def recurrent(kind: type[nn.RNNBase], **options: Any) -> Made:
    return Made(lambda m, x: m.out(m.rnn(x)[0]), rnn=kind(5, 6, batch_first=True, **options),
                out=nn.Linear(12 if options.get("bidirectional") else 6, 2))  # fmt: skip


def experts(m: Made, x: Tensor) -> Tensor:
    """Of which the router takes the best one."""
    gate, which = m.router(x).softmax(-1).max(-1)
    return sum((m.up[k](x).relu() @ m.down[k]) * (gate * (which == k))[:, None] for k in range(3))


def squeeze_and_excite(m: Made, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.b(x * m.up(m.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid())


IMAGE, ROW, WORDS, LINE = (2, 3, 6, 6), (3, 5), (2, 4, 6), (2, 3, 9)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "two hidden layers": (lambda: chain(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 2)), ROW,
                          "8:0:1 7:1:0"),
    "residual": (lambda: Made(lambda m, x: m.c(m.a(x) + m.b(m.a(x).relu())), a=nn.Linear(5, 8), b=nn.Linear(8, 8),
                              c=nn.Linear(8, 2)), ROW, "8:0:1"),
    "read by two layers": (lambda: Made(lambda m, x: (m.b(m.a(x).tanh()), m.c(m.a(x).tanh())), a=nn.Linear(5, 8),
                                        b=nn.Linear(8, 2), c=nn.Linear(8, 3)), ROW, "8:1:0"),
    "tied": (lambda: Made(lambda m, x: F.linear(m.a(x).tanh(), m.a.weight.T), a=nn.Linear(5, 8)), ROW, "8:1:0"),
    "tied through numbers": (lambda: tied_numbers(), ROW, ""),
    "recurrent by hand": (lambda: Made(lambda m, x: m.c(m.b(m.b(m.a(x)).tanh()).tanh()), a=nn.Linear(5, 8),
                                       b=nn.Linear(8, 8), c=nn.Linear(8, 2)), ROW, "8:1:0"),
    "weight_norm": (lambda: chain(weight_norm(nn.Linear(5, 8)), nn.ReLU(), weight_norm(nn.Linear(8, 2))), ROW, "8:1:1"),
    "spectral_norm": (lambda: chain(spectral_norm(nn.Linear(5, 8)), nn.Tanh(), spectral_norm(nn.Linear(8, 2))), ROW,
                      "8:1:0"),
    "bilinear": (lambda: Made(lambda m, x: m.c(m.b(m.a(x), x)), a=nn.Linear(5, 8), b=nn.Bilinear(8, 5, 4),
                              c=nn.Linear(4, 2)), ROW, ""),
    "parallel matrices": (lambda: Made(lambda m, x: torch.einsum("bi,eij,ejk->bk", x, m.a, m.b), a=torch.randn(3, 5, 7),
                                       b=torch.randn(3, 7, 2)), ROW, "3:1:1 7:1:1"),
    "experts": (lambda: Made(experts, router=nn.Linear(5, 3), up=nn.ModuleList(nn.Linear(5, 8) for _ in range(3)),
                             down=nn.ParameterList(torch.randn(8, 2) for _ in range(3))), (16, 5), "8:0:1 8:0:1 8:0:1"),
    # what comes out
    "a feature is returned": (lambda: Made(lambda m, x: (m.b(h := m.a(x)), h), a=nn.Linear(5, 8), b=nn.Linear(8, 2)),
                              ROW, ""),
    "a feature is returned in a dict": (lambda: Made(lambda m, x: {"y": m.b(h := m.a(x)), "f": [{"h": h}]},
                                                     a=nn.Linear(5, 8), b=nn.Linear(8, 2)), ROW, ""),
    "a feature is returned in a dataclass": (lambda: Made(lambda m, x: [Pair(m.b(h := m.a(x)), {"h": Pair(h, 1)})],
                                                          a=nn.Linear(5, 8), b=nn.Linear(8, 2)), ROW, ""),
    # convolutions
    "convolutions": (lambda: chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), IMAGE, "8:0:1"),
    "one image": (lambda: chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), IMAGE[1:], "8:0:1"),
    "a convolution, its norm": (lambda: chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
                                              nn.Conv2d(8, 4, 3)), IMAGE, "8:1:1"),
    "depthwise": (lambda: chain(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)), IMAGE,
                  "8:1:2"),
    "twice as many, depthwise": (lambda: chain(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(),
                                               nn.Conv2d(8, 4, 1)), IMAGE, "2:0:1 4:1:2"),
    "grouped": (lambda: chain(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 1)), IMAGE,
                "2:1:2 3:0:1 4:1:1"),
    "transposed": (lambda: chain(nn.ConvTranspose2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3)), IMAGE, "8:0:1"),
    "grouped, transposed": (lambda: chain(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 3, groups=2), nn.ReLU(),
                                          nn.Conv2d(6, 4, 1)), IMAGE, "2:1:2 3:0:1 4:1:1"),
    "one axis": (lambda: chain(nn.Conv1d(3, 8, 3, padding="same"), nn.GELU(), nn.AvgPool1d(2), nn.Conv1d(8, 4, 1)),
                 LINE, "8:0:0"),
    "pooled and flattened": (lambda: chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                           nn.Linear(32, 2)), IMAGE, "8:0:1"),
    "pooled over all": (lambda: chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                      nn.Linear(8, 2)), IMAGE, "8:0:1"),
    "group_norm": (lambda: chain(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 4, 1)), IMAGE,
                   "2:0:1 4:0:1"),
    "reflected": (lambda: chain(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")),
                  IMAGE, "8:1:0"),
    "upsampled": (lambda: chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"),
                                nn.Conv2d(8, 4, 3)), IMAGE, "8:0:1"),
    "pixel_shuffle": (lambda: chain(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(2, 4, 1)), IMAGE,
                      "2:0:1"),
    "pixel_unshuffle": (lambda: chain(nn.Conv2d(3, 8, 3), nn.PixelUnshuffle(2), nn.ReLU(), nn.Conv2d(32, 4, 1)), IMAGE,
                        "8:0:1"),
    "channel_shuffle": (lambda: chain(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ChannelShuffle(2),
                                      nn.Conv2d(8, 8, 1, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 1)), IMAGE,
                        "2:0:1 2:0:1 4:0:2"),
    "squeeze and excite": (lambda: Made(squeeze_and_excite, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 2, 1),
                                        down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1)), IMAGE, "4:0:1 8:1:1"),
    # sequences
    "positions": (lambda: Made(lambda m, x: m.b((m.a(x) + m.p).tanh()), a=nn.Linear(6, 8), p=torch.randn(4, 8),
                               b=nn.Linear(8, 2)), WORDS, "8:1:0"),
    "mixed over the positions": (lambda: Made(lambda m, x: m.c(m.b(F.gelu(m.a(x).mT)).mT), a=nn.Linear(6, 8),
                                              b=nn.Linear(4, 4), c=nn.Linear(8, 2)), WORDS, "8:0:0"),
    "RNN": (lambda: recurrent(nn.RNN), (3, 5), "6:1:0"),
    "RNN of relu": (lambda: recurrent(nn.RNN, nonlinearity="relu"), (2, 3, 5), "6:0:1"),
    "LSTM": (lambda: recurrent(nn.LSTM), (2, 3, 5), "6:1:0"),
    "LSTM, both ways, in two layers": (lambda: recurrent(nn.LSTM, num_layers=2, bidirectional=True), (2, 3, 5),
                                       "6:1:0 6:1:0 6:1:0 6:1:0"),
    "GRU": (lambda: recurrent(nn.GRU), (2, 3, 5), "6:1:0"),
    "attention": (lambda: attention(), WORDS, "4h:2:2"),
    "attention, fused": (lambda: attention(fused=True), WORDS, "4h:2:2"),
    "attention, causal": (lambda: attention(fused=True, causal=True), WORDS, "4h:2:2"),
    "ALiBi, learned": (lambda: attention(lambda m: m.slope * torch.arange(4.0), slope=torch.randn(4, 1, 1)), WORDS,
                       "4h:2:2"),
    "ALiBi, given": (lambda: attention(lambda m: torch.tensor([1.0, 0.5, 0.2, 0.1])[:, None, None] * torch.arange(4.0)),
                     WORDS, "3:1:1 3:1:1"),
    "a mask of two axes": (lambda: attention(lambda m: m.mask, fused=True, mask=torch.randn(4, 4)), WORDS, "4h:2:2"),
    "packed": (lambda: Made(packed, qkv=nn.Linear(6, 36), o=nn.Linear(12, 5)), WORDS, "4h:2:2"),
    "interleaved": (lambda: Made(interleaved, qkv=nn.Linear(6, 36), o=nn.Linear(12, 5)), WORDS, "4h:1:0"),
    "a bias by cat": (lambda: Made(with_bias_by_cat, qkv=nn.Linear(6, 36, bias=False), o=nn.Linear(12, 5),
                                   q_bias=torch.randn(12), v_bias=torch.randn(12)), WORDS, "4h:2:2"),
    "rotary": (lambda: Made(rotary, q=nn.Linear(6, 16), k=nn.Linear(6, 16), v=nn.Linear(6, 12), o=nn.Linear(12, 5)),
               WORDS, "4h:2:2"),
    "grouped queries": (lambda: Made(grouped_query, q=nn.Linear(6, 12), k=nn.Linear(6, 6), v=nn.Linear(6, 6),
                                     o=nn.Linear(12, 5)), WORDS, "2h:0:0 2h:2:2"),
    "torch's attention": (lambda: Made(lambda m, x: m.t(*[m.a(x)] * 3), a=nn.Linear(6, 8),
                                       t=nn.MultiheadAttention(8, 2, batch_first=True)), WORDS, "2h:2:2 8:1:1"),
    "torch's attention, masked": (lambda: Made(masked, a=nn.Linear(6, 8), t=nn.MultiheadAttention(8, 2)), WORDS,
                                  "2h:2:2 8:1:1"),
    "torch's layer, norm first": (lambda: chain(nn.Linear(6, 8), nn.TransformerEncoderLayer(
        8, 2, 16, norm_first=True, batch_first=True), nn.Linear(8, 2)), WORDS, "16:0:1 2h:2:2 8:2:2"),
    "torch's layer": (lambda: chain(nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8, 2)), WORDS,
                      "16:0:1 2h:2:2 8:1:1"),
    "torch's transformer": (lambda: Made(lambda m, x: m.b(m.t(m.a(x), m.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 2),
                                         t=nn.Transformer(8, 2, 1, 1, 16)), WORDS,
                            "16:0:1 16:0:1 2h:2:2 2h:2:2 2h:2:2 8:1:1"),
    "learned queries": (lambda: Made(queries, q=torch.randn(3, 6)), WORDS, "3:0:0"),
    "learned queries, in order": (lambda: Made(lambda m, x: queries(m, x, True), q=torch.randn(3, 6)), WORDS, ""),
}  # fmt: skip


def tied_numbers() -> nn.Module:
    """Two parameters, one the transpose of the other in the same memory."""
    model = Made(lambda m, x: m.b(m.a(x).tanh()), a=nn.Linear(5, 8, bias=False), b=nn.Linear(8, 5, bias=False)).double()
    model.b.weight = nn.Parameter(model.a.weight.data.T)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sets_of_a_network_are_those_that_it_has(name):
    build, shape, expected = NETWORKS[name]
    torch.manual_seed(0)
    model = build()
    model = model if name == "tied through numbers" else started(model)
    structure = holds(model, Inputs((torch.randn(shape, dtype=torch.float64),)), expected)
    assert structure.unknown == (("_trilinear",) if name == "bilinear" else ())


@pytest.mark.parametrize(("kind", "expected"), [(nn.LSTM, "6:1:0"), (nn.GRU, "6:1:0"), (nn.RNN, "6:1:0")])
def test_recurrent_layers_are_read_in_the_precision_that_they_are_trained_in(kind, expected):
    torch.manual_seed(0)
    holds(started(recurrent(kind)).float(), Inputs((torch.randn(2, 3, 5),)), expected, rounding=1e-5)
    assert torch.backends.mkldnn.enabled


# ---- models of torchvision -------------------------------------------------------------------------------------------

# How many sets of units some of them have. (ResNet-18: four streams, and what is inside of eight blocks.)
SETS = {"resnet18": 12, "resnet50": 37, "squeezenet1_1": 25, "mnasnet0_5": 25}
FAST = ("resnet18", "squeezenet1_1")
SIZE = re.compile(
    r"_?(\d+(_\d+)?(gf|mf)?|b\d|x\d_\d)$"
)  # at the end of a name: densenet121, efficientnet_b0, regnet_x_3_2gf
OTHERS = re.compile("rcnn|retinanet|ssd|fcos|raft|s3d")  # they detect something, or take two images or large videos


def every() -> list[Any]:
    if "torchvision" not in architectures.available():
        return [pytest.param("", marks=pytest.mark.skip(reason="no torchvision"))]
    names = [name for name in architectures.LIBRARIES["torchvision"]() if not OTHERS.search(name)]
    return [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in names]


@cache
def size(name: str) -> int:
    return sum(p.numel() for p in architectures.on_meta(architectures.LIBRARIES["torchvision"]()[name]).parameters())


def left_out(name: str) -> str | None:
    """Why a model is not tested: larger ones of a kind have more of the same blocks, or wider ones."""
    kind = [other for other in architectures.LIBRARIES["torchvision"]() if SIZE.sub("", other) == SIZE.sub("", name)]
    if size(name) > 3e7:
        return "large"
    if name in SETS or size(name) == min(map(size, kind)) or os.environ.get("SYRE_MODELS") == "all":
        return None
    return "a smaller one of its kind is tested, and this one with SYRE_MODELS=all"


@pytest.mark.parametrize("name", every())
def test_what_is_said_of_models_of_torchvision_is_true(name):
    if reason := left_out(name):
        pytest.skip(reason)
    build = architectures.LIBRARIES["torchvision"]()[name]
    torch.manual_seed(0)
    model = drawn(build())
    inputs = accepted(model)
    structure = read(copy.deepcopy(model), inputs)
    assert len(structure.units) == SETS.get(name, len(structure.units)) >= 10
    distance = apart(model, structure, inputs)
    assert distance < 1e-9
    assert apart(model, structure, inputs, kept=without_reader) > 1e3 * max(distance, 1e-12)  # control
    attentions = {"vit": 12, "swin": 12, "maxvit": 11}
    for kind, least in attentions.items():
        if name.startswith(kind):
            assert len(structure.attentions) >= least
            assert all(one.output_value is not None for one in structure.attentions)


def accepted(model: nn.Module) -> Inputs:
    """A small image or video, or else the first of the guessed inputs that the model takes, with random numbers."""
    small = [Inputs((torch.zeros(1, 3, *shape, dtype=torch.float64),)) for shape in ((64, 64), (4, 32, 32))]
    for inputs in [*small, *guesses(model)]:
        given = Inputs(tuple(torch.randn_like(x) for x in inputs.args), inputs.kwargs)
        try:
            with torch.no_grad():
                model(*given.args, **given.kwargs)
        except (RuntimeError, ValueError, AssertionError):
            continue
        return given
    raise AssertionError("none is taken")
