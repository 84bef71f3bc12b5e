"""Sets of units: what is said of each kind of operation is true (the changed network computes the same), and complete.

Of the sets of a network a row says: how many units, of which kind, and by how many independent changes of sign and of
scale they may differ: "8:1:0" are eight neurons with one change of sign; "4h:0:0" are four heads.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from syre.diagnostics.structure import Inputs, Structure, Units, changed, kernel, named_tensors, read
from syre.diagnostics.trace import tensors_of


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


def numbers(output: Any) -> list[Tensor]:
    return [t for t in tensors_of([output]) if t.is_floating_point() or t.is_complex()]


def apart(model: nn.Module, structure: Structure, inputs: Inputs, *, kept: Callable[[Units], Units] = lambda u: u):
    """How far the output of the changed network is from that of the model, relative to its size."""
    parameters = named_tensors(model)
    some = replace(structure, units=tuple(kept(one) for one in structure.units))
    other = changed(some, parameters, torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = (
            numbers(functional_call(copy.deepcopy(model), tensors, copy.deepcopy(inputs.args), dict(inputs.kwargs)))
            for tensors in (parameters, other)
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
    "instance_norm": (lambda h, own: F.instance_norm(h[..., None].expand(-1, -1, 3) * own(3), None, None, own(8))[..., 0],
                      "8:2:1"),
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
    "cat with zeros": (lambda h, own: torch.cat([h, h.new_zeros(len(h), 3)], -1), "3:0:0 8:1:1"),
    "cat of units one by one": (lambda h, own: torch.cat([h[:, k:k + 1] for k in range(8)], -1), ""),
    "stack": (lambda h, own: torch.stack([h, h.tanh()], -1).flatten(1), "8:1:0"),
    "stack before": (lambda h, own: torch.stack([h, h.relu()], 1).flatten(1), "8:0:1"),
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
    "two axes of other sizes": (lambda h, own: torch.cat([h, h[:, :4]], -1).view(-1, 3, 4).reshape(-1, 12), ""),
    "axes that cut through one another": (lambda h, own: (h[:, :6].reshape(-1, 2, 3) * own(2, 3)).view(-1, 3, 2)
                                          .flatten(1), "2:1:1"),
    "expand": (lambda h, own: h[:, None].expand(-1, 3, -1).flatten(1), "3:0:0 8:1:1"),
    "repeat": (lambda h, own: h.repeat(1, 3), "3:0:0 8:1:1"),
    "repeat_interleave": (lambda h, own: h.repeat_interleave(3, -1), "3:0:0 8:1:1"),
    "pad": (lambda h, own: F.pad(h, (0, 2)), ""),
    "pad and cut": (lambda h, own: F.pad(h, (2, -2)), ""),
    "pad of the batch with ones": (lambda h, own: F.pad(h, (0, 0, 0, 1), value=1.0), "8:0:0"),
    "pad of the batch with zeros": (lambda h, own: F.pad(h, (0, 0, 0, 1)), "8:1:1"),
    "nothing": (lambda h, own: torch.cat([h, h[:, :0]], -1).view(-1, 8), ""),
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
    "pools of the same size": (lambda h, own: F.avg_pool2d(h.view(-1, 1, 8, 1).expand(-1, -1, -1, 2), 3, 1, 1)[:, 0, :, 0],
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
    "unsqueeze_": (lambda h, own: h.unsqueeze_(1).flatten(1), ""),
    "transpose_": (lambda h, own: h.view(-1, 2, 4).transpose_(1, 2).flatten(1), ""),
    "into zeros": (written_into(lambda z, h: z.add_(h)), "8:0:0"),
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
    "three of one": (lambda h, own: then_picked(h @ own(8, 12), lambda q, k, v: torch.cat([q, k.tanh(), v.relu()], -1)),
                     "4:0:1 4:1:0 4:1:1 8:1:1"),
    "three of one, added up elsewhere": (lambda h, own: then_picked(h @ own(8, 12), lambda q, k, v: torch.cat([q, k, v], -1), True),
                                         "8:1:1"),
    "three of one, bent before": (lambda h, own: then_picked(h @ own(8, 12), lambda q, k, v: torch.cat([q, k, v], -1), bend=True),
                                  "8:1:1"),
    "three of one, scaled before": (lambda h, own: then_picked(h @ own(8, 12), lambda q, k, v: torch.cat([q, k, v], -1), by=own(3, 1)),
                                    "4:1:1 8:1:1"),
}  # fmt: skip

UNKNOWN = {"addcdiv": ("addcdiv",), "gather": ("gather",), "trace": ("diagonal",), "* random numbers": ("uniform_",)}


def then_picked(h: Tensor, f: Callable[..., Tensor], added: bool = False, bend: bool = False, by: Tensor | None = None):
    """`f` of three parts of twelve units, and maybe of something made of all three together."""
    x = h.view(-1, 3, 4)
    x = x.relu() if bend else x
    x = x if by is None else x * by
    result = f(*x.unbind(1))
    return torch.cat([result, x.sum(1).pow(2).sum(-1, keepdim=True)], -1) if added else result


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_said_of_the_units_between_two_layers_is_true_and_complete(name):
    operation, expected = BETWEEN[name]
    torch.manual_seed(0)
    model, x = started(Between(operation)), Inputs((torch.randn(3, 5, dtype=torch.float64),))
    structure = holds(model, x, expected, idle=name in ("0 into a slice", "1 into a slice"))
    assert structure.unknown == UNKNOWN.get(name, ())
