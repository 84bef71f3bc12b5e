"""Diagonal linear networks: their formula, their start, and the symmetries of the reparametrised one."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from syre.core import anchor_std, slots
from syre.models import DiagonalLinear

D = 9


def network(depth: int) -> nn.Module:
    torch.manual_seed(0)
    return DiagonalLinear(depth=depth).build((D,), 1).double()


def with_factors(module: nn.Module, *factors: torch.Tensor) -> torch.Tensor:
    x = torch.randn(6, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return functional_call(module, {f"factors.{k}.weight": factor for k, factor in enumerate(factors)}, (x,))


def factors_of(module: nn.Module) -> list[torch.Tensor]:
    return [factor.weight.detach() for factor in module.factors]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_coefficients_are_the_products_of_the_factors(depth):
    module, x = network(depth), torch.randn(6, D, dtype=torch.float64)
    coefficients = torch.stack(factors_of(module)).prod(0)
    torch.testing.assert_close(module(x), x @ coefficients.T)
    assert [name for name, _ in module.named_parameters()] == [f"factors.{k}.weight" for k in range(depth)]


def test_the_factors_start_as_linear_layers_do_and_have_their_scale():
    module = DiagonalLinear(depth=2).build((400,), 1)
    for slot in slots(module).values():
        assert abs(slot.parameter.std() * (3 * 400) ** 0.5 - 1) < 0.15
        assert anchor_std(slot, 0.1) == pytest.approx(0.1 / 400**0.5)


def test_the_sign_of_a_pair_and_the_scale_between_its_factors_are_symmetries():
    module = network(2)
    u, w = factors_of(module)
    before, flip, scale = with_factors(module, u, w), torch.ones(1, D).double(), torch.ones(1, D).double()
    flip[0, 3], scale[0, 3] = -1, 1.7
    torch.testing.assert_close(with_factors(module, u * flip, w * flip), before)
    torch.testing.assert_close(with_factors(module, u * scale, w / scale), before)
    for changed in (with_factors(module, u * flip, w), with_factors(module, u * scale, w)):  # control
        assert (changed - before).abs().max() > 1e-3


def test_a_dead_neuron_gets_no_gradient():
    module, x = network(2), torch.randn(6, D, dtype=torch.float64)
    with torch.no_grad():
        for factor in module.factors:
            factor.weight[0, 4] = 0
    module(x).sum().backward()
    for factor in module.factors:
        assert factor.weight.grad[0, 4] == 0
        assert (factor.weight.grad[0, :4] != 0).all()


def test_depth_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"model.depth must be an integer > 0, got 0"):
        DiagonalLinear(depth=0)
