"""Models: shapes, any leading dimensions, initialisation, and noise drawn outside the forward pass."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from syre.models import MLP, Dropout, Point


def test_the_default_is_the_four_layer_network_of_300_units():
    module = MLP().build((1, 28, 28), 10)
    assert [tuple(layer.weight.shape) for layer in module.layers] == [(300, 784), (300, 300), (300, 300), (10, 300)]


@pytest.mark.parametrize("leading", [(), (5,), (3, 5)])
def test_an_mlp_takes_any_leading_dimensions_and_gives_its_last_hidden_layer(leading):
    module = MLP(hidden=[6, 4], activation="tanh").build((2, 3), 5)
    x = torch.randn(*leading, 2, 3)
    logits, features = module(x, features=True)
    assert logits.shape == (*leading, 5)
    assert features.shape == (*leading, 4)
    torch.testing.assert_close(module(x), logits, rtol=0, atol=0)
    torch.testing.assert_close(module.layers[-1](features), logits)


def test_an_mlp_is_initialised_as_torch_initialises_linear_layers():
    torch.manual_seed(0)
    module = MLP(hidden=[6]).build((4,), 3)
    torch.manual_seed(0)
    for mine, its in zip(module.layers, [nn.Linear(4, 6), nn.Linear(6, 3)], strict=True):
        assert torch.equal(mine.weight, its.weight)
        assert torch.equal(mine.bias, its.bias)


def test_a_point_is_its_weight_whatever_the_input():
    module = Point(scale=2.0).build((400,), 1)
    torch.testing.assert_close(module(torch.ones(3)), module.form.weight)
    assert module(torch.ones(3)).shape == (1, 400)
    assert abs(module.form.weight.norm() / 2 - 1) < 4 / 800**0.5
    assert [name for name, _ in module.named_parameters()] == ["form.weight"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(activation="sine"), "model.activation must be one of relu, tanh, gelu, silu, got 'sine'"),
        (lambda: MLP(hidden=[]), "model.hidden must list positive widths"),
        (lambda: MLP(hidden=[3, 0]), "model.hidden must list positive widths"),
        (lambda: Point(scale=0.0), "model.scale must be a number > 0"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- dropout ---------------------------------------------------------------------------------------------------------


def dropped(rate: float, x: torch.Tensor, training: bool = True) -> torch.Tensor:
    module = Dropout(x.shape[-1]).train(training)
    module.rate.fill_(rate)
    module.noise = module.draw(x.shape[-2], torch.Generator().manual_seed(0))
    return module(x)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.6])
def test_dropout_keeps_the_mean_and_drops_its_rate(rate):
    y = dropped(rate, torch.ones(500, 200))
    assert abs((y == 0).double().mean() - rate) < 4 * (rate * (1 - rate) / 1e5) ** 0.5 + 1e-12
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - rate)))
    assert abs(y.mean() - 1) < 0.02


def test_dropout_does_nothing_in_evaluation_at_rate_0_or_before_its_first_noise():
    x = torch.randn(7, 5)
    assert torch.equal(dropped(0.5, x, training=False), x)
    assert torch.equal(dropped(0.0, x), x)
    assert torch.equal(Dropout(5)(x), x)
    assert not torch.equal(dropped(0.5, x), x)  # control


def test_dropout_takes_a_rate_per_replica():
    module, x = Dropout(5), torch.randn(2, 7, 5)
    noise = torch.rand(2, 7, 5)
    rates = torch.tensor([0.2, 0.7])
    y = functional_call(module, {"rate": rates, "noise": noise}, (x,))
    for k in range(2):
        alone = functional_call(module, {"rate": rates[k], "noise": noise[k]}, (x[k],))
        torch.testing.assert_close(y[k], alone, rtol=0, atol=0)


def test_noise_is_not_in_the_state_of_the_model_and_the_rate_is():
    module = MLP(hidden=[4]).build((3,), 2)
    module.dropouts[0].noise = torch.rand(9, 4)
    assert "dropouts.0.rate" in module.state_dict()
    assert "dropouts.0.noise" not in module.state_dict()


def test_noise_comes_from_the_given_generator_alone():
    module = Dropout(4)
    before = torch.random.get_rng_state()
    draws = [module.draw(3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
