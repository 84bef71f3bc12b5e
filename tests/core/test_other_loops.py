"""What training loops of others do around `attach`, beyond the rows of test_wild.py: each acts rightly, or says so."""

import copy
import gc
import pickle
import re
import warnings

import pytest
import torch
from torch import nn

import syre
from syre.core import SharedAnchors, attach, draw_anchors, draw_scales, once
from syre.core.names import canonical_parameters

OPTIONS = {"sigma": 0.05, "seed": 3}
ETA, LAMBDA = 0.1, 0.3


class Other(torch.optim.SGD):
    """A class that the library does not know: it has the shift form."""


def network(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)).double()


def sgd(model, kind=torch.optim.SGD):
    return kind(model.parameters(), lr=ETA, weight_decay=LAMBDA)


def backward(model, zero=True):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5).to(next(model.parameters()).dtype)
    if zero:
        model.zero_grad()
    (model(x) - x[:, :3].sin()).square().mean().backward()


def steps(optimizer, model, n):
    for _ in range(n):
        backward(model)
        optimizer.step()


def flat(tensors):
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


def shifts(model, before, anchors):
    """How many times b the weights are away from what they were."""
    parameters = canonical_parameters(model)
    away = flat(parameters[name] for name in anchors) - flat(before[name] for name in anchors)
    b = flat(anchors.values())
    return float(away @ b / (b @ b))


@pytest.fixture
def checkpoint():
    """Weights and optimizer state after two steps."""
    model = network()
    optimizer = sgd(model)
    attach(optimizer, model, **OPTIONS)
    steps(optimizer, model, 2)
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


# ---- resumed: weights, attach, something else, the state of the optimizer --------------------------------------------


def moved_in_memory(model):
    for p in model.parameters():
        p.data = p.data.clone()


BETWEEN = {
    "nothing": lambda model: None,
    "a forward pass": lambda model: model(torch.ones(2, 5, dtype=torch.float64)),
    "other strides": lambda model: [setattr(p, "data", p.data.t().contiguous().t()) for p in model.parameters()],
    "a cast": lambda model: model.double(),
    "shared memory": lambda model: model.share_memory(),
    "another device": moved_in_memory,
    "a broadcast": lambda model: [p.data.copy_(p.data.clone()) for p in model.parameters()],  # DDP, of rank 0
}


@pytest.mark.parametrize("kind", [torch.optim.SGD, Other])
@pytest.mark.parametrize("between", BETWEEN)
def test_a_resume_takes_the_shift_back_whatever_has_moved_the_model_since(between, kind):
    model = network().float() if between == "a cast" else network()
    optimizer = sgd(model, kind)
    attach(optimizer, model, **OPTIONS)
    steps(optimizer, model, 2)
    weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    other = network(1).to(next(model.parameters()).dtype)
    other.load_state_dict(weights)
    resumed = sgd(other, kind)
    handle = attach(resumed, other, **OPTIONS)
    assert shifts(other, weights, handle.anchors) == pytest.approx(1, abs=1e-6)  # control: it has been shifted again
    BETWEEN[between](other)
    resumed.load_state_dict(state)
    assert all(torch.equal(p.double(), weights[name].double()) for name, p in canonical_parameters(other).items())


def test_control_weights_that_are_loaded_after_the_line_stay(checkpoint):
    weights, state = checkpoint
    model = network(1)
    optimizer = sgd(model)
    attach(optimizer, model, **OPTIONS)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())


