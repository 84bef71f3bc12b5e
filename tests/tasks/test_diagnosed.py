"""A network that is diagnosed trains as it does without, and it is the weights of each replica that are looked at."""

from dataclasses import fields

import pytest
import torch
from torch import nn

import syre.tasks.diagnosed as diagnosed
from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Replica, learner
from syre.models import MLP, BetaVAE, CollapsedMLP
from syre.tasks import (
    Classification,
    CollapsedStart,
    DiagnosedAutoencoder,
    DiagnosedClassification,
    DiagnosedStart,
    VariationalAutoencoder,
)
from syre.trainer import Record, Training, train

torch.set_num_threads(1)

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(96) % 3
DATA = Dataset(train_inputs=X, train_targets=Y, test_inputs=X[:40] + 1, test_targets=Y[:40], num_classes=3)
SETTINGS = Training(epochs=2, batch_size=16, evaluations=2)
SCALES = [1.0, 0.5, 2.0]
KINDS = [
    (Classification(), DiagnosedClassification(diagnosed=16), MLP(hidden=[12, 9])),
    (CollapsedStart(), DiagnosedStart(diagnosed=16), CollapsedMLP(hidden=[12], identical=0.5)),
    (VariationalAutoencoder(), DiagnosedAutoencoder(diagnosed=16), BetaVAE(hidden=8, latent=6)),
]


def stacked(spec, size, seed=0):
    """A learner of some networks that start apart, and their batches."""
    replicas = []
    for k in range(size):
        torch.manual_seed(seed + k)
        model = spec.build((6,), 3)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
        noise = torch.Generator().manual_seed(seed + k)
        replicas.append(Replica(model=model, optimizer=optimizer, noise=noise))
    batches = Batches([DATA] * size, scales=SCALES[:size], seeds=list(range(size)), batch_size=16)
    return learner(replicas), batches


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("plain", "asked", "spec"), KINDS, ids=lambda each: type(each).__name__)
def test_it_takes_the_very_steps_that_the_task_takes_and_measures_what_it_measures(plain, asked, spec, size):
    runs = []
    for task in (plain, asked):
        its, batches = stacked(spec, size)
        random = torch.random.get_rng_state()
        records = [event for event in train(its, task, batches, SETTINGS) if isinstance(event, Record)]
        assert torch.equal(random, torch.random.get_rng_state())
        runs.append((records, its.parameters()))
    (before, weights), (after, its_weights) = runs
    assert all(torch.equal(weights[name], its_weights[name]) for name in weights)
    for one, other in zip(before, after, strict=True):
        assert (one.step, one.split) == (other.step, other.split)
        for name, values in one.values.items():
            torch.testing.assert_close(other.values[name], values, rtol=0, atol=0, equal_nan=True)
        more = other.values.keys() - one.values.keys()
        assert not more if one.split == "train" else {"units/twins", "units/dead", "units/symmetric"} < more
        assert all(values.shape == (size,) for values in other.values.values())
        assert all(name.startswith(("score/", "units/")) for name in more)


@pytest.mark.parametrize(("plain", "asked", "spec"), KINDS, ids=lambda each: type(each).__name__)
def test_it_has_the_settings_of_the_task_and_one_of_its_own(plain, asked, spec):
    assert [f.name for f in fields(asked)] == [*(f.name for f in fields(plain)), "diagnosed"]
    with pytest.raises(ValueError, match=r"task\.diagnosed must be a number > 0, got 0"):
        type(asked)(diagnosed=0)


def test_it_is_the_network_of_each_replica_as_it_is_now_that_is_looked_at():
    its, batches = stacked(MLP(hidden=[12, 9]), 3)
    for step in range(3):
        its.step(Classification().loss, batches.train(step), lr_factor=1.0, clip=None)
    inputs = diagnosed.first(batches, 16)
    outputs = its.forward(inputs)
    for k, network in enumerate(diagnosed.networks(its)):
        assert not network.training
        torch.testing.assert_close(network(inputs[k]), outputs[k])
        assert not torch.allclose(its.replicas[k].model(inputs[k]), outputs[k])  # control: the module is as it started
        with torch.no_grad():
            network.layers[0].weight.zero_()
    torch.testing.assert_close(its.forward(inputs), outputs)  # they were copies


@pytest.mark.parametrize("images", [1, 16, 1000])
def test_it_sees_the_first_test_images_each_at_its_own_scale(monkeypatch, images):
    monkeypatch.setattr("syre.batches.EVALUATION_SAMPLES", 30)  # chunks of 10
    _, batches = stacked(MLP(hidden=[4]), 3)
    seen = diagnosed.first(batches, images)
    torch.testing.assert_close(seen, torch.stack([scale * DATA.test_inputs[:images] for scale in SCALES]))


def test_each_score_is_of_its_own_network_with_and_without_images(monkeypatch):
    asked = []

    def diagnose(network: nn.Module, batches=None):
        asked.append((network, batches))
        layer = {"count": 4, "twins": len(asked) % 2, "dead": 0, "symmetric": 3}
        return {"units": [layer, layer | {"count": 1, "twins": 0, "symmetric": 0}], "n": len(asked)}

    scores = {"order": lambda d: d["n"], "not/told": lambda d: None, "some": lambda d: d["n"] if d["n"] > 2 else None}
    monkeypatch.setattr(diagnosed, "diagnose", diagnose)
    monkeypatch.setattr(diagnosed, "SCORES", scores)
    values = DiagnosedClassification(diagnosed=5).evaluate(*stacked(MLP(hidden=[12, 9]), 2), final=False)
    assert [batches if batches is None else [tuple(part.shape) for part in batches] for _, batches in asked] == [
        *([(5, 6)], None) * 2
    ]
    assert values["score/order"].tolist() == [1, 3]
    assert values["score/weights-alone/order"].tolist() == [2, 4]
    assert values["score/some"][0].isnan()
    assert values["score/some"][1] == 3
    assert not [name for name in values if "not/told" in name]
    assert values["units/twins"].tolist() == [0.2, 0.2]
    assert values["units/symmetric"].tolist() == [0.6, 0.6]
    assert values["units/dead"].tolist() == [0, 0]


def test_copies_of_a_neuron_are_found_and_without_copies_there_are_none():
    found = []
    for identical in (0.0, 1.0):
        its, batches = stacked(CollapsedMLP(hidden=[12], identical=identical), 1)
        found.append(DiagnosedStart(diagnosed=16).evaluate(its, batches, final=False)["units/twins"].item())
    assert found == [0, 1]
