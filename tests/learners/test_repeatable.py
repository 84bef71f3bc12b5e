"""What acts on a lone run and could not be repeated by rows is refused by an ensemble; what can be is repeated."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import pytest
import torch
from replicas import CLASSES, INPUTS, REGULARIZERS, TASK, Run, assemble, build, gaussian, row
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from syre.core import AddAnchor, Effect, Handle
from syre.learners import Ensemble, Replica, Single
from syre.models import Noisy
from syre.optim import SGD, Adam
from syre.regularizers import FrozenHandle, Regularizer, Syre, Vanilla, WFix
from syre.trainer import Training

ALONE = "train it alone: replicas=1$"
TEN = Training(steps=10, batch_size=8)
SETTINGS = {"weight_decay": 0.05, "sigma": 0.3, "sigma_d": 0.1, "modules": ["layers.0"], "rate": 0.3, "fraction": 0.2}
SETTINGS |= {"fixed": [2, 3, 1], "kappa": [1.0, 0.5, 0.25]}


def made(kind: type[Regularizer]) -> Regularizer:
    settings = {field.name: SETTINGS[field.name] for field in fields(kind) if field.name in SETTINGS}
    return kind(**settings | ({"kappa": 0.5} if kind is WFix else {}))


def pair(regularizer: Regularizer | None = None, **options) -> list[Replica]:
    regularizer = regularizer or Syre(weight_decay=0.05, sigma=0.3)
    return [build(Run(regularizer=regularizer, optim=SGD(lr=0.1), seed=seed, **options)) for seed in (0, 1)]


def step(learner: Ensemble | Single) -> Tensor:
    x, y = gaussian().train_inputs[:8], gaussian().train_targets[:8]
    batch = [x.expand(learner.size, -1, -1), y.expand(learner.size, -1)]
    return learner.step(TASK.loss, batch, lr_factor=1.0, clip=None)


# ---- what is repeated: every regularizer there is -------------------------------------------------------------------


@pytest.mark.parametrize("optim", [SGD(lr=0.1, momentum=0.9), Adam(lr=0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("kind", REGULARIZERS, ids=lambda kind: kind.name)
def test_every_regularizer_acts_on_a_row_as_on_a_lone_run(kind, optim):
    runs = [Run(regularizer=made(kind), optim=optim, seed=seed) for seed in (0, 1)]
    ensemble, batches = assemble(runs, gaussian(), TEN)
    start = row(ensemble, 0)
    for k in range(TEN.steps):
        ensemble.step(TASK.loss, batches.train(k), lr_factor=1.0, clip=None)
    for k, run in enumerate(runs):
        lone, its = assemble([run], gaussian(), TEN)
        for t in range(TEN.steps):
            lone.step(TASK.loss, its.train(t), lr_factor=1.0, clip=None)
        torch.testing.assert_close(row(ensemble, k), row(lone, 0), rtol=0, atol=1e-12)
    assert all((start[name] - weight).abs().max() > 1e-4 for name, weight in row(ensemble, 0).items())  # control


class Halving(Handle):
    """A new kind of handle: b is half of the initial weights; it states so, and does so."""

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self.anchors = {name: p.detach() / 2 for name, p in model.named_parameters()}
        decay, named = optimizer.param_groups[0]["weight_decay"], dict(model.named_parameters())

        def pull(*_: object) -> None:
            for name, anchor in self.anchors.items():
                named[name].grad -= decay * anchor

        self.hooks = (optimizer.register_step_pre_hook(pull),)

    def effect(self) -> Effect:
        return Effect(anchors=self.anchors)


class Halved(Syre):
    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> Halving:
        return Halving(optimizer, model)


def test_a_new_handle_that_states_its_effect_is_repeated():
    runs = [Run(regularizer=Halved(weight_decay=0.5), optim=SGD(lr=0.1), seed=seed) for seed in (0, 1)]
    ensemble, plain = Ensemble([build(run) for run in runs]), Ensemble(pair(Vanilla()))
    losses = [step(ensemble) for _ in range(3)]
    for k, run in enumerate(runs):
        lone = Single(build(run))
        torch.testing.assert_close(torch.stack([step(lone)[0] for _ in range(3)]), torch.stack(losses)[:, k])
    assert (torch.stack([step(plain) for _ in range(3)])[-1] - losses[-1]).abs().min() > 1e-4  # control: it acts


# ---- what is refused -------------------------------------------------------------------------------------------------


class ZeroGradients(Regularizer):
    """Trains nothing, by a hook that no handle answers for."""

    weight_decay = 0.0

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> None:
        optimizer.register_step_pre_hook(lambda *_: optimizer.zero_grad(set_to_none=False))


class Mute:
    """A handle that says nothing."""

    def detach(self) -> None: ...


class Louder(FrozenHandle):
    """Does more than what it extends, and says what that says."""

    def _write_back(self) -> None:
        super()._write_back()
        for weight, *_ in self._entries:
            weight.data.clamp_(-0.01, 0.01)


class Shape(Handle):
    def effect(self) -> Effect:
        return {"anchors": {}}


class Elsewhere(Handle):
    def effect(self) -> Effect:
        return Effect(anchors={"nowhere": torch.zeros(1)})


class Scaled(nn.Module):
    """Reads plain attributes in its forward pass."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        vars(self).update(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Twice(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


