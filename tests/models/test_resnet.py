"""ResNet18: torchvision's network, at any width, behind one of two stems."""

import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from syre.core import draw_anchors
from syre.models import ResNet18


def built(**settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet18(**settings).build((3, 32, 32), 10)


def test_with_the_large_stem_it_is_torchvisions_resnet18():
    mine, theirs = built(stem="imagenet"), torchvision.models.resnet18(num_classes=10)
    theirs.load_state_dict(mine.state_dict())  # the same names and shapes
    mine, theirs = mine.double().train(), theirs.double().train()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(mine(x), theirs(x), rtol=0, atol=1e-10)
    assert not torch.allclose(built(stem="imagenet").double()(x), built().double()(x))  # control: another stem


def test_it_starts_as_torchvisions_does():
    mine, theirs = built(stem="imagenet"), torchvision.models.resnet18(num_classes=10)
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        if a.dim() > 1:
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.1), name
        else:
            assert name == "fc.bias" or torch.equal(a, b)


def test_the_small_stem_keeps_the_size_of_the_image():
    sizes = []
    model = built(width=4)
    model.layer1.register_forward_hook(lambda module, args, output: sizes.append(tuple(output.shape)))
    logits, features = model(torch.randn(2, 3, 32, 32), features=True)
    assert sizes == [(2, 4, 32, 32)]
    assert (logits.shape, features.shape) == ((2, 10), (2, 32))
    assert torch.equal(model.eval().fc(features), nn.functional.linear(features, model.fc.weight, model.fc.bias))


@pytest.mark.parametrize(("width", "fast"), [(16, True), (64, True), (15, False), (7, False), (4, False)])
def test_only_networks_whose_strided_pointwise_convolutions_are_wide_are_channels_last(width, fast):
    assert built(width=width).conv1.weight.is_contiguous(memory_format=torch.channels_last) is fast


NARROW = """
import torch
from syre.models import ResNet18

torch.set_num_threads(1)
torch.manual_seed(0)
for width in (*range(1, 10), 12, 15, 16, 20):
    print("width", width, flush=True)
    spec = ResNet18(width=width, stem="imagenet")
    model, exact = spec.build((3, 32, 32), 10), spec.build((3, 32, 32), 10).double()
    exact.load_state_dict(model.state_dict())
    x = torch.randn(8, 3, 32, 32)
    for network, inputs in ((model, x), (exact, x.double())):
        network(inputs).square().sum().backward()
    largest = max(q.grad.abs().max() for q in exact.parameters())
    for p, q in zip(model.parameters(), exact.parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() <= 1e-3 * largest
"""


@pytest.mark.slow
def test_gradients_of_networks_of_any_width_are_those_of_float64():
    """In a process of its own: what a kernel writes past its memory may crash it."""
    done = subprocess.run([sys.executable, "-c", NARROW], capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode} at {done.stdout.split()[-1]}: {done.stderr[-300:]}"


def test_it_takes_images_of_any_size_and_channels():
    assert ResNet18(width=4).build((1, 8, 8), 3)(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_every_parameter_gets_an_anchor():
    model = built(width=4)
    assert set(draw_anchors(model, sigma=0.1, seed=0)) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(("settings", "key"), [({"width": 0}, "model.width"), ({"stem": "vit"}, "model.stem")])
def test_settings_out_of_range_are_named(settings, key):
    with pytest.raises(ValueError, match=key):
        ResNet18(**settings)


def test_flat_inputs_are_refused():
    with pytest.raises(ValueError, match="a ResNet takes images"):
        ResNet18().build((784,), 10)