WRAPPED = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": lambda model: nn.DataParallel(model),
    "in a sequence": lambda model: nn.Sequential(*model),
    "in a list": lambda model: nn.ModuleList([model[0], model[2]]),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_wrapper_that_nobody_else_holds_is_the_model_all_the_same(how):
    model = network()
    optimizer = sgd(model)
    attach(optimizer, WRAPPED[how](model), **OPTIONS)
    steps(optimizer, model, 2)
    weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    other = network(1)
    other.load_state_dict(weights)
    resumed = sgd(other)
    attach(resumed, WRAPPED[how](other), **OPTIONS)
    gc.collect()
    resumed.load_state_dict(state)
    assert all(torch.equal(p, weights[name]) for name, p in other.state_dict().items())
    late = nn.Parameter(torch.zeros(2, dtype=torch.float64))  # and it is asked for what comes later
    resumed.add_param_group({"params": [late], "weight_decay": 0.1})
    late.grad = torch.ones_like(late)
    with pytest.raises(RuntimeError, match=r"shape \(2,\) that the model lacks"):
        resumed.step()


def test_models_that_are_gone_for_all_others_are_not_kept():
    gc.disable()
    try:
        model = network()
        optimizer = sgd(model)
        attach(optimizer, model, **OPTIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SharedAnchors)
            for _ in range(2):
                other = network()
                del optimizer, model
                model, optimizer = other, sgd(other)
                attach(optimizer, model, **OPTIONS)
    finally:
        gc.enable()


def test_a_list_of_parallel_models_has_the_anchors_of_the_plain_list():
    plain, parallel = ([network(), network(1)] for _ in range(2))
    one = attach(sgd(nn.ModuleList(plain)), plain, **OPTIONS).anchors
    other = attach(sgd(nn.ModuleList(parallel)), [nn.DataParallel(m) for m in parallel], **OPTIONS | {"start": "keep"})
    assert one.keys() == other.anchors.keys()
    assert all(torch.equal(one[name], other.anchors[name]) for name in one)


# ---- what fails changes nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.SGD, Other])
def test_an_attach_that_fails_in_its_last_act_leaves_nothing_and_may_be_tried_again(monkeypatch, kind):
    model = network()
    optimizer, before = sgd(model, kind), copy.deepcopy(model.state_dict())

    def half(parameters, anchors, *, sign):
        parameters[0].add_(anchors[0])
        raise torch.OutOfMemoryError

    monkeypatch.setattr(once, "shift_", half)
    with pytest.raises(torch.OutOfMemoryError):
        attach(optimizer, model, **OPTIONS)
    monkeypatch.undo()
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    handle = attach(optimizer, model, **OPTIONS)
    assert shifts(model, before, handle.anchors) == pytest.approx(1)


def test_shared_anchors_that_are_an_error_are_one_before_anything_moves():
    first, second = network(), network(1)
    mine = sgd(first)
    attach(mine, first, **OPTIONS)
    optimizer, before = sgd(second), copy.deepcopy(second.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error", SharedAnchors)
        with pytest.raises(SharedAnchors):
            attach(optimizer, second, **OPTIONS)
    assert all(torch.equal(p, before[name]) for name, p in second.state_dict().items())
    assert not optimizer._optimizer_step_pre_hooks


def test_a_step_that_is_refused_has_pulled_at_no_gradient():
    model = network()
    optimizer = sgd(model)
    attach(optimizer, model, **OPTIONS)
    stranger = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [stranger], "weight_decay": 0.1})
    backward(model)
    stranger.grad = torch.ones_like(stranger)
    before = [p.grad.clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="the model lacks"):
        optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


