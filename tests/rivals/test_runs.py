"""Rivals in runs: they resume bit for bit, accumulate, compile, let go, and are refused where they have no place."""

import io
from functools import partial
from typing import Any

import pytest
import torch
from replicas import RIVALS, TASK, Run, assemble, build, gaussian, row
from torch import nn

from syre.core.decay import Continues, Effect
from syre.learners import Ensemble, Single
from syre.models import MLP, Pair
from syre.optim import SGD, Adam
from syre.regularizers import ShrinkPerturb, Syre, Vanilla
from syre.rivals import ContinualBackprop, Noisy, Redo, SelfNormalizedResets, Spectral, WeightClipping
from syre.trainer import Snapshot, StateError, Training, train

TEN = Training(steps=10, batch_size=8, evaluations=2, checkpoints=1)
ACTING = [  # each acts within ten steps
    Redo(threshold=0.9, period=3, weight_decay=0.01),
    ContinualBackprop(rate=0.1, maturity=1),
    SelfNormalizedResets(rejection=0.3, window=2),
    WeightClipping(bound=0.9),
    Spectral(strength=0.1),
    Noisy(std=0.1),
]
UNITS = [rival for rival in ACTING if rival.name in ("redo", "continual_backprop", "self_normalized_resets")]
OPTIMIZERS = {"sgd": SGD(lr=0.05, momentum=0.9), "adam": Adam(lr=0.01), "adamw": Adam(lr=0.01, decoupled=True)}
RELU = MLP(hidden=[7, 8])
named = partial(pytest.mark.parametrize, ids=lambda rival: rival.name)
every_optimizer = pytest.mark.parametrize("optim", OPTIMIZERS.values(), ids=OPTIMIZERS)


def run(rival: Any, optim: Any = OPTIMIZERS["sgd"]) -> Run:
    return Run(regularizer=rival, optim=optim, model=RELU)


def trained(rival: Any, optim: Any = OPTIMIZERS["sgd"], **single: Any) -> dict[str, torch.Tensor]:
    """The weights after ten steps, with these settings of the learner."""
    _, batches = assemble([run(rival, optim)], gaussian(), TEN)
    team = Single(build(run(rival, optim)), **single)
    for step in range(TEN.steps):
        team.step(TASK.loss, batches.train(step), lr_factor=1.0, clip=None)
    return row(team, 0)


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(weight, other[name]) for name, weight in one.items())


def test_all_rivals_are_here():
    assert {type(rival) for rival in ACTING} == set(RIVALS)


# ---- resume ----------------------------------------------------------------------------------------------------------


