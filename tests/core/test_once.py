"""The shift from init to init + b happens once in the life of a set of weights, whoever attaches how often."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn

from syre.core import attach, draw_anchors, forget, merge, once, parametrize

SETTINGS = {"sigma": 0.5, "seed": 3}


def net(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)).double()


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9, **options})


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.3)


class Other(torch.optim.SGD):
    """Of a class that syre does not know: the shift form."""


def other(model):
    return Other(model.parameters(), lr=0.1, weight_decay=0.3, momentum=0.9)


def backward(model):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5)
    model.zero_grad()
    (model(x) - x[:, :3].sin()).square().mean().backward()


def steps(optimizer, model, count=5):
    for _ in range(count):
        backward(model)
        optimizer.step()


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def saved(thing):
    """Through a file, as people save: the dict and what hangs on it."""
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the very anchors that those of another")
        yield


# ---- on one model ----------------------------------------------------------------------------------------------------


def test_an_optimizer_rebuilt_three_times_shifts_once():
    model = net()
    init, b = flat(model), torch.cat([a.reshape(-1) for a in draw_anchors(model, **SETTINGS).values()])
    for _ in range(3):
        attach(sgd(model), model, **SETTINGS)
        assert torch.equal(flat(model), init + b)


@pytest.mark.parametrize("make", [sgd, adamw, other])
def test_training_goes_on_with_a_rebuilt_optimizer_as_with_start_keep(make):
    def train(start):
        model = net()
        optimizer = make(model)
        attach(optimizer, model, **SETTINGS)
        steps(optimizer, model)
        optimizer = make(model)
        attach(optimizer, model, start=start, **SETTINGS)
        steps(optimizer, model)
        return flat(model)

    assert torch.equal(train("shift"), train("keep"))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_shifted_model_is_shifted(duplicate):
    model = net()
    attach(sgd(model), model, **SETTINGS)
    twin = duplicate(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(sgd(twin), twin, **SETTINGS)
    assert torch.equal(flat(twin), flat(model))
    assert list(twin.state_dict()) == list(net().state_dict())  # an export is what it was


def test_weights_that_are_put_back_are_shifted_anew():
    """A learning-rate finder: attach, train, restore, and the real fit attaches again."""
    model = net()
    before = copy.deepcopy(model.state_dict())
    optimizer = sgd(model)
    attach(optimizer, model, **SETTINGS)
    shifted = flat(model)
    steps(optimizer, model)
    model.load_state_dict(before)
    attach(sgd(model), model, **SETTINGS)
    assert torch.equal(flat(model), shifted)


def test_a_part_that_is_new_is_shifted_and_the_rest_is_not():
    model = net()
    attach(sgd(model), model, **SETTINGS)
    body = flat(model[0])
    torch.manual_seed(7)
    model[2] = nn.Linear(8, 3).double()
    head = model[2].weight.detach().clone()
    attach(sgd(model), model, **SETTINGS)
    assert torch.equal(flat(model[0]), body)
    assert torch.equal(model[2].weight.detach(), head + draw_anchors(model, **SETTINGS)["2.weight"])


def test_two_optimizers_on_one_model_shift_each_its_own():
    model, whole = net(), net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1, weight_decay=0.3)
    second = torch.optim.AdamW(model[2].parameters(), lr=0.1, weight_decay=0.3)
    attach(first, model, **SETTINGS)
    attach(second, model, **SETTINGS)
    attach(sgd(whole), whole, **SETTINGS)
    assert torch.equal(flat(model), flat(whole))


def test_other_anchors_are_an_error_that_changes_nothing():
    model = net()
    handle = attach(sgd(model), model, **SETTINGS)
    handle.detach()
    before, optimizer = flat(model), sgd(model)
    with pytest.raises(
        ValueError, match=r"'0.weight' was shifted by other anchors \(seed=3 sigma=0.5 .* these are seed=4"
    ):
        attach(optimizer, model, sigma=0.5, seed=4)
    assert torch.equal(flat(model), before)
    attach(optimizer, model, sigma=0.5, seed=4, start="keep")  # the way out that the message names
    assert torch.equal(flat(model), before)


def test_the_two_forms_know_of_one_another():
    model = net()
    attach(sgd(model), model, **SETTINGS).detach()
    shifted = flat(model)
    parametrize(model, **SETTINGS)
    torch.testing.assert_close(flat(merge(model)), shifted, rtol=0, atol=1e-15)
    attach(sgd(model), model, **SETTINGS)
    torch.testing.assert_close(flat(model), shifted, rtol=0, atol=1e-15)


def test_the_same_line_once_more_is_the_same_handle_and_another_is_an_error():
    model = net()
    optimizer = sgd(model)
    handle = attach(optimizer, model, **SETTINGS)
    before = flat(model)
    assert attach(optimizer, model, **SETTINGS) is handle
    for other in ({"sigma": 0.1, "seed": 3}, {"sigma": 0.5, "seed": 4}, {**SETTINGS, "form": "shift"}):
        with pytest.raises(ValueError, match="this optimizer has syre attached already: detach the first handle"):
            attach(optimizer, model, **other)
    assert torch.equal(flat(model), before)
    handle.detach()
    assert attach(optimizer, model, **SETTINGS) is not handle
    assert torch.equal(flat(model), before)


# ---- on resume -------------------------------------------------------------------------------------------------------


def checkpoint(make, count=5):
    """A run of that many steps, and the run that goes on for as many more."""
    model = net()
    optimizer = make(model)
    handle = attach(optimizer, model, **SETTINGS)
    steps(optimizer, model, count)
    kept = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "handle": handle.state_dict()})
    steps(optimizer, model, 5)
    return kept, flat(model)


def first_attach(make, kept):
    model = net(1)
    optimizer = make(model)
    attach(optimizer, model, **SETTINGS)
    model.load_state_dict(kept["model"])
    optimizer.load_state_dict(kept["optimizer"])
    return model, optimizer


def first_weights(make, kept):  # Lightning, and the Trainer with create_optimizer, and nanoGPT
    model = net(1)
    model.load_state_dict(kept["model"])
    optimizer = make(model)
    attach(optimizer, model, **SETTINGS)
    optimizer.load_state_dict(kept["optimizer"])
    return model, optimizer


def last_attach(make, kept):  # the line after the block that resumes
    model = net(1)
    model.load_state_dict(kept["model"])
    optimizer = make(model)
    optimizer.load_state_dict(kept["optimizer"])
    attach(optimizer, model, **SETTINGS)
    return model, optimizer


def assigned(make, kept):  # `assign=True` replaces the parameters
    model = net(1)
    model.load_state_dict(kept["model"], assign=True)
    return first_weights_of(model, make, kept)


def first_weights_of(model, make, kept):
    optimizer = make(model)
    attach(optimizer, model, **SETTINGS)
    optimizer.load_state_dict(kept["optimizer"])
    return model, optimizer


def plain_dict(make, kept):  # safetensors: tensors, and nothing else
    return first_weights(make, kept | {"model": dict(kept["model"])})


def by_the_handle(make, kept):  # the handle's state comes last
    model = net(1)
    model.load_state_dict(kept["model"])
    optimizer = make(model)
    bare = copy.deepcopy(kept["optimizer"])
    for group in bare["param_groups"]:
        del group["syre"]  # a checkpoint from before
    handle = attach(optimizer, model, **SETTINGS)
    optimizer.load_state_dict(bare)
    handle.load_state_dict(kept["handle"])
    return model, optimizer


@pytest.mark.parametrize("make", [sgd, adamw, other])
@pytest.mark.parametrize("resume", [first_attach, first_weights, last_attach, assigned, plain_dict, by_the_handle])
def test_a_resume_goes_on_to_the_last_bit_in_whatever_order_things_are_loaded(resume, make):
    kept, whole = checkpoint(make)
    model, optimizer = resume(make, kept)
    assert torch.equal(flat(model), torch.cat([kept["model"][name].reshape(-1) for name in kept["model"]]))
    steps(optimizer, model, 5)
    assert torch.equal(flat(model), whole)
    assert all("syre" not in group for group in optimizer.param_groups)


@pytest.mark.parametrize("resume", [first_attach, first_weights, last_attach, by_the_handle])
def test_a_checkpoint_from_before_the_first_step_is_one_too(resume):
    kept, whole = checkpoint(sgd, count=0)
    model, optimizer = resume(sgd, kept)
    steps(optimizer, model, 5)
    assert torch.equal(flat(model), whole)


@pytest.mark.parametrize("resume", [first_attach, first_weights, last_attach, by_the_handle])
def test_a_state_of_other_anchors_is_refused(resume, monkeypatch):
    kept, _ = checkpoint(sgd)
    monkeypatch.setitem(SETTINGS, "seed", 4)
    with pytest.raises(ValueError, match=r"other anchors|not the anchors of the checkpoint"):
        resume(sgd, kept)


def test_a_state_that_is_refused_leaves_optimizer_and_weights():
    kept, _ = checkpoint(sgd)
    model = net(1)
    model.load_state_dict(kept["model"])
    optimizer = sgd(model)
    attach(optimizer, model, sigma=0.5, seed=4)
    before = flat(model)
    with pytest.raises(ValueError, match=r"trained with other anchors \(seed=3 .*\) than are attached \(seed=4 "):
        optimizer.load_state_dict(kept["optimizer"])
    broken = copy.deepcopy(kept["optimizer"])
    broken["param_groups"][0]["params"].pop()
    del broken["param_groups"][0]["syre"]
    with pytest.raises(ValueError, match="group"):
        optimizer.load_state_dict(broken)
    assert torch.equal(flat(model), before)
    assert not optimizer.state


def test_a_state_of_a_run_without_syre_shifts_the_weights_it_comes_with():
    """Training is to go on with syre from now on: the weights have never been shifted."""
    model = net()
    plain = sgd(model)
    steps(plain, model)
    kept = saved({"model": model.state_dict(), "optimizer": plain.state_dict()})
    model, _ = first_weights(sgd, kept)
    b = torch.cat([a.reshape(-1) for a in draw_anchors(model, **SETTINGS).values()])
    assert torch.equal(flat(model), torch.cat([kept["model"][name].reshape(-1) for name in kept["model"]]) + b)


@pytest.mark.parametrize("make", [sgd, adamw, other])
def test_an_optimizer_that_loads_its_own_state_has_resumed_nothing(make):
    """accelerate's `prepare` does, and so does the Trainer; a learning-rate finder restores what it saved."""
    model = net()
    optimizer = make(model)
    attach(optimizer, model, **SETTINGS)
    shifted = flat(model)
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.equal(flat(model), shifted)
    kept = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    steps(optimizer, model)
    model.load_state_dict(kept[0])
    optimizer.load_state_dict(kept[1])
    assert torch.equal(flat(model), shifted)
    optimizer = make(model)
    attach(optimizer, model, **SETTINGS)
    optimizer.load_state_dict(kept[1])
    assert torch.equal(flat(model), shifted)


