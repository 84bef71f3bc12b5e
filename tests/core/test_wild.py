"""`attach` where people put it: wrapped optimizers, groups that change, steps that fail, scripts without decay.

The reference is the same optimizer on theta, gradients taken at theta + b: the module form (`parametrize`).
"""

import copy
import gc
import pickle
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from syre.core import (
    SharedAnchors,
    attach,
    attach_anchors,
    canonical_parameters,
    draw_anchors,
    merge,
    parametrize,
)

SETTINGS = {"sigma": 0.5, "seed": 3}
pytestmark = pytest.mark.filterwarnings("ignore::syre.core.SharedAnchors")


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9, **options})


def backward(model):
    x = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(8, 5)
    model.zero_grad()
    loss = (model(x) - x[:, :3].sin()).square().mean()
    loss.backward()
    return loss


def steps(optimizer, model, count=5):
    for _ in range(count):
        backward(model)
        optimizer.step()


def flat(model):
    """What the forward pass sees."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return torch.cat([part.detach().reshape(-1) for layer in layers for part in (layer.weight, layer.bias)])


def reference(make=sgd, count=5):
    model = net()
    optimizer = make(model)
    parametrize(model, **SETTINGS)
    steps(optimizer, model, count)
    return flat(model)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# ---- wrappers --------------------------------------------------------------------------------------------------------


class Holder:
    """An optimizer inside an object that is none: Lightning's, or a trainer's own."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


