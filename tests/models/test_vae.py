"""The beta-VAE: its parts, its noise, what of it decays, and replicas that are lone runs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Ensemble, Learner, Replica, learner
from syre.models import BetaVAE
from syre.optim import Adam
from syre.regularizers import Dropout, Syre, Vanilla, WeightDecay
from syre.seeding import derive_seed, generator
from syre.tasks import VariationalAutoencoder
from syre.trainer import Record, Training, train

torch.set_num_threads(1)

PIXELS, SAMPLES = 6, 60
TASK = VariationalAutoencoder(beta=0.5, components=2, images=[1], originals=True)
FIVE = [  # a regularizer for each seed
    Vanilla(),
    WeightDecay(weight_decay=0.1),
    Syre(weight_decay=0.05, sigma=0.7),
    Syre(weight_decay=10, sigma=1.5, start="keep"),
    Dropout(rate=0.3),
]


def gaussian() -> Dataset:
    stream = torch.Generator().manual_seed(0)
    train, test = (torch.randn(SAMPLES, PIXELS, generator=stream, dtype=torch.float64) for _ in range(2))
    labels = torch.zeros(SAMPLES, dtype=torch.int64)
    return Dataset(train_inputs=train, train_targets=labels, test_inputs=test, test_targets=labels, num_classes=1)


def build(regularizer: Any, seed: int) -> Replica:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        model = BetaVAE(hidden=7, latent=3).build((PIXELS,), 1).double()
    regularizer.prepare(model, seed)
    optimizer = Adam(lr=0.01).build(model, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, model, seed)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(seed, "noise"))


def batches_of(seeds: list[int]) -> Batches:
    return Batches([gaussian()] * len(seeds), scales=[1.0] * len(seeds), seeds=seeds, batch_size=8)


def train_all(regularizers: dict[int, Any]) -> tuple[Learner, list[Record]]:
    """Train a regularizer per seed to the end; the learner and its records."""
    team = learner([build(regularizer, seed) for seed, regularizer in regularizers.items()])
    events = train(team, TASK, batches_of(list(regularizers)), Training(steps=30, batch_size=8))
    return team, [event for event in events if isinstance(event, Record)]


def row(team: Learner, k: int) -> dict[str, Tensor]:
    return {name: parameter[k].clone() for name, parameter in team.parameters().items()}


def test_a_replica_is_the_run_trained_alone():
    team, records = train_all(dict(enumerate(FIVE)))
    assert isinstance(team, Ensemble)
    for k, regularizer in enumerate(FIVE):
        alone, its_records = train_all({k: regularizer})
        torch.testing.assert_close(row(team, k), row(alone, 0), rtol=0, atol=1e-10)
        for record, its in zip(records, its_records, strict=True):
            assert list(record.values) == list(its.values)
            for metric, values in record.values.items():
                torch.testing.assert_close(values[k], its.values[metric][0], rtol=1e-8, atol=1e-8, check_dtype=False)
    other, _ = train_all({9: FIVE[0]})  # control
    assert (row(other, 0)["decoder.layers.1.weight"] - row(team, 0)["decoder.layers.1.weight"]).abs().max() > 1e-3


def test_the_vmap_path_equals_the_direct_path(monkeypatch):
    direct, _ = train_all(dict(enumerate(FIVE)))
    monkeypatch.setattr("syre.models.vae.BetaVAEModule.leading_dims", False)
    mapped, _ = train_all(dict(enumerate(FIVE)))
    assert (direct._direct, mapped._direct) == (True, False)
    torch.testing.assert_close(direct.flat, mapped.flat, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2])
def test_only_the_encoder_decays_and_has_anchors(size):
    """Without a gradient from the loss, decay moves the encoder alone, and syre moves it to its anchors."""
    replicas = [build(Syre(weight_decay=1.0, sigma=0.5), seed) for seed in range(size)]
    team, anchors = learner(replicas), [replica.handle.anchors for replica in replicas]
    assert all(name.startswith("encoder.") for name in anchors[0])
    batches = batches_of(list(range(size)))
    before = {name: weight.clone() for name, weight in team.parameters().items()}
    flat_loss = lambda output, *_: 0 * (output[0].sum((-2, -1)) + output[2].sum((-2, -1)))  # noqa: E731
    for step in range(300):
        team.step(flat_loss, batches.train(step), lr_factor=1.0, clip=None)
    for name, weight in team.parameters().items():
        if name.startswith("decoder."):
            assert torch.equal(weight, before[name])
        else:
            for k in range(size):
                start, end = ((w[k] - anchors[k][name]).norm() for w in (before[name], weight))
                assert end < 0.1 * start


def test_the_parts_compose_to_the_whole_and_shapes_are_as_stated():
    module = BetaVAE(hidden=7, latent=3).build((2, 3), 0).eval()
    x = torch.randn(4, 5, 2, 3)
    reconstruction, mean, log_variance = module(x)
    assert reconstruction.shape == (4, 5, 6)
    assert mean.shape == log_variance.shape == (4, 5, 3)
    torch.testing.assert_close(module(x, part="encoder"), (mean, log_variance))
    torch.testing.assert_close(module(mean, part="decoder"), reconstruction)


def test_the_sample_has_the_mean_and_variance_that_the_encoder_says():
    module = BetaVAE(hidden=7, latent=3).build((6,), 0).sample.train()
    n = 40_000
    mean, log_variance = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.0, 1.0, -3.0])
    module.noise = module.draw(n, torch.Generator().manual_seed(0))
    z = module(mean.expand(n, 3), log_variance.expand(n, 3))
    deviation = (log_variance / 2).exp()
    assert ((z.mean(0) - mean).abs() < 4 * deviation / n**0.5).all()
    assert ((z.std(0) / deviation - 1).abs() < 4 / (2 * n) ** 0.5).all()
    assert torch.equal(module.eval()(mean, log_variance), mean)  # no noise in evaluation


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, "model.hidden must be an integer > 0"),
        ({"latent": -1}, "model.latent must be an integer > 0"),
        ({"activation": "sine"}, "model.activation must be one of relu"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BetaVAE(**settings)
