"""Stock models: those of a library as they come, but without randomness in the forward pass."""

import sys

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import StochasticDepth

from syre.models import Stock
from syre.models.base import has_running_statistics
from syre.models.stock import silence

torch.set_num_threads(1)


def built(network, seed=0, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Stock(network=network, **settings).build((3, 32, 32), 7)


@pytest.mark.parametrize(("network", "width"), [("shufflenet_v2_x0_5", 1024), ("efficientnet_b0", 1280)])
def test_it_gives_logits_and_what_its_last_layer_reads(network, width):
    model, x = built(network).eval(), torch.randn(3, 3, 32, 32)
    logits, features = model(x, features=True)
    assert (logits.shape, features.shape) == ((3, 7), (3, width))
    torch.testing.assert_close(model(x), logits, rtol=0, atol=0)
    torch.testing.assert_close(model.net.get_submodule(model.last)(features), logits)
    hooked = [name for name, module in model.named_modules() if module._forward_pre_hooks]
    assert not hooked  # an ensemble refuses hooks, and a copy would keep them


def test_it_is_torchvisions_network_with_its_names_and_its_start():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()
    mine, x = built("shufflenet_v2_x0_5").eval(), torch.randn(2, 3, 32, 32)
    assert all(torch.equal(mine.net.state_dict()[name], value) for name, value in theirs.state_dict().items())
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-4, atol=1e-5)
    assert not torch.equal(built("shufflenet_v2_x0_5", seed=1).net.fc.weight, mine.net.fc.weight)  # control


def test_training_draws_nothing_from_the_global_generator():
    """EfficientNet has dropout and stochastic depth; each run draws its noise from a stream of its own."""
    model, x = built("efficientnet_b0").train(), torch.randn(4, 3, 32, 32)
    random = torch.random.get_rng_state()
    once = model(x)
    assert torch.equal(random, torch.random.get_rng_state())
    assert torch.equal(model(x), once)
    loud = torchvision.models.efficientnet_b0(num_classes=7).train()
    loud(x)
    assert not torch.equal(random, torch.random.get_rng_state())  # control: as it comes it does draw


def test_what_drops_is_switched_off_and_nothing_else():
    depth, attention, plain = StochasticDepth(0.3, "row"), nn.MultiheadAttention(4, 2, dropout=0.2), nn.Softshrink(0.4)
    plain.p = 3.0
    for module in (depth, attention, nn.Dropout2d(0.1), plain):
        silence(module)
    assert (depth.p, attention.dropout) == (0, 0)
    assert (plain.lambd, plain.p) == (0.4, 3.0)


def test_images_are_enlarged_to_the_size_that_is_asked_for():
    sizes = []
    model = built("shufflenet_v2_x0_5", size=64).eval()
    model.net.conv1.register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape)))
    model(torch.randn(2, 3, 32, 32))
    assert sizes == [(2, 3, 64, 64)]


def test_a_transformer_is_built_for_the_size_of_the_images():
    model = built("vit_b_32", size=64)
    assert model.net.image_size == 64
    assert not has_running_statistics(model)
    assert has_running_statistics(built("shufflenet_v2_x0_5"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"library": "jax"}, "model.library must be one of torchvision, timm, got 'jax'"),
        ({"network": "resnet"}, "model.network must be one of alexnet, .*, wide_resnet50_2, got 'resnet'"),
        ({"network": "fcn_resnet50"}, "model.network must be one of .*, got 'fcn_resnet50'"),  # it segments
        ({"network": "squeezenet1_1"}, "model.network must end in a linear layer, .*: SqueezeNet does not"),
        ({"size": -1}, "model.size must be a number >= 0, got -1"),
    ],
)
def test_settings_out_of_range_are_named(settings, line):
    with pytest.raises(ValueError, match=line):
        Stock(**settings).build((3, 32, 32), 7)


@pytest.mark.parametrize(
    ("shape", "line"), [((1, 8, 8), "3 channels, not 1"), ((3, 8, 9), "square images"), ((20,), "square images")]
)
def test_inputs_that_it_does_not_take_are_named(shape, line):
    with pytest.raises(ValueError, match=f"a model of torchvision takes .*{line}"):
        Stock(network="shufflenet_v2_x0_5").build(shape, 7)


def test_without_timm_one_line_says_where_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"^timm is not installed: `make diagnostics` builds .venv-frameworks"
    ):
        Stock(library="timm", network="test_vit").build((3, 32, 32), 7)
