"""What an ensemble repeats for each row, and what it refuses: all that would else be silently nothing in it.

An ensemble takes a replica's weights, buffers and noise, the settings of its stock optimizer, and the effect that its
handle states. Whatever else acts on a lone run has no place in a row.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.optim import Optimizer
from torch.optim import optimizer as stock

from syre.core.decay import Effect, effect_of
from syre.core.handle import Probe
from syre.core.once import MARK
from syre.learners.protocol import Replica
from syre.models.base import Model, has_running_statistics

ALONE = "train it alone: replicas=1"
STREAMS = (torch.Generator, np.random.Generator, random.Random)
MODULE_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
OF_EVERY_MODULE = vars(nn.Module()).keys()


def refuse(wrong: object, message: str) -> None:
    """Raise ValueError if there is anything wrong."""
    if wrong:
        raise ValueError(f"{message}: {ALONE}")


def effects(replicas: Sequence[Replica]) -> list[Effect]:
    """What the handle of each replica does to a step.

    Raises:
        ValueError: replicas of different structure; a module with running statistics; an optimizer whose groups do not
            list the parameters in the module's order; a handle that does not state its effect; and whatever else acts
            on a replica that its row could not repeat: hooks, overwritten methods, attributes that differ.
    """
    found = [_effect(replica.handle) for replica in replicas]
    for replica in replicas:
        _refuse_optimizer(replica.optimizer, replica.handle)
        _refuse_model(replica.model)
        stepped = [id(p) for group in replica.optimizer.param_groups for p in group["params"]]
        in_order = stepped == [id(p) for p in replica.model.parameters()]
        refuse(not in_order, "the optimizer of a replica must step all its parameters, in the module's order")
        _refuse_difference(replicas[0].model, replica.model)
    return found


def _effect(handle: Any) -> Effect:
    try:
        return effect_of(handle)
    except ValueError as error:
        raise ValueError(f"{type(handle).__name__}: {error}: {ALONE}") from None


def _refuse_optimizer(optimizer: Optimizer, handle: Any) -> None:
    kind = type(optimizer).__name__
    owned = {hook.id for hook in getattr(handle, "hooks", ())}
    hooks = {**optimizer._optimizer_step_pre_hooks, **optimizer._optimizer_step_post_hooks}
    strange = [hook for key, hook in hooks.items() if key not in owned]
    refuse(strange, f"{_names(strange)} hooks the steps of {kind}, and no handle says what it does")
    refuse(owned - hooks.keys(), f"{type(handle).__name__} has hooks elsewhere than on its replica's optimizer")
    everywhere = [*stock._global_optimizer_pre_hooks.values(), *stock._global_optimizer_post_hooks.values()]
    refuse(everywhere, f"{_names(everywhere)} hooks the steps of every optimizer")
    own = [name for name in vars(optimizer) if callable(getattr(type(optimizer), name, None))]
    own = [name for name in own if name != "__getstate__"]  # which copies it, and does not step
    refuse(own, f"{', '.join(own)} of this {kind} was overwritten")
    refuse(optimizer.state, f"this {kind} has taken steps already, and has a state of its own")


def _refuse_model(model: nn.Module) -> None:
    name = type(model).__name__
    refuse(has_running_statistics(model), f"{name} keeps running statistics (BatchNorm)")
    dtypes = {str(parameter.dtype) for parameter in model.parameters()}
    refuse(len(dtypes) > 1, f"{name} has parameters of several dtypes, {', '.join(sorted(dtypes))}")
    for path, parameter in model.named_parameters():
        refuse(not parameter.requires_grad, f"{path} of {name} is not trained (requires_grad=False)")
        refuse(type(parameter) is not nn.Parameter, f"{path} of {name} is a {type(parameter).__name__}")
        _refuse_hooks(f"the gradient of {path}", parameter, PARAMETER_HOOKS)
    for path, module in model.named_modules():
        _refuse_hooks(f"{path or 'the model'} ({type(module).__name__})", module, MODULE_HOOKS)
    everywhere = [hook for kind in MODULE_HOOKS for hook in vars(nn.modules.module)[f"_global{kind}"].values()]
    refuse(everywhere, f"{_names(everywhere)} hooks every module")


def _refuse_hooks(what: str, place: Any, kinds: Iterable[str]) -> None:
    hooks = [hook for kind in kinds for hook in (getattr(place, kind) or {}).values() if not isinstance(hook, Probe)]
    refuse(hooks, f"{_names(hooks)} hooks {what}, and no handle says what it does")


def _names(hooks: Iterable[Any]) -> str:
    return ", ".join(getattr(hook, "__qualname__", type(hook).__name__) for hook in hooks)


# ---- one module for all ----------------------------------------------------------------------------------------------


def _refuse_difference(model: nn.Module, other: nn.Module) -> None:
    """Only the module of the first replica runs, on the weights and buffers of all."""
    for what, first, second in (
        ("parameters", model.named_parameters(), other.named_parameters()),
        ("buffers", model.named_buffers(), other.named_buffers()),
    ):
        refuse(_shapes(first) != _shapes(second), f"replicas of one ensemble must have the same {what}")
    modules, others = dict(model.named_modules()), dict(other.named_modules())
    refuse(modules.keys() != others.keys(), "replicas of one ensemble must have the same modules")
    for path, module in modules.items():
        place, kinds = path or "the model", [type_before_parametrizations(m) for m in (module, others[path])]
        both = " and a ".join(kind.__name__ for kind in kinds)
        refuse(kinds[0] is not kinds[1], f"{place} is a {both} in replicas of one ensemble")
        mine, its = _attributes(module), _attributes(others[path])
        for name in mine | its:
            same = name in mine and name in its and _equal(mine[name], its[name])
            refuse(not same, f"{name} of {place} ({kinds[0].__name__}) differs between replicas, and one module runs")


def _shapes(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module has of its own, beside parameters, buffers, modules and hooks."""
    aside = module.bookkeeping if isinstance(module, Model) else ()
    return {name: value for name, value in vars(module).items() if name not in (*OF_EVERY_MODULE, *aside, MARK)}


def _equal(a: Any, b: Any) -> bool:
    """Whether two attributes are the same to a forward pass; a stream of random numbers serves no two replicas."""
    if isinstance(a, STREAMS) or type(a) is not type(b):
        return False
    if a is b:
        return True
    if isinstance(a, Tensor):
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, partial):
        return all(map(_equal, (a.func, a.args, a.keywords), (b.func, b.args, b.keywords)))
    return bool(a == b)
