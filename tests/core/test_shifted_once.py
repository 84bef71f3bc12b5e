"""In whatever order one attaches, resumes, rebuilds and thaws: what is due is shifted, and once."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from syre.core import attach, attach_anchors, draw_anchors, once
from syre.core.rounding import add_rounded_, stream

OPTIONS = {"sigma": 0.5, "seed": 3}
ETA, LAMBDA = 0.1, 0.3


class Other(torch.optim.SGD):
    """A class that the library does not know: it has the shift form."""


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def sgd(parameters, kind=torch.optim.SGD):
    parameters = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    return kind(parameters, lr=ETA, weight_decay=LAMBDA)


def step(optimizer, model, x=None):
    optimizer.zero_grad()
    x = torch.ones(2, 5, dtype=next(model.parameters()).dtype) if x is None else x
    model(x).square().sum().backward()
    optimizer.step()


def off(weights, others):
    return max(float((w.detach().double() - o.double()).abs().max()) for w, o in zip(weights, others, strict=True))


def copied(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.fixture
def checkpoint():
    """Weights and optimizer state after two steps."""
    model = network()
    optimizer = sgd(model)
    attach(optimizer, model, **OPTIONS)
    step(optimizer, model)
    step(optimizer, model)
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


def loaded(checkpoint, kind=torch.optim.SGD, between=lambda model: None):
    """A model that is resumed: weights, line, something else, state."""
    model = network(1)
    model.load_state_dict(checkpoint[0])
    optimizer = sgd(model, kind)
    attach(optimizer, model, **OPTIONS)
    between(model)
    optimizer.load_state_dict(checkpoint[1])
    return model, optimizer


# ---- resumed ---------------------------------------------------------------------------------------------------------


def test_after_a_resume_a_new_optimizer_shifts_nothing_and_neither_does_a_copy(checkpoint):
    model, _ = loaded(checkpoint)
    assert off(model.parameters(), checkpoint[0].values()) == 0
    other = copy.deepcopy(model)
    for own in (model, other):
        attach(sgd(own), own, **OPTIONS)
        assert off(own.parameters(), checkpoint[0].values()) == 0


@pytest.mark.parametrize("loads_before_the_line", [False, True])
def test_an_optimizer_that_is_built_anew_before_its_state_comes_finds_the_way_back(checkpoint, loads_before_the_line):
    model = network(1)
    model.load_state_dict(checkpoint[0])
    attach(sgd(model), model, **OPTIONS)
    assert off(model.parameters(), checkpoint[0].values()) > 0.3
    optimizer = sgd(model)
    if loads_before_the_line:
        optimizer.load_state_dict(checkpoint[1])
    attach(optimizer, model, **OPTIONS)
    if not loads_before_the_line:
        optimizer.load_state_dict(checkpoint[1])
    assert off(model.parameters(), checkpoint[0].values()) == 0
    plain, theirs = loaded(checkpoint)
    step(theirs, plain)
    step(optimizer, model)
    assert off(model.parameters(), plain.parameters()) == 0


def test_control_once_a_step_was_taken_there_is_no_way_back(checkpoint):
    model = network(1)
    model.load_state_dict(checkpoint[0])
    first = sgd(model)
    attach(first, model, **OPTIONS)
    step(first, model)
    now, optimizer = copied(model), sgd(model)
    attach(optimizer, model, **OPTIONS)
    optimizer.load_state_dict(checkpoint[1])
    assert off(model.parameters(), now) == 0


def test_the_way_back_keeps_no_model_alive():
    model = network()
    attach(sgd(model), model, **OPTIONS)
    alive = [weakref.ref(p) for p in model.parameters()]
    del model
    gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.ASGD, Other])
def test_a_model_that_is_made_in_the_call_is_resumed_like_any(kind):
    def parts(seed):
        torch.manual_seed(seed)
        return nn.Linear(5, 8).double(), nn.Linear(8, 3).double()

    def line(one, two):
        optimizer = sgd([*one.parameters(), *two.parameters()], kind)
        attach(optimizer, nn.Sequential(one, two), **OPTIONS)
        return optimizer

    one, two = parts(0)
    optimizer = line(one, two)
    step(optimizer, nn.Sequential(one, two))
    saved = copy.deepcopy([one.state_dict(), two.state_dict(), optimizer.state_dict()])
    one, two = parts(1)
    one.load_state_dict(saved[0])
    two.load_state_dict(saved[1])
    gc.collect()
    line(one, two).load_state_dict(saved[2])
    assert off([*one.parameters(), *two.parameters()], [*saved[0].values(), *saved[1].values()]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cast_to_fewer_digits_between_the_line_and_the_state_is_no_touch(checkpoint, dtype):
    model, _ = loaded(checkpoint, Other, between=lambda model: model.to(dtype))
    rounded = [w.to(dtype) for w in checkpoint[0].values()]
    assert off(model.parameters(), rounded) == 0


# ---- marks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shifted_before", [False, True])
def test_what_another_optimizer_adopts_and_takes_one_step_with_is_not_shifted_by_a_new_one(shifted_before):
    model = network()
    if shifted_before:
        attach(sgd(model), model, **OPTIONS)
    optimizer = sgd(model[2].parameters())
    attach(optimizer, model, **OPTIONS)
    optimizer.add_param_group({"params": [*model[0].parameters()], "weight_decay": LAMBDA})
    step(optimizer, model)
    now = copied(model)
    attach(sgd(model), model, **OPTIONS)
    assert off(model.parameters(), now) == 0


def test_a_thawed_embedding_of_which_a_few_rows_were_trained_is_not_shifted_and_one_of_which_none_were_is():
    model = nn.Sequential(nn.Embedding(1000, 64), nn.Flatten(), nn.Linear(64, 3))
    model[0].requires_grad_(False)
    for trains in (False, True):
        own = copy.deepcopy(model)
        optimizer = torch.optim.SGD(own.parameters(), lr=1e-3, weight_decay=1e-5)
        attach(optimizer, own, **OPTIONS)
        own[0].requires_grad_(True)
        for _ in range(3 * trains):
            step(optimizer, own, torch.arange(1, 9)[:, None])
        now = copied(own)
        anchors = attach(torch.optim.SGD(own.parameters(), lr=1e-3, weight_decay=1e-5), own, **OPTIONS).anchors
        moved = (own[0].weight.detach() - now[0] - anchors["0.weight"] * (not trains)).abs().max()
        assert float(moved) < 1e-6


def test_small_anchors_around_gains_of_one_are_not_mistaken_for_a_shift_and_are_shifted_by():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.LayerNorm(512), nn.ReLU(), nn.Linear(512, 10))
    before = copied(model)
    handle = attach(torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2), model, sigma=0.01, gains=1.0)
    for (name, p), was in zip(model.named_parameters(), before, strict=True):
        due = handle.anchors[name] - float(name == "1.weight")
        assert torch.allclose(p.detach() - was, due, atol=1e-6), name


def test_layers_are_thawed_one_after_the_other_under_a_sigma_that_is_a_function():
    options = {"sigma": lambda name, parameter: 0.1, "seed": 3}

    def thawed(model):
        optimizer = sgd(model[2].parameters())
        handle = attach(optimizer, model, **options)
        optimizer.add_param_group({"params": [*model[0].parameters()], "weight_decay": LAMBDA})
        return optimizer, handle

    model = network()
    optimizer, handle = thawed(model)
    step(optimizer, model)
    assert attach(optimizer, model, **options) is handle
    now = copied(model)
    attach(sgd(model), model, **options)
    assert off(model.parameters(), now) == 0
    saved = copy.deepcopy(optimizer.state_dict())
    other = network(1)
    resumed = sgd(other[2].parameters())
    resumed.add_param_group({"params": [*other[0].parameters()], "weight_decay": LAMBDA})
    attach(resumed, other, **options)
    resumed.load_state_dict(saved)
    with pytest.raises(ValueError, match="other anchors"):  # the control: another function
        attach(sgd(other), other, sigma=lambda name, parameter: 0.2, seed=3)


@pytest.mark.parametrize("fails_in", ["digests", "_samples", "_mark", "agreed"])
def test_whatever_fails_after_the_weights_have_moved_moves_them_back_and_leaves_no_mark(monkeypatch, fails_in):
    model = network()
    model[0].weight.requires_grad_(False)
    before = copied(model)
    moved, right = [], getattr(once, fails_in)

    def fails(*args):
        if off(model.parameters(), before) > 0:
            moved.append(1)
            raise MemoryError
        return right(*args)

    monkeypatch.setattr(once, fails_in, fails)
    optimizer = sgd(model)
    with pytest.raises(MemoryError):
        attach(optimizer, model, **OPTIONS)
    assert moved
    assert off(model.parameters(), before) == 0
    assert not [p for p in model.parameters() if getattr(p, once.MARK, None)]
    assert not [m for m in model.modules() if vars(m).get(once.MARK)]
    monkeypatch.undo()
    anchors = attach(optimizer, model, **OPTIONS).anchors
    due = [was + anchors[n] * p.requires_grad for (n, p), was in zip(model.named_parameters(), before, strict=True)]
    assert off(model.parameters(), due) < 1e-15


# ---- what is thawed, and what is gone --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.optim.SGD, Other])
def test_a_layer_that_could_not_be_decayed_is_anchored_once_it_can_and_trains(kind):
    model = nn.Sequential(nn.Linear(5, 8).bfloat16().requires_grad_(False), nn.Linear(8, 3))
    optimizer = sgd(model, kind)
    handle = attach(optimizer, model, sigma=0.1)
    assert sorted(handle.anchors) == ["1.bias", "1.weight"]
    model.float().requires_grad_(True)
    step(optimizer, model)
    assert sorted(handle.anchors) == ["0.bias", "0.weight", "1.bias", "1.weight"]


@pytest.mark.parametrize("kind", [torch.optim.SGD, Other])
def test_parameters_that_were_replaced_or_taken_out_are_not_kept(kind):
    model, gone = network(), []
    optimizer = sgd(model, kind)
    handle = attach(optimizer, model, **OPTIONS)
    anchor = handle.anchors["2.weight"].clone()
    for _ in range(3):
        gone += map(weakref.ref, model[2].parameters())
        model[2] = nn.Linear(8, 3).double()
        optimizer.param_groups[0]["params"] = [*model.parameters()]
        optimizer.state.clear()
        step(optimizer, model)
    for _ in range(3):
        extra = nn.Linear(3, 3).double()
        model.append(extra)
        gone += map(weakref.ref, extra.parameters())
        optimizer.add_param_group({"params": [*extra.parameters()], "weight_decay": LAMBDA})
        step(optimizer, model)
        optimizer.param_groups.pop()
        optimizer.state.clear()
        del model[3], extra
        step(optimizer, model)
    gc.collect()
    assert [ref() for ref in gone if ref() is not None] == []
    assert torch.equal(handle.anchors["2.weight"], anchor)  # of the name, whoever has it
    before = model[2].weight.detach().clone()
    model.zero_grad()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(model[2].weight, before - ETA * LAMBDA * (before - anchor))


def test_a_parameter_that_is_taken_out_and_put_back_has_its_anchor():
    model = network()
    optimizer = sgd(model)
    handle = attach(optimizer, model, **OPTIONS)
    group = optimizer.param_groups[0]
    group["params"] = [*model[0].parameters()]
    step(optimizer, model)
    group["params"] = [*model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = model[2].weight.detach().clone()
    optimizer.step()
    assert torch.allclose(model[2].weight, before - ETA * LAMBDA * (before - handle.anchors["2.weight"]))


def test_a_copied_handle_keeps_no_parameter():
    model = network()
    optimizer = sgd(model, Other)
    handle = attach(optimizer, model, **OPTIONS)
    step(optimizer, model)
    other, alive = copy.deepcopy(handle), [weakref.ref(p) for p in model.parameters()]
    del model, optimizer, handle
    gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)
    assert sorted(other.anchors) == ["0.bias", "0.weight", "2.bias", "2.weight"]


# ---- steps that move nothing, and turns ------------------------------------------------------------------------------


def test_a_warm_up_from_zero_is_no_optimizer_that_is_not_called_and_ends_the_way_back(recwarn):
    model = nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.01)
    handle = attach(optimizer, model, sigma=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 5)
    for _ in range(2):
        for _ in range(4):
            step(optimizer, model)
        schedule.step()
    assert not [w for w in recwarn if "syre does nothing" in str(w.message)]
    assert handle._shifted is None
    assert not [m for m in model.modules() if once._ways.get(m)]


@pytest.mark.parametrize("unused", [0, 2])
def test_what_is_hooked_on_later_sees_no_pull_in_the_first_step_whichever_layer_has_no_gradient(unused):
    model = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)])
    optimizer = sgd(model)
    attach(optimizer, model, **OPTIONS)
    seen = []
    optimizer.register_step_pre_hook(
        lambda *_: seen.append(max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None))
    )
    y = torch.ones(2, 5)
    for index, layer in enumerate(model):
        y = y if index == unused else layer(y)
    (0 * y.sum()).backward()
    optimizer.step()
    assert seen == [0.0]


# ---- the rounding of float16 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("start", [0.0, 3e-5, -3e-5, 1.0, -0.3])
@pytest.mark.parametrize("amount", [2e-8, -7e-6, 4e-4])
def test_what_is_less_than_the_last_digit_arrives_on_average_at_every_magnitude(dtype, start, amount):
    target = torch.full((1 << 18,), start, dtype=dtype)
    due = (target[0].float() + amount).double()  # the sum is one of float32
    add_rounded_(target, torch.ones(1 << 18), amount, stream(0, 1, "", target.device))
    values = target.double()
    error = values.std() / (1 << 9)
    assert abs(values.mean() - due) <= 5 * error + 1e-12
    assert len(values.unique()) <= 2  # neighbours


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7FC00000, -1])
def test_what_is_not_a_number_stays_none(dtype, bits):
    broken = torch.tensor([bits], dtype=torch.int32).view(torch.float32).expand(64)
    target = torch.zeros(64, dtype=dtype)
    add_rounded_(target, broken, 1.0, stream(0, 1, "", target.device))
    assert target.isnan().all()


# ---- who finds the way back, and who forgets it ----------------------------------------------------------------------


def of_another_run(optimizer):
    """Its state, as that of a run which began elsewhere."""
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group["syre"]["start"] = "0123456789abcdef"
    return state


def anchored(optimizer, model, **options):
    attach(optimizer, model, **OPTIONS | options)
    return optimizer


@pytest.mark.parametrize("then", ["one optimizer", "one for each layer", "thawed"])
def test_whichever_optimizers_come_after_the_one_that_shifted_they_take_it_back_for_good(then):
    model = network()
    model[2].requires_grad_(then != "thawed")
    loaded = copied(model)
    anchored(sgd(model), model)
    model.requires_grad_(True)
    sets = [[*model[0].parameters()], [*model[2].parameters()]] if "each" in then else [[*model.parameters()]]
    for parameters in sets:
        optimizer = anchored(sgd(parameters), model)
        optimizer.load_state_dict(of_another_run(optimizer))
    assert off(model.parameters(), loaded) == 0
    for parameters in sets:
        anchored(sgd(parameters), model)
    assert off(model.parameters(), loaded) == 0


def weights_alive(shape):
    gc.collect()
    return sum(type(t) in (torch.Tensor, nn.Parameter) and t.shape == shape for t in gc.get_objects())


@pytest.mark.parametrize("how", ["loaded after the line", "trained from the start", "built anew with start='keep'"])
def test_once_the_weights_are_trained_no_copy_of_them_is_kept(how):
    shape = (67, 61)
    model = nn.Linear(*shape[::-1], bias=False)
    optimizer = anchored(sgd(model), model)
    if how == "loaded after the line":
        state = of_another_run(optimizer)
        model.load_state_dict({"weight": torch.randn(shape)})
        optimizer.load_state_dict(state)
    elif how.startswith("built"):
        optimizer = anchored(sgd(model), model, start="keep")
    assert weights_alive(shape) == 2 + ("loaded" not in how)  # w and b; the control: and the copy
    for _ in range(2):
        step(optimizer, model, torch.ones(1, shape[1]))
    optimizer.zero_grad()
    assert weights_alive(shape) == 2
    assert not once._ways.get(model)


def test_parameters_may_be_swapped_for_others_after_the_line():
    model = nn.Linear(4, 4)
    optimizer = anchored(sgd(model), model)
    now = copied(model)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert off(model.parameters(), now) == 0
    step(optimizer, model, torch.ones(1, 4).double())


def test_what_was_cut_after_the_line_is_a_touch_even_where_it_looks_alike():
    model = nn.LayerNorm(128)
    optimizer = anchored(sgd(model), model, sigma=0.0)
    for p in model.parameters():
        p.data = p.data[:64].clone()
    optimizer.load_state_dict(of_another_run(optimizer))
    assert [p.shape for p in model.parameters()] == [(64,), (64,)]


def test_one_weight_that_is_no_number_does_not_keep_the_others_from_being_taken_back():
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    loaded = copied(model)
    optimizer = anchored(sgd(model), model)
    optimizer.load_state_dict(of_another_run(optimizer))
    assert all(torch.equal(p.nan_to_num(), w.nan_to_num()) for p, w in zip(model.parameters(), loaded, strict=True))


@pytest.mark.parametrize("alone", [False, True])
def test_a_parameter_that_is_out_of_the_optimizer_for_a_step_decays_as_before(alone):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    optimizer = sgd(model)
    if alone:  # a model that was made for the call
        attach(optimizer, nn.Sequential(*model), form="shift", **OPTIONS)
    else:
        attach_anchors(optimizer, model, {"0.weight": torch.ones(4, 4)})

    def still():
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()

    still()
    parameters = optimizer.param_groups[0]["params"]
    taken = parameters.pop()
    still()
    parameters.append(taken)
    before, anchor = taken.detach().clone(), 0.0
    if alone:
        anchor = draw_anchors(nn.Sequential(*model), **OPTIONS)["1.weight"]
    still()
    assert torch.allclose(taken, before - ETA * LAMBDA * (before - anchor))


def test_an_undecayed_parameter_that_comes_later_changes_no_anchor_of_a_function():
    model = nn.Module()
    model.a = nn.Linear(4, 4, bias=False)
    anchored(sgd(model), model, sigma=lambda name, parameter: 0.02)
    model.temperature = nn.Parameter(torch.ones(3))
    now = model.a.weight.detach().clone()
    anchored(sgd([model.a.weight]), model, sigma=lambda name, parameter: 0.02)
    assert torch.equal(model.a.weight, now)


def test_a_state_of_a_function_that_gives_other_scales_is_refused_and_names_the_parameter(checkpoint):
    model = network()
    optimizer = anchored(sgd(model), model, sigma=lambda name, parameter: 0.1)
    state = copy.deepcopy(optimizer.state_dict())
    other = network(1)
    second = anchored(sgd(other), other, sigma=lambda name, parameter: 0.2)
    now = copied(other)
    with pytest.raises(ValueError, match=r"that of '0.weight' had a std of 0.1, and has 0.2 now"):
        second.load_state_dict(state)
    assert off(other.parameters(), now) == 0


def test_a_frozen_layer_that_was_cast_before_it_is_thawed_is_shifted_with_a_new_optimizer():
    model = nn.Linear(4, 4)
    model.weight.requires_grad_(False)
    frozen = model.weight.detach().clone()
    anchored(sgd(model), model)
    model.double().weight.requires_grad_(True)
    anchors = attach(sgd(model), model, **OPTIONS).anchors
    assert off([model.weight], [frozen.double() + anchors["weight"]]) < 1e-7


def test_handles_that_are_gone_leave_no_hook_on_any_parameter():
    model = network()
    for _ in range(3):
        optimizer = anchored(sgd(model), model)
    gc.collect()
    assert [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()] == [1] * 4
    step(optimizer, model)
    assert [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()] == [0] * 4


def test_the_last_group_may_go_where_one_without_decay_stands_before_it():
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3)))
    decays = (LAMBDA, 0.0, LAMBDA)
    groups = [{"params": [*one.parameters()], "weight_decay": d} for one, d in zip(model, decays, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=ETA)
    handle = attach(optimizer, model, **OPTIONS)
    step(optimizer, model, torch.ones(1, 3))
    gone = weakref.ref(model[2].weight)
    del optimizer.param_groups[2], model[2], groups
    step(optimizer, model, torch.ones(1, 3))
    optimizer.state.clear()
    gc.collect()
    assert gone() is None
    assert "2.weight" in handle.anchors


def test_a_group_without_a_learning_rate_of_its_own_takes_a_step():
    class Relative(Other):
        """As Adafactor with a relative step: the rate is found in the step."""

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.sub_(0.1 * (p.grad + group["weight_decay"] * p))

    model = network()
    optimizer = sgd(model, Relative)
    optimizer.param_groups[0]["lr"] = None
    handle = attach(optimizer, model, **OPTIONS)
    before = model[0].weight.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.allclose(model[0].weight, before - 0.1 * LAMBDA * (before - handle.anchors["0.weight"]))
