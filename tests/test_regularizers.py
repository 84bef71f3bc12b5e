"""Each regularizer does to a lone model what its formula says, under every optimizer."""

import os
import subprocess
import sys

import pytest
import torch
from replicas import DEEP, REGULARIZERS, Run, build
from torch import nn

from syre.core.decay import Renews
from syre.models import MLP
from syre.optim import SGD, Adam
from syre.regularizers import (
    Dropout,
    L2Init,
    Offset,
    ShrinkPerturb,
    SigmaAsym,
    Syre,
    SyreAdvanced,
    SyreChanging,
    SyreLayers,
    Vanilla,
    WAsym,
    WeightDecay,
    WFix,
)

OPTIMIZERS = [SGD(lr=0.1), SGD(lr=0.1, momentum=0.9, nesterov=True), Adam(lr=0.1), Adam(lr=0.1, decoupled=True)]
MLP_WIDE = MLP(hidden=[500])


def model(seed: int = 0, spec: MLP = DEEP) -> nn.Module:
    torch.manual_seed(seed)
    return spec.build((40,), 10).double()


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def step(regularizer, optim, module: nn.Module, gradient: float, steps: int = 1) -> None:
    """Steps along one given gradient for every entry."""
    regularizer.prepare(module, 0)
    optimizer = optim.build(module, regularizer.weight_decay)
    regularizer.attach(optimizer, module, 0)
    for _ in range(steps):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()


def test_each_regularizer_has_its_own_name():
    names = {"vanilla", "weight_decay", "syre", "syre_advanced", "syre_layers", "l2_init", "offset", "shrink_perturb"}
    assert {cls.name for cls in REGULARIZERS} == names | {"dropout", "w_fix", "w_asym", "sigma_asym", "syre_changing"}


def test_vanilla_has_no_decay_and_weight_decay_decays_to_zero():
    module = model()
    start = weights(module)
    step(Vanilla(), SGD(lr=0.1), module, gradient=0.0)
    torch.testing.assert_close(weights(module), start, rtol=0, atol=0)
    step(WeightDecay(weight_decay=0.5), SGD(lr=0.1), module, gradient=0.0)
    torch.testing.assert_close(weights(module), {name: 0.95 * w for name, w in start.items()})


@pytest.mark.parametrize("regularizer", [Syre(weight_decay=0.5, sigma=0.7), SyreAdvanced(weight_decay=0.5, sigma=0.7)])
def test_without_gradient_syre_brings_the_weights_to_its_anchors(regularizer):
    module = model()
    optimizer = SGD(lr=0.5).build(module, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, module, 0)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(200):
        for parameter in module.parameters():
            parameter.grad.zero_()
        optimizer.step()
    torch.testing.assert_close(weights(module), handle.anchors)
    assert (module.layers[0].weight.abs() > 1e-3).any()  # control: this is not 0


@pytest.mark.parametrize("optim", [SGD(lr=0.5), Adam(lr=0.05), Adam(lr=1.0, decoupled=True)])
def test_anchors_in_some_layers_leave_the_others_to_plain_decay(optim):
    regularizer, module, whole = SyreLayers(weight_decay=0.5, sigma=0.7, modules=["layers.1"]), model(), model()
    shifted = {name: w.clone() for name, w in weights(module).items()}
    optimizer = optim.build(module, regularizer.weight_decay)
    handle = regularizer.attach(optimizer, module, 0)
    everywhere = Syre(weight_decay=0.5, sigma=0.7).attach(optim.build(whole, 0.5), whole, 0)
    assert set(handle.anchors) == {"layers.1.weight", "layers.1.bias"}
    torch.testing.assert_close(handle.anchors, {name: everywhere.anchors[name] for name in handle.anchors})
    for name, anchor in handle.anchors.items():
        shifted[name] += anchor
    torch.testing.assert_close(weights(module), shifted)  # only they are shifted at the start
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(600):
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
    for name, weight in weights(module).items():
        torch.testing.assert_close(weight, handle.anchors.get(name, torch.zeros_like(weight)), rtol=0, atol=1e-3)
    assert handle.anchors["layers.1.weight"].abs().max() > 0.1  # control: this is not 0
    assert everywhere.anchors["layers.0.weight"].abs().max() > 0.1  # ... and nor is what syre does to the others


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["layers.0", "head"], "no 'head' in MLPModule; it has layers.0, layers.1, layers.2"),
        (["layers.1.weight"], "no 'layers.1.weight' in MLPModule"),
        (["layer"], "no 'layer' in MLPModule"),
    ],
)
def test_layers_that_the_model_does_not_have_are_named(modules, message):
    module = model()
    with pytest.raises(ValueError, match=message):
        SyreLayers(weight_decay=0.1, modules=modules).attach(SGD(lr=0.1).build(module, 0.1), module, 0)


