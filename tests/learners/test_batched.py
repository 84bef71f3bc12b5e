"""The batched optimizer against R stock ones on given gradients, and what it does not step."""

import pytest
import torch
from torch import nn
from torch.optim.adam import adam

from syre.core import Effect, attach
from syre.learners import BatchedOptimizer, Ensemble, Replica, Single
from syre.learners.batched import SMALL
from syre.optim import SCOPES, decay_groups
from syre.regularizers import Syre

KINDS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=0.1),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.5 + lr, weight_decay=0.1),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, weight_decay=lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=lr),
    "adam_decoupled": lambda p, lr: torch.optim.Adam(p, lr=lr, weight_decay=lr, decoupled_weight_decay=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-3),
}
LRS = [0.1, 0.03, 0.2]


def stack(models: list[nn.Module]) -> torch.Tensor:
    return torch.stack([nn.utils.parameters_to_vector(model.parameters()).detach() for model in models])


@pytest.mark.parametrize("lrs", [LRS, [0.1] * 3], ids=["unlike", "alike"])
@pytest.mark.parametrize("width", [5, SMALL // 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_steps_as_its_stock_optimizer(kind, width, lrs):
    models = [nn.Linear(3, width).double() for _ in lrs]
    optimizers = [KINDS[kind](model.parameters(), lr) for model, lr in zip(models, lrs, strict=True)]
    flat = stack(models)
    batched = BatchedOptimizer(flat, optimizers, models[0], [Effect()] * 3)
    stream = torch.Generator().manual_seed(0)
    for t in range(20):
        grads = torch.randn(flat.shape, generator=stream, dtype=torch.float64)
        factor = 1 / (1 + t)
        for model, optimizer, lr, grad in zip(models, optimizers, lrs, grads, strict=True):
            model.weight.grad, model.bias.grad = grad[: 3 * width].view(width, 3).clone(), grad[3 * width :].clone()
            optimizer.param_groups[0]["lr"] = lr * factor
            optimizer.step()
            optimizer.param_groups[0]["lr"] = lr
        batched.step(grads.clone(), factor)
    torch.testing.assert_close(flat, stack(models), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lrs", [LRS, [0.1] * 3], ids=["unlike", "alike"])
def test_param_groups_keep_their_own_settings(lrs):
    def make(model: nn.Linear, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [
                {"params": [model.weight], "weight_decay": 0.5},
                {"params": [model.bias], "weight_decay": 0.0, "lr": 2 * lr},
            ],
            lr=lr,
        )

    models = [nn.Linear(3, 4).double() for _ in lrs]
    optimizers = [make(model, lr) for model, lr in zip(models, lrs, strict=True)]
    flat = stack(models)
    batched = BatchedOptimizer(flat, optimizers, models[0], [Effect()] * 3)
    for _ in range(5):
        batched.step(torch.ones_like(flat))
        for model, optimizer in zip(models, optimizers, strict=True):
            model.weight.grad, model.bias.grad = torch.ones_like(model.weight), torch.ones_like(model.bias)
            optimizer.step()
    torch.testing.assert_close(flat, stack(models), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lrs", [[0.1] * 4, [0.1, 0.03, 0.1, 0.2]], ids=["alike", "unlike"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_rows_by_the_fused_kernel_are_bit_for_bit_those_of_stock_optimizers(kind, lrs, monkeypatch):
    """A call for each learning rate of each param group, and in it the rows as the stock optimizers would give them."""
    width, calls = SMALL + 3, []
    counted = lambda *lists, **settings: (calls.append((settings["lr"], len(lists[0]))), adam(*lists, **settings))  # noqa: E731
    monkeypatch.setattr("syre.learners.batched.adam", counted)
    models = [nn.ParameterDict({name: torch.randn(width) for name in "ab"}) for _ in lrs]
    optimizers = [
        kind([{"params": [model["a"]]}, {"params": [model["b"]]}], lr=lr, weight_decay=0, fused=True)
        for model, lr in zip(models, lrs, strict=True)
    ]
    flat = stack(models)
    batched = BatchedOptimizer(flat, optimizers, models[0], [Effect()] * len(lrs))
    stream = torch.Generator().manual_seed(0)
    for t in range(6):
        grads, factor = torch.randn(flat.shape, generator=stream), 1 / (1 + t)
        for model, optimizer, lr, grad in zip(models, optimizers, lrs, grads, strict=True):
            model["a"].grad, model["b"].grad = (part.clone() for part in grad.split(width))
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.step()
            for group in optimizer.param_groups:
                group["lr"] = lr
        calls.clear()
        batched.step(grads.clone(), factor)
        assert calls == [(lr * factor, lrs.count(lr)) for lr in dict.fromkeys(lrs)] * 2
        assert torch.equal(flat, stack(models))


def ensemble(make, regularizer=None) -> Ensemble:
    replicas = []
    for k in range(2):
        model = nn.Linear(3, 4)
        optimizer = make(model.parameters(), k)
        handle = regularizer(optimizer, model) if regularizer else None
        replicas.append(Replica(model=model, optimizer=optimizer, handle=handle, noise=torch.Generator()))
    return Ensemble(replicas)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p, k: torch.optim.RMSprop(p), "steps SGD, Adam or AdamW, all of one kind, got .*RMSprop"),
        (lambda p, k: (torch.optim.SGD, torch.optim.Adam)[k](p, lr=0.1), "all of one kind, got .*Adam.*SGD"),
        (lambda p, k: torch.optim.Adam(p, amsgrad=True), "does not step with amsgrad"),
        (lambda p, k: torch.optim.SGD(p, lr=0.1, maximize=True), "does not step with maximize"),
        (lambda p, k: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), "does not step with dampening"),
        (lambda p, k: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=k == 1), "must share nesterov"),
        (lambda p, k: torch.optim.Adam(p, decoupled_weight_decay=k == 1), "must share decoupled_weight_decay"),
    ],
)
def test_what_it_does_not_step_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        ensemble(make)


