"""The hidden units that a model says it has are those that it has."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from syre.models import MLP, CollapsedMLP, ContinualCNN, Model, Pair, Units
from syre.models.mlp import NORMS, MLPModule
from syre.models.units import initial_rows

torch.set_num_threads(1)
IMAGES = (2, 8, 8)
CNN = ContinualCNN(channels=[3, 4], kernel=3, padding=1, hidden=9)
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(hidden=[7, 5]).build(IMAGES, 3),
    "mlp with norms": lambda: MLPModule([2 * 8 * 8, 7, 5, 3], nn.GELU, 3, NORMS["layer"]),
    "collapsed_mlp": lambda: CollapsedMLP(hidden=[6], identical=0.5).build(IMAGES, 3),
    "cnn": lambda: CNN.build(IMAGES, 3),
    "cnn with norms": lambda: replace(CNN, norm="layer").build(IMAGES, 3),
}
SIZES = {"mlp": [(7, 1), (5, 1)], "collapsed_mlp": [(6, 1)], "cnn": [(3, 1), (4, 4), (9, 1)]}  # units, and copies


@pytest.fixture(params=MODELS)
def named(request) -> tuple[str, Model]:
    """A model in float64, its norms away from where they start."""
    module = MODELS[request.param]().double()
    for part in module.modules():
        if isinstance(part, nn.LayerNorm | nn.GroupNorm):
            for parameter in part.parameters():
                nn.init.normal_(parameter)
    return request.param, module


def permuted(units: Units, order: Tensor, read: bool = True) -> None:
    with torch.no_grad():
        for _, _, parameter in units.written():
            parameter.copy_(parameter[order])
        if read:
            units.reader.weight.copy_(units.reader.weight[:, units.columns(order)])


def test_they_are_as_many_as_it_has(named):
    name, module = named
    assert [(units.count, units.copies) for units in module.units()] == SIZES[name.split()[0]]
    assert all(module.get_submodule(units.name) is units.writers[0] for units in module.units())


def test_permuted_they_compute_the_same(named):
    _, module = named
    x = torch.randn(4, *IMAGES, dtype=torch.float64)
    before = module(x)
    for units in module.units():
        permuted(units, torch.arange(units.count).roll(1))
        torch.testing.assert_close(module(x), before, rtol=0, atol=1e-12)
    permuted(units, torch.arange(units.count).roll(1), read=False)
    assert (module(x) - before).abs().max() > 1e-6  # control: what reads them is part of it


def test_a_unit_is_what_its_place_puts_out_and_its_columns_take_in(named):
    """To take its columns out of what reads it is to take its output out."""
    _, module = named
    x = torch.randn(4, *IMAGES, dtype=torch.float64)
    whole = module(x)
    for units in module.units():
        changes, weight = [], units.reader.weight.detach().clone()
        for unit in torch.arange(units.count).split(1):
            hook = units.place.register_forward_hook(lambda _, __, h, u=unit, its=units: h.index_fill(its.axis, u, 0.0))
            without = module(x)
            hook.remove()
            with torch.no_grad():
                units.reader.weight.index_fill_(1, units.columns(unit), 0.0)
            torch.testing.assert_close(module(x), without, rtol=0, atol=1e-12)
            with torch.no_grad():
                units.reader.weight.copy_(weight)
            changes.append((without - whole).abs().max())
        assert max(changes) > 1e-6  # control: not all of them are dead


def test_all_that_is_not_of_the_last_layer_writes_units(named):
    _, module = named
    written = {id(parameter) for units in module.units() for _, _, parameter in units.written()}
    last = {id(parameter) for parameter in module.units()[-1].reader.parameters()}
    assert {id(parameter) for parameter in module.parameters()} == written | last


def test_new_rows_are_drawn_as_the_first_ones_were(named):
    _, module = named
    stream = torch.Generator().manual_seed(0)
    for part, leaf, parameter in module.units()[0].written():
        rows = initial_rows(part, leaf, 2000, stream)
        assert rows.shape == (2000, *parameter.shape[1:])
        fresh = torch.cat([type_like(part, leaf) for _ in range(200)])
        torch.testing.assert_close(rows.abs().max(), fresh.abs().max(), rtol=2e-2, atol=0)
        torch.testing.assert_close(rows.std(), fresh.std(), rtol=5e-2, atol=0)
        torch.testing.assert_close(rows.mean(), fresh.mean(), rtol=0, atol=5e-2)


def type_like(part: nn.Module, leaf: str) -> Tensor:
    """As torch draws this parameter."""
    part.reset_parameters()
    return getattr(part, leaf).detach().float().clone()


def test_rows_of_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="not known how a Bilinear is initialised"):
        initial_rows(nn.Bilinear(2, 2, 2), "weight", 1, torch.Generator())


def test_a_model_that_does_not_say_has_none():
    assert Model().units() == Pair(hidden=[4]).build((3,), 2).units() == ()
