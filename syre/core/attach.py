"""Optimizer form: weight decay toward an anchor, as step hooks on a stock optimizer. The forward pass is untouched.

With `w = theta + b`, `dl/dtheta = dl/dw`, so decaying theta toward 0 *is* decaying w toward b. The optimizer keeps
its own `weight_decay`, and the hooks add only the missing constant pull; for an update rule where that is not exact
they move to theta before the step and back to w after it (the *shift* form).
"""

import inspect
import math
import warnings
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import arguments, forms, once
from .anchor import checksum, draw_anchors, draw_scales, given_by, named
from .decay import AddAnchor, require_decayable, require_start
from .follow import Named
from .handle import GROUP, SyreHandle, attached, check_saved, warn_of_shared
from .names import Slot, slots
from .scale import GuessedScale, Sigma, decayable, is_gain
from .sharded import is_sharded, shard_like, whole
from .wrapped import as_model, stepped


def attach(
    optimizer: Optimizer,
    model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
    *,
    weight_decay: float | None = None,
    sigma: Sigma = 0.01,
    unit: str = "relative",
    gains: float = 0.0,
    seed: int = 0,
    sigma_d: float = 0.0,
    start: str = "shift",
    anchor_dtype: torch.dtype | None = None,
    form: str | None = None,
    stochastic_rounding: bool = False,
    strict: bool = False,
) -> SyreHandle:
    """Remove the symmetries of `model`: from now on `optimizer` decays w toward a static random b, not toward 0.

    `l(w) + (lambda/2) ||w - b||^2_D` with `b ~ N(0, sigma^2 / fan_in)`: arXiv 2408.15495v3, Eq. (6), and Eq. (7)
    for sigma_d > 0 (the paper's gamma is read as torch's `weight_decay`). Every parameter of a group with
    weight_decay > 0 gets an anchor, tied parameters once (so what decays is a matter of parameter groups); learning
    rate and weight_decay are read at each step. Extra memory: one copy of these parameters, half with bfloat16 anchors,
    twice with D.

    Know before use:
      - Call it when the model is on its device and has its values, and before its weights are copied (a moving average,
        a target network, Lookahead): a copy from before lacks b.
      - The weights are shifted once, whoever calls this how often (`syre.core.once` says how that is known): put the
        line where the optimizer is made, and load weights and optimizer state before or after it. The optimizer's
        saved state says which anchors it was trained with. Only where the weights alone of a small network are
        loaded before this line, `start="keep"` has to say so.
      - `deepcopy` and pickle of the optimizer drop the hooks, with a warning: attach to the copy.
      - With coupled decay `p.grad` holds the pull after the step: zero it before the next backward, as is usual, and
        take one step for each backward pass (with two optimizers over one parameter, too).
      - Its hooks stand last before a step and first after it: what clips gradients or averages weights, whenever it was
        hooked on, sees neither the pull nor theta (after the first backward pass: from its second step on).
      - In the shift form, what an optimizer keeps of the weights in its state is theta, but for the average of ASGD.
      - A decoupled pull near the last digit of a float32 weight (eta lambda < 2^-15) is rounded stochastically, and
        given to one of 64 parts of the entries at a time, 64 times as much: so it arrives at every learning rate.
      - A learning rate that is a tensor on a GPU is read back in each step, by group, where it is needed (decoupled
        decay).
      - Frozen parameters are anchored but not shifted, and pulled only once they get gradients; those that could not
        be decayed (bfloat16, quantised) have no anchor.
      - Parameters that are not of a kind of torch's get the scale of a general rule (see `fan_in`), and one warning
        names their kinds. Those of one entry, as a temperature, keep their plain decay; `scale_table` lists all.
      - Parameters are followed by identity. Those that begin to decay later, as a group that is added does, get their
        anchors then, as with start="keep"; one that is replaced in the model and in the optimizer, or sharded
        (`fully_shard`, tensor parallel), keeps its anchor, of which each rank holds its shard.
      - The shift form goes on from w if `optimizer.step()` fails, but not if what fails is a `step` that somebody took
        hold of before this call; it surrounds an optimizer's own `eval()` and `train()` too.
      - Until the first step at a learning rate above 0 a copy of the weights is kept, to take the shift back if a
        resume turns up, here or in an optimizer that is built anew.

    Args:
        optimizer: a torch optimizer, or a wrapper that holds one (accelerate's, SAM): the one inside is attached to.
        model: whose parameters it steps; a list or a dict of several, where it steps those of several.
        weight_decay: for a script that has none: lambda for every parameter group (1e-4 is usual with SGD and Adam,
            0.01 with AdamW), biases and norms included. Default: the groups' own.
        sigma: in the unit below; or a function (name, parameter) -> std, or None for what a sigma of 0.01 in this unit
            gives that parameter.
        unit: of sigma. `"relative"`: std = sigma / sqrt(fan_in) of each tensor (table `FAN_IN`), as section 5.4 has it;
            `"absolute"`: std = sigma for every entry, as others have used the method (arXiv 2606.04754). At a fan-in of
            784, absolute 0.01 is relative 0.28.
        gains: the mean of the anchors of norm gains. 0: as all others, so that gains decay toward 0, as they do under
            plain decay; 1: toward the gain that changes nothing (weights that are not gains have mean 0 always).
            The default is 0: 1 cost 1.7 points in results/fig3b and gained nothing in results/table1.
        seed: fixes the anchors together with the parameters' canonical names.
        sigma_d: std of the diagonal D, in [0, 0.577); 0 is D = 1.
        start: `"shift"` moves the weights to init + b, Eq. (6) as written (gains by b less its mean); `"keep"` leaves
            them, for pretrained weights.
        anchor_dtype: default the parameter's.
        form: `"pull"`, `"shift"`, or None: the constant pull where it is exact (table `EXACT`), the shift
            elsewhere. The pull with sigma = 0 is bit-identical to plain decay; the shift rounds w once or twice per
            step, in its last digit.
        stochastic_rounding: take bfloat16 and float16 parameters too, and round the pull stochastically, so that it
            arrives on average. The pull form only. The update itself is the optimizer's, rounded as it rounds.
        strict: raise for parameters of a kind that torch does not have, instead of going by the rule.

    Raises:
        TypeError: no optimizer, or no model, or in the other order; an argument that is no number, or no dtype.
            Whatever is raised, nothing has changed.
        ValueError: no group with weight_decay > 0, or another one although weight_decay is given; an optimizer that has
            syre already, otherwise than here, or whose loaded state is that of other anchors; weights that other
            anchors have shifted; a decayed parameter that the model does not have, or that is trained and not float32
            or float64; with strict, parameters of unknown kind (the message names all); a model in module form or in
            FSDP1; sigma, unit, gains, sigma_d, start or form out of range; sigma_d > 0 or form="pull" with an optimizer
            not in `EXACT`.
        RuntimeError: at a step: a parameter decays that the model lacks; a fused optimizer under a GradScaler.

    Warns:
        UserWarning: the weights hold these anchors already; the loaded state has no decay; no hook is called although
            the weights move. SharedAnchors: another model of the process has the same anchors.
    """
    optimizer, one = stepped(optimizer), as_model(model)
    sigma = sigma if callable(sigma) else arguments.number("sigma", sigma)
    sigma_d, gains = arguments.number("sigma_d", sigma_d), arguments.number("gains", gains)
    seed = arguments.integer("seed", seed)
    weight_decay = None if weight_decay is None else arguments.number("weight_decay", weight_decay)
    anchor_dtype = arguments.floating("anchor_dtype", anchor_dtype)
    if (handle := attached(optimizer)) is not None:
        own = [slot for name, slot in slots(one).items() if name in handle.anchors]
        recipe = {"seed": seed, "sigma": named(sigma), "unit": unit, "gains": gains, "sigma_d": sigma_d}
        asked = start, anchor_dtype, stochastic_rounding
        if handle.is_what(one, recipe, given_by(sigma, unit, own), weight_decay, form, *asked):
            return handle
    with _decaying(optimizer, weight_decay):
        drawn = sigma, unit, gains, seed, sigma_d
        handle = _attach(optimizer, one, *drawn, start, anchor_dtype, form, stochastic_rounding, strict)
    return handle


