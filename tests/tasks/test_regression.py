"""Regression: training reaches the closed forms of section 6.1, and dead neurons are counted as such."""

from dataclasses import replace

import pytest
import torch

from syre.batches import Batches
from syre.core import Effect, Handle, draw_anchors
from syre.data import Dataset, LinearRegression
from syre.learners import Ensemble, Learner, Replica, learner
from syre.models import DiagonalLinear
from syre.optim import SGD
from syre.regularizers import Syre, Vanilla, WeightDecay, WFix
from syre.seeding import derive_seed, generator
from syre.tasks import Regression, Ridge
from syre.tasks.regression import half_squared_error, ridge_solution
from syre.trainer import Record, Training, train

torch.set_num_threads(1)

GAMMA, SEED = 0.1, 7
DATA = LinearRegression(samples=30, dims=20, noise=0.5, test_samples=50)
ROUGH, SMOOTH = SGD(lr=0.05), SGD(lr=0.1, momentum=0.9)


def doubles(data: LinearRegression = DATA, seed: int = SEED) -> Dataset:
    drawn = data.load(seed=seed)
    splits = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return replace(drawn, **{name: getattr(drawn, name).double() for name in splits})


def build(regularizer, optim: SGD, depth: int, seed: int = SEED) -> Replica:
    torch.manual_seed(derive_seed(seed, "init"))
    model = DiagonalLinear(depth=depth).build((DATA.dims,), 1).double()
    optimizer = optim.build(model, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, model, seed)
    return Replica(model=model, optimizer=optimizer, handle=handle, noise=generator(seed, "noise"))


def run(regularizers, optim: SGD, depth: int, settings: Training) -> tuple[Learner, list[Record]]:
    team, data = learner([build(regularizer, optim, depth) for regularizer in regularizers]), doubles()
    count = len(regularizers)
    batches = Batches([data] * count, scales=[1.0] * count, seeds=[SEED] * count, batch_size=settings.batch_size)
    return team, [event for event in train(team, Regression(), batches, settings) if isinstance(event, Record)]


def anchor(sigma: float, seed: int = SEED) -> torch.Tensor:
    model = DiagonalLinear(depth=1).build((DATA.dims,), 1).double()
    (drawn,) = draw_anchors(model, sigma=sigma, seed=derive_seed(seed, "anchor")).values()
    return drawn[0]


# ---- ridge regression ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [10, 20, 50])
@pytest.mark.parametrize("gamma", [1e-3, 0.1, 10.0])
def test_the_closed_form_is_the_minimum_of_the_loss_with_decay_towards_the_centre(samples, gamma):
    data, centre = doubles(replace(DATA, samples=samples)), anchor(1.0)
    w = ridge_solution(data.train_inputs, data.train_targets, gamma, centre).requires_grad_()
    loss = half_squared_error(data.train_inputs @ w.unsqueeze(1), data.train_targets)
    (gradient,) = torch.autograd.grad(loss + gamma / 2 * (w - centre).square().sum(), w)
    assert gradient.abs().max() < 1e-10
    (wrong,) = torch.autograd.grad(gamma / 2 * (w + centre).square().sum() - gamma / 2 * (w - centre).square().sum(), w)
    assert wrong.abs().max() > 1e-4  # control: the mirrored centre has a gradient here


@pytest.mark.parametrize("samples", [10, 50])
def test_without_decay_it_is_the_least_squares_solution_nearest_to_the_centre(samples):
    data, centre = doubles(replace(DATA, samples=samples)), anchor(1.0)
    x, y = data.train_inputs, data.train_targets
    w = ridge_solution(x, y, 0.0, centre)
    torch.testing.assert_close(w, centre + torch.linalg.pinv(x) @ (y - x @ centre))
    torch.testing.assert_close(w, ridge_solution(x, y, 1e-9, centre), rtol=0, atol=1e-5)
    least_norm = ridge_solution(x, y, 0.0, torch.zeros_like(centre))
    assert ((w - least_norm).norm() > 0.1) == (samples < DATA.dims)


@pytest.mark.parametrize("start", ["shift", "keep"])
def test_training_reaches_the_closed_form_with_the_anchor_of_its_seed_and_no_other(start):
    sigmas = (0.1, 1.0)
    regularizers = [WeightDecay(weight_decay=GAMMA), *(Syre(weight_decay=GAMMA, sigma=s, start=start) for s in sigmas)]
    team, records = run(regularizers, SMOOTH, 1, Training(steps=1500, batch_size=0))
    data, weights = doubles(), team.parameters()["factors.0.weight"].squeeze(1)
    solution = lambda centre: ridge_solution(data.train_inputs, data.train_targets, GAMMA, centre)  # noqa: E731
    for w, loss, sigma in zip(weights, records[-1].values["loss"], (0.0, *sigmas), strict=True):
        torch.testing.assert_close(w, solution(anchor(sigma)), rtol=0, atol=1e-6)
        closed = Ridge(**fields(DATA), weight_decay=GAMMA, sigma=sigma).measure(SEED)
        assert loss.item() == pytest.approx(closed["loss"], abs=1e-6)
        assert sigma == 0 or (w - solution(anchor(sigma, seed=SEED + 1))).abs().max() > 1e-3  # control
        assert sigma == 0 or (w - solution(-anchor(sigma))).abs().max() > 1e-3  # control


def fields(data: LinearRegression) -> dict[str, float]:
    return {name: getattr(data, name) for name in ("samples", "dims", "noise", "test_samples")}


