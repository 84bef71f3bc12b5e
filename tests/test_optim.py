"""The settings of stock optimizers."""

import pytest
import torch
from torch import nn

from syre.models import ViT
from syre.models.base import Model
from syre.optim import SGD, Adam, decay_groups, decayed
from syre.regularizers import Syre


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (SGD, {"lr": 0.0}, "optim.lr"),
        (SGD, {"lr": float("inf")}, "optim.lr"),
        (SGD, {"lr": 0.1, "momentum": 1.0}, "optim.momentum"),
        (SGD, {"lr": 0.1, "nesterov": True}, "optim.nesterov=true needs optim.momentum"),
        (Adam, {"lr": -1.0}, "optim.lr"),
        (Adam, {"eps": 0.0}, "optim.eps"),
        (Adam, {"betas": [0.9]}, "optim.betas must be two numbers"),
        (Adam, {"betas": [0.9, 1.0]}, "optim.betas"),
    ],
)
def test_settings_out_of_range_are_named(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)


def test_decoupled_adam_is_adamw():
    model = nn.Linear(2, 2)
    assert type(Adam().build(model, 0.1)) is torch.optim.Adam
    assert type(Adam(decoupled=True).build(model, 0.1)) is torch.optim.AdamW


def test_a_model_may_say_which_of_its_parts_decay():
    model = Model()
    model.encoder, model.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
    assert [len(group["params"]) for group in decay_groups(model, 0.1)] == [4]  # control: all of them
    model.decayed = ("decoder",)
    groups = Adam().build(model, 0.1).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0, 0.1]
    assert [p for group in groups for p in group["params"]] == [
        *model.encoder.parameters(),
        *model.decoder.parameters(),
    ]
    assert len(decay_groups(model, 0.0)) == 2  # no decay, the same groups: such replicas can be stacked

    optimizer = SGD(lr=0.1).build(model, 0.1)
    handle = Syre(weight_decay=0.1, sigma=1).attach(optimizer, model, seed=0)
    assert set(handle.anchors) == {"decoder.weight", "decoder.bias"}


def test_the_scope_says_whether_biases_and_norms_decay_and_have_anchors():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    matrices = {"0.weight", "3.weight"}
    assert decayed(model).keys() == dict(model.named_parameters()).keys()
    assert decayed(model, "matrices").keys() == matrices
    optimizer = SGD(lr=0.1).build(model, 0.1, "matrices")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {name: 0.1 * (name in matrices) for name in names.values()}
    assert Syre(weight_decay=0.1, scope="matrices").attach(optimizer, model, seed=0).anchors.keys() == matrices
    vit = ViT(patch=4, dim=8, depth=1, heads=2, mlp=8).build((3, 8, 8), 10)
    tokens = decayed(vit, "matrices").keys() - decayed(vit, "weights").keys()
    assert {name.split(".")[-1] for name in tokens} == {"class_token", "pos_embedding"}
    with pytest.raises(ValueError, match=r"regularizer.scope must be one of all, matrices, weights, got 'norms'"):
        decay_groups(model, 0.1, "norms")
