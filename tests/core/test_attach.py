"""The optimizer form in use: what it anchors, what it leaves alone, what it refuses, and how it resumes."""

import gc
import io
import weakref

import pytest
import torch
from torch import nn

from syre.core import attach, attach_anchors, canonical_parameters, draw_anchors, draw_scales, parametrize


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "weight_decay": 0.3, **options})


def step(optimizer, forward, count=1):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5)
    for _ in range(count):
        optimizer.zero_grad()
        forward(x).square().mean().backward()
        optimizer.step()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# ------------------------------------------------------------------------------------------------- what gets an anchor


def test_only_parameters_of_decayed_groups_get_anchors():
    model = mlp()
    groups = [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.1}, {"params": [model[0].bias]}]
    handle = attach(torch.optim.SGD(groups, lr=0.1), model, sigma=0.5)
    assert handle.anchors.keys() == {"0.weight", "2.weight"}
    assert handle.scales == {}
    assert torch.equal(handle.anchors["0.weight"], draw_anchors(model, sigma=0.5, seed=0)["0.weight"])


@pytest.mark.parametrize("start", ["shift", "keep"])
def test_the_start_point_is_explicit(start):
    model = mlp()
    before = values(model)
    handle = attach(sgd(model), model, sigma=0.5, start=start)
    for old, (name, p) in zip(before, model.named_parameters(), strict=True):
        assert torch.equal(p, old + handle.anchors[name] if start == "shift" else old)


def test_l2_init_is_the_initial_weights_as_anchors():
    model = mlp()
    initial = {name: p.detach().clone() for name, p in canonical_parameters(model).items()}
    optimizer = sgd(model, lr=1.0, weight_decay=1.0)
    attach_anchors(optimizer, model, initial)
    for p in model.parameters():
        p.data += 1.0
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(dict(model.named_parameters()), initial, rtol=0, atol=1e-15)


def test_a_decayed_parameter_without_an_anchor_keeps_plain_decay():
    model, plain = mlp(), mlp()
    anchors = draw_anchors(model, sigma=1.0, seed=0, parameters=["2.weight"])
    optimizers = sgd(model), sgd(plain)
    attach_anchors(optimizers[0], model, anchors)
    for optimizer, network in zip(optimizers, (model, plain), strict=True):
        step(optimizer, network)
    assert torch.equal(model[0].weight, plain[0].weight)
    assert not torch.equal(model[2].weight, plain[2].weight)


def test_tied_weights_share_one_anchor_under_their_first_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.out.weight = self.embed.weight

    model = Tied()
    before = model.embed.weight.detach().clone()
    handle = attach(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), model, sigma=0.5)
    assert handle.anchors.keys() == {"embed.weight"}
    assert model.out.weight is model.embed.weight
    torch.testing.assert_close(model.embed.weight, before + handle.anchors["embed.weight"])  # shifted once


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_frozen_parameters_stay_until_they_are_thawed(form):
    model = mlp().float()  # where a shift there and back would round
    model[0].requires_grad_(False)
    before = values(model[0])
    optimizer = sgd(model)
    attach(optimizer, model, sigma=0.5, form=form)
    step(optimizer, lambda x: model(x.float()), 3)
    assert equal(values(model[0]), before)
    model[0].requires_grad_(True)
    step(optimizer, lambda x: model(x.float()))
    assert not equal(values(model[0]), before)


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("sigma_d", [0.0, 0.2])
def test_a_parameter_without_gradient_is_not_pulled(optimizer_class, sigma_d):
    model = mlp()
    optimizer = optimizer_class(model.parameters(), lr=0.1, weight_decay=0.3)
    attach(optimizer, model, sigma=0.5, sigma_d=sigma_d)
    before = values(model)
    model[2].weight.grad = torch.zeros_like(model[2].weight)
    optimizer.step()
    moved = [not torch.equal(p, q) for p, q in zip(values(model), before, strict=True)]
    assert moved == [False, False, True, False]
    optimizer.zero_grad()
    optimizer.step()
    assert equal(values(model)[:2], before[:2])


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("form", ["pull", "shift"])
def test_a_group_without_any_anchor_or_wholly_frozen_is_no_obstacle(optimizer_class, form):
    model = mlp()
    model[2].requires_grad_(False)
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    optimizer = optimizer_class(groups, lr=0.1, weight_decay=0.3)
    anchors = draw_anchors(model, sigma=0.5, seed=0, parameters=["2.weight", "2.bias"])
    attach_anchors(optimizer, model, anchors, start="shift", form=form)
    step(optimizer, model)
    assert equal(values(model[2]), values(mlp()[2]))


def test_a_group_whose_decay_is_switched_off_feels_no_pull_and_on_again_does():
    model, plain = mlp(), mlp()
    optimizer = sgd(model)
    attach(optimizer, model, sigma=0.5, start="keep")
    optimizer.param_groups[0]["weight_decay"] = 0.0
    step(optimizer, model)
    step(sgd(plain, weight_decay=0.0), plain)
    assert equal(values(model), values(plain))
    optimizer.param_groups[0]["weight_decay"] = 0.3
    step(optimizer, model)
    step(sgd(plain), plain)
    assert not equal(values(model), values(plain))