def test_a_resumed_run_is_resumed_again():
    kept, _ = checkpoint(sgd)
    model, optimizer = first_weights(sgd, kept)
    optimizer.load_state_dict(optimizer.state_dict())
    steps(optimizer, model, 5)
    again = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    steps(optimizer, model, 5)
    for resume in (first_attach, first_weights, last_attach):
        twin, its = resume(sgd, copy.deepcopy(again))
        steps(its, twin, 5)
        assert torch.equal(flat(twin), flat(model))


def test_a_step_at_learning_rate_zero_is_no_step():
    """torch's distributed checkpoint takes one before it loads, so that there is a state to load into."""
    kept, whole = checkpoint(adamw)
    model = net(1)
    model.load_state_dict(kept["model"])
    optimizer = adamw(model)
    attach(optimizer, model, **SETTINGS)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = 0.0
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = rate
    optimizer.load_state_dict(kept["optimizer"])
    steps(optimizer, model, 5)
    torch.testing.assert_close(flat(model), whole, rtol=1e-12, atol=1e-12)


# ---- what the weights themselves say ---------------------------------------------------------------------------------


def large(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def test_how_much_of_the_anchors_weights_hold_is_measured():
    model = large(0)
    anchors = draw_anchors(model, sigma=0.05, seed=1)
    names = list(anchors)
    for shifts in range(3):
        held, error = once.share([dict(model.named_parameters())[n] for n in names], [anchors[n] for n in names])
        assert abs(held - shifts) < 4 * error
        assert error < 0.02
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.add_(anchors[name])


def test_the_standard_error_of_that_is_one():
    model = large(0)
    parameters = list(model.parameters())
    scores = []
    for seed in range(200):
        held, error = once.share(parameters[:1], [draw_anchors(model[0], sigma=0.05, seed=seed)["weight"]])
        scores.append(held / error)
    assert 0.85 < torch.tensor(scores).std().item() < 1.15
    assert abs(sum(scores)) / 200 < 0.25


def test_a_large_network_that_was_loaded_alone_is_recognised():
    model = large(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    attach(optimizer, model, sigma=0.05, seed=1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 256)).square().mean().backward()
        optimizer.step()
    fresh = large(1)
    fresh.load_state_dict(saved(model.state_dict()))
    with pytest.warns(
        UserWarning, match=r"hold these anchors already \((1.0\d|0.9\d) \+- 0.0\d of b\), so they are not"
    ):
        attach(torch.optim.AdamW(fresh.parameters(), weight_decay=0.01), fresh, sigma=0.05, seed=1)
    assert torch.equal(flat(fresh), flat(model))
    fresh = large(2)  # control: one that never saw them is shifted, without a word
    before = flat(fresh)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*the very anchors that those of another")
        attach(torch.optim.AdamW(fresh.parameters(), weight_decay=0.01), fresh, sigma=0.05, seed=1)
    assert not torch.equal(flat(fresh), before)


def test_a_handle_that_is_checked_on_fresh_weights_leaves_them():
    model = large(0)
    handle = attach(torch.optim.AdamW(model.parameters(), weight_decay=0.01), model, sigma=0.05, seed=1)
    before = flat(model)
    handle.load_state_dict(handle.state_dict())
    assert torch.equal(flat(model), before)


def test_the_handle_sees_weights_that_were_shifted_twice():
    model = large(0)
    handle = attach(torch.optim.AdamW(model.parameters(), weight_decay=0.01), model, sigma=0.05, seed=1)
    state = handle.state_dict()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(handle.anchors[name])
    with pytest.raises(ValueError, match=r"hold the anchors 2.0\d \+- 0.0\d times: they were shifted twice"):
        handle.load_state_dict(state)


def test_weights_drawn_anew_in_place_are_doubted_and_shifted_once_forgotten():
    model = large(0)
    settings = {"sigma": 0.05, "seed": 1}
    first = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    attach(first, model, **settings)
    for layer in model:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    before = flat(model)
    with pytest.warns(UserWarning, match=r"hold -?0.0\d \+- 0.0\d of the anchors by now; they are not shifted again"):
        attach(torch.optim.AdamW(model.parameters(), weight_decay=0.01), model, **settings)
    assert torch.equal(flat(model), before)
    forget(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(torch.optim.AdamW(model.parameters(), weight_decay=0.01), model, **settings)
    b = torch.cat([a.reshape(-1) for a in draw_anchors(model, **settings).values()])
    assert torch.equal(flat(model), before + b)