def test_betas_and_eps_must_be_shared_by_the_replicas():
    for setting in ({"betas": (0.9, 0.99)}, {"eps": 1e-3}):
        with pytest.raises(ValueError, match=f"must share {next(iter(setting))}"):
            ensemble(lambda p, k, setting=setting: torch.optim.Adam(p, **(setting if k else {})))


def test_syre_in_its_shift_form_is_refused():
    from syre import attach

    make = lambda p, k: torch.optim.SGD(p, lr=0.1, weight_decay=0.1)  # noqa: E731
    with pytest.raises(ValueError, match="constant-pull form"):
        ensemble(make, lambda optimizer, model: attach(optimizer, model, form="shift"))
    ensemble(make, lambda optimizer, model: Syre(weight_decay=0.1).attach(optimizer, model, 0))  # control


def test_replicas_with_other_parameter_groups_take_the_steps_they_take_alone():
    """One decays all, another its matrices, a third has two learning rates: rows differ by parameter, not by group."""

    def alone(k):
        torch.manual_seed(k)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        if k < 2:
            groups = decay_groups(model, 0.3, SCOPES[k])
        else:
            groups = [{"params": list(model[i].parameters()), "lr": 0.1 / (1 + i)} for i in (0, 2)]
        handle = None
        optimizer = torch.optim.Adam(groups, lr=0.1)
        if k < 2:
            handle = attach(optimizer, model, sigma=1.0, seed=k)
        return Replica(model=model, optimizer=optimizer, handle=handle, noise=torch.Generator())

    stacked, lone = Ensemble([alone(k) for k in range(3)]), [Single(alone(k)) for k in range(3)]
    assert len(stacked.optimizer.segments) == 4  # weight and bias of each layer: where one of them has its ends
    x, loss = (
        torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(1, 5, 3),
        lambda output, x: output.square().mean((-2, -1)),
    )
    for _ in range(20):
        stacked.step(loss, [x.expand(3, 5, 3)], lr_factor=0.5, clip=None)
        for one in lone:
            one.step(loss, [x], lr_factor=0.5, clip=None)
    for k, one in enumerate(lone):
        for name, weight in one.parameters().items():
            torch.testing.assert_close(stacked.parameters()[name][k], weight[0], rtol=0, atol=1e-10)


def test_replicas_of_other_size_are_refused():
    def make(parameters, k):
        return torch.optim.SGD(list(parameters)[k:], lr=0.1)

    with pytest.raises(ValueError, match=r"as many parameters|all its parameters"):
        ensemble(make)
