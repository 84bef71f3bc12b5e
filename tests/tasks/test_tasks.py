"""Tasks: the objectives have the symmetries they claim, and R replicas are measured as one alone."""

import pytest
import torch
from torch import nn

from syre import metrics
from syre.batches import Batches
from syre.data.synthetic import RandomMatrix
from syre.learners import Replica, Single, learner
from syre.models import MLP, Point
from syre.tasks import Classification, MatrixObjective
from syre.tasks.classification import cross_entropy
from syre.tasks.matrix import OBJECTIVES, factorisation, spectral

N = 12


def symmetric(seed: int = 0) -> torch.Tensor:
    g = torch.randn(N, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (g + g.T) / (2 * N) ** 0.5


def point(seed: int = 0) -> torch.Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64)


def reflected(w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return w - 2 * v * (v @ w) / (v @ v)


# ---- section 6.2 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_objectives_are_invariant_under_the_n_reflections_and_no_other(objective):
    w, a = point(), symmetric()
    for v in torch.linalg.eigh(a).eigenvectors.T:
        torch.testing.assert_close(objective(reflected(w, v), a), objective(w, a), rtol=1e-12, atol=1e-12)
    for seed in range(5):  # control: a reflection in a random vector
        assert (objective(reflected(w, point(seed + 1)), a) - objective(w, a)).abs() > 1e-3


def test_the_factorisation_objective_is_its_formula():
    w, a = point(), symmetric()
    formula = ((a - torch.outer(w, w)).square().sum() - a.square().sum()) / 4
    torch.testing.assert_close(factorisation(w, a), formula)


def test_the_minimum_of_factorisation_is_the_top_eigenvector_and_of_spectral_the_roots():
    values, vectors = torch.linalg.eigh(symmetric())
    w = vectors[:, -1] * values[-1].sqrt()
    torch.testing.assert_close(factorisation(w, symmetric()), -values[-1].square() / 4)
    positive = symmetric() + 3 * torch.eye(N, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(positive)
    signs = torch.where(torch.arange(N) % 2 == 0, 1.0, -1.0).double()
    w = vectors @ (signs * values.sqrt())
    torch.testing.assert_close(spectral(w, positive), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_objectives_of_r_points_are_those_of_each_on_shared_and_on_own_matrices(objective):
    w, a = torch.stack([point(k) for k in range(3)]), torch.stack([symmetric(k) for k in range(3)])
    torch.testing.assert_close(objective(w, a), torch.stack([objective(w[k], a[k]) for k in range(3)]))
    shared = a[0].expand(3, N, N)
    torch.testing.assert_close(objective(w, shared), torch.stack([objective(w[k], a[0]) for k in range(3)]))


def replica(model: nn.Module) -> Replica:
    return Replica(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), noise=torch.Generator())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("size", [1, 3])
def test_the_degree_of_symmetry_and_the_rank_add_up_to_n(objective, size):
    data = RandomMatrix(size=N).load(seed=0)
    models = [Point().build(data.input_shape, 1) for _ in range(size)]
    vectors = torch.linalg.eigh(data.train_inputs[0]).eigenvectors
    with torch.no_grad():
        models[0].form.weight.copy_(vectors[:, :4].sum(1))  # on N - 4 mirror planes
    batches = Batches([data] * size, scales=[1.0] * size, seeds=[0] * size, batch_size=0)
    task = MatrixObjective(objective=objective, thresholds=[0.05, 0.5])
    values = task.evaluate(learner([replica(model) for model in models]), batches, final=True)
    assert values["symmetry/0.05"][0] == N - 4
    assert torch.equal(values["symmetry/0.05"] + values["rank"], torch.full((size,), N, dtype=torch.float64))
    assert (values["symmetry/0.5"] >= values["symmetry/0.05"]).all()
    w = models[0].form.weight[0].detach()
    torch.testing.assert_close(values["loss"][0], OBJECTIVES[objective](w, data.train_inputs[0]))


# ---- classification --------------------------------------------------------------------------------------------------


def images(n: int = 40):
    from syre.data import Dataset

    stream = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(n, 2, 3, generator=stream), torch.randint(4, (n,), generator=stream)
    return Dataset(
        train_inputs=inputs, train_targets=targets, test_inputs=inputs + 1, test_targets=targets, num_classes=4
    )


def test_cross_entropy_of_r_replicas_is_torchs_of_each():
    logits, labels = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    each = torch.stack([nn.functional.cross_entropy(logits[k], labels[k]) for k in range(3)])
    torch.testing.assert_close(cross_entropy(logits, labels), each)
    torch.testing.assert_close(cross_entropy(logits[0], labels[0]), each[0])
    torch.testing.assert_close(cross_entropy(logits.unsqueeze(0), labels.unsqueeze(0)), each.unsqueeze(0))


@pytest.mark.parametrize("chunk", [1 << 16, 21], ids=["one_chunk", "several"])
def test_classification_measures_each_replica_as_a_lone_computation_would(chunk, monkeypatch):
    monkeypatch.setattr("syre.batches.EVALUATION_SAMPLES", chunk)
    data, task = images(), Classification(thresholds=[0.1, 1e-3], spectrum=[1, 3, 9, 99])
    models = [MLP(hidden=[12, 9]).build(data.input_shape, 4) for _ in range(3)]
    scales = [1.0, 0.5, 2.0]
    batches = Batches([data] * 3, scales=scales, seeds=[0] * 3, batch_size=8)
    values = task.evaluate(learner([replica(model) for model in models]), batches, final=True)
    for k, model in enumerate(models):
        with torch.no_grad():
            logits, features = model(data.test_inputs * scales[k], features=True)
        spectrum = torch.linalg.eigvalsh(torch.cov(features.double().T, correction=0)).flip(0)
        expected = {
            "loss": nn.functional.cross_entropy(logits, data.test_targets),
            "accuracy": (logits.argmax(1) == data.test_targets).double().mean(),
            "rank": torch.linalg.matrix_rank(features),
            "rank/0.1": (spectrum > 0.1 * spectrum[0]).sum(),
            "rank/0.001": (spectrum > 1e-3 * spectrum[0]).sum(),
            "rank/effective": metrics.effective_rank(metrics.singular_values(features)),
            "rank/stable": features.double().square().sum() / torch.linalg.matrix_norm(features.double(), 2) ** 2,
            "rank/99": metrics.rank_99(metrics.singular_values(features)),
            "dead": (features.abs().amax(0) == 0).sum(),
            "eigenvalue/1": spectrum[0],
            "eigenvalue/3": spectrum[2],
            "eigenvalue/9": spectrum[8],
        }
        assert set(values) == set(expected)  # no eigenvalue 99 of 9 units
        for name, value in expected.items():
            torch.testing.assert_close(values[name][k].double(), value.double(), rtol=1e-4, atol=1e-6, msg=name)


def test_the_spectrum_is_due_at_the_end_only():
    data, task = images(), Classification(spectrum=[1])
    alone = Single(replica(MLP(hidden=[9]).build(data.input_shape, 4)))
    batches = Batches([data], scales=[1.0], seeds=[0], batch_size=8)
    assert "eigenvalue/1" not in task.evaluate(alone, batches, final=False)
    assert "eigenvalue/1" in task.evaluate(alone, batches, final=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification(thresholds=[0.0]), "task.thresholds must be fractions"),
        (lambda: Classification(spectrum=[0]), "task.spectrum must list integers >= 1"),
        (lambda: MatrixObjective(objective="quartic"), "task.objective must be one of factorisation, spectral"),
        (lambda: MatrixObjective(thresholds=[]), "task.thresholds must be numbers > 0"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