def _attach(
    optimizer: Optimizer, model: nn.Module, sigma: Sigma, unit: str, gains: float, seed: int, sigma_d: float,
    start: str, anchor_dtype: torch.dtype | None, form: str | None, stochastic: bool, strict: bool,
) -> SyreHandle:  # fmt: skip
    found = slots(model)
    if any(isinstance(module, AddAnchor) for module in model.modules()):
        raise ValueError("the model is in module form already (syre.parametrize): merge it first, or do not attach")
    if any(kind.__name__ == "FullyShardedDataParallel" for module in model.modules() for kind in type(module).__mro__):
        raise ValueError("FSDP1 flattens the parameters that it shards: use fully_shard (FSDP2)")
    names = _decayed_names(optimizer, found, stochastic)
    drawn: dict[str, Any] = {"seed": seed, "sigma": sigma, "unit": unit, "gains": gains}
    living = weakref.ref(model)  # the hooks keep what draws later, and should not keep the model

    def draw(parameters: Collection[str], full: bool = False, **other: Any) -> tuple[Named, Named]:
        model = cast(nn.Module, living())
        options: dict[str, Any] = {"anchor_dtype": anchor_dtype, "strict": strict, "whole": full}
        anchors = draw_anchors(model, **drawn | other, **options, parameters=parameters)
        if not sigma_d:
            return anchors, {}
        return anchors, draw_scales(model, sigma_d=sigma_d, seed=seed, parameters=anchors, whole=full)

    anchors, scales = draw(names)
    recipe = drawn | {"sigma": named(sigma), "sigma_d": sigma_d}
    handle = _bind(
        optimizer, found, model, anchors, scales, start=start, form=form, recipe=recipe, stochastic=stochastic,
        less={name: gains for name in anchors if gains and is_gain(found[name])},
        by=once.line(recipe),
        full=lambda: checksum(_sorted_draws(draw, [*anchors, *(f"{name}:scale" for name in scales)])),
        asked=(start, anchor_dtype, stochastic), shared=True,
        stds_of=lambda several: given_by(sigma, unit, several),
    )  # fmt: skip
    handle.draw_later(draw)
    return handle