def replaced(handle: Callable[[Replica], object]) -> Callable[[list[Replica]], None]:
    """The second replica with another handle."""

    def plant(replicas: list[Replica]) -> None:
        old = replicas[1]
        if old.handle is not None:
            old.handle.detach()
        replicas[1] = Replica(model=old.model, optimizer=old.optimizer, handle=handle(old), noise=old.noise)

    return plant


def hooked(register: Callable[[Replica], object]) -> Callable[[list[Replica]], None]:
    return lambda replicas: register(replicas[1]) and None


def on_module(name: str, *arguments: object) -> Callable[[list[Replica]], None]:
    return hooked(lambda r: getattr(r.model.layers[0], name)(lambda *_: None))


def activations(*modules: nn.Module) -> Callable[[list[Replica]], None]:
    def plant(replicas: list[Replica]) -> None:
        for replica, module in zip(replicas, modules, strict=True):
            replica.model.activations[0].function = module

    return plant


def overwritten(replicas: list[Replica]) -> None:
    optimizer = replicas[1].optimizer
    optimizer.step = lambda closure=None: None


def frozen(replicas: list[Replica]) -> None:
    replicas[1].model.layers[0].bias.requires_grad_(False)


def mixed(replicas: list[Replica]) -> None:
    replicas[1].model.layers[0].register_parameter("bias", nn.Parameter(torch.zeros(7)))
    settings = replicas[1].optimizer.param_groups[0]
    settings["params"] = list(replicas[1].model.parameters())


def stepped(replicas: list[Replica]) -> None:
    optimizer = torch.optim.Adam(replicas[1].model.parameters())
    for parameter in replicas[1].model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    replicas[1] = Replica(model=replicas[1].model, optimizer=optimizer, noise=replicas[1].noise)
    replicas[0] = Replica(
        model=replicas[0].model, optimizer=torch.optim.Adam(replicas[0].model.parameters()), noise=replicas[0].noise
    )


def swapped(replicas: list[Replica]) -> None:
    """Handles of one another's optimizers."""
    one, two = replicas
    replicas[:] = [
        Replica(model=mine.model, optimizer=mine.optimizer, handle=its.handle, noise=mine.noise)
        for mine, its in ((one, two), (two, one))
    ]


def renamed(replicas: list[Replica]) -> None:
    model = replicas[1].model
    model.register_buffer("more", torch.zeros(1))


