"""The CNN of section 6.6: its shapes, its formula, and that a replica of it is the run trained alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Ensemble, Learner, Replica, learner
from syre.models import ContinualCNN
from syre.optim import SGD
from syre.regularizers import Dropout, L2Init, ShrinkPerturb, Syre, SyreAdvanced, Vanilla, WeightDecay, WFix
from syre.seeding import generator
from syre.tasks import Classification
from syre.trainer import Record, Training, train

torch.set_num_threads(1)
SMALL = ContinualCNN(channels=[3, 4], kernel=3, padding=1, hidden=9)
NORMED = replace(SMALL, norm="layer")


def test_the_default_on_mnist():
    module = ContinualCNN().build((1, 28, 28), 10)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters() if parameter.dim() > 1}
    assert shapes == {
        "blocks.0.conv.weight": (16, 1, 5, 5),
        "blocks.1.conv.weight": (32, 16, 5, 5),
        "hidden.weight": (128, 512),
        "output.weight": (10, 128),
    }


@pytest.mark.parametrize(("size", "padding", "inputs"), [((28, 28), 2, 7 * 7), ((8, 8), 2, 2 * 2), ((12, 20), 0, 0)])
def test_the_hidden_layer_takes_what_the_convolutions_leave(size, padding, inputs):
    make = ContinualCNN(channels=[3, 4], padding=padding)
    if inputs:
        assert make.build((1, *size), 10).hidden.in_features == 4 * inputs
    else:
        with pytest.raises(ValueError, match=r"model.kernel 5 and model.padding 0 leave nothing of \(1, 12, 20\)"):
            make.build((1, *size), 10)


def layer_norm(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Each sample less its mean, over its std; then a gain and a shift for each channel, or unit."""
    if isinstance(layer, nn.Identity):
        return x
    rest, each = tuple(range(1, x.dim())), (1, -1, *(1,) * (x.dim() - 2))
    centred = x - x.mean(rest, keepdim=True)
    normal = centred / (centred.square().mean(rest, keepdim=True) + 1e-5).sqrt()
    return normal * layer.weight.view(each) + layer.bias.view(each)


@pytest.mark.parametrize("network", [SMALL, NORMED], ids=["none", "layer"])
def test_the_network_is_convolutions_with_relu_and_pooling_then_two_linear_layers(network):
    torch.manual_seed(0)
    module, x = network.build((2, 8, 8), 5).double(), torch.randn(6, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():  # gains of either sign: a norm and the pooling do not commute then
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    h = x
    for block in module.blocks:
        h = functional.conv2d(h, block.conv.weight, block.conv.bias, padding=1)
        h = functional.max_pool2d(layer_norm(h, block.norm).relu(), 2)
    h = layer_norm(h.flatten(1) @ module.hidden.weight.T + module.hidden.bias, module.norm).relu()
    logits, features = module(x, features=True)
    torch.testing.assert_close(features, h)
    torch.testing.assert_close(logits, h @ module.output.weight.T + module.output.bias)
    torch.testing.assert_close(module(x), logits, rtol=0, atol=0)


@pytest.mark.parametrize("network", [SMALL, NORMED], ids=["none", "layer"])
def test_it_is_initialised_as_torch_initialises_its_layers(network):
    torch.manual_seed(0)
    module = network.build((1, 8, 8), 5)
    torch.manual_seed(0)
    for mine, its in (
        (module.blocks[0].conv, nn.Conv2d(1, 3, 3)),
        (module.blocks[1].conv, nn.Conv2d(3, 4, 3)),
        (module.hidden, nn.Linear(16, 9)),
        (module.output, nn.Linear(9, 5)),
    ):
        assert torch.equal(mine.weight, its.weight)
        assert torch.equal(mine.bias, its.bias)


def test_a_layer_norm_is_before_each_relu_and_without_it_nothing_is_new():
    plain, normed = (dict(network.build((1, 8, 8), 5).named_parameters()) for network in (SMALL, NORMED))
    new = {name: tuple(parameter.shape) for name, parameter in normed.items() if name not in plain}
    norms = {"blocks.0.norm": (3,), "blocks.1.norm": (4,), "norm": (9,)}
    assert new == {f"{name}.{leaf}": shape for name, shape in norms.items() for leaf in ("weight", "bias")}
    assert plain.keys() < normed.keys()


@pytest.mark.parametrize("network", [SMALL, NORMED], ids=["none", "layer"])
def test_its_memory_is_channels_last_and_changes_no_number(network):
    torch.manual_seed(0)
    module, x = network.build((2, 8, 8), 5), torch.randn(7, 2, 8, 8)
    assert module.blocks[1].conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not module.blocks[1].conv.weight.is_contiguous()
    logits = module(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, module.to(memory_format=torch.contiguous_format)(x))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"channels": []}, "channels"),
        ({"channels": [3, 0]}, "channels"),
        ({"kernel": 0}, "kernel"),
        ({"padding": -1}, "padding"),
        ({"hidden": 0}, "hidden"),
        ({"norm": "batch"}, "norm"),
    ],
)
def test_settings_out_of_range_are_named(settings, key):
    with pytest.raises(ValueError, match=f"model.{key} must"):
        ContinualCNN(**settings)


