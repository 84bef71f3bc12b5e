"""The module form: w = theta + b inside the model; its trajectories are in test_equivalence."""

import copy

import pytest
import torch
from torch import nn

from syre.core import attach, canonical_parameters, draw_anchors, merge, parametrize


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


X = torch.linspace(-1, 1, 20, dtype=torch.float64).reshape(4, 5)


def test_shift_starts_at_init_plus_b_and_keep_at_init():
    plain = mlp()
    anchors = draw_anchors(plain, sigma=0.5, seed=3)
    for start in ("shift", "keep"):
        model = parametrize(mlp(), sigma=0.5, seed=3, start=start)
        for i, leaf in ((0, "weight"), (0, "bias"), (2, "weight"), (2, "bias")):
            w, theta = getattr(model[i], leaf), model[i].parametrizations[leaf].original
            init, b = getattr(plain[i], leaf), anchors[f"{i}.{leaf}"]
            torch.testing.assert_close(w, init + b if start == "shift" else init, rtol=0, atol=1e-15)
            torch.testing.assert_close(theta, w - b, rtol=0, atol=1e-15)


def test_merge_keeps_the_function_and_the_parameter_objects_and_leaves_a_plain_model():
    model = mlp()
    objects, names = list(map(id, model.parameters())), list(model.state_dict())
    parametrize(model, sigma=0.5)
    assert sorted(map(id, model.parameters())) == sorted(objects)
    assert canonical_parameters(model).keys() == set(names)
    y = model(X)
    assert merge(model) is model
    assert torch.equal(model(X), y)
    assert sorted(map(id, model.parameters())) == sorted(objects)
    assert set(model.state_dict()) == set(names)
    assert {type(m) for m in model.modules()} == {nn.Sequential, nn.Linear, nn.Tanh}


def test_anchors_travel_with_the_state_dict_and_with_copies():
    model = parametrize(mlp(), sigma=0.5, seed=1)
    other = parametrize(mlp(), sigma=0.5, seed=2)
    assert not torch.equal(other(X), model(X))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(X), model(X))
    assert torch.equal(copy.deepcopy(model)(X), model(X))


def test_recurrent_and_attention_layers_follow_theta():
    for layer, inputs in ((nn.LSTM(3, 4), 1), (nn.GRUCell(3, 4), 1), (nn.MultiheadAttention(4, 2), 3)):
        x = [torch.ones(2, 4 if inputs == 3 else 3)] * inputs
        parametrize(layer, sigma=0.5)
        before = layer(*x)[0]
        before.sum().backward()
        assert all(p.grad is not None for p in layer.parameters())
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.1)
        assert not torch.allclose(layer(*x)[0], before)


def test_frozen_parameters_keep_their_value():
    model, plain = mlp(), mlp()
    model[0].requires_grad_(False)
    parametrize(model, sigma=0.5)
    torch.testing.assert_close(model[0].weight, plain[0].weight, rtol=0, atol=1e-15)
    assert not torch.allclose(model[2].weight, plain[2].weight)


def test_parameters_can_be_chosen_and_merge_finds_them():
    model = parametrize(mlp(), sigma=0.5, parameters=["2.weight"])
    assert torch.nn.utils.parametrize.is_parametrized(model[2], "weight")
    assert not torch.nn.utils.parametrize.is_parametrized(model[0])
    merge(model)


def test_merge_then_attach_keep_goes_on_with_the_same_anchors():
    model = merge(parametrize(mlp(), sigma=0.5, seed=3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    handle = attach(optimizer, model, sigma=0.5, seed=3, start="keep")
    torch.testing.assert_close(model[0].weight - handle.anchors["0.weight"], mlp()[0].weight, rtol=0, atol=1e-15)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.out.weight = self.embed.weight


def test_tied_weights_are_refused_and_a_shared_module_is_not():
    tied = Tied()
    with pytest.raises(ValueError, match=r"embed.weight and out.weight are tied.*syre.attach"):
        parametrize(tied)
    assert tied.out.weight is tied.embed.weight
    layer = nn.Linear(5, 5).double()
    parametrize(nn.Sequential(layer, nn.Tanh(), layer))  # one module, one parametrization


def test_what_parametrize_and_merge_refuse():
    def refused(match, model, **options):
        names = list(model.state_dict())
        with pytest.raises(ValueError, match=match):
            parametrize(model, **options)
        assert list(model.state_dict()) == names

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    refused("with sigma_d > 0", mlp(), sigma_d=0.1)
    refused("with sigma_d > 0", model, optimizer=optimizer)
    refused("sigma_d must be", model, optimizer=optimizer, sigma_d=-0.1)
    refused("no parameter group has weight_decay", model, optimizer=torch.optim.SGD(model.parameters()), sigma_d=0.1)
    refused("start must be", mlp(), start="there")
    refused("sigma must be", mlp(), sigma=-1.0)
    refused("rounded away", mlp().bfloat16())
    refused("no parameter named", mlp(), parameters=["head"])
    refused("parametrized already", parametrize(mlp()))
    with pytest.raises(ValueError, match="nothing to merge"):
        merge(mlp())
    stacked = parametrize(mlp())
    torch.nn.utils.parametrize.register_parametrization(stacked[0], "weight", nn.Tanh())
    with pytest.raises(ValueError, match="another parametrization"):
        merge(stacked)