class Accelerated(Optimizer):
    """As accelerate has it: a subclass that never calls `Optimizer.__init__`."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)

    def step(self, closure=None):
        self.optimizer.step(closure)


class Sam(Optimizer):
    """Sharpness-aware minimisation as its usual implementation has it; trained by `first_step` and `second_step`."""

    def __init__(self, parameters, base, rho=0.05, **settings):
        super().__init__(parameters, {"rho": rho, **settings})
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        norm = torch.stack([p.grad.norm() for group in self.param_groups for p in group["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.clone()
                p.add_(p.grad, alpha=group["rho"] / norm.item())

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base_optimizer.step()


@pytest.mark.parametrize("wrap", [Holder, Accelerated, lambda optimizer: Holder(Accelerated(optimizer))])
def test_the_optimizer_inside_a_wrapper_is_attached_to(wrap):
    model = net()
    optimizer = wrap(sgd(model))
    attach(optimizer, model, **SETTINGS)
    steps(optimizer, model)
    close(flat(model), reference())


def test_sam_is_attached_to_by_the_optimizer_that_it_steps():
    def train(model, optimizer):
        for _ in range(5):
            backward(model)
            optimizer.first_step()
            backward(model)
            optimizer.second_step()
        return flat(model)

    settings = {"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9}
    model, other = net(), net()
    optimizer = Sam(model.parameters(), torch.optim.SGD, **settings)
    attach(optimizer, model, **SETTINGS)
    its = Sam(other.parameters(), torch.optim.SGD, **settings)
    parametrize(other, **SETTINGS)
    close(train(model, optimizer), train(other, its))


def test_what_is_no_optimizer_or_no_model_is_refused_and_nothing_moves():
    model = net()
    before, optimizer = flat(model), sgd(model)
    bad = [
        ((model, optimizer), r"the optimizer comes first: syre.attach\(optimizer, model\)"),
        ((object(), model), "object is no torch.optim.Optimizer, and holds none"),
        ((optimizer, "model"), "model must be a torch.nn.Module, or a list or dict of several, got str"),
        ((optimizer, [model, 3]), "or a list or dict of several, got list"),
    ]
    for arguments, words in bad:
        with pytest.raises(TypeError, match=words):
            attach(*arguments)
    assert torch.equal(flat(model), before)
    attach(optimizer, model)  # nothing was left behind


def test_an_attach_that_fails_late_has_moved_nothing(monkeypatch):
    model = net()
    before, optimizer = flat(model), sgd(model)
    monkeypatch.setattr(optimizer, "register_step_post_hook", lambda hook: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attach(optimizer, model, weight_decay=None)
    assert torch.equal(flat(model), before)
    monkeypatch.undo()
    attach(optimizer, model, **SETTINGS)
    steps(optimizer, model)
    close(flat(model), reference())


@pytest.mark.parametrize("several", [list, tuple, lambda models: dict(zip("pv", models, strict=True))])
def test_one_optimizer_over_several_models(several):
    policy, value = net(1), net(2)
    optimizer = torch.optim.SGD([*policy.parameters(), *value.parameters()], lr=0.1, weight_decay=0.3)
    with pytest.raises(ValueError, match=r"all of them: syre.attach\(optimizer, \[policy, value\]\)"):
        attach(optimizer, policy)
    handle = attach(optimizer, several([policy, value]), **SETTINGS)
    assert len(handle.anchors) == 8
    for name, anchor in handle.anchors.items():
        assert anchor.std() > 0, name
    optimizer.add_param_group({"params": []})
    steps(optimizer, policy)  # the models are still known when a group has changed


# ---- groups and parameters that change -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_a_group_that_is_removed_leaves_the_others_with_their_own_anchors(form):
    def train(drop):
        model = net()
        layers = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
        optimizer = torch.optim.SGD(layers, lr=0.1, weight_decay=0.3)
        attach(optimizer, model, form=form, **SETTINGS)
        steps(optimizer, model, 1)
        if drop:
            del optimizer.param_groups[0]
        else:
            optimizer.param_groups[0].update(lr=0.0, weight_decay=0.0)
        steps(optimizer, model)
        return flat(model)

    close(train(drop=True), train(drop=False))


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_a_parameter_that_is_replaced_keeps_its_anchor(form):
    model = net()
    optimizer = sgd(model, momentum=0)
    attach(optimizer, model, form=form, **SETTINGS)
    steps(optimizer, model, 2)
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())
    optimizer.param_groups[0]["params"] = list(model.parameters())
    steps(optimizer, model, 3)
    close(flat(model), reference(lambda model: sgd(model, momentum=0)))

    model[2].weight = nn.Parameter(torch.zeros(3, 7).double())
    optimizer.param_groups[0]["params"] = list(model.parameters())
    with pytest.raises(RuntimeError, match=r"'2.weight' has shape \(3, 7\), and had \(3, 8\) when syre was attached"):
        optimizer.step()


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_a_parameter_that_begins_to_decay_later_is_anchored_from_where_it_is(form):
    model = net()
    groups = [{"params": model[0].parameters(), "weight_decay": 0.3}, {"params": [model[2].weight]}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    handle = attach(optimizer, model, form=form, **SETTINGS)
    assert handle.anchors.keys() == {"0.weight", "0.bias"}
    steps(optimizer, model, 2)
    before = model[2].weight.detach().clone(), model[2].bias.detach().clone()
    optimizer.param_groups[1]["weight_decay"] = 0.3
    optimizer.add_param_group({"params": [model[2].bias], "weight_decay": 0.3})
    backward(model)
    slopes = model[2].weight.grad.clone(), model[2].bias.grad.clone()
    optimizer.step()
    drawn = draw_anchors(model, **SETTINGS)
    for p, w, g, name in zip(model[2].parameters(), before, slopes, ("2.weight", "2.bias"), strict=True):
        assert torch.equal(handle.anchors[name], drawn[name])
        close(p.detach(), w - 0.1 * (g + 0.3 * (w - drawn[name])))


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_a_decayed_parameter_that_cannot_be_anchored_is_an_error_at_the_step_and_nothing_has_moved(form):
    model, stranger = net(), nn.Parameter(torch.zeros(2, 2))
    optimizer = sgd(model)
    attach(optimizer, model, form=form)
    optimizer.add_param_group({"params": [stranger]})
    backward(model)
    before = flat(model)
    with pytest.raises(RuntimeError, match=r"decays a parameter of shape \(2, 2\) that the model lacks"):
        optimizer.step()
    assert torch.equal(flat(model), before)


def test_given_anchors_do_not_say_what_a_later_parameter_decays_to():
    model = net()
    groups = [{"params": model[0].parameters(), "weight_decay": 0.3}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    attach_anchors(optimizer, model, {name: p.detach().clone() for name, p in list(model.named_parameters())[:2]})
    optimizer.param_groups[1]["weight_decay"] = 0.3
    with pytest.raises(RuntimeError, match=r"'2.weight' decays but did not, or did not exist, when syre was attached"):
        steps(optimizer, model)


# ---- anchors that are drawn anew -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoupled", [False, True])
def test_after_a_redraw_the_steps_are_those_toward_the_other_anchors_and_the_weights_have_not_moved(decoupled):
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    model, other = net(), net()
    optimizer, its = (make(m.parameters(), lr=0.1, weight_decay=0.3) for m in (model, other))
    handle, new = attach(optimizer, model, start="keep", **SETTINGS), {"seed": 4, "sigma": 0.2}
    held, before = dict(handle.anchors), flat(model)
    handle.redraw(**new)
    assert torch.equal(flat(model), before)
    assert all(handle.anchors[name] is anchor for name, anchor in held.items())  # in place
    as_if = attach(its, other, start="keep", **new)
    assert handle.state_dict() == as_if.state_dict()
    for one, two in ((optimizer, model), (its, other)):
        steps(one, two)
    assert torch.equal(flat(model), flat(other))
    plain = net()  # control: with the anchors that were
    last = make(plain.parameters(), lr=0.1, weight_decay=0.3)
    attach(last, plain, start="keep", **SETTINGS)
    steps(last, plain)
    assert not torch.equal(flat(model), flat(plain))


def test_after_a_redraw_later_parameters_get_the_new_draws_and_states_of_the_old_ones_are_refused():
    model = net()
    groups = [{"params": model[0].parameters(), "weight_decay": 0.3}, {"params": model[2].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    handle = attach(optimizer, model, **SETTINGS)
    states = handle.state_dict(), optimizer.state_dict()
    handle.redraw(seed=4, sigma=0.2)
    for load, state in zip((handle.load_state_dict, optimizer.load_state_dict), states, strict=True):
        with pytest.raises(ValueError, match=r"not the anchors of the checkpoint|was trained with other anchors"):
            load(state)
    optimizer.param_groups[1]["weight_decay"] = 0.3
    steps(optimizer, model, 1)
    drawn = draw_anchors(model, seed=4, sigma=0.2)
    assert handle.anchors.keys() == drawn.keys()
    assert all(torch.equal(handle.anchors[name], anchor) for name, anchor in drawn.items())


def test_what_cannot_be_redrawn_stays_as_it_is():
    model, other = net(), net()
    given = attach_anchors(sgd(model), model, {"0.weight": torch.ones_like(model[0].weight)})
    shifted = attach(sgd(other), other, form="shift", **SETTINGS)
    for handle, line in ((given, "were given, not drawn"), (shifted, "in the constant-pull form only")):
        before = {name: anchor.clone() for name, anchor in handle.anchors.items()}
        with pytest.raises(ValueError, match=line):
            handle.redraw(seed=4, sigma=0.2)
        assert all(torch.equal(before[name], anchor) for name, anchor in handle.anchors.items())
    plain = net()
    drawn = attach(sgd(plain), plain, **SETTINGS)
    before = drawn.state_dict()
    with pytest.raises(ValueError, match="sigma"):
        drawn.redraw(seed=4, sigma=-1.0)
    assert drawn.state_dict() == before


# ---- steps that fail, and optimizers with two modes ------------------------------------------------------------------


class Fails(torch.optim.SGD):
    """SGD of another class, so that syre takes the shift form; it fails once, when told to."""

    broken = False

    def step(self, closure=None):
        if self.broken:
            self.broken = False
            raise KeyboardInterrupt
        return super().step(closure)


@pytest.mark.parametrize("scheduled", [False, True])
def test_the_shift_form_goes_on_from_w_after_a_step_that_failed(scheduled):
    model = net()
    optimizer = Fails(model.parameters(), lr=0.1, weight_decay=0.3, momentum=0.9)
    handle = attach(optimizer, model, **SETTINGS)
    assert handle.form == "shift"
    if scheduled:  # it wraps `step` as well
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    steps(optimizer, model, 2)
    backward(model)
    before, optimizer.broken = flat(model), True
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    torch.testing.assert_close(flat(model), before, rtol=0, atol=1e-15)
    steps(optimizer, model, 3)
    close(flat(model), reference())
    handle.detach()
    backward(model)
    slope = optimizer.state[model[0].bias]["momentum_buffer"] * 0.9 + model[0].bias.grad + 0.3 * model[0].bias.detach()
    before = model[0].bias.detach().clone()
    optimizer.step()
    close(model[0].bias.detach(), before - 0.1 * slope)  # plain decay again


def test_a_closure_that_fails_leaves_w():
    model = net()
    optimizer = torch.optim.ASGD(model.parameters(), lr=0.1, weight_decay=0.3)
    assert attach(optimizer, model, **SETTINGS).form == "shift"
    before = flat(model)

    def closure():
        assert torch.equal(flat(model), before) or torch.allclose(flat(model), before, atol=1e-15)
        raise MemoryError

    with pytest.raises(MemoryError):
        optimizer.step(closure)
    torch.testing.assert_close(flat(model), before, rtol=0, atol=1e-15)


class ScheduleFree(Optimizer):
    """Schedule-Free SGD (Defazio et al. 2024): the weights are y in training, and x, the average, after `eval()`."""

    def __init__(self, parameters, lr=0.1, weight_decay=0.0, beta=0.9):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.beta, self.training, self.count = beta, True, 0

    def _each(self):
        for group in self.param_groups:
            for p in group["params"]:
                yield group, p, self.state[p].setdefault("z", p.detach().clone())

    @torch.no_grad()
    def eval(self):
        if self.training:
            for _, p, z in self._each():
                p.lerp_(z, 1 - 1 / self.beta)
        self.training = False

    @torch.no_grad()
    def train(self):
        if not self.training:
            for _, p, z in self._each():
                p.lerp_(z, 1 - self.beta)
        self.training = True

    @torch.no_grad()
    def step(self, closure=None):
        self.count += 1
        for group, p, z in self._each():
            update = p.grad + group["weight_decay"] * p
            p.lerp_(z, 1 / self.count)
            p.add_(update, alpha=group["lr"] * (self.beta * (1 - 1 / self.count) - 1))
            z.sub_(update, alpha=group["lr"])


def test_an_optimizer_with_two_modes_is_exact_in_both():
    def train(optimizer, model):
        seen = []
        for _ in range(3):
            steps(optimizer, model, 2)
            for mode in (optimizer.eval, optimizer.eval, optimizer.train):
                mode()
                seen.append(flat(model))
        return torch.stack(seen)

    settings = {"lr": 0.1, "weight_decay": 0.3}
    model, other = net(), net()
    optimizer, its = ScheduleFree(model.parameters(), **settings), ScheduleFree(other.parameters(), **settings)
    handle = attach(optimizer, model, **SETTINGS)
    parametrize(other, **SETTINGS)
    mine = train(optimizer, model)
    close(mine, train(its, other))
    assert not torch.equal(mine[1], mine[2])
    handle.detach()
    assert vars(optimizer).keys().isdisjoint({"eval", "train", "step"})


def test_a_loaded_state_without_decay_is_said():
    model = net()
    optimizer = sgd(model)
    attach(optimizer, model)
    inert = sgd(net(), weight_decay=0).state_dict()
    with pytest.warns(UserWarning, match="has weight_decay 0 in every group, and without decay syre does nothing"):
        optimizer.load_state_dict(inert)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(sgd(net()).state_dict())


# ---- scripts without decay, and what cannot be anchored --------------------------------------------------------------


def test_the_line_can_bring_the_decay_along():
    model = net()
    optimizer = sgd(model, weight_decay=0)
    with pytest.raises(ValueError, match=r"set it, or syre.attach\(..., weight_decay=\); 1e-4 is usual with SGD"):
        attach(optimizer, model, **SETTINGS)
    attach(optimizer, model, weight_decay=0.3, **SETTINGS)
    steps(optimizer, model)
    close(flat(model), reference())
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    assert optimizer.param_groups[1]["weight_decay"] == 0.3


def test_a_decay_that_cannot_be_given_changes_nothing():
    model = net()
    optimizer = sgd(model, weight_decay=0)
    before = flat(model)
    for bad in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="weight_decay must be a finite number > 0"):
            attach(optimizer, model, weight_decay=bad)
    with pytest.raises(ValueError, match="sigma must be finite"):
        attach(optimizer, model, weight_decay=0.1, sigma=-1)
    assert optimizer.param_groups[0]["weight_decay"] == 0
    with pytest.raises(ValueError, match=r"is for a script without decay; the groups have \[0.3\]"):
        attach(sgd(model), model, weight_decay=0.1)
    with pytest.raises(ValueError, match="Rprop knows no weight_decay"):
        attach(torch.optim.Rprop(model.parameters()), model, weight_decay=0.1)
    assert torch.equal(flat(model), before)


class Quiet(torch.optim.Rprop):
    """A class of one's own that leaves the step as it is."""