# ---- copies of a handle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.SGD, Other])
def test_a_copied_handle_is_detached_and_leaves_the_hooks_of_the_original_alone(kind):
    model = network()
    optimizer = sgd(model, kind)
    handle = attach(optimizer, model, **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the copied optimizer says that it has no hooks
        agent = copy.deepcopy({"model": model, "optimizer": optimizer, "handle": handle})
    copied = agent["handle"]
    assert copied.hooks == ()
    assert copied.state_dict() == handle.state_dict()
    copied.detach()
    assert attach(optimizer, model, **OPTIONS) is handle  # control: still attached
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    with pytest.raises(TypeError, match="is not pickled: save its state_dict"):
        pickle.dumps(handle)


# ---- whose turn it is ------------------------------------------------------------------------------------------------


def test_a_clipping_that_is_hooked_on_later_does_not_clip_the_pull():
    """The gradient is clipped to 0 each time: what is left is the decay toward b."""
    model = network()
    optimizer = sgd(model)
    handle = attach(optimizer, model, **OPTIONS)
    optimizer.register_step_pre_hook(lambda *_: [p.grad.zero_() for p in model.parameters()] and None)
    expected = {name: p.detach().clone() for name, p in canonical_parameters(model).items()}
    steps(optimizer, model, 3)
    for name, b in handle.anchors.items():
        for _ in range(3):
            expected[name] -= ETA * LAMBDA * (expected[name] - b)
    for name, p in canonical_parameters(model).items():
        torch.testing.assert_close(p.detach(), expected[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [Other, torch.optim.AdamW])
def test_an_average_that_was_hooked_on_before_sees_the_weights(kind):
    model, seen = network(), []
    optimizer = sgd(model, kind)
    optimizer.register_step_post_hook(lambda *_: seen.append(flat(model.parameters())))
    attach(optimizer, model, **OPTIONS)
    steps(optimizer, model, 2)
    assert torch.equal(seen[-1], flat(model.parameters()))


def test_the_average_of_asgd_is_one_of_the_weights():
    model = network()
    optimizer = torch.optim.ASGD(model.parameters(), lr=ETA, weight_decay=LAMBDA, t0=0)
    attach(optimizer, model, **OPTIONS)
    path = []
    for _ in range(5):
        steps(optimizer, model, 1)
        path.append(flat(model.parameters()))
    mean = flat(optimizer.state[p]["ax"] for p in model.parameters())
    expected = path[0]
    for number, weights in enumerate(path[1:], 1):  # torch takes the first mean anew, mu = 1 / max(1, t - t0)
        expected = expected + (weights - expected) / max(1, number)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-8)  # mu is a float32


# ---- low precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_d", [0.0, 0.01])
def test_a_coupled_pull_on_gradients_of_bfloat16_arrives_on_average_also_with_d(sigma_d):
    torch.manual_seed(0)
    model = nn.Linear(64, 64).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=1e-3)
    handle = attach(optimizer, model, sigma=1.0, sigma_d=sigma_d, stochastic_rounding=True)
    gradients = []

    def look(*_):
        gradients.append(model.weight.grad.double().clone())

    optimizer.register_step_post_hook(look)
    arrived, b = 0.0, handle.anchors["weight"].double()
    due = handle.scales.get("weight", torch.ones(())).double() * b
    for _ in range(200):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        before = model.weight.detach().double().clone()
        optimizer.step()
        d = handle.scales["weight"].double() if sigma_d else 1.0
        arrived += 1 - gradients[-1] + 1e-3 * (d - 1) * before
        with torch.no_grad():
            model.weight.copy_(before)
    assert float((arrived * b).sum() / (200 * 1e-3 * due * b).sum()) == pytest.approx(1, abs=0.1)