def test_flat_inputs_are_refused():
    with pytest.raises(ValueError, match=r"takes images .*, not inputs of shape \(64,\)"):
        SMALL.build((64,), 10)


# ---- as a replica ----------------------------------------------------------------------------------------------------

ALL = [
    Vanilla(),
    WeightDecay(weight_decay=0.02),
    Syre(weight_decay=0.05, sigma=0.7),
    L2Init(weight_decay=0.04),
    SyreAdvanced(weight_decay=0.03, sigma=0.3, sigma_d=0.2),
    Dropout(rate=0.3, weight_decay=0.01),
    WFix(fraction=0.2, kappa=0.5),
    ShrinkPerturb(weight_decay=0.1),
]
SETTINGS = Training(steps=30, batch_size=8, evaluations=3)


def pictures() -> Dataset:
    """Gaussian images of 8 x 8, in three tasks."""
    stream = torch.Generator().manual_seed(0)
    inputs = [torch.randn(24, 1, 8, 8, generator=stream, dtype=torch.float64) for _ in range(2)]
    labels = [torch.randint(3, (24,), generator=stream) for _ in range(2)]
    orders = torch.stack([torch.randperm(64, generator=stream) for _ in range(3)])
    return Dataset(
        train_inputs=inputs[0],
        train_targets=labels[0],
        test_inputs=inputs[1],
        test_targets=labels[1],
        num_classes=3,
        permutations=orders,
    )


def build(network: ContinualCNN, regularizer, seed: int) -> Replica:
    torch.manual_seed(seed)
    model = network.build((1, 8, 8), 3).double()
    regularizer.prepare(model, seed)
    optimizer = SGD(lr=0.05, momentum=0.9).build(model, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, model, seed)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(seed, "noise"))


def trained(network: ContinualCNN, seeds: list[int]) -> tuple[Learner, list[Record]]:
    """Run k has the k-th of the regularizers and seed k."""
    team = learner([build(network, ALL[k], k) for k in seeds])
    batches = Batches([pictures()] * len(seeds), scales=[1.0] * len(seeds), seeds=seeds, batch_size=8)
    return team, [event for event in train(team, Classification(), batches, SETTINGS) if isinstance(event, Record)]


@pytest.mark.parametrize("network", [SMALL, NORMED], ids=["none", "layer"])
def test_a_replica_is_the_run_trained_alone_under_every_regularizer(network):
    team, records = trained(network, [*range(len(ALL))])
    assert isinstance(team, Ensemble)
    for k in range(len(ALL)):
        alone, its = trained(network, [k])
        for name, weight in alone.parameters().items():
            torch.testing.assert_close(team.parameters()[name][k], weight[0], rtol=0, atol=1e-10)
        for metric, values in records[-1].values.items():
            torch.testing.assert_close(values[k], its[-1].values[metric][0], rtol=1e-8, atol=1e-8, check_dtype=False)
    assert (team.flat[1] - team.flat[0]).abs().max() > 1e-3  # control: they are different runs
