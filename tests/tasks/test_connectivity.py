"""The loss along the line between two networks, and how far it rises above its ends."""

import pytest
import torch
from torch import nn

from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Replica, learner
from syre.models import Pair
from syre.tasks import ModeConnectivity
from syre.tasks.classification import cross_entropy

torch.set_num_threads(1)
INPUTS, CLASSES, SAMPLES = 6, 3, 60
TASK = ModeConnectivity(points=5)
LINE = ("0.0000", "0.2500", "0.5000", "0.7500", "1.0000")


def gaussian() -> Dataset:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, INPUTS, generator=stream, dtype=torch.float64)
    y = torch.randint(CLASSES, (SAMPLES,), generator=stream)
    return Dataset(train_inputs=x, train_targets=y, test_inputs=x, test_targets=y, num_classes=CLASSES)


def measured(modules: list[nn.Module], *, final: bool = True) -> dict[str, torch.Tensor]:
    replicas = [
        Replica(model=m, optimizer=torch.optim.SGD(m.parameters(), lr=0.1), noise=torch.Generator()) for m in modules
    ]
    data, size = gaussian(), len(modules)
    batches = Batches([data] * size, scales=[1.0] * size, seeds=[0] * size, batch_size=8)
    return TASK.evaluate(learner(replicas), batches, final=final)


def pair(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Pair(hidden=[7, 8]).build((INPUTS,), CLASSES).double()


def permuted() -> nn.Module:
    """A pair whose second network is the first with the units of its first layer in another order."""
    module = pair()
    a, b = module.nets
    b.load_state_dict(a.state_dict())
    with torch.no_grad():
        for tensor in (b.layers[0].weight, b.layers[0].bias, b.norms[0].weight, b.norms[0].bias):
            tensor.copy_(tensor.flip(0))
        b.layers[1].weight.copy_(b.layers[1].weight.flip(1))
    return module


def test_the_loss_is_the_sum_of_the_two_means():
    module, x = pair(), gaussian().train_inputs[:10]
    targets = gaussian().train_targets[:10]
    parts = [cross_entropy(net(x[k]), targets[k]) for net, k in zip(module.nets, (slice(5), slice(5, 10)), strict=True)]
    torch.testing.assert_close(TASK.loss(module(x), x, targets), parts[0] + parts[1])


def test_equal_networks_have_no_barrier_and_permuted_ones_have_one():
    equal = pair()
    equal.nets[1].load_state_dict(equal.nets[0].state_dict())
    flat, humped = measured([equal]), measured([permuted()])
    for metric in ("loss", "accuracy"):
        for name in (f"barrier/{metric}", f"barrier/{metric}/max"):
            assert abs(flat[name]) < 1e-12
        torch.testing.assert_close(humped[f"{metric}/0.0000"], humped[f"{metric}/1.0000"])  # the same function
    assert abs(humped["barrier/loss"]) > 1e-3
    assert flat["distance"] < 1e-12 < 0.1 < humped["distance"]


def test_the_barriers_are_what_the_curve_says():
    values = measured([pair(), pair(1)])
    for metric, sign in (("loss", 1), ("accuracy", -1)):
        curve = torch.stack([values[f"{metric}/{at}"] for at in LINE])
        chord = torch.lerp(curve[0], curve[-1], torch.linspace(0, 1, 5, dtype=curve.dtype).unsqueeze(1))
        torch.testing.assert_close(values[metric], (curve[0] + curve[-1]) / 2)
        torch.testing.assert_close(values[f"barrier/{metric}"], sign * (curve[2] - (curve[0] + curve[-1]) / 2))
        torch.testing.assert_close(values[f"barrier/{metric}/max"], (sign * (curve - chord)).amax(0))
        torch.testing.assert_close(values[f"worst/{metric}"], curve.amax(0) if sign > 0 else curve.amin(0))


def test_the_ends_are_the_two_networks():
    module, data = pair(), gaussian()
    values = measured([module])
    for at, net in zip((LINE[0], LINE[-1]), module.nets, strict=True):
        torch.testing.assert_close(values[f"loss/{at}"][0], cross_entropy(net(data.test_inputs), data.test_targets))


def test_before_the_end_only_the_ends_are_measured():
    values = measured([pair()], final=False)
    assert set(values) == {"loss", "accuracy", "rank", "rank/effective", "distance"}
    torch.testing.assert_close(values["loss"], measured([pair()])["loss"])


@pytest.mark.parametrize("points", [1, 24])
def test_the_line_has_a_middle(points):
    with pytest.raises(ValueError, match="points must be odd and >= 3"):
        ModeConnectivity(points=points)
