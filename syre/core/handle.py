"""What `attach` returns: the hooks on an optimizer, the anchors they decay towards, and the way to check them."""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from . import once
from .decay import Effect, Handle
from .follow import Draw, Followed, Named
from .forms import Pull, Shift
from .names import Slot, slots
from .scale import GuessedScale
from .sharded import local, shard_like
from .wrapped import is_wrapper, outside, surround

GROUP = "syre"  # entry of the groups in a saved optimizer state: which anchors, and how many steps were rounded
EARLIER = {"unit": "relative", "gains": 0.0}  # of a state that does not say so: there was no choice then

_attached: "weakref.WeakKeyDictionary[Optimizer, weakref.ref[SyreHandle]]" = weakref.WeakKeyDictionary()
_living: "weakref.WeakSet[SyreHandle]" = weakref.WeakSet()


class SharedAnchors(UserWarning):
    """Two models of one process have equal anchors."""


class SyreHandle(Handle):
    """What `attach` returns: the anchors, and the way to check or remove them.

    Attributes:
        anchors: canonical name -> b, laid out as the parameter is. Change them only in place (`redraw` does).
        scales: canonical name -> the diagonal of D, shape of the parameter; empty when D = 1.
        form: `"pull"` or `"shift"`.
    """

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, anchors: Named, scales: Named, *, form: str,
        recipe: Mapping[str, Any], line: str, whole: str | None = None, stochastic: bool = False,
        asked: tuple[Any, ...] = (), less: Mapping[str, float] | None = None,
        stds_of: Callable[[Iterable[Slot]], dict[str, float]] = lambda several: {},
    ) -> None:  # fmt: skip
        """`line` says which anchors these are; `whole` is their checksum, if only shards of them are here.

        `asked`: with which further options it was attached. `less`: the means of some anchors, no part of the shift.
        `stds_of`: the stds of the anchors of some, where a function gives them.
        """
        self._less, self._stds_of = dict(less or {}), stds_of
        self._stds = stds_of(slot for name, slot in slots(model).items() if name in anchors)
        self.anchors, self.scales, self.form, self.line = anchors, scales, form, line
        self._recipe, self._asked = dict(recipe), asked
        # A wrapper or a list, that nobody else may hold. In the shift form the optimizer is in a cycle, and would keep
        # a model that is gone for all others until that is collected: so not any model.
        self._whole: nn.Module | None = model if form == "pull" or is_wrapper(model) else None
        self._optimizer, self._model = weakref.ref(optimizer), weakref.ref(model)
        self._followed = Followed(optimizer, model, anchors, scales, whole=whole, stochastic=stochastic)
        self._form: Pull | Shift = Shift(self._followed, type(optimizer))
        if form == "pull":
            self._form = Pull(self._followed, type(optimizer), int(recipe.get("seed", 0)))
        self._shifted: once.Shifted | None = None  # the way back until the first step
        self._start = ""  # a digest of the weights before the shift: which shift it was
        self._fresh, self._idle = True, False  # no step has moved anything yet; one at learning rate 0 is under way
        self._called = False  # whether a step has called the hooks, or it was said that none does
        self._probes: list[RemovableHandle] = []  # until the first step that moves anything
        self._seen: int | None = None  # the version of a weight at the last backward pass
        self._moved = 0
        self._resuming: dict[int, Any] = {}  # what an optimizer state that is being loaded says of each group
        self._undo: list[Callable[[], None]] = []
        try:
            self._register(optimizer)
        except BaseException:
            self.detach()
            raise
        _attached[optimizer] = weakref.ref(self)
        _living.add(self)

    def _register(self, optimizer: Optimizer) -> None:
        self.hooks = (optimizer.register_step_pre_hook(self._before),)
        self.hooks = (*self.hooks, optimizer.register_step_post_hook(self._after))
        _in_order(optimizer._optimizer_step_post_hooks).move_to_end(self.hooks[1].id, last=False)  # averages see w
        for hook in (
            optimizer.register_load_state_dict_pre_hook(self._loading),
            optimizer.register_load_state_dict_post_hook(self._loaded),
            optimizer.register_state_dict_post_hook(self._saving),
        ):
            self._undo.append(hook.remove)
        self._undo.append(warn_of_copies(optimizer))
        if isinstance(self._form, Shift):
            shift = self._form
            self._undo.append(surround(optimizer, "step", _nothing, _nothing, shift.failed))
            for mode in ("eval", "train"):  # the optimizer moves the weights, from one affine image of theta to another
                if callable(getattr(optimizer, mode, None)):
                    to_theta = partial(shift.to_theta, optimizer)
                    self._undo.append(surround(optimizer, mode, to_theta, shift.restore, shift.restore))
        self._undo.append(partial(_remove_all, self._probes))  # no cycle: this handle may hold the model
        weakref.finalize(self, _remove_all, self._probes)
        for p in self._followed.known().values():
            if p.requires_grad and p.is_leaf:
                probe = Probe(self, watches=not self._probes)
                self._probes.append(p.register_post_accumulate_grad_hook(probe))

    # ------------------------------------------------------------------------------------------------- what it is asked

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
        self._followed.draw = draw

    @torch.no_grad()
    def redraw(self, *, seed: int, sigma: float) -> None:
        """Decay from now on toward the anchors of this seed and scale; the weights stay where they are, and so does D.

        Saved states are from then on those of a run with these anchors: to resume, draw them again, then load.

        Raises:
            ValueError: anchors that were given and not drawn; the shift form, as some optimizers keep a theta of their
                own, which is w less the anchors that were; a sharded model. Nothing has changed then.
        """
        draw = self._followed.draw
        if draw is None:
            raise ValueError("these anchors were given, not drawn: there is nothing to draw them anew by")
        if self.form != "pull" or self._followed.is_sharded():
            raise ValueError("anchors change in the constant-pull form only, and while no parameter is sharded")
        new = {"seed": seed, "sigma": sigma}
        draw = partial(draw, **new)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GuessedScale)  # it has been said
            anchors, _ = draw([*self.anchors])
        for name, anchor in anchors.items():
            self.anchors[name].copy_(anchor)
        self._followed.draw = draw
        self._recipe |= new
        self.line = once.line(self._recipe)
        self._stds, self._stds_of = {}, lambda several: {}

    def is_what(
        self, model: nn.Module, recipe: Mapping[str, Any], stds: Mapping[str, float], weight_decay: float | None,
        form: str | None, *asked: Any,
    ) -> bool:  # fmt: skip
        """Whether attaching this once more would be the same again."""
        held, optimizer = self._model(), self._optimizer()
        if held is None or optimizer is None or [*map(id, held.parameters())] != [*map(id, model.parameters())]:
            return False
        given = weight_decay is None or all(group["weight_decay"] == weight_decay for group in optimizer.param_groups)
        mine = self._recipe, self._stds, self._asked
        return given and mine == (recipe, stds, asked) and form in (None, self.form)

    def begin(self, plan: once.Plan) -> None:
        """Carry out the shift to init + b, or find that another optimizer's has been; either can be taken back."""
        self._shifted = plan.carry_out()
        if self._shifted is not None:
            self._start = self._shifted.start
            self._shifted.remember()

    def detach(self) -> None:
        """Remove the hooks: from now on the optimizer decays toward 0 again.

        The weights stay where they are, and so does a decay that `attach(weight_decay=)` gave the groups.
        """
        super().detach()
        while self._undo:
            self._undo.pop()()
        _living.discard(self)
        self._whole = None
        if (optimizer := self._optimizer()) is not None and attached(optimizer) is self:
            _attached.pop(optimizer, None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SyreHandle":
        """A handle that is detached, for the hooks stay with the optimizer: attach to the copy of that."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        vars(copied).update(vars(self) | {"hooks": (), "_undo": [], "_whole": None, "_shifted": None, "_probes": []})
        copied.anchors, copied.scales = deepcopy((self.anchors, self.scales), memo)
        copied._followed = self._followed.copied(copied.anchors, copied.scales)
        copied._form = type(self._form).__new__(type(self._form))  # never asked for anything, and holds no parameter
        copied._optimizer, copied._model = cast(Any, _none), cast(Any, _none)
        return copied

    def __reduce__(self) -> Any:
        raise TypeError("a SyreHandle is hooks on an optimizer, and is not pickled: save its state_dict()")

    def state_dict(self) -> dict[str, Any]:
        """What the anchors were drawn by, their names and a checksum: a few hundred bytes that identify them.

        It is the same on every rank of a sharded model, and for every number of ranks.
        """
        return {**self._recipe, "names": sorted(self.anchors), "checksum": self._followed.checksum()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check on resume that these anchors are the checkpoint's, and that the weights hold them once.

        It tells that this is a resume: weights that were loaded before `attach`, and not touched since, are taken back
        to what was loaded; unless that held none of the anchors, beyond doubt (`once.share`).

        Raises:
            TypeError: no state.
            ValueError: the anchors differ, and the message names the first entry that does; or the weights hold twice
                the anchors, beyond doubt. Nothing has changed then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"the state of a handle is a dict, as state_dict() gives it, got {type(state).__name__}")
        state = EARLIER | dict(state)
        for key, mine in self.state_dict().items():
            if key not in state or state[key] != mine:
                saved = state.get(key, "nothing")
                raise ValueError(f"these are not the anchors of the checkpoint: {key} was {saved}, and is {mine} now")
        # Copies from before the model was sharded are whole, and are laid out as the anchors are by now.
        before = {} if self._shifted is None else self._shifted.before()
        before = {name: shard_like(copy, self.anchors[name]) for name, copy in before.items()}
        fresh = bool(before) and once.lacks(before, self.anchors, self._less)
        if not fresh and self._take_back():
            return
        trained = {name: p for name, p in self._followed.known().items() if p.requires_grad}
        held, error = once.share_of(trained, self.anchors, self._less)
        if held > 1.5 and held - 1 > once.SURE * error:
            raise ValueError(
                f"the weights hold the anchors {held:.2f} +- {error:.2f} times: they were shifted twice. Load the "
                "weights before the line attaches with start='keep', or after it attaches"
            )

    # ------------------------------------------------------------------------------------------------------ its hooks

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._called = True
        if self._fresh:
            # torch's distributed checkpoint takes a step at learning rate 0 before it loads, to have a state.
            rates = [group.get("lr") for group in optimizer.param_groups]
            if any(rate is None or float(rate) != 0 for rate in rates):
                if (model := self._model()) is not None:
                    once.forget_ways(model)
                self._fresh, self._shifted = False, None
                _remove_all(self._probes)
            elif self._shifted is not None and self._shifted.untouched():
                self._idle = True
        return self._form.before(optimizer, args, kwargs)

    def _go_last(self) -> None:
        """Of all that is done before a step: what clips gradients does not clip the pull, and sees w."""
        if (optimizer := self._optimizer()) is not None and self.hooks:
            hooks, mine = _in_order(optimizer._optimizer_step_pre_hooks), self.hooks[0].id
            if next(reversed(hooks)) != mine:
                hooks.move_to_end(mine)

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._form.after(optimizer, args, kwargs)
        self._go_last()
        if self._followed.adopted and (model := self._model()) is not None:
            found = slots(model)
            self._stds |= self._stds_of(found[name] for name in self._followed.adopted if name in found)
            once.keep(found, self._followed.adopted, self.line, self._stds)
            self._followed.adopted.clear()
        if self._idle and self._shifted is not None:
            self._idle = False
            self._shifted.renew()

    def backward(self, parameter: Tensor, watches: bool) -> None:
        """Before the first step, of each parameter; one `watches` whether the weights move, and no hook is called.

        Twice, since a method may take two gradients for a step (SAM does).
        """
        self._go_last()
        if not watches:
            return
        now = local(parameter)._version
        self._moved += self._seen is not None and now != self._seen
        self._seen = now
        if not self._called and self._moved == 2 and (optimizer := self._optimizer()) is not None:
            self._called = True
            kind = type(optimizer).__name__
            warnings.warn(
                f"syre does nothing: the weights move, and {kind}.step, to which it is attached, is not called (or "
                "calls no hooks). Attach to the optimizer whose step() updates the weights",
                stacklevel=2,
            )

    def _saving(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        for index, group in enumerate(state["param_groups"]):
            steps = self._steps_of(optimizer.param_groups[index]["params"])
            names = self._followed.names(optimizer.param_groups[index]["params"])
            stds = {name: self._stds[name] for name in names if name in self._stds}
            entry = {"anchors": self.line, "start": self._start, "rounded": steps}
            group[GROUP] = entry | ({"stds": stds} if stds else {})

    def _steps_of(self, parameters: Sequence[Tensor]) -> dict[str, int] | int:
        """In how many steps the pull of each was rounded; one number where it is the same of all."""
        if not isinstance(self._form, Pull):
            return 0
        names = self._followed.names(parameters)
        steps = {name: self._form.steps.get(name, 0) for name in names}
        return steps if len(set(steps.values())) > 1 else max(steps.values(), default=0)

    def _loading(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [dict(group) for group in state["param_groups"]]
        self._resuming = check_saved([group.pop(GROUP, None) for group in groups], self.line, self._stds)
        return {**state, "param_groups": groups}

    def _loaded(self, optimizer: Optimizer) -> None:
        self.resume(self._resuming)
        self._resuming = {}
        if not any(group.get("weight_decay", 0) > 0 for group in optimizer.param_groups):
            what = "the loaded optimizer state has weight_decay 0 in every group, and without decay syre does nothing"
            warnings.warn(f"{what}: set it in optimizer.param_groups", stacklevel=2)

    def resume(self, saved: Mapping[int, Any]) -> None:
        """Go on from what a saved optimizer state says of its groups, if it says anything.

        Its own state (accelerate saves and loads it while it prepares) does not say that the weights were loaded.
        """
        if saved and any(entry.get("start", "") != self._start for entry in saved.values()):
            self._take_back()
            self._start = next(iter(saved.values())).get("start", "")
        if isinstance(self._form, Pull) and (optimizer := self._optimizer()) is not None:
            for index, entry in saved.items():
                names, steps = self._followed.names(optimizer.param_groups[index]["params"]), entry.get("rounded", 0)
                self._form.steps |= steps if isinstance(steps, dict) else dict.fromkeys(names, steps)

    def _take_back(self) -> bool:
        """Undo the shift of weights that were shifted before they were loaded; whether there was anything to undo."""
        shifted, self._shifted = self._shifted, None
        return shifted is not None and shifted.take_back()


class Probe:
    """The hook on a gradient that asks a handle, while it lives, whether its hooks are called."""

    def __init__(self, handle: SyreHandle, *, watches: bool) -> None:
        self._handle, self._watches = weakref.ref(handle), watches

    def __call__(self, parameter: Tensor) -> None:
        if (handle := self._handle()) is not None:
            handle.backward(parameter, self._watches)


def attached(optimizer: Optimizer) -> SyreHandle | None:
    """The handle that is attached to it now."""
    held = _attached.get(optimizer)
    return None if held is None else held()


def check_saved(saved: Sequence[Any], line: str, stds: Mapping[str, float]) -> dict[int, Any]:
    """What a saved optimizer state says, by group: of those that say anything.

    Raises:
        ValueError: it was trained with other anchors.
    """
    for entry in filter(None, saved):
        if entry["anchors"] != line:
            was = entry["anchors"]
            raise ValueError(f"this optimizer state was trained with other anchors ({was}) than are attached ({line})")
        for name, std in entry.get("stds", {}).items():
            if stds.get(name, std) != std:
                raise ValueError(
                    "this optimizer state was trained with other anchors than are attached: that of "
                    f"{name!r} had a std of {std:g}, and has {stds[name]:g} now"
                )
    return {index: entry for index, entry in enumerate(saved) if entry}


def warn_of_shared(mine: SyreHandle) -> None:
    """One warning if another living model of this process has some of these very anchors."""
    for other in list(_living):
        model, its = mine._model(), other._model()
        if other is mine or its is None or model is None or other._optimizer() is None or other.line != mine.line:
            continue
        own = {id(p) for p in model.parameters()}
        if any(id(p) in own for p in its.parameters()):
            continue  # one model, two optimizers
        shared = [n for n, b in mine.anchors.items() if n in other.anchors and other.anchors[n].shape == b.shape]
        if shared:
            warnings.warn(
                f"{len(shared)} parameters ({shared[0]}, ...) have the very anchors that those of another "
                f"{type(its).__name__} of this process have, drawn by the same seed, name and shape: pass another "
                "seed= where the two should differ (a generator and a discriminator, say)",
                SharedAnchors,
                stacklevel=outside(),
            )
            return


def warn_of_copies(optimizer: Optimizer) -> Callable[[], None]:
    """Let deepcopy and pickle of this optimizer say that hooks are not copied. Returns the way back."""
    living = weakref.ref(optimizer)  # a bound method would be a cycle

    def state() -> Any:
        warnings.warn(
            "a copy of this optimizer (deepcopy, pickle) does not have the hooks of syre, and decays toward 0: attach "
            "to the copy as well; the weights will not be shifted again",
            stacklevel=4,
        )
        return Optimizer.__getstate__(cast(Optimizer, living()))

    if type(optimizer).__getstate__ is not Optimizer.__getstate__:  # it has a say of its own in what is copied
        return _nothing

    def undo() -> None:
        if (alive := living()) is not None:
            vars(alive).pop("__getstate__", None)

    vars(optimizer)["__getstate__"] = state
    return undo


def _in_order(hooks: Any) -> "OrderedDict[int, Any]":
    """The hooks as torch keeps and calls them."""
    return cast("OrderedDict[int, Any]", hooks)


def _remove_all(hooks: list[RemovableHandle]) -> None:
    while hooks:
        hooks.pop().remove()


def _nothing() -> None:
    pass


def _none() -> None:
    """In place of a weak reference, of what there is none of."""
    return None