# ------------------------------------------------------------------------------------------------------------ precision


def test_bfloat16_anchors_take_half_the_memory_and_pull_as_their_value():
    for optimizer_class, sigma_d in ((torch.optim.SGD, 0.0), (torch.optim.AdamW, 0.0), (torch.optim.SGD, 0.2)):
        models, bytes_ = [mlp().float(), mlp().float()], []
        for model in models:
            optimizer = optimizer_class(model.parameters(), lr=0.1, weight_decay=0.3)
            anchors = draw_anchors(model, sigma=1.0, seed=0, anchor_dtype=torch.bfloat16)
            if model is models[0]:
                anchors = {name: b.float() for name, b in anchors.items()}
            scales = draw_scales(model, sigma_d=sigma_d, seed=0) if sigma_d else None
            handle = attach_anchors(optimizer, model, anchors, scales=scales)
            bytes_.append(sum(b.nbytes for b in handle.anchors.values()))
            step(optimizer, lambda x, model=model: model(x.float()), 5)
        assert bytes_[1] * 2 == bytes_[0] == sum(p.nbytes for p in models[0].parameters())
        for p, q in zip(*map(values, models), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_parameters_are_refused(dtype):
    model = mlp().to(dtype)
    for attempt in (attach, lambda o, m: attach_anchors(o, m, dict(canonical_parameters(m)))):
        with pytest.raises(ValueError, match=r"rounded away: keep the parameters in float32.*autocast"):
            attempt(sgd(model), model)


@pytest.mark.parametrize("unscale_first", [False, True])
def test_a_fused_optimizer_under_a_grad_scaler_is_refused_and_the_remedies_work(unscale_first):
    def run(fused, form):
        model = mlp().float()
        optimizer = sgd(model, fused=fused)
        attach(optimizer, model, sigma=0.5, form=form)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        scaler.scale(model(torch.ones(2, 5)).square().mean()).backward()
        if unscale_first:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    with pytest.raises(RuntimeError, match="fused optimizer under a GradScaler"):
        run(True, "pull")
    torch.testing.assert_close(run(True, "shift"), run(False, "pull"))


# ----------------------------------------------------------------------------------------------------- form and refusal


class ThirdParty(torch.optim.SGD):
    """A subclass may change the rule, so only the shift form is safe."""


def test_the_form_is_the_pull_where_it_is_exact_and_the_shift_elsewhere():
    def form(optimizer_class, **options):
        model = mlp()
        return attach(optimizer_class(model.parameters(), lr=0.1, weight_decay=0.1), model, **options).form

    assert form(torch.optim.SGD) == form(torch.optim.AdamW) == "pull"
    assert form(torch.optim.ASGD) == form(ThirdParty) == "shift"
    assert form(getattr(torch.optim, "Adafactor", ThirdParty)) == "shift"  # it came with torch 2.5
    assert form(torch.optim.SGD, form="shift") == "shift"
    with pytest.raises(ValueError, match="not known to be exact for ThirdParty"):
        form(ThirdParty, form="pull")
    with pytest.raises(ValueError, match="form must be"):
        form(torch.optim.SGD, form="push")
    for options in ({"sigma_d": 0.1}, {"sigma_d": 0.1, "form": "shift"}):
        with pytest.raises(ValueError, match="sigma_d > 0 has no shift form"):
            form(ThirdParty, **options)


def test_what_attach_refuses_leaves_model_and_optimizer_untouched():
    def refused(match, optimizer, model, **options):
        before = values(model)
        with pytest.raises(ValueError, match=match):
            attach(optimizer, model, **options)
        assert equal(values(model), before)
        assert not optimizer._optimizer_step_pre_hooks

    model, other = mlp(), mlp()
    refused("no parameter group has weight_decay > 0", sgd(model, weight_decay=0.0), model)
    refused("LBFGS knows no weight_decay", torch.optim.LBFGS(model.parameters()), model)
    refused("start must be", sgd(model), model, start="there")
    refused("form must be", sgd(model), model, form="there")
    refused("sigma must be", sgd(model), model, sigma=-0.1)
    refused("sigma_d must be", sgd(model), model, sigma_d=-0.1)
    refused("floating dtype", sgd(model), model, anchor_dtype=torch.int32)
    refused(r"shape \(8, 5\) that the model lacks", sgd(model), other)
    refused("in module form already", sgd(model), parametrize(model))


def test_attach_anchors_checks_names_shapes_and_owner():
    model = mlp()
    for anchors, match in (
        ({"head": torch.zeros(3)}, "no parameter named 'head'"),
        ({"2.bias": torch.zeros(4)}, r"'2.bias' has shape \(3,\), its anchor or scale \(4,\)"),
    ):
        with pytest.raises(ValueError, match=match):
            attach_anchors(sgd(model), model, anchors)
    for anchors, match in (
        (None, "anchors must be a mapping of parameter names to tensors, got NoneType"),
        ({"2.bias": 3.0}, r"anchors\['2.bias'\] must be a tensor, got float"),
    ):
        with pytest.raises(TypeError, match=match):
            attach_anchors(sgd(model), model, anchors)
    with pytest.raises(ValueError, match=r"'2\.bias' has an anchor or a scale, but is not in the optimizer"):
        attach_anchors(sgd(model[0]), model, {"2.bias": torch.zeros(3).double()})


def test_decoupled_decay_with_d_refuses_the_rate_at_which_decay_forgets_the_weights():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5, weight_decay=2.0)
    attach(optimizer, model, sigma_d=0.1)
    with pytest.raises(ValueError, match=r"lr \* weight_decay != 1"):
        step(optimizer, model)


