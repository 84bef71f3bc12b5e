"""SimCLR's network: torchvision's ResNet18 without its classifier, and a head on its features."""

import pytest
import torch
from torchvision.models import resnet18

from syre.learners import Ensemble, Replica
from syre.models import SimCLR

torch.set_num_threads(1)
SMALL = SimCLR(width=2, hidden=5, out=3)


def test_the_projections_are_the_heads_of_the_features_which_are_what_the_pooling_gives():
    torch.manual_seed(0)
    module, x = SMALL.build((3, 32, 32), 100), torch.randn(4, 3, 32, 32)
    projections, features = module(x, features=True)
    assert (projections.shape, features.shape) == ((4, 3), (4, 16))
    first, relu, second = module.head
    torch.testing.assert_close(projections, second(relu(first(features))))
    assert (features >= 0).all()  # after the last ReLU, averaged over the image
    assert (projections < 0).any()  # control


def test_the_backbone_is_torchvisions_and_the_head_has_no_batchnorm():
    module, reference = SimCLR().build((3, 32, 32), 100), resnet18()
    shapes = {name: p.shape for name, p in module.named_parameters()}
    theirs = {f"backbone.{name}": p.shape for name, p in reference.named_parameters() if not name.startswith("fc.")}
    head = {"head.0.weight": (512, 512), "head.0.bias": (512,), "head.2.weight": (128, 512), "head.2.bias": (128,)}
    assert shapes == theirs | head

    theirs = {name.removeprefix("backbone."): t for name, t in module.state_dict().items() if "backbone" in name}
    reference.load_state_dict(theirs, strict=False)
    reference.fc, x = torch.nn.Identity(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(module.eval()(x, features=True)[1], reference.eval()(x), rtol=1e-4, atol=1e-5)


def test_the_stem_for_small_images_keeps_their_size_and_the_other_quarters_it():
    sizes = {}
    for stem in ("cifar", "imagenet"):
        module = SimCLR(width=2, stem=stem).build((3, 32, 32), 100)
        module.backbone.layer1.register_forward_hook(lambda *args, stem=stem: sizes.update({stem: args[2].shape[-1]}))
        module(torch.randn(2, 3, 32, 32))
    assert sizes == {"cifar": 32, "imagenet": 8}


def test_the_number_of_classes_plays_no_part():
    networks = []
    for classes in (10, 100):
        torch.manual_seed(0)
        networks.append(SMALL.build((1, 32, 32), classes).state_dict())
    torch.testing.assert_close(*networks, rtol=0, atol=0)


def test_its_running_statistics_are_not_for_replicas():
    replicas = []
    for _ in range(2):
        module = SMALL.build((3, 32, 32), 10)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        replicas.append(Replica(model=module, optimizer=optimizer, noise=torch.Generator()))
    with pytest.raises(ValueError, match="train it alone"):
        Ensemble(replicas)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimCLR(width=0), "model.width must be an integer > 0, got 0"),
        (lambda: SimCLR(out=-1), "model.out must be an integer > 0, got -1"),
        (lambda: SimCLR(stem="wide"), "model.stem must be one of cifar, imagenet, got 'wide'"),
        (lambda: SMALL.build((784,), 10), r"SimCLR takes images \[channels, height, width\]"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