def test_ridge_measures_as_regression_does():
    w = ridge_solution(doubles().train_inputs, doubles().train_targets, GAMMA, anchor(1.0))
    replica = build(Vanilla(), ROUGH, 1)
    with torch.no_grad():
        replica.model.factors[0].weight.copy_(w)
    batches = Batches([doubles()], scales=[1.0], seeds=[SEED], batch_size=0)
    measured = Regression().evaluate(learner([replica]), batches, final=True)
    closed = Ridge(**fields(DATA), weight_decay=GAMMA, sigma=1.0).measure(SEED)
    assert {name: measured[name].item() for name in closed} == pytest.approx(closed, abs=1e-6)


# ---- reparametrised regression ---------------------------------------------------------------------------------------


def test_a_replica_is_the_run_trained_alone_one_sample_a_step():
    regularizers = [
        Vanilla(),
        WeightDecay(weight_decay=0.1),
        Syre(weight_decay=0.05, sigma=1.0),
        Syre(weight_decay=0.1, sigma=0.5, start="keep"),
        WFix(fraction=0.3, kappa=0.2, weight_decay=0.1),
    ]
    settings = Training(steps=100, batch_size=1, evaluations=2)
    team, records = run(regularizers, ROUGH, 2, settings)
    assert isinstance(team, Ensemble)
    for k, regularizer in enumerate(regularizers):
        alone, its_records = run([regularizer], ROUGH, 2, settings)
        for name, weights in alone.parameters().items():
            torch.testing.assert_close(team.parameters()[name][k], weights[0], rtol=0, atol=1e-10)
        for record, its in zip(records, its_records, strict=True):
            assert list(record.values) == list(its.values)
            for metric, values in record.values.items():
                torch.testing.assert_close(values[k], its.values[metric][0], rtol=1e-8, atol=1e-8, msg=metric)


@pytest.mark.parametrize("size", [1, 2])
def test_a_neuron_is_alive_above_the_threshold_and_free_where_nothing_is_held(size):
    replicas = [build(WFix(fraction=0.25, kappa=0.5), ROUGH, 2), build(Vanilla(), ROUGH, 2)][:size]
    for replica in replicas:
        with torch.no_grad():
            u, w = (factor.weight for factor in replica.model.factors)
            u.fill_(0.1)
            w[0] = torch.linspace(-0.2, 0.2, DATA.dims)  # two of the products are below 0.002 in absolute value
    masks = [mask for mask, _ in replicas[0].handle.frozen.values()]
    held = (masks[0] | masks[1]).squeeze(0)
    assert masks[0].sum() == masks[1].sum() == 5
    batches = Batches([doubles()] * size, scales=[1.0] * size, seeds=[SEED] * size, batch_size=0)
    task, team = Regression(thresholds=[2e-3, 1e-6]), learner(replicas)
    values = task.evaluate(team, batches, final=True)
    assert values["rank"].tolist() == values["rank/0.002"].tolist() == [18] * size
    assert values["rank/1e-06"].tolist() == [20] * size
    alive = torch.ones(20, dtype=torch.bool)
    alive[9:11] = False
    assert values["rank/free"].tolist() == [(alive & ~held).sum(), 18][:size]
    assert values["free"].tolist() == [(~held).sum(), 20][:size]
    assert set(task.evaluate(team, batches, final=False)) == {"loss", "rank", "rank/free"}


def test_decay_kills_all_neurons_beyond_the_largest_correlation_and_the_anchor_holds_them_off_zero():
    """With decay on both factors the product pays an L1 penalty: 0 is the minimum where gamma >= max |X^T y / n|."""
    data = doubles()
    edge = (data.train_inputs.T @ data.train_targets / DATA.samples).abs().max().item()
    regularizers = [
        WeightDecay(weight_decay=1.5 * edge),
        WeightDecay(weight_decay=0.7 * edge),
        Syre(weight_decay=1.5 * edge, sigma=1.0),
    ]
    _, records = run(regularizers, SGD(lr=0.1), 2, Training(steps=500, batch_size=0))
    beyond, below, syre = records[-1].values["rank"].tolist()
    assert beyond == 0
    assert 0 < below < DATA.dims
    assert syre > DATA.dims / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regression(thresholds=[]), "task.thresholds must be numbers > 0"),
        (lambda: Regression(thresholds=[0.1, 0.0]), "task.thresholds must be numbers > 0"),
        (lambda: Ridge(samples=0), "task.samples must be an integer > 0, got 0"),
        (lambda: Ridge(samples=5, weight_decay=-1), "task.weight_decay must be a number >= 0, got -1"),
        (lambda: Ridge(samples=5, sigma=-1), "task.sigma must be a number >= 0, got -1"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- what is held fixed, as handles say it ---------------------------------------------------------------------------


class Half(Handle):
    """A handle of another kind: it says that it holds the first half of every factor."""

    def effect(self) -> Effect:
        mask = (torch.arange(DATA.dims) < DATA.dims // 2).unsqueeze(0)
        return Effect(frozen={"factors.0.weight": (mask, torch.zeros(1, DATA.dims).double())})


class Mute:
    def detach(self) -> None: ...


def test_neurons_are_free_where_no_handle_says_that_it_holds_them():
    settings, replicas = Training(steps=1, batch_size=0), [build(Vanilla(), ROUGH, depth=1) for _ in range(3)]
    free = []
    for replica, handle in zip(replicas, (None, Half(), Mute()), strict=True):
        batches = Batches([doubles()], scales=[1.0], seeds=[SEED], batch_size=0)
        events = train(learner([replace(replica, handle=handle)]), Regression(), batches, settings)
        if isinstance(handle, Mute):
            with pytest.raises(ValueError, match="this handle does not state its effect on a step"):
                list(events)
            continue
        free.append([event.values["free"].item() for event in events if "free" in event.values][-1])
    assert free == [DATA.dims, DATA.dims / 2]
