"""Where decay and gradient take the units of a network: on losses whose answer is known."""

import copy

import pytest
import torch
from torch import nn

import syre
from syre.diagnostics import training, units
from syre.diagnostics.structure import named_tensors, read


def network(kind=nn.Tanh, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), kind(), nn.Linear(6, 2))


def measured(model, batches, optimizer, loss_fn=None):
    structure = read(model)
    looks = {one.name: units.look(one, named_tensors(model)) for one in structure.units}
    return training.measure(structure, looks, model, batches, optimizer, loss_fn)


def sgd(model, decay):
    return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay)


BATCH = (torch.linspace(-1, 1, 32).reshape(8, 4), torch.arange(8) % 2)


def nothing(output, targets):
    return 0 * output.sum()


def twins(model, count=3):
    with torch.no_grad():
        model[0].weight[:count], model[0].bias[:count] = model[0].weight[0], model[0].bias[0]
        model[2].weight[:, :count] = model[2].weight[:, :1]
    return model


def test_without_a_gradient_decay_pulls_all_parts_inward_by_lambda_times_their_length():
    model = network()
    parts = measured(model, [BATCH], sgd(model, 0.25), nothing)["units"][0]
    look = units.look(read(model).units[0], named_tensors(model))
    u = torch.cat([model[0].weight, model[0].bias[:, None], model[2].weight.T], 1).detach().double()
    for part, sign in (("broken", -1), ("symmetric", 1)):
        signs = torch.where(look.flips == 0, 1.0, -1.0).double()[:, None]
        alone = (look.zero < torch.minimum(look.near, look.signed)).double()[:, None]
        lengths = (u + sign * (1 - alone) * signs * u[look.other]).norm(dim=1)
        assert parts[part]["decay"] == pytest.approx(0.25 * lengths.square().mean().sqrt().item(), rel=1e-4)
        assert parts[part]["gradient"] == 0
        assert parts[part]["inward"] == 1


def test_without_decay_only_the_gradient_pulls():
    model = network()
    entry = measured(model, [BATCH], sgd(model, 0.0))
    assert entry["decay"] == 0
    assert entry["batches"] == 1
    assert entry["coupled"]
    assert entry["units"][0]["broken"]["decay"] == 0
    assert entry["units"][0]["broken"]["gradient"] > 0


@pytest.mark.parametrize(("curvature", "trap"), [(-0.1, True), (-0.5, False)])
def test_equal_units_are_in_a_trap_exactly_if_decay_is_stronger_than_the_curvature_that_parts_them(curvature, trap):
    """The loss is curvature / 2 |u_i - mean|^2 over the copies: it pushes them apart at the rate |curvature|."""
    model = twins(network(), 6)

    def loss(output, targets):
        rows = torch.cat([model[0].weight, model[0].bias[:, None], model[2].weight.T], 1)
        return curvature / 2 * (rows - rows.mean(0)).square().sum() + 0 * output.sum()

    broken = measured(model, [BATCH], sgd(model, 0.25), loss)["units"][0]["broken"]
    assert broken["inward"] == float(trap)
    assert broken["gradient"] / broken["decay"] == pytest.approx(abs(curvature) / 0.25, rel=0.3)


def test_with_syre_the_pull_is_towards_the_anchor_and_parts_the_copies():
    model = twins(network(), 6)
    optimizer = sgd(model, 0.25)
    before = measured(model, [BATCH], optimizer, nothing)["units"][0]["broken"]
    handle = syre.attach(optimizer, model, sigma=1.0, start="keep")
    after = measured(model, [BATCH], optimizer, nothing)["units"][0]["broken"]
    assert before["inward"] == 1
    assert after["inward"] < 0.9
    assert after["decay"] > 100 * before["decay"]  # a constant, where decay alone is proportional to the difference
    handle.detach()


def test_an_adam_divides_by_the_root_of_its_second_moment():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=0.25)
    nn.functional.cross_entropy(model(BATCH[0]), BATCH[1]).backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["exp_avg_sq"].fill_(4.0)
        state["step"].fill_(1e9)  # no bias left
    adam = measured(model, [BATCH], optimizer)["units"][0]["broken"]
    plain = measured(model, [BATCH], sgd(model, 0.25))["units"][0]["broken"]
    assert adam["gradient"] == pytest.approx(plain["gradient"] / 2, rel=1e-4)
    assert adam["decay"] == pytest.approx(plain["decay"] / 2, rel=1e-4)
    decoupled = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.25)
    decoupled.load_state_dict(optimizer.state_dict())
    entry = measured(model, [BATCH], decoupled)
    assert not entry["coupled"]
    assert entry["units"][0]["broken"]["decay"] == pytest.approx(plain["decay"], rel=1e-4)


def test_only_what_decays_is_pulled():
    model = network()
    groups = [{"params": [model[0].weight], "weight_decay": 0.25}, {"params": [model[2].weight], "weight_decay": 0.0}]
    entry = measured(model, [BATCH], torch.optim.SGD(groups, lr=0.1), nothing)
    alone = measured(model, [BATCH], sgd(model, 0.25), nothing)
    assert entry["decay"] == entry["units"][0]["lambda"] == 0.25
    assert 0 < entry["units"][0]["broken"]["decay"] < alone["units"][0]["broken"]["decay"]


@pytest.mark.parametrize("planted", [0, 3])
def test_the_model_its_gradients_and_the_random_numbers_are_left_as_they_were(planted):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 2))
    if planted:
        with torch.no_grad():
            model[0].weight[:3], model[0].bias[:3] = model[0].weight[0], model[0].bias[0]
            model[4].weight[:, :3] = model[4].weight[:, :1]
    model[0].weight.grad = torch.ones(6, 4)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    measured(model, [BATCH], sgd(model, 0.25))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(6, 4))
    assert model[4].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())


def test_weights_come_back_when_the_loss_fails():
    model = twins(network())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="one finite number"):
        measured(model, [BATCH], sgd(model, 0.25), lambda output, targets: output.sum() * float("nan"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