def test_the_anchors_of_a_run_follow_its_seed():
    draws = []
    for seed in (0, 0, 1):
        module = model()
        draws.append(Syre(weight_decay=0.1).attach(SGD(lr=1.0).build(module, 0.1), module, seed).anchors)
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert all((draws[0][name] != draws[2][name]).any() for name in draws[0])


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_l2_init_stays_where_it_starts_until_there_is_a_gradient(optim):
    module = model()
    start = weights(module)
    step(L2Init(weight_decay=0.5), optim, module, gradient=0.0, steps=3)
    torch.testing.assert_close(weights(module), start, rtol=0, atol=1e-8 if isinstance(optim, SGD) else 0.4)
    step(L2Init(weight_decay=0.5), SGD(lr=0.1), module, gradient=1.0)
    assert all((w != start[name]).all() for name, w in weights(module).items())


# ---- offset and shrink & perturb -------------------------------------------------------------------------------------


def test_an_offset_starts_where_syre_starts_and_decays_to_zero_instead():
    offset, syre = model(), model()
    optimizers, both = [], (Offset(weight_decay=0.5, sigma=0.7), Syre(weight_decay=0.5, sigma=0.7))
    for module, regularizer in zip((offset, syre), both, strict=True):
        optimizers.append(SGD(lr=0.5).build(module, regularizer.weight_decay))
        regularizer.attach(optimizers[-1], module, 0)
    torch.testing.assert_close(weights(offset), weights(syre), rtol=0, atol=0)
    assert all((w != weights(model())[name]).all() for name, w in weights(offset).items())  # control: both have moved
    for _ in range(200):
        for module, optimizer in zip((offset, syre), optimizers, strict=True):
            for parameter in module.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
    assert all(w.abs().max() < 1e-12 for w in weights(offset).values())
    assert all(w.abs().max() > 1e-3 for w in weights(syre).values())  # control


