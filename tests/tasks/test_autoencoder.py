"""The beta-ELBO, the ranks of a posterior that has collapsed, and the linear VAE as a yardstick."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from syre.batches import Batches
from syre.data import Dataset
from syre.learners import Replica, Single
from syre.models import BetaVAE
from syre.tasks import VariationalAutoencoder
from syre.tasks.vae import kl_divergence as closed_form
from syre.tasks.vae import squared_error

torch.set_num_threads(1)

PIXELS, LATENT, SAMPLES = 6, 4, 400


def images(scale: float = 1.0) -> Dataset:
    stream = torch.Generator().manual_seed(0)
    train, test = (torch.randn(SAMPLES, 1, 2, 3, generator=stream, dtype=torch.float64) * scale for _ in range(2))
    labels = torch.zeros(SAMPLES, dtype=torch.int64)
    return Dataset(train_inputs=train, train_targets=labels, test_inputs=test, test_targets=labels, num_classes=1)


def measure(module: torch.nn.Module, task: VariationalAutoencoder, data: Dataset) -> dict[str, float]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    alone = Single(Replica(model=module, optimizer=optimizer, noise=torch.Generator()))
    batches = Batches([data], scales=[1.0], seeds=[0], batch_size=0)
    return {name: value.item() for name, value in task.evaluate(alone, batches, final=True).items()}


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return BetaVAE(hidden=9, latent=LATENT).build((1, 2, 3), 1).double()


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_two_gaussians():
    mean, log_variance = torch.randn(2, 5, 3, 7, dtype=torch.float64)
    exact = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(closed_form(mean, log_variance), exact)
    assert torch.equal(closed_form(torch.zeros(3), torch.zeros(3)), torch.zeros(()))


def test_the_loss_of_a_batch_computed_by_hand():
    """x = (1, 2), x_hat = (0, 4): 5 / 2. m = (3, 0), variances (1, e): (9 + 0 + e - 2) / 2. And a perfect image."""
    inputs = torch.tensor([[[1.0, 2.0]], [[5.0, 5.0]]])
    output = (
        torch.tensor([[0.0, 4.0], [5.0, 5.0]]),
        torch.tensor([[3.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
    )
    for beta in (0.0, 1.0, 10.0):
        loss = VariationalAutoencoder(beta=beta).loss(output, inputs, torch.zeros(2))
        torch.testing.assert_close(loss, torch.tensor((2.5 + beta * (9 + math.e - 2) / 2) / 2))


def test_the_losses_of_r_replicas_are_those_of_each():
    task, inputs = VariationalAutoencoder(beta=3.0), torch.randn(4, 5, 1, 2, 3)
    output = torch.randn(4, 5, 6), torch.randn(4, 5, 2), torch.randn(4, 5, 2)
    each = torch.stack([task.loss(tuple(o[k] for o in output), inputs[k], inputs[k]) for k in range(4)])
    torch.testing.assert_close(task.loss(output, inputs, inputs), each)


# ---- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1 << 16, 90], ids=["one_chunk", "several"])
def test_the_measures_are_those_of_a_direct_computation(chunk, monkeypatch):
    monkeypatch.setattr("syre.batches.EVALUATION_SAMPLES", chunk)
    data, module = images(), network()
    task = VariationalAutoencoder(beta=2.0, thresholds=[1e-2, 1e-3], threshold=1e-2, components=3, images=[2, 0])
    values = measure(module, task, data)
    with torch.no_grad():
        reconstruction, mean, log_variance = module.eval()(data.test_inputs)
    spectrum = torch.linalg.eigvalsh(torch.cov(mean.T, correction=0))
    data_spectrum = torch.linalg.eigvalsh(torch.cov(data.train_inputs.flatten(1).T, correction=0)).flip(0)
    expected = {
        "kl": closed_form(mean, log_variance).mean(),
        "reconstruction/mean": squared_error(reconstruction, data.test_inputs).mean(),
        "reconstruction/variance": reconstruction.var(0, correction=0).sum(),
        "rank": (spectrum > 1e-2).sum(),
        "rank/0.01": (spectrum > 1e-2).sum(),
        "rank/0.001": (spectrum > 1e-3).sum(),
        "active": (mean.var(0, correction=0) > 0.01).sum(),
        "pca/1": data_spectrum[0],
        "pca/3": data_spectrum[2],
        "reconstruction/linear": data_spectrum.clamp(max=2.0).sum() / 2,
        "pixel/2/5": reconstruction[2, 5].round(decimals=2),
        "pixel/0/0": reconstruction[0, 0].round(decimals=2),
    }
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value.double().item(), rtol=1e-8, atol=1e-10, msg=name)
    assert values["loss"] == pytest.approx(values["reconstruction"] + 2 * values["kl"])
    assert len([name for name in values if name.startswith("pixel/")]) == 2 * PIXELS
    assert not [name for name in values if name.startswith("original/") or name == "pca/4"]


def test_a_collapsed_posterior_has_rank_0_and_one_image_and_a_living_one_has_not():
    module, task = network(), VariationalAutoencoder()
    living = measure(module, task, images())
    with torch.no_grad():
        for parameter in module.encoder.parameters():
            parameter.mul_(1e-4)
    collapsed = measure(module, task, images())
    for name in ("rank", "active"):
        assert collapsed[name] == 0 < living[name]
    assert collapsed["reconstruction/variance"] < 1e-9 < 1e-3 < living["reconstruction/variance"]


def test_images_and_components_are_due_at_the_end_only():
    task = VariationalAutoencoder(components=1, images=[0], originals=True)
    optimizer = torch.optim.SGD((module := network()).parameters(), lr=0.1)
    alone = Single(Replica(model=module, optimizer=optimizer, noise=torch.Generator()))
    batches = Batches([images()], scales=[1.0], seeds=[0], batch_size=0)
    before, after = (set(task.evaluate(alone, batches, final=final)) for final in (False, True))
    pixels = {f"{kind}/0/{i}" for kind in ("pixel", "original") for i in range(PIXELS)}
    assert after - before == {"pca/1", "reconstruction/linear", *pixels}


@pytest.mark.parametrize("beta", [1.0, 3.0, 5.0])
def test_the_linear_yardstick_is_the_error_of_the_best_linear_vae(beta):
    """One mode of variance L = 4, m = a x, variance exp(v), x_hat = w z: the best has error min(L, beta) / 2."""
    variance = 4.0
    weights = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def error() -> torch.Tensor:
        a, w, v = weights
        return ((1 - w * a) ** 2 * variance + w**2 * v.exp()) / 2

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        a, _, v = weights
        loss = error() + beta * (a**2 * variance + v.exp() - 1 - v) / 2
        loss.backward()
        return loss

    optimizer.step(objective)
    assert error().item() == pytest.approx(min(variance, beta) / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1.0}, "task.beta must be a number >= 0"),
        ({"threshold": 0.0}, "task.threshold must be a number > 0"),
        ({"thresholds": [0.1, -1.0]}, "task.thresholds must be numbers > 0"),
        ({"components": -1}, "task.components must be a number >= 0"),
        ({"images": [-1]}, "task.images must list integers >= 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        VariationalAutoencoder(**settings)