class Decaying(torch.optim.LBFGS):
    """One whose step decays, whatever the step of its base does."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad + group["weight_decay"] * p, alpha=-0.1)


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Rprop, torch.optim.SparseAdam, Quiet])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}], ids=["groups", "argument"])
@pytest.mark.parametrize("has_key", [True, False], ids=["with the key", "without"])
def test_a_step_without_decay_is_refused_also_where_the_groups_have_the_key(kind, options, has_key):
    model = net()
    before = flat(model)
    key = {"weight_decay": 0.0 if options else 0.3} if has_key else {}
    optimizer = kind([{"params": list(model.parameters()), **key}])
    with pytest.raises(ValueError, match=f"{kind.__name__} knows no weight_decay: take one that does"):
        attach(optimizer, model, **options)
    assert torch.equal(flat(model), before)
    assert [group.get("weight_decay") for group in optimizer.param_groups] == [key.get("weight_decay")]


def test_control_a_step_of_ones_own_that_decays_by_the_key_is_taken():
    model = net()
    attach(Decaying([{"params": list(model.parameters()), "weight_decay": 0.3}]), model, **SETTINGS)


def test_a_lazy_module_is_asked_for_a_forward_pass():
    model = nn.Sequential(nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for attempt in (lambda: attach(optimizer, model), lambda: parametrize(model)):
        with pytest.raises(ValueError, match=r"'0.weight' has no shape yet \(a lazy module\): run one forward pass"):
            attempt()
    model(torch.ones(2, 5))
    attach(optimizer, model)


def test_complex_parameters_are_named_as_such():
    model = nn.Linear(3, 3).to(torch.complex64)
    with pytest.raises(ValueError, match="'weight' is complex, and anchors are real: leave it out"):
        attach(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), model)


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor])
def test_numbers_of_numpy_and_torch_leave_a_plain_state(number):
    model = net()
    handle = attach(sgd(model), model, sigma=number(0.5), gains=number(0.0), sigma_d=number(0.25), seed=np.int64(3))
    state = handle.state_dict()
    assert {type(value) for value in state.values()} <= {float, int, str, list}
    assert (state["sigma"], state["seed"]) == (0.5, 3)


def test_merging_a_copy_leaves_the_original_in_module_form():
    model = parametrize(net(), **SETTINGS)
    before = flat(model)
    exported = merge(copy.deepcopy(model))
    assert list(exported.state_dict()) == list(net().state_dict())
    for one in (exported, model):
        assert torch.equal(flat(one), before)
    theta = torch.cat([p.detach().reshape(-1) for p in canonical_parameters(model).values()])
    assert not torch.equal(theta, before)  # still theta + b
    assert type(exported[0]) is nn.Linear
    merge(model)
    assert torch.equal(flat(model), before)
    assert type(model[0]) is nn.Linear


# ---- what is noticed -------------------------------------------------------------------------------------------------


def test_two_models_of_one_script_do_not_share_anchors_unawares():
    generator, discriminator = net(1), net(2)
    first, optimizer = sgd(generator), sgd(discriminator)
    attach(first, generator, **SETTINGS)
    with pytest.warns(
        SharedAnchors, match=r"4 parameters \(0.weight, ...\) have the very anchors .* pass another seed="
    ):
        handle = attach(optimizer, discriminator, **SETTINGS)
    handle.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = net(5)
        attach(sgd(other), other, sigma=0.5, seed=4)  # another seed
        twin = copy.deepcopy(generator)
        attach(sgd(twin), twin, **SETTINGS)  # a copy: an average of its weights, a teacher


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copied_optimizer_is_said_to_have_lost_its_hooks_and_another_attach_mends_it(duplicate):
    model = net()
    optimizer = sgd(model)
    attach(optimizer, model, **SETTINGS)
    steps(optimizer, model, 2)
    with pytest.warns(UserWarning, match=r"a copy of this optimizer \(deepcopy, pickle\) does not have the hooks"):
        twin, its = duplicate((model, optimizer))
    attach(its, twin, **SETTINGS)
    for pair in ((optimizer, model), (its, twin)):
        steps(*pair, 3)
        close(flat(pair[1]), reference())
    with warnings.catch_warnings():  # neither saving its state nor a copy of the model says anything
        warnings.simplefilter("error")
        copy.deepcopy(model)
        pickle.dumps(optimizer.state_dict())


def by_hand(optimizer):
    with torch.no_grad():
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


def descend(optimizer, model, count):
    for _ in range(count):
        backward(model)
        by_hand(optimizer)


@pytest.mark.parametrize("form", ["pull", "shift"])
def test_an_optimizer_whose_step_is_never_called_is_noticed(form):
    model = net()
    optimizer = sgd(model)
    attach(optimizer, model, form=form, **SETTINGS)
    with pytest.warns(UserWarning, match=r"syre does nothing: the weights move, and SGD.step, to which it is attached"):
        descend(optimizer, model, 3)
    with warnings.catch_warnings():  # once
        warnings.simplefilter("error")
        backward(model)


def test_a_step_that_calls_no_hooks_is_noticed():
    class Silent(torch.optim.SGD):
        def step(self, closure=None):
            by_hand(self)

    model = net()
    optimizer = Silent(model.parameters(), lr=0.1, weight_decay=0.3)
    type(optimizer).step = lambda self, closure=None: by_hand(self)  # past the wrapper that torch puts around it
    attach(optimizer, model, **SETTINGS)
    vars(optimizer).pop("step")
    with pytest.warns(UserWarning, match="syre does nothing"):
        steps(optimizer, model, 3)


@pytest.mark.parametrize("usual", ["steps", "accumulation", "two gradients", "loaded", "closure"])
def test_what_trains_as_usual_is_not_noticed(usual):
    model = net()
    optimizer = sgd(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SharedAnchors)
        attach(optimizer, model, **SETTINGS)
        if usual == "accumulation":
            for _ in range(5):
                backward(model)
        if usual == "two gradients":  # extragradient, SAM
            backward(model)
            by_hand(optimizer)
            backward(model)
        if usual == "loaded":
            backward(model)
            model.load_state_dict(net(4).state_dict())
            backward(model)
        if usual == "closure":
            optimizer.step(lambda: backward(model))
        steps(optimizer, model)


def test_the_hooks_keep_no_model_alive():
    model = net()
    optimizer = sgd(model)
    handle = attach(optimizer, model, **SETTINGS)
    alive = weakref.ref(model), weakref.ref(optimizer)
    gc.disable()
    try:
        del model, optimizer, handle
        assert [one() for one in alive] == [None, None]
    finally:
        gc.enable()


def test_a_parameter_on_the_meta_device_is_refused():
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"'weight' is on the meta device: give it its values first"):
        attach(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1), model)


def test_a_decay_that_came_with_a_loaded_state_may_be_given_again():
    """`weight_decay=` stands in the script, and the optimizer's state was loaded before the line."""
    model = net()
    optimizer = sgd(model, weight_decay=0)
    attach(optimizer, model, weight_decay=0.3, **SETTINGS)
    steps(optimizer, model, 2)
    kept = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    steps(optimizer, model, 3)
    resumed = net(1)
    resumed.load_state_dict(kept[0])
    its = sgd(resumed, weight_decay=0)
    its.load_state_dict(kept[1])
    attach(its, resumed, weight_decay=0.3, **SETTINGS)
    steps(its, resumed, 3)
    assert torch.equal(flat(resumed), flat(model))


def test_the_first_fsdp_is_refused():
    class FullyShardedDataParallel(nn.Module):  # needs processes, and is known by its name
        def __init__(self):
            super().__init__()
            self._fsdp_wrapped_module = net()

    model = FullyShardedDataParallel()
    with pytest.raises(ValueError, match=r"use fully_shard \(FSDP2\)"):
        attach(sgd(model), model)
