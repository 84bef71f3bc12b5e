"""What people pass to `attach`: an optimizer inside a wrapper, several models, arguments in the other order."""

import functools
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

# Where wrappers keep the optimizer that they step: accelerate, Lightning and DeepSpeed; SAM; Lookahead and others.
INSIDE = ("optimizer", "base_optimizer", "_optimizer", "_base_optimizer", "inner_optimizer", "optim")


def stepped(optimizer: Any) -> Optimizer:
    """The optimizer whose `step` changes the weights: the argument, or the one inside the wrapper that it is.

    A wrapper is no `Optimizer`, or one that shares the list of parameter groups with the one inside (accelerate's, and
    SAM, whose `second_step` steps its base optimizer and never itself). `ZeroRedundancyOptimizer`, whose inner one has
    a part of the parameters, is none.

    Raises:
        TypeError: no optimizer, and none inside.
    """
    passed = optimizer
    while True:
        inner = [found for name in INSIDE if isinstance(found := getattr(optimizer, name, None), Optimizer)]
        if isinstance(optimizer, Optimizer):
            inner = [found for found in inner if found.param_groups is optimizer.param_groups]
        if not inner or inner[0] is optimizer:
            break
        optimizer = inner[0]
    if isinstance(optimizer, nn.Module):
        raise TypeError("the optimizer comes first: syre.attach(optimizer, model)")
    # A subclass that never called Optimizer.__init__ has no hooks, and would take ours without a word or break.
    if not isinstance(optimizer, Optimizer) or not hasattr(optimizer, "_optimizer_step_post_hooks"):
        kind = type(passed).__name__
        raise TypeError(f"{kind} is no torch.optim.Optimizer, and holds none: pass the optimizer whose step it calls")
    return optimizer


def as_model(model: Any) -> nn.Module:
    """One model: the argument, or a `ModuleList` or `ModuleDict` of several (an optimizer over policy and value).

    Raises:
        TypeError: no module.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, Mapping) and model and all(isinstance(one, nn.Module) for one in model.values()):
        return nn.ModuleDict({name: _plain(one) for name, one in cast(dict[str, nn.Module], dict(model)).items()})
    if isinstance(model, list | tuple) and model and all(isinstance(one, nn.Module) for one in model):
        return nn.ModuleList(map(_plain, model))
    kind = type(model).__name__
    raise TypeError(f"model must be a torch.nn.Module, or a list or dict of several, got {kind}")


def is_wrapper(model: nn.Module) -> bool:
    """Whether a model is one, or a list of them, in other clothes: torch.compile's, a parallel one, a `ModuleList`."""
    kinds = nn.ModuleList | nn.ModuleDict | DataParallel | DistributedDataParallel
    return isinstance(model, kinds) or hasattr(model, "_orig_mod")


def _plain(model: nn.Module) -> nn.Module:
    """The model inside a wrapper of torch's whose `module` a name would keep, in the middle of it."""
    return cast(nn.Module, model.module) if isinstance(model, DataParallel | DistributedDataParallel) else model


def surround(
    owner: Any, name: str, before: Callable[[], None], after: Callable[[], None], failed: Callable[[], None]
) -> Callable[[], None]:
    """Let `owner.name()`, of this object alone, be surrounded by calls; `failed` if it raises. Returns the way back.

    The new method is a bound one, as learning-rate schedulers, which wrap `step` too, want it. If another has been put
    over it since, the way back leaves it there, and it does what it surrounds.
    """
    inner, own = getattr(owner, name), vars(owner).get(name)
    active = True

    @functools.wraps(inner)
    def method(_: Any, *args: Any, **kwargs: Any) -> Any:
        if not active:
            return inner(*args, **kwargs)
        before()
        try:
            result = inner(*args, **kwargs)
        except BaseException:
            failed()
            raise
        after()
        return result

    mine = types.MethodType(method, owner)
    setattr(owner, name, mine)

    def undo() -> None:
        nonlocal active
        active = False
        if vars(owner).get(name) is not mine:
            return
        if own is not None:
            setattr(owner, name, own)
        else:
            delattr(owner, name)

    return undo


def outside(*also: str) -> int:
    """The `stacklevel` of the line that called the library; or what called it, as the step of an optimizer: `also`."""
    frame, level = sys._getframe(1), 1
    while frame.f_globals.get("__name__", "").startswith(("syre.", *also)) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level