def _sorted_draws(draw: Callable[..., tuple[Named, Named]], keys: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The whole tensors of these keys, one at a time."""
    for key in sorted(keys):
        name = key.removesuffix(":scale")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GuessedScale)  # it has been said
            anchors, scales = draw([name], full=True)
        yield key, (anchors if key == name else scales)[name]


def _bind(
    optimizer: Optimizer, found: Mapping[str, Slot], model: nn.Module, anchors: Named, scales: Named, *, start: str,
    form: str | None, recipe: Mapping[str, Any], by: str, full: Callable[[], str],
    less: Mapping[str, float] | None = None, stochastic: bool = False, asked: tuple[Any, ...] = (),
    shared: bool = False, stds_of: Callable[[Iterable[Slot]], dict[str, float]] = lambda several: {},
) -> SyreHandle:  # fmt: skip
    """Check all, then hook the optimizer, then move the weights, if they are not where they belong.

    `shared`: warn if another model has the same anchors (those of a copy are its original's, and should be).
    `stds_of`: the stds of the anchors of some, where a function gives them.
    """
    require_start(start)
    form = forms.choose(type(optimizer), form, has_scales=bool(scales))
    if attached(optimizer) is not None:
        raise ValueError("this optimizer has syre attached already: detach the first handle")
    _require_decay(optimizer)
    if not any(group.get("weight_decay", 0) > 0 for group in optimizer.param_groups):
        usual = "1e-4 is usual with SGD and Adam, 0.01 with AdamW"
        needs = "no parameter group has weight_decay > 0, and without decay syre does nothing"
        raise ValueError(f"{needs}: set it, or syre.attach(..., weight_decay=); {usual}")
    for name, tensor in (*anchors.items(), *scales.items()):
        if name not in found:
            raise ValueError(f"the model has no parameter named {name!r}; it has {', '.join(found)}")
        require_decayable(name, found[name].parameter, stochastic and form == "pull")
        if tensor.shape != found[name].parameter.shape:
            own, its = tuple(found[name].parameter.shape), tuple(tensor.shape)
            raise ValueError(f"{name!r} has shape {own}, its anchor or scale {its}")
    centres = dict(anchors)
    for name in scales.keys() - centres.keys():
        parameter = found[name].parameter.detach()
        zero = torch.zeros_like(parameter) if is_sharded(parameter) else parameter.new_zeros(()).expand_as(parameter)
        centres[name] = zero  # which costs no memory where it is whole
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if outside := [name for name in centres if id(found[name].parameter) not in inside]:
        raise ValueError(f"parameter {outside[0]!r} has an anchor or a scale, but is not in the optimizer")

    stds = stds_of(found[name] for name in anchors)
    saved = check_saved([group.get(GROUP) for group in optimizer.param_groups], by, stds)
    plan = None
    if start == "shift":
        plan = once.plan(found, anchors, by, resumed=bool(saved), less=less, stds=stds)
    sharded = any(is_sharded(found[name].parameter) for name in centres)
    handle = SyreHandle(
        optimizer, model, centres, scales, form=form, recipe=recipe, line=by, stochastic=stochastic, asked=asked,
        less=less, whole=full() if sharded else None, stds_of=stds_of,
    )  # fmt: skip
    try:
        if plan is not None:
            if shared and plan.anchors:
                warn_of_shared(handle)  # which may be an error
            handle.begin(plan)
        handle.resume(saved)  # what another optimizer's handle has shifted may have to be taken back
    except BaseException:
        handle.detach()
        raise
    for group in optimizer.param_groups:
        group.pop(GROUP, None)
    return handle


def _require_decay(optimizer: Optimizer, known: bool = True) -> None:
    """Raise ValueError for an optimizer whose step has no weight decay, though its groups may have the key.

    Of those of torch (LBFGS, Rprop, SparseAdam) that is seen, also of a class on top that leaves `step` as it is; of
    others it is `known` by the groups.
    """
    name = getattr(inspect.unwrap(type(optimizer).step), "__qualname__", "")  # torch wraps it, in the class on top
    own = next((kind for kind in type(optimizer).__mro__ if name == f"{kind.__qualname__}.step"), Optimizer)
    if own.__module__.startswith("torch.optim.") and own is not Optimizer:
        known = "weight_decay" in inspect.signature(own).parameters
    if not known:
        raise ValueError(f"{type(optimizer).__name__} knows no weight_decay: take one that does (AdamW, say)")


@contextmanager
def _decaying(optimizer: Optimizer, weight_decay: float | None) -> Iterator[None]:
    """Give every group this decay, and its own back if what follows raises.

    Raises:
        ValueError: not a number > 0; a group decays already; an optimizer that knows no decay.
    """
    if weight_decay is None:
        yield
        return
    if not 0 < weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a finite number > 0, or None for the groups' own, got {weight_decay}")
    before = [group.get("weight_decay") for group in optimizer.param_groups]
    _require_decay(optimizer, known=None not in before)
    if set(before) not in ({0}, {weight_decay}):  # its own: from a state that was loaded, or from here
        raise ValueError(
            f"weight_decay={weight_decay} is for a script without decay; the groups have {before}: drop it"
        )
    try:
        for group in optimizer.param_groups:
            group["weight_decay"] = weight_decay
        yield
    except BaseException:
        for group, own in zip(optimizer.param_groups, before, strict=True):
            group["weight_decay"] = own
        raise
    optimizer.defaults["weight_decay"] = weight_decay  # of groups that come later


def attach_anchors(
    optimizer: Optimizer,
    model: nn.Module,
    anchors: Mapping[str, Tensor],
    *,
    scales: Mapping[str, Tensor] | None = None,
    start: str = "keep",
    form: str | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> SyreHandle:
    """Decay w toward any given centre, `(lambda/2) ||w - b||^2_D`: what `attach` calls with its draws.

    The initial weights as anchors give L2 Init. A decayed parameter without an anchor keeps its plain decay toward 0;
    one with a scale only is decayed toward 0 by `lambda D` (so the module form gets its D).

    Args:
        anchors: canonical name (see `canonical_parameters`) -> tensor of the parameter's shape. Used as they are, not
            copied.
        scales: canonical name -> positive diagonal of D; those left out are 1.
        start, form: as in `attach`.
        recipe: what made the anchors; goes into the handle's `state_dict`.

    Raises:
        TypeError: as `attach`; and anchors or scales that are no mapping of names to tensors.
        ValueError: as `attach`; and a name or a shape that is not the model's, or a parameter that the optimizer
            lacks.
    """
    optimizer, model = stepped(optimizer), arguments.module(model)
    anchors, scales = arguments.tensors("anchors", anchors), arguments.tensors("scales", scales or {})
    found = slots(model)
    named = {**anchors, **{f"{name}:scale": scale for name, scale in scales.items()}}
    given = checksum({name: whole(tensor) for name, tensor in named.items()})

    def laid(tensors: Mapping[str, Tensor]) -> Named:
        return {n: shard_like(t, found[n].parameter) if n in found else t for n, t in tensors.items()}

    return _bind(
        optimizer, found, model, laid(anchors), laid(scales), start=start, form=form,
        recipe=recipe or {}, by=once.line(recipe or {}) or f"anchors={given}", full=lambda: given,
    )  # fmt: skip


def _decayed_names(optimizer: Optimizer, found: dict[str, Slot], stochastic: bool) -> list[str]:
    """Canonical names of the parameters in groups with weight_decay > 0, in the model's order."""
    decayed = {
        id(p): p for group in optimizer.param_groups if group.get("weight_decay", 0) > 0 for p in group["params"]
    }
    names = [name for name, slot in found.items() if decayed.pop(id(slot.parameter), None) is not None]
    if decayed:
        shape = tuple(next(iter(decayed.values())).shape)
        raise ValueError(
            f"the optimizer decays a parameter of shape {shape} that the model lacks: pass the model that it "
            "belongs to, or all of them: syre.attach(optimizer, [policy, value])"
        )
    names = [name for name in names if found[name].parameter.requires_grad or decayable(found[name].parameter)]
    for name in names:
        require_decayable(name, found[name].parameter, stochastic)
    return names
