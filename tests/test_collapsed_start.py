"""An MLP whose last hidden layer starts with copies of one neuron, and how long they stay copies."""

import pytest
import torch
from replicas import Run, build, gaussian, row, train_all

from syre.models import MLP, CollapsedMLP
from syre.optim import SGD, Adam
from syre.regularizers import L2Init, Syre, Vanilla, WeightDecay
from syre.tasks.neurons import hidden_units
from syre.trainer import Training

COLLAPSED = CollapsedMLP(hidden=[9, 12], identical=0.5)
ONE_NEURON = CollapsedMLP(hidden=[9, 12], identical=1)
SETTINGS = Training(steps=200, batch_size=8)
SYMMETRIC = [Vanilla(), WeightDecay(weight_decay=0.02), L2Init(weight_decay=0.04)]
SYRE = Syre(weight_decay=0.02, sigma=0.1, start="keep")


def neurons(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    """The last hidden layer, [units, inputs + 1 + outputs]."""
    return hidden_units({name: tensor[None] for name, tensor in list(parameters.items())[-4:]})[0]


def test_a_fraction_of_the_last_hidden_layer_starts_as_copies_and_the_rest_as_it_would():
    torch.manual_seed(0)
    plain = dict(MLP(hidden=[9, 12]).build((6,), 3).named_parameters())
    torch.manual_seed(0)
    module = COLLAPSED.build((6,), 3)
    collapsed = dict(module.named_parameters())
    assert module.identical == 6
    assert torch.equal(neurons(collapsed)[:6], neurons(plain)[:1].expand(6, -1))
    assert torch.equal(neurons(collapsed)[6:], neurons(plain)[6:])
    for name in ("layers.0.weight", "layers.0.bias", "layers.2.bias"):
        assert torch.equal(collapsed[name], plain[name])


@pytest.mark.parametrize("fraction", [0.0, 1 / 12])
def test_one_copy_of_a_neuron_is_that_neuron(fraction):
    torch.manual_seed(0)
    plain = MLP(hidden=[12]).build((6,), 3)
    torch.manual_seed(0)
    module = CollapsedMLP(hidden=[12], identical=fraction).build((6,), 3)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize(("model", "copied"), [(COLLAPSED, 6), (ONE_NEURON, 12)], ids=["half", "all"])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.float64, 1e-12)], ids=["32", "64"])
@pytest.mark.parametrize("optim", [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9), Adam(lr=0.01)], ids=["sgd", "mom", "adam"])
def test_copies_stay_equal_unless_their_anchors_differ(optim, dtype, rounding, model, copied):
    """Proposition 3, for discrete steps; alone, and in the ensemble's batched matrix products.

    But for rounding, which may differ from row to row of a matrix product, and which training amplifies.
    """
    runs = [Run(regularizer=r, optim=optim, model=model, seed=1) for r in (*SYMMETRIC, SYRE)]
    team, _ = train_all(runs, gaussian(dtype), SETTINGS)
    for k, run in enumerate(runs):
        alone, _ = train_all([run], gaussian(dtype), SETTINGS)
        start = neurons(dict(build(run, dtype).model.named_parameters()))[0]
        for trained in (row(team, k), row(alone, 0)):
            copies = neurons(trained)[:copied]
            apart = (copies - copies[0]).abs().amax(1)[1:]
            assert (apart > 1e-3).all() if run.regularizer is SYRE else (apart < rounding).all()
            assert (copies[0] - start).abs().max() > 1e-2  # control: the copied neuron was trained


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_fraction_out_of_range_is_named(fraction):
    with pytest.raises(ValueError, match=r"model.identical must be a fraction in \[0, 1\]"):
        CollapsedMLP(identical=fraction)