STREAM = torch.Generator()
PLANTED: dict[str, tuple[Callable[[list[Replica]], None], str]] = {
    "a handle without effect": (replaced(lambda r: Mute()), "Mute: this handle does not state its effect on a step"),
    "a handle that inherits its effect": (
        replaced(lambda r: Louder(r.optimizer, r.model, WFix(fraction=0.2).frozen(r.model, 0))),
        "Louder: this handle does not state its effect",
    ),
    "an effect that is none": (replaced(lambda r: Shape()), "Shape: this handle does not state its effect"),
    "an effect on nothing": (replaced(lambda r: Elsewhere()), "acts on 'nowhere', and the model has no such parameter"),
    "a hook of the optimizer before a step": (
        hooked(lambda r: r.optimizer.register_step_pre_hook(lambda *_: None)),
        "<lambda> hooks the steps of SGD, and no handle says what it does",
    ),
    "a hook of the optimizer after a step": (
        hooked(lambda r: r.optimizer.register_step_post_hook(lambda *_: None)),
        "hooks the steps of SGD, and no handle says what it does",
    ),
    "handles of other optimizers": (swapped, "hooks the steps of SGD, and no handle says what it does"),
    "a handle of an optimizer that is gone": (
        replaced(lambda r: Syre(weight_decay=0.1, start="keep").attach(SGD(lr=0.1).build(r.model, 0.1), r.model, 0)),
        "SyreHandle has hooks elsewhere than on its replica's optimizer",
    ),
    "a step of its own": (overwritten, "step of this SGD was overwritten"),
    "an optimizer with a past": (stepped, "this Adam has taken steps already"),
    "a hook of a gradient": (
        hooked(lambda r: r.model.layers[0].weight.register_hook(lambda grad: grad * 0)),
        "hooks the gradient of layers.0.weight, and no handle says what it does",
    ),
    "a hook of an accumulated gradient": (
        hooked(lambda r: r.model.layers[1].bias.register_post_accumulate_grad_hook(lambda p: None)),
        "hooks the gradient of layers.1.bias, and no handle says what it does",
    ),
    "a parameter that is not trained": (frozen, "layers.0.bias of MLPModule is not trained"),
    "parameters of several dtypes": (mixed, "MLPModule has parameters of several dtypes, torch.float32, torch.float64"),
    "a forward hook": (on_module("register_forward_hook"), r"hooks layers.0 \(Linear\), and no handle says"),
    "a forward pre-hook": (on_module("register_forward_pre_hook"), r"hooks layers.0 \(Linear\), and no handle says"),
    "a backward hook": (on_module("register_full_backward_hook"), r"hooks layers.0 \(Linear\), and no handle says"),
    "a backward pre-hook": (
        on_module("register_full_backward_pre_hook"),
        r"hooks layers.0 \(Linear\), and no handle says",
    ),
    "modules of other types": (
        activations(Scaled(), Twice()),
        "activations.0.function is a Scaled and a Twice in replicas of one ensemble",
    ),
    "other modules": (
        activations(Scaled(), nn.Sequential(Scaled())),
        "replicas of one ensemble must have the same modules",
    ),
    "other buffers": (renamed, "replicas of one ensemble must have the same buffers"),
    "a method of its own": (
        activations(Scaled(), Scaled(forward=lambda x: x)),
        r"forward of activations.0.function \(Scaled\) differs",
    ),
    "a stream of its own": (
        activations(Scaled(stream=STREAM), Scaled(stream=STREAM)),
        r"stream of activations.0.function \(Scaled\) differs",
    ),
}
DIFFERENT = {
    "number": (1, 2),
    "float": (0.1, 0.2),
    "type": (1, 1.0),
    "flag": (True, False),
    "word": ("a", "b"),
    "tuple": ((1, 2), (1, 3)),
    "list": ([1, [2]], [1, [3]]),
    "keys": ({"a": 1}, {"b": 1}),
    "none": (None, 0),
    "tensor": (torch.zeros(2), torch.ones(2)),
    "function": (torch.tanh, torch.relu),
    "partial": (partial(torch.add, 1), partial(torch.add, 2)),
    "object": (object(), object()),
}
SAME = {
    "number": (1, 1),
    "float": (0.1, 0.1),
    "word": ("a", "a"),
    "tuple": ((1, (2,)), (1, (2,))),
    "list": ([1], [1]),
    "keys": ({"a": [1]}, {"a": [1]}),
    "tensor": (torch.ones(2), torch.ones(2)),
    "function": (torch.tanh, torch.tanh),
    "partial": (partial(torch.add, 1), partial(torch.add, 1)),
    "dtype": (torch.float32, torch.float32),
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", PLANTED)
def test_what_rows_cannot_repeat_is_refused_in_one_line(name):
    plant, message = PLANTED[name]
    replicas = pair()
    Ensemble(replicas)  # control: before it is planted
    plant(replicas)
    with pytest.raises(ValueError, match=message) as refused:
        Ensemble(replicas)
    assert "\n" not in str(refused.value)
    assert name == "an effect on nothing" or str(refused.value).endswith(": train it alone: replicas=1")
    if name != "parameters of several dtypes":  # whose sums no linear layer takes
        step(Single(replicas[1]))  # it works alone


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_plain_attribute_that_differs_is_refused(name):
    replicas = pair()
    activations(*(Scaled(value=value) for value in DIFFERENT[name]))(replicas)
    with pytest.raises(
        ValueError, match=rf"value of activations.0.function \(Scaled\) differs between replicas.*{ALONE}"
    ):
        Ensemble(replicas)


@pytest.mark.parametrize("name", SAME)
def test_control_a_plain_attribute_that_is_the_same_is_taken(name):
    replicas = pair()
    activations(*(Scaled(value=value) for value in SAME[name]))(replicas)
    step(Ensemble(replicas))


def test_an_attribute_that_only_one_replica_has_is_refused():
    replicas = pair()
    activations(Scaled(), Scaled(value=1))(replicas)
    with pytest.raises(ValueError, match=r"value of activations\.0\.function"):
        Ensemble(replicas)


def test_a_hook_that_zeroes_gradients_works_alone_and_is_refused_in_an_ensemble():
    runs = [Run(regularizer=ZeroGradients(), optim=SGD(lr=0.1), seed=seed) for seed in (0, 1)]
    lone = Single(build(runs[0]))
    before = row(lone, 0)
    step(lone)
    torch.testing.assert_close(row(lone, 0), before, rtol=0, atol=0)
    with pytest.raises(ValueError, match=rf"ZeroGradients.attach.<locals>.<lambda> hooks the steps of SGD.*{ALONE}"):
        Ensemble([build(run) for run in runs])


def test_a_hook_of_all_optimizers_or_modules_is_refused():
    for register, message in (
        (register_optimizer_step_pre_hook, "hooks the steps of every optimizer"),
        (nn.modules.module.register_module_forward_hook, "hooks every module"),
    ):
        hook = register(lambda *_: None)
        try:
            with pytest.raises(ValueError, match=f"{message}: {ALONE}"):
                Ensemble(pair())
        finally:
            hook.remove()
        Ensemble(pair())  # control


def test_detached_handles_do_nothing_alone_and_in_an_ensemble():
    for regularizer in (Syre(weight_decay=0.05, sigma=0.3, start="keep"), WFix(fraction=0.0)):
        replicas, plain = pair(regularizer), pair(regularizer)
        for replica in (*replicas, plain[0]):
            replica.handle.detach()
        step(ensemble := Ensemble(replicas))
        step(lone := Single(plain[0]))
        torch.testing.assert_close(row(ensemble, 0), row(lone, 0), rtol=0, atol=1e-12)


def test_replicas_may_differ_in_what_the_forward_pass_does_not_read():
    replicas = pair()
    replicas[1].model.identical = 3
    Ensemble(replicas)
    replicas[1].model.input_dims = 2  # control: this it reads
    with pytest.raises(ValueError, match="input_dims of the model"):
        Ensemble(replicas)


class Loud(Noisy):
    """Noise of a strength that every replica has for itself: `draw` is that of its own module."""

    def __init__(self, strength: float) -> None:
        super().__init__(7)
        self.register_buffer("strength", torch.tensor(strength))

    def is_active(self) -> bool:
        return True

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        return self.strength * torch.randn(batch, *self.features, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise


def test_noise_is_drawn_by_the_module_of_the_row():
    def replicas() -> list[Replica]:
        made = pair(Vanilla())
        activations(Loud(0.1), Loud(2.0))(made)
        return made

    losses = step(Ensemble(replicas()))
    for k, replica in enumerate(replicas()):
        torch.testing.assert_close(step(Single(replica))[0], losses[k])


def test_parametrized_modules_are_of_the_type_they_had():
    """torch gives each of them a class of its own."""
    replicas = []
    for k in range(2):
        model = nn.Sequential(nn.Linear(INPUTS, CLASSES)).double()
        register_parametrization(model[0], "weight", AddAnchor(torch.full_like(model[0].weight, k)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        replicas.append(Replica(model=model, optimizer=optimizer, noise=torch.Generator()))
    x = gaussian().test_inputs.expand(2, -1, -1)
    output = Ensemble(replicas).forward(x)
    for k, replica in enumerate(replicas):
        torch.testing.assert_close(output[k], replica.model(x[k]), check_dtype=False)