@pytest.mark.parametrize("scope", ["all", "matrices"])
@pytest.mark.parametrize("unit", ["relative", "absolute"])
def test_an_offset_is_where_syre_has_anchors_of_that_scope_and_unit(scope, unit):
    models = [nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    before = {name: weight.detach().clone() for name, weight in models[0].named_parameters()}
    settings = {"weight_decay": 0.1, "sigma": 0.5, "scope": scope, "unit": unit}
    for kind, model in zip((Syre, Offset), models, strict=True):
        regularizer = kind(**settings)
        regularizer.attach(SGD(lr=0.1).build(model, 0.1, scope), model, seed=3)
    for name, weight in models[0].named_parameters():
        assert torch.equal(weight, models[1].get_parameter(name))
        assert torch.equal(weight, before[name]) == (scope == "matrices" and weight.dim() < 2)


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_without_an_offset_it_is_weight_decay_and_without_decay_it_is_vanilla_moved(optim):
    plain, none = model(), model()
    step(WeightDecay(weight_decay=0.5), optim, plain, gradient=0.3, steps=3)
    step(Offset(sigma=0.0, weight_decay=0.5), optim, none, gradient=0.3, steps=3)
    torch.testing.assert_close(weights(none), weights(plain), rtol=0, atol=0)
    moved, vanilla = model(), model()
    step(Offset(sigma=0.7), optim, vanilla, gradient=0.0, steps=0)
    step(Vanilla(), optim, vanilla, gradient=0.3, steps=3)
    step(Offset(sigma=0.7), optim, moved, gradient=0.3, steps=3)
    torch.testing.assert_close(weights(moved), weights(vanilla), rtol=0, atol=1e-12)


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_between_tasks_shrink_and_perturb_is_weight_decay(optim):
    plain, perturbed = model(), model()
    step(WeightDecay(weight_decay=0.5), optim, plain, gradient=0.3, steps=3)
    step(ShrinkPerturb(weight_decay=0.5), optim, perturbed, gradient=0.3, steps=3)
    torch.testing.assert_close(weights(perturbed), weights(plain), rtol=0, atol=0)


def renewed(regularizer: ShrinkPerturb, stage: int = 1, seed: int = 0, spec: MLP = MLP_WIDE) -> dict[str, torch.Tensor]:
    """The weights with which a task starts."""
    module = model(spec=spec)
    optimizer = SGD(lr=1.0).build(module, regularizer.weight_decay)
    regularizer.attach(optimizer, module, seed).renew(dict(module.named_parameters()), stage)
    return weights(module)


def test_a_task_starts_from_shrunk_weights_and_a_draw_of_its_own():
    start = weights(model(spec=MLP_WIDE))
    torch.testing.assert_close(renewed(ShrinkPerturb(shrink=0.4, perturb=0.0)), {n: 0.4 * w for n, w in start.items()})
    for name, drawn in renewed(ShrinkPerturb(shrink=0.0, perturb=0.3)).items():
        fan_in = 40 if name.startswith("layers.0") else 500
        assert abs(drawn.std() * fan_in**0.5 / 0.3 - 1) < 4 / (2 * drawn.numel()) ** 0.5
    both, fresh = (renewed(ShrinkPerturb(shrink=shrink, perturb=0.3)) for shrink in (0.4, 0.0))
    torch.testing.assert_close(both, {name: 0.4 * w + fresh[name] for name, w in start.items()})


def test_the_draw_follows_the_seed_and_the_task():
    draws = [renewed(ShrinkPerturb(shrink=0.0), **at) for at in ({}, {}, {"stage": 2}, {"seed": 1})]
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=0)
    for other in draws[2:]:
        assert all((w != other[name]).all() for name, w in draws[0].items())


def test_only_shrink_and_perturb_renews_weights_between_tasks():
    renewing = set()
    for regularizer in (
        ShrinkPerturb(),
        Syre(weight_decay=0.1),
        SyreChanging(weight_decay=0.1),
        L2Init(weight_decay=0.1),
        WFix(fraction=0.1),
        Offset(sigma=0.1),
        Dropout(rate=0.1),
    ):
        module = model()
        handle = regularizer.attach(SGD(lr=1.0).build(module, regularizer.weight_decay), module, 0)
        renewing |= {regularizer.name} if isinstance(handle, Renews) else set()
    assert renewing == {"shrink_perturb"}


# ---- anchors that change ---------------------------------------------------------------------------------------------


def centres(regularizer, optim, stages: list[int], seed: int = 0, **options) -> list[dict[str, torch.Tensor]]:
    """Where the decay alone brings the weights in each of these tasks, in turn."""
    module = model(**options)
    optimizer = optim.build(module, regularizer.weight_decay, regularizer.scope)
    handle, found = regularizer.attach(optimizer, module, seed), []
    for stage in stages:
        before = weights(module)
        handle.vary(stage)
        torch.testing.assert_close(weights(module), before, rtol=0, atol=0)  # the weights stay where they are
        for _ in range(100):
            for parameter in module.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        found.append(weights(module))
    return found


def anchors_of_syre(seed: int = 0, **options) -> dict[str, torch.Tensor]:
    module = model(**options)
    regularizer = Syre(weight_decay=0.5, sigma=0.7)
    return regularizer.attach(SGD(lr=1.0).build(module, 0.5), module, seed).anchors


DECAYING = [SGD(lr=1.0), Adam(lr=1.0, decoupled=True)]  # the distance from the centre is halved in each step