def test_a_part_of_the_model_that_is_cast_later_is_pulled_by_its_own_precision():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, weight_decay=1e-3)
    attach(optimizer, model, sigma=1.0, stochastic_rounding=True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    model[1].bfloat16()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    changed = [(p.grad != 1).double().mean() for p in (model[0].weight, model[1].weight)]
    assert changed[0] > 0.9
    assert 0.001 < changed[1] < 0.1  # rounded up or down now and then: to the nearest, never


def test_the_shift_form_refuses_weights_that_were_cast_since():
    model = network().float()
    optimizer = sgd(model, Other)
    attach(optimizer, model, **OPTIONS)
    steps(optimizer, model, 1)
    model.bfloat16()
    backward(model)
    before = flat(model.parameters())
    with pytest.raises(ValueError, match="in which the pull"):
        optimizer.step()
    assert torch.equal(before, flat(model.parameters()))


# ---- layers that come, go, freeze and thaw ---------------------------------------------------------------------------


def test_a_layer_that_is_frozen_and_still_has_gradients_of_zeros_decays_toward_its_anchor():
    model = network()
    optimizer = sgd(model, Other)
    handle = attach(optimizer, model, **OPTIONS)
    backward(model)
    model[0].requires_grad_(False)
    for _ in range(400):
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
    torch.testing.assert_close(model[0].weight, handle.anchors["0.weight"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("come", ["thawed", "added"])
def test_what_is_trained_later_is_not_shifted_when_the_optimizer_is_built_anew(come):
    model = network()
    if come == "thawed":
        model[2].requires_grad_(False)
        optimizer = sgd(model)
    else:
        optimizer = torch.optim.SGD(model[0].parameters(), lr=ETA, weight_decay=LAMBDA)
    attach(optimizer, model, **OPTIONS)
    steps(optimizer, model, 1)
    if come == "thawed":
        model[2].requires_grad_(True)
    else:
        optimizer.add_param_group({"params": [*model[2].parameters()], "weight_decay": LAMBDA})
    steps(optimizer, model, 3)
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(sgd(model), model, **OPTIONS)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_control_what_was_frozen_and_never_trained_is_shifted_with_a_new_optimizer():
    model = network()
    model[2].requires_grad_(False)
    attach(sgd(model), model, **OPTIONS)
    model[2].requires_grad_(True)
    before = copy.deepcopy(model[2].state_dict())
    handle = attach(optimizer := sgd(model), model, **OPTIONS)
    assert optimizer is not None
    torch.testing.assert_close(model[2].weight - before["weight"], handle.anchors["2.weight"], rtol=0, atol=1e-12)


def test_modules_that_take_parameters_over_do_not_have_them_shifted_again():
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()
    optimizer = sgd(model)
    attach(optimizer, model, **OPTIONS)
    steps(optimizer, model, 2)
    other = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    before = copy.deepcopy(other.state_dict())
    attach(sgd(other), other, **OPTIONS)
    assert all(torch.equal(p, before[name]) for name, p in other.state_dict().items())


def test_a_head_that_is_replaced_and_put_back_is_decayed_toward_the_same_anchor_throughout():
    model = network()
    optimizer = sgd(model)
    anchors = attach(optimizer, model, **OPTIONS).anchors
    first, second = model[2], nn.Linear(8, 3).double()
    optimizer.param_groups[0]["params"] += [*second.parameters()]  # both are kept in one group
    for head in (second, first, second):
        model[2] = head
        optimizer.zero_grad()
        before = head.weight.detach().clone()
        head.weight.grad = torch.zeros_like(head.weight)
        optimizer.step()
        expected = before - ETA * LAMBDA * (before - anchors["2.weight"])
        torch.testing.assert_close(head.weight.detach(), expected, rtol=0, atol=1e-12)


# ---- attached twice, otherwise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"weight_decay": 1e-2}, {"anchor_dtype": torch.bfloat16}, {"stochastic_rounding": True}]
)
def test_another_line_on_the_same_optimizer_is_an_error(other):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=ETA)
    handle = attach(optimizer, model, weight_decay=1e-4, **OPTIONS)
    assert attach(optimizer, model, weight_decay=1e-4, **OPTIONS) is handle  # control
    with pytest.raises(ValueError, match=r"detach the first handle|is for a script without decay"):
        attach(optimizer, model, **{"weight_decay": 1e-4, **OPTIONS, **other})
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4


def test_two_functions_that_give_other_scales_are_other_anchors():
    model = network()
    optimizer = sgd(model)
    handle = attach(optimizer, model, sigma=lambda name, p: 0.1)
    assert attach(optimizer, model, sigma=lambda name, p: 0.1) is handle
    with pytest.raises(ValueError, match="detach the first handle"):
        attach(optimizer, model, sigma=lambda name, p: 0.5)
    with pytest.raises(ValueError, match="shifted by other anchors"):
        attach(sgd(model), model, sigma=lambda name, p: 0.5)


def test_a_decay_for_all_does_not_undo_the_groups_without_one():
    model = network()
    groups = [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.1}]
    groups += [{"params": [model[0].bias, model[2].bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=ETA)
    with pytest.raises(ValueError, match=r"the groups have \[0.1, 0.0\]: drop it"):
        attach(optimizer, model, weight_decay=0.1, **OPTIONS)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sigma": None}, "sigma must be a number, got None"),
        ({"sigma_d": "x"}, "sigma_d must be a number, got 'x'"),
        ({"weight_decay": "x"}, "weight_decay must be a number, got 'x'"),
        ({"anchor_dtype": "bfloat16"}, "anchor_dtype must be a torch.dtype"),
    ],
)
def test_an_argument_of_another_type_is_named(wrong, said):
    model = network()
    with pytest.raises(TypeError, match=said):
        attach(sgd(model), model, **OPTIONS | wrong)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: syre.parametrize(model, sigma="a"), "sigma must be a number, got 'a'"),
        (lambda model: syre.parametrize(model, seed="x"), "seed must be an integer, got 'x'"),
        (lambda model: syre.parametrize(model, sigma_d="x"), "sigma_d must be a number, got 'x'"),
        (lambda model: syre.parametrize(3), "model must be a torch.nn.Module, got int"),
        (lambda model: syre.merge(3), "model must be a torch.nn.Module, got int"),
        (lambda model: draw_anchors(3, sigma=0.1, seed=0), "model must be a torch.nn.Module, got int"),
        (lambda model: draw_anchors(model, sigma=0.1, seed=1.5), "seed must be an integer, got 1.5"),
        (lambda model: draw_anchors(model, sigma=0.1, seed=0, anchor_dtype="x"), "anchor_dtype must be a torch.dtype"),
        (lambda model: draw_scales(model, sigma_d="a", seed=0), "sigma_d must be a number, got 'a'"),
        (
            lambda model: attach(sgd(model), model, sigma=lambda *_: "a"),
            "sigma of '0.weight' must be a number, got 'a'",
        ),
        (
            lambda model: attach(sgd(model), model, sigma=lambda *_: torch.ones(2)),
            "sigma of '0.weight' must be a number",
        ),
        (
            lambda model: attach(sgd(model), model, start="keep").load_state_dict(None),
            "the state of a handle is a dict",
        ),
        (lambda model: syre.Watch(sgd(model), model, every=1.5), "every must be an integer, got 1.5"),
    ],
)
def test_an_argument_of_another_type_is_named_by_whatever_takes_it(call, said):
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(TypeError, match=re.escape(said)):
        call(model)
    assert all(map(torch.equal, before, model.parameters()))


# ---- parameters of odd shapes ----------------------------------------------------------------------------------------


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_std = nn.Parameter(torch.tensor(-0.5))
        self.pos_embed = nn.Parameter(torch.zeros(0))
        self.none, self.some = nn.Linear(0, 5), nn.Linear(5, 5)

    def named_parameters(self, prefix="", recurse=True):  # as some have it
        return super().named_parameters(prefix, recurse)


def test_numbers_and_what_is_empty_have_no_anchor():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of an initialisation that does nothing
        model = Odd()
    anchors = draw_anchors(model, sigma=0.1, seed=0)
    assert anchors.keys() == {"some.weight", "some.bias"}
    attach(sgd(model), model, **OPTIONS)


def test_the_padding_of_an_embedding_stays_zero():
    torch.manual_seed(0)
    model = nn.Embedding(10, 4, padding_idx=3).double()
    optimizer = sgd(model)
    handle = attach(optimizer, model, **OPTIONS)
    model(torch.tensor([[0, 3, 5]])).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.weight[3], torch.zeros(4, dtype=torch.float64))
    assert (handle.anchors["weight"].abs().sum(1) > 0).tolist() == [row != 3 for row in range(10)]
