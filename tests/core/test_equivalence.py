"""Decay of w toward b is decay of theta = w - b toward 0: both forms follow a plain theta-space optimizer, to 1e-12."""

import copy
import functools
import inspect

import pytest
import torch
from torch import nn
from torch.func import functional_call

from syre.core import attach, attach_anchors, canonical_parameters, draw_anchors, draw_scales, merge, parametrize

SIGMA, SEED, STEPS = 0.5, 3, 15

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1}),
    "nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "sgd_maximize": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "maximize": True}),
    "sgd_loop": (torch.optim.SGD, {"lr": 0.1, "foreach": False}),
    "sgd_foreach": (torch.optim.SGD, {"lr": 0.1, "foreach": True}),
    "sgd_fused": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adam_maximize": (torch.optim.Adam, {"lr": 0.01, "maximize": True}),
    "adam_fused": (torch.optim.Adam, {"lr": 0.01, "fused": True}),
    "adam_decoupled": (torch.optim.Adam, {"lr": 0.01, "decoupled_weight_decay": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    "adamw_maximize": (torch.optim.AdamW, {"lr": 0.01, "maximize": True}),
    "adamw_loop": (torch.optim.AdamW, {"lr": 0.01, "foreach": False}),
    "adamw_foreach": (torch.optim.AdamW, {"lr": 0.01, "foreach": True}),
    "adamw_fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "adamw_tensor_lr": (torch.optim.AdamW, {"lr": torch.tensor(0.01, dtype=torch.float64), "foreach": False}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),
    "nadam_decoupled": (torch.optim.NAdam, {"lr": 0.01, "decoupled_weight_decay": True}),
    "radam": (torch.optim.RAdam, {"lr": 0.01}),
    "radam_decoupled": (torch.optim.RAdam, {"lr": 0.01, "decoupled_weight_decay": True}),
    "adamax": (torch.optim.Adamax, {"lr": 0.01, "maximize": True}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.01, "maximize": True}),
    "adadelta": (torch.optim.Adadelta, {"lr": 0.5, "maximize": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "maximize": True}),
    "asgd": (torch.optim.ASGD, {"lr": 0.05, "lambd": 0.1}),
    "adafactor": (getattr(torch.optim, "Adafactor", None), {"lr": 0.01}),  # came with torch 2.5
}
DECOUPLED = {name for name in OPTIMIZERS if "decoupled" in name or "adamw" in name}
MODES = ["plain", "clipping", "schedule", "two_groups", "closure", "accumulation"]
SOME = ["sgd", "nesterov", "sgd_maximize", "sgd_fused", "adam", "adamw", "adamw_fused", "adamw_foreach"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        yield torch.randn(16, 5, generator=generator).double(), torch.randn(16, 3, generator=generator).double()


def build(kind, parameters, mode, **overrides):
    """The optimizer over the parameters; in two groups, with their own lr and weight_decay, if the mode says so."""
    cls, options = OPTIMIZERS[kind]
    if cls is None or options.keys() - inspect.signature(cls).parameters.keys():
        pytest.skip(f"torch {torch.__version__} has no {kind}")
    options = {"weight_decay": 0.3, **options, **overrides}
    if "lr" in options and torch.is_tensor(options["lr"]):
        options["lr"] = options["lr"].clone()
    parameters = list(parameters)
    groups = [{"params": parameters}]
    if mode == "two_groups":
        groups = [
            {"params": parameters[:2], "weight_decay": 0.1},
            {"params": parameters[2:], "lr": options["lr"] * 0.5},
        ]
        if "weight_decay" in overrides:
            groups[0]["weight_decay"] = overrides["weight_decay"]
    return cls(groups, **options)


def train(optimizer, forward, parameters, mode, *, after_backward=lambda: None):
    """A plain loop; ``after_backward`` is where the reference for Eq. (7) adds its own decay."""
    sign = -1 if optimizer.param_groups[0].get("maximize") else 1
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 6, 0.5) if mode == "schedule" else None
    for x, y in batches():

        def closure(x=x, y=y):
            optimizer.zero_grad()
            halves = [(x[:8], y[:8]), (x[8:], y[8:])] if mode == "accumulation" else [(x, y)]
            for u, v in halves:
                loss = sign * (forward(u) - v).square().mean() / len(halves)
                loss.backward()
            if mode == "clipping":
                nn.utils.clip_grad_norm_(parameters, 0.1)
            after_backward()
            return loss

        if mode == "closure":
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        if scheduler is not None:
            scheduler.step()


@functools.cache
def theta_reference(kind, mode, *, sigma_d=0.0):
    """Eqs. (6) and (7) written out: leaves theta, forward at theta + b, the optimizer (or D by hand) decays theta."""
    model = mlp()
    scales = draw_scales(model, sigma_d=sigma_d, seed=SEED)
    anchors = draw_anchors(model, sigma=SIGMA, seed=SEED)
    theta = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}

    def forward(x):
        return functional_call(model, {name: theta[name] + anchors[name] for name in theta}, (x,))

    if sigma_d == 0:
        optimizer = build(kind, theta.values(), mode)
        train(optimizer, forward, list(theta.values()), mode)
    else:  # the optimizer decays nothing; D does
        decays = [group["weight_decay"] for group in build(kind, theta.values(), mode).param_groups]
        optimizer = build(kind, theta.values(), mode, weight_decay=0.0)
        scale_of = {id(theta[name]): scales[name] for name in theta}

        @torch.no_grad()
        def decay():
            for group, weight_decay in zip(optimizer.param_groups, decays, strict=True):
                for p in group["params"]:
                    pull = weight_decay * scale_of[id(p)] * p
                    if kind in DECOUPLED:
                        p -= group["lr"] * pull
                    else:
                        p.grad += -pull if group["maximize"] else pull

        train(optimizer, forward, list(theta.values()), mode, after_backward=decay)
    return {name: (theta[name] + anchors[name]).detach() for name in theta}