@pytest.mark.parametrize("optim", DECAYING, ids=["sgd", "adamw"])
def test_in_each_task_the_decay_is_toward_the_anchors_of_that_task(optim):
    of_syre = anchors_of_syre()
    found = centres(SyreChanging(weight_decay=0.5, sigma=0.7, change="halved"), optim, [0, 1, 2, 3])
    for stage, its in enumerate(found):
        torch.testing.assert_close(its, {n: 0.5**stage * b for n, b in of_syre.items()}, rtol=1e-6, atol=1e-9)
    redrawn = centres(SyreChanging(weight_decay=0.5, sigma=0.7), optim, [0, 1, 2, 3], spec=MLP_WIDE)
    torch.testing.assert_close(redrawn[0], anchors_of_syre(spec=MLP_WIDE), rtol=1e-6, atol=1e-9)
    for stage, its in enumerate(redrawn):
        b = its["layers.0.weight"].flatten()  # 20,000 entries
        assert abs(float(b.std()) * 40**0.5 / 0.7 - 1) < 4 / (2 * b.numel()) ** 0.5
        for earlier in redrawn[:stage]:
            c = earlier["layers.0.weight"].flatten()
            assert abs(float(torch.corrcoef(torch.stack([b, c]))[0, 1])) < 4 / b.numel() ** 0.5


def test_how_much_is_kept_goes_from_plain_decay_after_the_first_task_to_syre():
    of_syre = anchors_of_syre()
    for keep, factors in ((1.0, (1, 1, 1)), (0.1, (1, 0.1, 0.01)), (0.0, (1, 0, 0))):
        regularizer = SyreChanging(weight_decay=0.5, sigma=0.7, change="halved", keep=keep)
        for factor, its in zip(factors, centres(regularizer, SGD(lr=1.0), [0, 1, 2]), strict=True):
            torch.testing.assert_close(its, {n: factor * b for n, b in of_syre.items()}, rtol=1e-6, atol=1e-9)


def test_the_anchors_are_of_the_seed_and_the_task_whatever_was_before():
    regularizer = SyreChanging(weight_decay=0.5, sigma=0.7)
    first, second, again, back = centres(regularizer, SGD(lr=1.0), [1, 2, 1, 0])
    (at_once,) = centres(regularizer, SGD(lr=1.0), [2])
    torch.testing.assert_close((first, second), (again, at_once), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back, anchors_of_syre(), rtol=1e-6, atol=1e-9)
    (other,) = centres(regularizer, SGD(lr=1.0), [2], seed=1)
    assert all((b != other[name]).all() for name, b in at_once.items())  # control


def test_what_does_not_decay_has_no_anchor_in_any_task():
    regularizer = SyreChanging(weight_decay=0.5, sigma=0.7, scope="matrices")
    for its in centres(regularizer, SGD(lr=1.0), [0, 1]):
        assert all(torch.equal(w, model().get_parameter(name).detach()) for name, w in its.items() if w.dim() == 1)
        assert all((w != model().get_parameter(name)).all() for name, w in its.items() if w.dim() == 2)


def test_a_saved_state_goes_with_the_anchors_of_its_task():
    def run() -> tuple:
        module, regularizer = model(), SyreChanging(weight_decay=0.5, sigma=0.7)
        optimizer = SGD(lr=1.0).build(module, 0.5)
        return optimizer, regularizer.attach(optimizer, module, 0), module

    optimizer, handle, _ = run()
    handle.vary(1)
    states = optimizer.state_dict(), handle.inner.state_dict()
    other, its, _module = run()
    for load, state in ((other.load_state_dict, states[0]), (its.inner.load_state_dict, states[1])):
        with pytest.raises(ValueError, match=r"other anchors|not the anchors of the checkpoint"):
            load(state)
    its.vary(1)
    other.load_state_dict(states[0])
    its.inner.load_state_dict(states[1])