def test_attaching_twice_is_refused_until_detached_and_detaching_restores_plain_decay():
    model, plain = mlp(), mlp()
    optimizer, plain_optimizer = sgd(model), sgd(plain)
    handle = attach(optimizer, model, start="keep")
    with pytest.raises(ValueError, match="attached already"):
        attach(optimizer, model)
    handle.detach()
    handle.detach()
    step(optimizer, model, 3)
    step(plain_optimizer, plain, 3)
    assert equal(values(model), values(plain))
    attach(optimizer, model)


def test_optimizer_and_handle_are_freed_together():
    model = mlp()
    optimizer = sgd(model)
    alive = weakref.ref(attach(optimizer, model)), weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


# ------------------------------------------------------------------------------------------------------------- closures


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_the_closure_sees_w_its_loss_is_returned_and_its_failure_leaves_w(form):
    model = mlp()
    optimizer = sgd(model)
    attach(optimizer, model, sigma=0.5, form=form)
    before, seen = values(model), []

    def closure():
        seen.extend(values(model))
        optimizer.zero_grad()
        loss = model(torch.ones(2, 5).double()).square().mean()
        loss.backward()
        return loss

    def failing():
        raise KeyError("no data")

    with pytest.raises(KeyError):
        optimizer.step(failing)
    torch.testing.assert_close(values(model), before, rtol=0, atol=1e-15)
    loss = optimizer.step(closure=closure)
    torch.testing.assert_close(seen, before, rtol=0, atol=1e-15)
    assert loss.requires_grad
    assert not equal(values(model), before)


# --------------------------------------------------------------------------------------------------------------- resume


def checkpoint(*stateful):
    buffer = io.BytesIO()
    torch.save([s.state_dict() for s in stateful], buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("load_first", [False, True])
@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_ten_steps_are_five_then_resume_then_five(optimizer_class, load_first):
    def make(seed):
        model = mlp(seed)
        return model, optimizer_class(model.parameters(), lr=0.1, weight_decay=0.3)

    model, optimizer = make(0)
    handle = attach(optimizer, model, sigma=0.5, seed=4)
    step(optimizer, model, 5)
    saved = checkpoint(model, optimizer, handle)
    step(optimizer, model, 5)

    resumed, resumed_optimizer = make(1)
    if load_first:
        resumed.load_state_dict(saved[0])
        handle = attach(resumed_optimizer, resumed, sigma=0.5, seed=4, start="keep")
    else:
        handle = attach(resumed_optimizer, resumed, sigma=0.5, seed=4)
        resumed.load_state_dict(saved[0])
    resumed_optimizer.load_state_dict(saved[1])
    handle.load_state_dict(saved[2])
    step(resumed_optimizer, resumed, 5)
    assert equal(values(resumed), values(model))


def test_resuming_with_other_anchors_is_refused():
    def handle(width=8, **options):
        model = nn.Sequential(nn.Linear(5, width), nn.Linear(width, 3))
        return attach(sgd(model), model, **{"sigma": 0.5, "seed": 4, "sigma_d": 0.1, **options})

    (saved,) = checkpoint(handle())
    assert saved.keys() == {"seed", "sigma", "unit", "gains", "sigma_d", "names", "checksum"}
    handle().load_state_dict(saved)
    handle().load_state_dict({key: value for key, value in saved.items() if key not in ("unit", "gains")})  # an old one
    others = {"seed": 5, "sigma": 0.4, "sigma_d": 0.2, "unit": "absolute", "gains": 1.0}
    for key, other in {key: handle(**{key: value}) for key, value in others.items()}.items():
        with pytest.raises(ValueError, match=f"not the anchors of the checkpoint: {key} was"):
            other.load_state_dict(saved)
    for other in (handle(width=9), handle(anchor_dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="checksum was"):
            other.load_state_dict(saved)
    with pytest.raises(ValueError, match="seed was nothing"):
        handle().load_state_dict({})


# -------------------------------------------------------------------------------------------------------------- compile


@pytest.mark.slow
@pytest.mark.parametrize("attach_to", ["plain", "compiled"])
def test_a_compiled_model_trains_as_the_plain_one(attach_to):
    results = []
    for compiled in (False, True):
        model = mlp()
        forward = torch.compile(model, backend="aot_eager") if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.3)
        handle = attach(optimizer, forward if attach_to == "compiled" else model, sigma=0.5)
        step(optimizer, forward, 5)
        results.append((handle.state_dict(), values(model)))
    assert results[0][0] == results[1][0]  # canonical names, hence the same anchors
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-12)
