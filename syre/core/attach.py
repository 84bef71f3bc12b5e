"""Optimizer form: weight decay toward an anchor, as step hooks on a stock optimizer. The forward pass is untouched.

With `w = theta + b`, `dl/dtheta = dl/dw`, so decaying theta toward 0 *is* decaying w toward b. The optimizer keeps
its own `weight_decay`, and the hooks add only the missing constant pull; for an update rule where that is not exact
they move to theta before the step and back to w after it (the *shift* form).
"""

import math
import operator
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import decay
from .anchor import checksum, draw_anchors, draw_scales
from .decay import SHARDED, AddAnchor, Effect, Handle, is_sharded, require_full_precision, require_start
from .names import Slot, canonical_parameters, slots
from .scale import Sigma, decayable, is_gain
from .wrapped import as_model, stepped, surround

# Optimizers whose decay is exactly `g += lambda w` (False) or `w -= eta lambda w` (True), and whose update does not
# otherwise depend on w. A group's own `decoupled_weight_decay` wins. Compared by `is`: a subclass may have any rule.
_COUPLED = ("SGD", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
_DECOUPLED = ("AdamW", "Muon")  # Muon came with torch 2.9
EXACT: dict[type[Optimizer], bool] = {
    kind: name in _DECOUPLED for name in (*_COUPLED, *_DECOUPLED) if (kind := getattr(torch.optim, name, None))
}

Named = dict[str, Tensor]  # by canonical parameter name
Draw = Callable[[Collection[str]], tuple[Named, Named]]  # the anchors, and the scales, of these parameters
EARLIER = {"unit": "relative", "gains": 0.0}  # of a state that does not say so: there was no choice then

_attached: "weakref.WeakSet[Optimizer]" = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The anchored parameters of one parameter group, as parallel lists."""

    parameters: list[Tensor]
    anchors: list[Tensor]
    scales: list[Tensor] | None

    def live(self, has: Callable[[Tensor], bool]) -> "_Part":
        """The part whose parameters satisfy `has`; itself, at no cost, when all do."""
        keep = [has(p) for p in self.parameters]
        if all(keep):
            return self
        index = [i for i, kept in enumerate(keep) if kept]
        return _Part(
            parameters=[self.parameters[i] for i in index],
            anchors=[self.anchors[i] for i in index],
            scales=None if self.scales is None else [self.scales[i] for i in index],
        )


def _has_grad(parameter: Tensor) -> bool:
    return parameter.grad is not None


class SyreHandle(Handle):
    """What `attach` returns: the anchors, and the way to check or remove them.

    Attributes:
        anchors: canonical name -> b, shape of the parameter. Change them only in place.
        scales: canonical name -> the diagonal of D, shape of the parameter; empty when D = 1.
        form: `"pull"` or `"shift"`.
    """

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, anchors: Named, scales: Named, form: str, recipe: Any
    ) -> None:  # fmt: skip
        self.anchors, self.scales, self.form = anchors, scales, form
        self._several: nn.Module | None = None  # keeps a list of models together
        self._recipe: Any = recipe
        self._draw: Draw | None = None
        self._default_decoupled = EXACT.get(type(optimizer), False)
        self._optimizer, self._model = weakref.ref(optimizer), weakref.ref(model)
        parameters = canonical_parameters(model)
        self._names = {id(parameters[name]): name for name in anchors}
        self._known = {name: parameters[name] for name in anchors}  # keeps the identities above alive
        decaying = [p for group in optimizer.param_groups if group.get("weight_decay", 0) > 0 for p in group["params"]]
        self._plain = {id(p): p for p in decaying if id(p) not in self._names}
        self._parts: dict[int, tuple[list[Tensor], _Part]] = {}  # group index -> its parameters, and what was made of
        self._shifted: list[_Part] = []
        self._undo: list[Callable[[], None]] = []
        self._depth = 0
        try:
            self._register(optimizer)
        except BaseException:
            self.detach()
            raise
        _attached.add(optimizer)

    def _register(self, optimizer: Optimizer) -> None:
        pre, post = (self._pre_pull, self._post_pull) if self.form == "pull" else (self._pre_shift, self._post_shift)
        self.hooks = (optimizer.register_step_pre_hook(pre),)
        self.hooks = (*self.hooks, optimizer.register_step_post_hook(post))
        self._undo.append(optimizer.register_load_state_dict_post_hook(_warn_if_inert).remove)
        if self.form == "shift":
            self._undo.append(surround(optimizer, "step", _nothing, _nothing, self._failed))
            for mode in ("eval", "train"):  # the optimizer moves the weights, from one affine image of theta to another
                if callable(getattr(optimizer, mode, None)):
                    to_theta = partial(self._to_theta, optimizer)
                    self._undo.append(surround(optimizer, mode, to_theta, self._restore, self._restore))

    def effect(self) -> Effect:
        """The anchors and D; nothing once detached.

        Raises:
            ValueError: the shift form, whose rounding of w an ensemble, which pulls, does not repeat.
        """
        if not self.hooks:
            return Effect()
        if self.form != "pull":
            raise ValueError("an ensemble takes syre in its constant-pull form, not in its shift form")
        return Effect(anchors=self.anchors, scales=self.scales)

    def draw_later(self, draw: Draw) -> None:
        """How to draw for parameters that come later; without it such a parameter is an error."""
        self._draw = draw

    def detach(self) -> None:
        """Remove the hooks: from now on the optimizer decays toward 0 again. The weights stay where they are."""
        super().detach()
        while self._undo:
            self._undo.pop()()
        if (optimizer := self._optimizer()) is not None:
            _attached.discard(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """What the anchors were drawn by, their names and a checksum: a few hundred bytes that identify them."""
        named = self.anchors | {f"{name}:scale": scale for name, scale in self.scales.items()}
        return {**self._recipe, "names": sorted(self.anchors), "checksum": checksum(named)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check on resume that these anchors are the ones the checkpoint was trained with.

        Raises:
            ValueError: they differ; the message names the first entry that does.
        """
        state = EARLIER | dict(state)
        for key, mine in self.state_dict().items():
            if key not in state or state[key] != mine:
                saved = state.get(key, "nothing")
                raise ValueError(f"these are not the anchors of the checkpoint: {key} was {saved}, and is {mine} now")

    # ------------------------------------------------------------------------------------------------------ pull form

    def _pre_pull(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            # The fused step unscales the gradient itself, and may skip itself: both after we have acted.
            raise RuntimeError("a fused optimizer under a GradScaler: use fused=False, form='shift', or bfloat16")
        closure, replace = _closure_of(args, kwargs)
        if closure is None:
            self._before_update(optimizer)
            return None

        def pulled() -> Any:  # the gradient exists only once the closure has run
            loss = closure()
            self._before_update(optimizer)
            return loss

        return replace(pulled)

    @torch.no_grad()
    def _before_update(self, optimizer: Optimizer) -> None:
        for group, part in self._decayed(optimizer):
            decoupled = self._is_decoupled(group)
            if decoupled and part.scales is None:
                continue  # after the update
            part = part.live(_has_grad)
            if not part.parameters:
                continue
            rate, lists = float(group["weight_decay"]), (part.parameters, part.anchors)
            grads = [p.grad for p in part.parameters if p.grad is not None]
            maximize = group.get("maximize", False)
            if part.scales is None:
                decay.pull_coupled_(grads, part.anchors, weight_decay=rate, maximize=maximize)
            elif decoupled:
                decay.decay_decoupled_(*lists, part.scales, lr=float(group["lr"]), weight_decay=rate)
            else:
                decay.decay_coupled_(grads, *lists, part.scales, rate, maximize)

    @torch.no_grad()
    def _post_pull(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for group, part in self._decayed(optimizer):
            if not self._is_decoupled(group) or part.scales is not None:
                continue  # before the update
            part = part.live(_has_grad)
            if part.parameters:
                lr, rate = float(group["lr"]), float(group["weight_decay"])
                decay.pull_decoupled_(part.parameters, part.anchors, lr=lr, weight_decay=rate)

    def _is_decoupled(self, group: dict[str, Any]) -> bool:
        return bool(group.get("decoupled_weight_decay", self._default_decoupled))

    def _decayed(self, optimizer: Optimizer) -> Iterator[tuple[dict[str, Any], _Part]]:
        """The groups that decay now, with their anchored parameters."""
        for index, group in enumerate(optimizer.param_groups):
            if group.get("weight_decay", 0) != 0:
                yield group, self._part(index, group)

    def _part(self, index: int, group: dict[str, Any]) -> _Part:
        """The anchored parameters of a group, by identity: those of the step before, unless the group has changed."""
        parameters: list[Tensor] = group["params"]
        held, part = self._parts.get(index, (None, None))
        if held is None or part is None or len(held) != len(parameters) or not all(map(operator.is_, held, parameters)):
            if unknown := [p for p in parameters if id(p) not in self._names and id(p) not in self._plain]:
                self._adopt(unknown)
            part = _make_part(parameters, self._names, self.anchors, self.scales)
            self._parts[index] = list(parameters), part
        return part

    def _adopt(self, unknown: list[Tensor]) -> None:
        """Anchor parameters that have come since, as start="keep"; one that took another's place has its anchor."""
        model = self._model()
        parameters = {} if model is None else canonical_parameters(model)
        names = {id(p): name for name, p in parameters.items()}
        for p in unknown:
            name = names.get(id(p))
            if name is None:
                raise RuntimeError(f"the optimizer decays a parameter of shape {tuple(p.shape)} that the model lacks")
            if is_sharded(p):
                raise RuntimeError(f"parameter {name!r} was sharded after syre.attach, which cannot follow: {SHARDED}")
            if name not in self.anchors:
                if self._draw is None:
                    before = "but did not, or did not exist, when syre was attached"
                    raise RuntimeError(
                        f"parameter {name!r} decays {before}: detach, and attach again with start='keep'"
                    )
                if p.requires_grad:
                    require_full_precision(name, p)
                anchors, scales = self._draw([name])
                if name not in anchors:  # left out, as it would have been from the start
                    self._plain[id(p)] = p
                    continue
                self.anchors.update(anchors)
                self.scales.update(scales)
            elif self.anchors[name].shape != p.shape:
                was, now = tuple(self.anchors[name].shape), tuple(p.shape)
                raise RuntimeError(f"parameter {name!r} has shape {now}, and had {was} when syre was attached")
            self._names = {key: other for key, other in self._names.items() if other != name} | {id(p): name}
            self._known[name] = parameters[name]

    # ----------------------------------------------------------------------------------------------------- shift form

    def _pre_shift(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._depth += 1
        if self._depth > 1:  # the step of a class that calls its parent's, for which torch calls the hooks again
            return None
        self._to_theta(optimizer)
        closure, replace = _closure_of(args, kwargs)
        if closure is None:
            return None

        def at_w() -> Any:  # the closure's forward pass sees w, however often the optimizer calls it
            shifted = self._shifted
            self._restore()
            loss = closure()
            self._shifted = shifted
            self._shift(-1)
            return loss

        return replace(at_w)

    def _post_shift(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._restore()

    def _failed(self) -> None:
        """After a step that raised, wherever."""
        self._depth = 0
        self._restore()

    def _to_theta(self, optimizer: Optimizer) -> None:
        held = [(index, group) for index, group in enumerate(optimizer.param_groups) if self._anchored(group)]
        self._shifted = [self._part(index, group).live(lambda p: p.requires_grad) for index, group in held]
        self._shift(-1)

    def _anchored(self, group: dict[str, Any]) -> bool:
        """Whether a group decays, or has anchors from when it did."""
        return group.get("weight_decay", 0) != 0 or any(id(p) in self._names for p in group["params"])

    def _restore(self) -> None:
        """Back to w, once, also after an exception."""
        self._shift(+1)
        self._shifted = []

    @torch.no_grad()
    def _shift(self, sign: int) -> None:
        for part in self._shifted:
            decay.shift_(part.parameters, part.anchors, sign=sign)


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
    strict: bool = False,
) -> SyreHandle:
    """Remove the symmetries of `model`: from now on `optimizer` decays w toward a static random b, not toward 0.

    `l(w) + (lambda/2) ||w - b||^2_D` with `b ~ N(0, sigma^2 / fan_in)`: arXiv 2408.15495v3, Eq. (6), and Eq. (7)
    for sigma_d > 0 (the paper's gamma is read as torch's `weight_decay`). Every parameter of a group with
    weight_decay > 0 gets an anchor, tied parameters once (so what decays is a matter of parameter groups); learning
    rate and weight_decay are read at each step. Extra memory: one copy of these parameters, half with bfloat16 anchors,
    twice with D.

    Know before use:
      - Call it when the model is on its device.
      - Hooks are not in `optimizer.state_dict()`; `deepcopy` and pickle of it drop them. On resume attach
        again, then load the model's state, then check with `handle.load_state_dict`. If the weights are loaded
        already, attach with `start="keep"`, or they are shifted a second time.
      - With coupled decay `p.grad` holds the pull after the step: zero it before the next backward, as is usual.
      - A learning rate that is a tensor on a GPU is read back once per step where it is needed (decoupled decay).
      - Frozen parameters are anchored but not shifted, and pulled only once they get gradients; those that could not
        be decayed (bfloat16, quantised) have no anchor.
      - Parameters that are not of a kind of torch's get the scale of a general rule (see `fan_in`), and one warning
        names their kinds. Those of one entry, as a temperature, keep their plain decay; `scale_table` lists all.
      - Parameters are followed by identity. Those that begin to decay later, as a group that is added does, get their
        anchors then, as with start="keep"; one that is replaced in the model and in the optimizer keeps its anchor.
      - The shift form goes on from w if a step fails, and surrounds an optimizer's own `eval()` and `train()` too.

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
        strict: raise for parameters of a kind that torch does not have, instead of going by the rule.

    Raises:
        TypeError: no optimizer, or no model, or in the other order. Whatever is raised, nothing has changed.
        ValueError: no group with weight_decay > 0, or one although weight_decay is given; an optimizer that has syre
            already; a decayed parameter that the model does not have, or that is trained and not float32 or float64;
            with strict, parameters of unknown kind (the message names all); a model in module form; sigma, unit, gains,
            sigma_d, start or form out of range; sigma_d > 0 or form="pull" with an optimizer not in `EXACT`.
        RuntimeError: at a step: a parameter decays that the model lacks, or that was sharded since; a fused optimizer
            under a GradScaler.
    """
    optimizer, whole = stepped(optimizer), as_model(model)
    sigma = sigma if callable(sigma) else float(sigma)
    seed, sigma_d, gains = operator.index(seed), float(sigma_d), float(gains)
    with _decaying(optimizer, weight_decay):
        handle = _attach(optimizer, whole, sigma, unit, gains, seed, sigma_d, start, anchor_dtype, form, strict)
    handle._several = whole if whole is not model else None
    return handle


def _attach(
    optimizer: Optimizer, model: nn.Module, sigma: Sigma, unit: str, gains: float, seed: int, sigma_d: float,
    start: str, anchor_dtype: torch.dtype | None, form: str | None, strict: bool,
) -> SyreHandle:  # fmt: skip
    found = slots(model)
    if any(isinstance(module, AddAnchor) for module in model.modules()):
        raise ValueError("the model is in module form already (syre.parametrize): merge it first, or do not attach")
    names = _decayed_names(optimizer, found)
    drawn: dict[str, Any] = {"seed": seed, "sigma": sigma, "unit": unit, "gains": gains}

    def draw(parameters: Collection[str]) -> tuple[Named, Named]:
        anchors = draw_anchors(model, **drawn, anchor_dtype=anchor_dtype, parameters=parameters, strict=strict)
        return anchors, draw_scales(model, sigma_d=sigma_d, seed=seed, parameters=anchors) if sigma_d else {}

    anchors, scales = draw(names)
    named = getattr(sigma, "__qualname__", "function") if callable(sigma) else sigma
    recipe = drawn | {"sigma": named, "sigma_d": sigma_d}
    handle = attach_anchors(optimizer, model, anchors, scales=scales, start=start, form=form, recipe=recipe)
    handle.draw_later(draw)
    if gains and start == "shift":  # from init + b to init + (b - its mean)
        with torch.no_grad():
            for name in anchors:
                if is_gain(found[name]) and found[name].parameter.requires_grad:
                    found[name].parameter.sub_(gains)
    return handle


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
    if None in before:
        raise ValueError(f"{type(optimizer).__name__} knows no weight_decay: take one that does (AdamW, say)")
    if any(before):
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
        ValueError: as `attach`; and a name or a shape that is not the model's, or a parameter that the optimizer
            lacks.
    """
    require_start(start)
    optimizer = stepped(optimizer)
    form = _choose_form(optimizer, form, has_scales=bool(scales))
    if optimizer in _attached:
        raise ValueError("this optimizer has syre attached already: detach the first handle")
    if not any(group.get("weight_decay", 0) > 0 for group in optimizer.param_groups):
        usual = "1e-4 is usual with SGD and Adam, 0.01 with AdamW"
        needs = "no parameter group has weight_decay > 0, and without decay syre does nothing"
        raise ValueError(f"{needs}: set it, or syre.attach(..., weight_decay=); {usual}")
    scales = dict(scales or {})
    parameters = canonical_parameters(model)
    for name, tensor in (*anchors.items(), *scales.items()):
        if name not in parameters:
            raise ValueError(f"the model has no parameter named {name!r}; it has {', '.join(parameters)}")
        require_full_precision(name, parameters[name])
        if tensor.shape != parameters[name].shape:
            own, its = tuple(parameters[name].shape), tuple(tensor.shape)
            raise ValueError(f"{name!r} has shape {own}, its anchor or scale {its}")
    centres = dict(anchors)
    for name in scales.keys() - centres.keys():
        centres[name] = parameters[name].new_zeros(()).expand_as(parameters[name])  # costs no memory
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if outside := [name for name in centres if id(parameters[name]) not in inside]:
        raise ValueError(f"parameter {outside[0]!r} has an anchor or a scale, but is not in the optimizer")
    handle = SyreHandle(optimizer, model, centres, scales, form, dict(recipe or {}))
    if start == "shift":  # last: what raises before has moved nothing
        trained = [name for name in anchors if parameters[name].requires_grad]
        with torch.no_grad():
            decay.shift_([*map(parameters.__getitem__, trained)], [anchors[name] for name in trained], sign=+1)
    return handle


def _make_part(parameters: list[Tensor], names: dict[int, str], anchors: Named, scales: Named) -> _Part:
    """The anchored ones among the parameters of a group."""
    held = [p for p in parameters if id(p) in names]
    mine = [names[id(p)] for p in held]
    diagonals = [scales.get(name, p.new_ones(()).expand_as(p)) for name, p in zip(mine, held, strict=True)]
    return _Part(
        parameters=held,
        anchors=[anchors[name] for name in mine],
        scales=diagonals if any(name in scales for name in mine) else None,
    )


def _nothing() -> None:
    pass


def _warn_if_inert(optimizer: Optimizer) -> None:
    """After `optimizer.load_state_dict`, which brings the groups' weight_decay along."""
    if not any(group.get("weight_decay", 0) > 0 for group in optimizer.param_groups):
        what = "the loaded optimizer state has weight_decay 0 in every group, and without decay syre does nothing"
        warnings.warn(f"{what}: set it in optimizer.param_groups", stacklevel=2)


def _decayed_names(optimizer: Optimizer, found: dict[str, Slot]) -> list[str]:
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
        require_full_precision(name, found[name].parameter)
    return names


def _choose_form(optimizer: Optimizer, form: str | None, *, has_scales: bool) -> str:
    kind = type(optimizer)
    if form not in (None, "pull", "shift"):
        raise ValueError(f"form must be 'pull', 'shift' or None, got {form!r}")
    chosen = form or ("pull" if kind in EXACT else "shift")
    if chosen == "pull" and kind not in EXACT:
        raise ValueError(f"the constant pull is not known to be exact for {kind.__name__}: use form='shift' or None")
    if chosen == "shift" and has_scales:
        raise ValueError(
            "sigma_d > 0 has no shift form: it needs an optimizer whose decay rule is known "
            f"({', '.join(known.__name__ for known in EXACT)}) and form='pull' or None, "
            f"got {kind.__name__} and form={form!r}"
        )
    return chosen


def _closure_of(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[[], Any] | None, Callable[[Callable[[], Any]], tuple[tuple[Any, ...], dict[str, Any]]]]:
    """The closure in `step(closure)`, and how to put another in its place. `args` begins with the optimizer."""
    if len(args) > 1:
        return args[1], lambda closure: ((args[0], closure, *args[2:]), kwargs)
    return kwargs.get("closure"), lambda closure: (args, {**kwargs, "closure": closure})