# ---- W-fix -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.37, 0.99])
def test_w_fix_freezes_the_same_number_of_entries_in_every_row_at_other_places(fraction):
    frozen = WFix(fraction=fraction).frozen(model(), 0)
    assert set(frozen) == {"layers.0.weight", "layers.1.weight", "layers.2.weight"}  # biases are free
    for mask, _ in frozen.values():
        assert (mask.sum(1) == round(fraction * mask.shape[1])).all()
    mask = frozen["layers.0.weight"][0]
    if 0 < fraction < 0.9:
        assert (mask[0] != mask[1]).any()


def test_w_fix_counts_a_row_of_a_convolution_as_an_output_channel():
    mask, values = WFix(fraction=0.5).frozen(nn.Conv2d(4, 6, 3), 0)["weight"]
    assert mask.shape == values.shape == (6, 4, 3, 3)
    assert (mask.flatten(1).sum(1) == 18).all()


@pytest.mark.parametrize("kappa", [0.05, 1.0, 3.0])
def test_the_std_of_the_frozen_values_is_kappa_whatever_the_fan_in(kappa):
    for mask, values in WFix(fraction=0.5, kappa=kappa).frozen(model(spec=MLP_WIDE), 0).values():
        held = values[mask]
        assert abs(held.std() / kappa - 1) < 4 / (2 * held.numel()) ** 0.5
        assert abs(held.mean() / kappa) < 4 / held.numel() ** 0.5


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_frozen_entries_never_move_and_the_others_do(optim):
    module, regularizer = model(), WFix(fraction=0.3, kappa=0.7, weight_decay=0.5)
    free = weights(module)
    frozen = regularizer.frozen(module, 0)
    step(regularizer, optim, module, gradient=0.3, steps=5)
    for name, w in weights(module).items():
        mask, values = frozen.get(name, (torch.zeros_like(w, dtype=torch.bool), w))
        assert torch.equal(w[mask], values[mask])
        assert (w[~mask] != free[name][~mask]).all()


def test_frozen_entries_do_not_count_in_the_step_of_the_others():
    """Their gradients are 0 before the optimizer sees them, and their moments stay 0."""
    module = model()
    regularizer = WFix(fraction=0.3)
    optimizer = Adam(lr=0.1).build(module, 0.0)
    handle = regularizer.attach(optimizer, module, 0)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        moment = optimizer.state[parameter]["exp_avg"]
        mask = handle.frozen[name][0] if name in handle.frozen else torch.zeros_like(moment, dtype=torch.bool)
        assert torch.equal(moment == 0, mask)


def test_w_asym_that_does_not_hold_starts_where_it_does_and_is_free_from_there():
    held, free = model(), model()
    few = {"fixed": [2] * 3, "kappa": [1.0] * 3}
    optimizers = [SGD(lr=0.1).build(module, 0.0) for module in (held, free)]
    handle = WAsym(**few).attach(optimizers[0], held, 0)
    assert not WAsym(**few, hold=False).attach(optimizers[1], free, 0).effect().frozen
    assert all(torch.equal(w, weights(free)[name]) for name, w in weights(held).items())
    for module, optimizer in zip((held, free), optimizers, strict=True):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    for name, w in weights(held).items():
        mask = handle.frozen[name][0] if name in handle.frozen else torch.zeros_like(w, dtype=torch.bool)
        assert torch.equal(w != weights(free)[name], mask)


def test_detached_w_fix_lets_go():
    module = model()
    optimizer = SGD(lr=0.1).build(module, 0.0)
    handle = WFix(fraction=0.3).attach(optimizer, module, 0)
    handle.detach()
    start = weights(module)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all((w != start[name]).all() for name, w in weights(module).items())


PRINT_DRAWS = """
from syre.models import MLP
from syre.optim import SGD
from syre.regularizers import Syre, WFix
for seed in (0, 1):
    model = MLP(hidden=[7, 8]).build((40,), 10)
    frozen = WFix(fraction=0.3).frozen(model, seed)
    anchors = Syre(weight_decay=0.1).attach(SGD(lr=1.0).build(model, 0.1), model, seed).anchors
    print([(m.nonzero().sum().item(), v.double().sum().item().hex()) for m, v in frozen.values()],
          [b.double().sum().item().hex() for b in anchors.values()])
"""