def distance(model, reference):
    return max((p.detach() - reference[name]).abs().max().item() for name, p in canonical_parameters(model).items())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_form_is_decay_of_theta(kind, mode):
    model = mlp()
    optimizer = build(kind, model.parameters(), mode)
    attach(optimizer, model, sigma=SIGMA, seed=SEED)
    train(optimizer, model, list(model.parameters()), mode)
    assert distance(model, theta_reference(kind, mode)) < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SOME)
def test_shift_form_is_decay_of_theta(kind, mode):
    model = mlp()
    optimizer = build(kind, model.parameters(), mode)
    attach(optimizer, model, sigma=SIGMA, seed=SEED, form="shift")
    train(optimizer, model, list(model.parameters()), mode)
    assert distance(model, theta_reference(kind, mode)) < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SOME)
def test_module_form_is_decay_of_theta(kind, mode):
    model = mlp()
    optimizer = build(kind, model.parameters(), mode)  # made before: the Parameter objects stay
    parametrize(model, sigma=SIGMA, seed=SEED)
    train(optimizer, model, list(model.parameters()), mode)
    assert distance(merge(model), theta_reference(kind, mode)) < 1e-12


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("form", ["optimizer", "module"])
def test_both_forms_follow_equation_7(kind, mode, form):
    model = mlp()
    optimizer = build(kind, model.parameters(), mode)
    if form == "optimizer":
        attach(optimizer, model, sigma=SIGMA, seed=SEED, sigma_d=0.3)
    else:
        parametrize(model, sigma=SIGMA, seed=SEED, sigma_d=0.3, optimizer=optimizer)
    train(optimizer, model, list(model.parameters()), mode)
    if form == "module":
        merge(model)
    assert distance(model, theta_reference(kind, mode, sigma_d=0.3)) < 1e-12
    assert distance(model, theta_reference(kind, mode)) > 1e-5  # control: D = 1 is something else


@pytest.mark.parametrize("kind", ["sgd", "sgd_maximize", "adam", "adamw", "asgd"])
@pytest.mark.parametrize("mode", ["plain", "closure"])
def test_control_negated_anchors_and_no_syre_are_something_else(kind, mode):
    reference = theta_reference(kind, mode)
    for factor in (-1.0, 0.0):
        model = mlp()
        anchors = draw_anchors(model, sigma=SIGMA, seed=SEED)
        with torch.no_grad():  # the same start point
            for name, p in model.named_parameters():
                p += anchors[name]
        optimizer = build(kind, model.parameters(), mode)
        attach_anchors(optimizer, model, {name: factor * b for name, b in anchors.items()})
        train(optimizer, model, list(model.parameters()), mode)
        assert distance(model, reference) > 1e-4


@pytest.mark.parametrize("kind", [k for k in OPTIMIZERS if k not in ("asgd", "adafactor")])
def test_sigma_zero_is_plain_weight_decay_bit_for_bit(kind):
    plain, anchored = mlp().float(), mlp().float()
    for model in (plain, anchored):
        optimizer = build(kind, model.parameters(), "two_groups")
        if model is anchored:
            assert attach(optimizer, model, sigma=0.0).form == "pull"
        train(optimizer, lambda x, model=model: model(x.float()), list(model.parameters()), "two_groups")
    for p, q in zip(plain.parameters(), anchored.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Muon"])
@pytest.mark.parametrize("form", ["pull", "shift"])
def test_without_gradient_the_weights_relax_to_the_anchor_as_powers_of_one_minus_eta_lambda(name, form):
    optimizer_class = getattr(torch.optim, name, None) or pytest.skip(f"torch {torch.__version__} has no {name}")
    model = nn.Linear(4, 3, bias=name != "Muon").double()  # Muon takes matrices only
    optimizer = optimizer_class(model.parameters(), lr=0.1, weight_decay=0.5)
    handle = attach(optimizer, model, sigma=1.0, form=form)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(40):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for name, p in model.named_parameters():
        b = handle.anchors[name]
        torch.testing.assert_close(p - b, 0.95**40 * (start[name] - b), rtol=0, atol=1e-13)


def test_a_copied_optimizer_has_lost_its_anchors_and_a_new_attach_restores_them():
    model = mlp()
    optimizer = build("sgd", model.parameters(), "plain")
    attach(optimizer, model, sigma=SIGMA, seed=SEED)
    reference = theta_reference("sgd", "plain")
    lost_model, lost = copy.deepcopy((model, optimizer))
    train(lost, lost_model, list(lost_model.parameters()), "plain")
    assert distance(lost_model, reference) > 1e-4
    kept_model, kept = copy.deepcopy((model, optimizer))
    attach(kept, kept_model, sigma=SIGMA, seed=SEED, start="keep")
    train(kept, kept_model, list(kept_model.parameters()), "plain")
    assert distance(kept_model, reference) < 1e-12