def saved_and_loaded(state: dict) -> dict:
    """As a checkpoint of the experiments is kept."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True, map_location="cpu")


def half(rival: Any, optim: Any) -> dict:
    team, batches = assemble([run(rival, optim)], gaussian(), TEN)
    return next(saved_and_loaded(e.state) for e in train(team, TASK, batches, TEN) if isinstance(e, Snapshot))


def resumed(rival: Any, optim: Any, state: dict) -> dict[str, torch.Tensor]:
    team, batches = assemble([run(rival, optim)], gaussian(), TEN)
    list(train(team, TASK, batches, TEN, resume=state))
    return row(team, 0)


@every_optimizer
@named("rival", ACTING)
def test_ten_steps_are_five_a_resume_and_five(rival, optim):
    whole, state = trained(rival, optim), half(rival, optim)
    assert differ(whole, trained(Vanilla(), optim))  # control: it acts
    torch.testing.assert_close(resumed(rival, optim, state), whole, rtol=0, atol=0)
    handle = build(run(rival, optim)).handle
    assert isinstance(handle, Continues) == ("handle" in state["learner"])
    if isinstance(handle, Continues):
        forgetful = {**state, "learner": state["learner"] | {"handle": handle.progress()}}
        assert differ(resumed(rival, optim, forgetful), whole)  # control: its state matters
        with pytest.raises(StateError, match="handle"):
            resumed(rival, optim, {**state, "learner": {k: v for k, v in state["learner"].items() if k != "handle"}})


def test_a_checkpoint_of_a_handle_without_a_state_is_what_it_was():
    """So those of earlier runs still load, and anchors, which are drawn again, are not asked."""
    for regularizer in (Vanilla(), Syre(weight_decay=0.1), ShrinkPerturb(), WeightClipping()):
        state = half(regularizer, OPTIMIZERS["sgd"])
        assert state["learner"].keys() == {"model", "optimizer", "noise"}
        torch.testing.assert_close(resumed(regularizer, OPTIMIZERS["sgd"], state), trained(regularizer), rtol=0, atol=0)


# ---- learners --------------------------------------------------------------------------------------------------------


@named("rival", ACTING)
def test_a_batch_in_parts_is_the_batch(rival):
    torch.testing.assert_close(trained(rival, accumulate=4), trained(rival), rtol=0, atol=1e-10)


@pytest.mark.slow
@named("rival", ACTING)
def test_a_compiled_run_is_the_run(rival, monkeypatch):
    """Of the graphs that torch.compile makes; without the compiler of a backend, which may change the last digits."""
    compile_, graphs = torch.compile, []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda model, options: compile_(model, backend=backend))
    compiled = trained(rival, compiled=True)
    torch.testing.assert_close(compiled, trained(rival), rtol=0, atol=1e-12)
    assert 0 < len(graphs) <= 2 * 3  # control: it was compiled; and once, not again in each step
    torch._dynamo.reset()


@named("rival", ACTING)
def test_an_ensemble_refuses_them_in_one_line(rival):
    with pytest.raises(ValueError, match=r"^\w+Handle: .*does not repeat it: train it alone: replicas=1$") as error:
        Ensemble([build(run(rival)), build(run(rival))])
    assert "\n" not in str(error.value)


@named("rival", ACTING)
def test_detached_they_let_go(rival):
    ours, plain = build(run(rival)), build(run(Vanilla()))
    for replica in (ours, plain):
        replica.optimizer.param_groups[0]["weight_decay"] = 0.0
    ours.handle.detach()
    assert not ours.optimizer._optimizer_step_pre_hooks
    assert not ours.optimizer._optimizer_step_post_hooks
    assert not any(module._forward_hooks for module in ours.model.modules())
    _, batches = assemble([run(Vanilla())], gaussian(), TEN)
    for team in (Single(ours), Single(plain)):
        for step in range(4):
            team.step(TASK.loss, batches.train(step), lr_factor=1.0, clip=None)
    torch.testing.assert_close(row(Single(ours), 0), row(Single(plain), 0), rtol=0, atol=0)
    assert ours.handle.effect() == Effect()  # an ensemble would take it


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [nn.Linear(2, 2), Pair(hidden=[4]).build((3,), 2)])
@named("rival", UNITS)
def test_a_model_that_does_not_say_which_units_it_has_is_refused(rival, model):
    needs = (
        f"^regularizer={rival.name} needs a model that says which hidden units it has, {type(model).__name__} does not$"
    )
    with pytest.raises(ValueError, match=needs):
        rival.prepare(model, 0)
    with pytest.raises(ValueError, match=needs):
        rival.attach(torch.optim.SGD(model.parameters(), lr=0.1), model, 0)


@pytest.mark.parametrize("rival", [Spectral(strength=0.1), WeightClipping(bound=0.1), Noisy(std=0.1)])
def test_the_others_take_any_model(rival):
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.GRU(4, 3))
    model.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    rival.attach(optimizer, model, 0)
    for _ in range(2):
        (model.scale * model(torch.tensor([[1, 2]]))[0]).sum().backward()
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("cls", "settings", "key"),
    [
        (Redo, {"threshold": -0.1}, "threshold"),
        (Redo, {"period": 0}, "period"),
        (ContinualBackprop, {"rate": 1.5}, "rate"),
        (ContinualBackprop, {"maturity": -1}, "maturity"),
        (ContinualBackprop, {"decay": 1.0}, "decay"),
        (SelfNormalizedResets, {"rejection": 0.0}, "rejection"),
        (SelfNormalizedResets, {"rejection": 1.0}, "rejection"),
        (SelfNormalizedResets, {"window": 0}, "window"),
        (WeightClipping, {"bound": 0.0}, "bound"),
        (Spectral, {"strength": float("nan")}, "strength"),
        (Noisy, {"std": -1.0}, "std"),
        *((cls, {"weight_decay": -1.0}, "weight_decay") for cls in RIVALS),
        *((cls, {"scope": "some"}, "scope") for cls in RIVALS),
    ],
)
def test_settings_out_of_range_are_named_in_one_line(cls, settings, key):
    with pytest.raises(ValueError, match=f"regularizer.{key}") as error:
        cls(**settings)
    assert "\n" not in str(error.value)