def test_draws_are_equal_in_every_process_and_differ_between_seeds():
    """Python's `hash` is salted by PYTHONHASHSEED: nothing may be seeded from it."""

    def printed(salt: str) -> list[str]:
        command, environment = [sys.executable, "-c", PRINT_DRAWS], {**os.environ, "PYTHONHASHSEED": salt}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()

    one, other = printed("1"), printed("2")
    assert one == other
    assert one[0] != one[1]


# ---- dropout, and what is refused ------------------------------------------------------------------------------------


def test_dropout_sets_the_rate_of_every_dropout_layer():
    module = model()
    Dropout(rate=0.3).prepare(module, 0)
    assert [round(float(layer.rate), 6) for layer in module.dropouts] == [0.3, 0.3]


def test_dropout_needs_dropout_layers():
    with pytest.raises(ValueError, match="needs a model with dropout layers, Linear has none"):
        Dropout(rate=0.3).prepare(nn.Linear(2, 2), 0)


def test_sigma_asym_needs_activations():
    with pytest.raises(ValueError, match="needs a model with activations, Linear has none"):
        SigmaAsym().prepare(nn.Linear(2, 2), 0)


@pytest.mark.parametrize(
    ("cls", "settings", "key"),
    [
        (WeightDecay, {"weight_decay": -1e-3}, "weight_decay"),
        (WeightDecay, {"weight_decay": float("nan")}, "weight_decay"),
        (Syre, {"weight_decay": 0.0}, "weight_decay"),
        (Syre, {"weight_decay": 0.1, "sigma": -0.01}, "sigma"),
        (Syre, {"weight_decay": 0.1, "start": "there"}, "start"),
        (SyreLayers, {"weight_decay": 0.1}, "modules"),
        (SyreAdvanced, {"weight_decay": 0.1, "sigma_d": 0.0}, "sigma_d"),
        (SyreAdvanced, {"weight_decay": 0.1, "sigma_d": 0.6}, "sigma_d"),
        (SyreChanging, {"weight_decay": 0.0}, "weight_decay"),
        (SyreChanging, {"weight_decay": 0.1, "change": "moved"}, "change must be one of redrawn, halved, got 'moved'"),
        (SyreChanging, {"weight_decay": 0.1, "keep": 1.1}, "keep"),
        (L2Init, {"weight_decay": 0.0}, "weight_decay"),
        (Dropout, {"rate": 1.0}, "rate"),
        (Offset, {"sigma": -0.1}, "sigma"),
        (Offset, {"sigma": 0.1, "weight_decay": -0.1}, "weight_decay"),
        (ShrinkPerturb, {"shrink": 1.0}, "shrink"),
        (ShrinkPerturb, {"perturb": -0.1}, "perturb"),
        (ShrinkPerturb, {"weight_decay": -0.1}, "weight_decay"),
        (WFix, {"fraction": 1.0}, "fraction"),
        (WFix, {"fraction": 0.1, "kappa": -1.0}, "kappa"),
        (WFix, {"fraction": 0.1, "weight_decay": -1.0}, "weight_decay"),
        (WAsym, {"fixed": [1, -1], "kappa": [1.0, 1.0]}, "fixed"),
        (WAsym, {"fixed": [1], "kappa": [-1.0]}, "kappa"),
        (WAsym, {"fixed": [1, 2], "kappa": [1.0]}, "fixed and regularizer.kappa must be of one length"),
        (SigmaAsym, {"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_settings_out_of_range_are_named_in_one_line(cls, settings, key):
    with pytest.raises(ValueError, match=f"regularizer.{key}") as error:
        cls(**settings)
    assert "\n" not in str(error.value)


def test_a_run_is_built_from_its_regularizer_alone():
    """The decay in the optimizer is the regularizer's."""
    for regularizer in (Vanilla(), WeightDecay(weight_decay=0.2), WFix(fraction=0.1, weight_decay=0.3)):
        replica = build(Run(regularizer=regularizer, optim=SGD(lr=0.1)))
        assert replica.optimizer.param_groups[0]["weight_decay"] == regularizer.weight_decay
