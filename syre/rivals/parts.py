"""What rivals share: hooks that change gradients, and hooks that replace hidden units."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from syre import distributed
from syre.checks import check
from syre.core import Effect, Handle, anchor_std, slots
from syre.core.forms import closure_of
from syre.core.names import Slot
from syre.models.base import Model
from syre.models.units import Units, initial_rows
from syre.optim import decayed
from syre.regularizers import Regularizer
from syre.seeding import generator, restore_generator

# ---- the parameters of any model ------------------------------------------------------------------------------------


def parameters_of(model: nn.Module, scope: str) -> dict[str, tuple[Slot, float]]:
    """Those within the scope, by name, each with the `1 / sqrt(fan_in)` of its layer.

    Without parameters of one entry that belong to no layer: a temperature, say.
    """
    inside = {id(parameter) for parameter in decayed(model, scope).values()}
    found = {name: (slot, anchor_std(slot, 1.0)) for name, slot in slots(model).items() if id(slot.parameter) in inside}
    return {name: (slot, std) for name, (slot, std) in found.items() if std is not None}


class GradientHandle(Handle, ABC):
    """Adds something to the gradients before each step, also of a `step(closure)`."""

    def __init__(self, optimizer: Optimizer) -> None:
        maximizes = any(group.get("maximize", False) for group in optimizer.param_groups)
        check(not maximizes, "an optimizer with maximize=True climbs, and what is added to its gradients is to descend")
        self.hooks = (optimizer.register_step_pre_hook(self._before),)

    @abstractmethod
    def add(self) -> None:
        """Add it to the gradients there are."""

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            raise RuntimeError("a fused optimizer under a GradScaler, which scales gradients: use fused=False or bf16")
        closure, replace = closure_of(args, kwargs)
        if closure is None:
            self._add()
            return None

        def added() -> Any:  # the gradient exists only once the closure has run
            loss = closure()
            self._add()
            return loss

        return replace(added)

    @torch.no_grad()
    def _add(self) -> None:
        self.add()


# ---- the hidden units of a model that says which it has -------------------------------------------------------------


def units_of(model: nn.Module, name: str) -> tuple[Units, ...]:
    """The hidden units of a model.

    Raises:
        ValueError: it does not say which it has.
    """
    found = model.units() if isinstance(model, Model) else ()
    kind = type(model).__name__
    check(bool(found), f"regularizer={name} needs a model that says which hidden units it has, {kind} does not")
    return found


class Recycling(Regularizer, ABC):
    """What all that replace units share: they need a model that says which it has."""

    def prepare(self, model: nn.Module, seed: int) -> None:
        units_of(model, self.name)


class RecyclingHandle(Handle, ABC):
    """Sees the units in the forward passes of training, and replaces some of them after a step of the optimizer.

    A unit that is replaced gets new incoming weights, its model's own initial draw, and outgoing weights of 0; what the
    optimizer remembers of both (momentum, Adam's moments) becomes 0. Adam's count of steps, one number for a tensor,
    stays: the first steps of what was replaced are longer by up to `(1 - beta1) / sqrt(1 - beta2)`, 3.2 at its default.
    The function of the network loses what the unit gave to it, and no more; but with a layer norm between layer and
    activation all units of the layer change, for its mean and variance are also of the new one.

    What is seen are means over the batch of a step: over all parts of it where gradients are accumulated, and over all
    processes of a run.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module, name: str, seed: int) -> None:
        self.layers = units_of(model, name)
        self.stream = generator(seed, name)  # on the CPU, whatever the device: few numbers, and rarely
        self.steps = 0
        self._seen: list[Tensor | None] = [None] * len(self.layers)
        self._samples = [0] * len(self.layers)
        see = [layer.place.register_forward_hook(self._seeing(k)) for k, layer in enumerate(self.layers)]
        self.hooks = (*see, optimizer.register_step_post_hook(self._after))

    @abstractmethod
    def measured(self, maps: Tensor) -> Tensor:
        """What is to be averaged over samples: from [batch, units, positions] to [batch, ...]."""

    @abstractmethod
    def chosen(self, index: int, seen: Tensor) -> Tensor:
        """The units of this layer to replace after this step, by the averages over its batch."""

    def due(self) -> bool:
        """Whether the next step needs to see anything."""
        return True

    def finish(self) -> None:
        """At the end of a step."""

    def before_replacing(self, index: int, units: Tensor) -> None:
        """What is to be done while their weights are still there."""

    def _seeing(self, index: int) -> Callable[..., None]:
        layer = self.layers[index]

        @torch.compiler.disable  # what it does is no part of a graph
        def see(module: nn.Module, _: Any, output: Tensor) -> None:
            if not (module.training and torch.is_grad_enabled() and self.due()):
                return
            sums = self.measured(layer.maps(output.detach()).to(layer.reader.weight.dtype)).sum(0)
            before = self._seen[index]
            self._seen[index] = sums if before is None else before + sums
            self._samples[index] += output.shape[0]

        return see

    @torch.no_grad()
    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        chosen = {
            index: self.chosen(index, distributed.average(seen) / self._samples[index])
            for index, seen in enumerate(self._seen)
            if seen is not None
        }
        replaced = {index: units for index, units in chosen.items() if len(units)}
        for index, units in replaced.items():
            self.before_replacing(index, units)
        for index in reversed(replaced):  # so that a weight from one replaced unit to another is 0
            replace(optimizer, self.layers[index], replaced[index], self.stream)
        self.steps += 1
        self.finish()
        self._seen, self._samples = [None] * len(self.layers), [0] * len(self.layers)

    # ---- what a checkpoint keeps -------------------------------------------------------------------------------------

    def state(self) -> dict[str, list[Tensor]]:
        """The tensors of each layer that it goes on from; they are changed in place."""
        return {}

    def progress(self) -> dict[str, Any]:
        return {"steps": self.steps, "stream": self.stream.get_state(), **self.state()}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        self.steps = progress["steps"]
        restore_generator(self.stream, progress["stream"])
        for name, tensors in self.state().items():
            for mine, saved in zip(tensors, progress[name], strict=True):
                mine.copy_(saved)


def alone(handle: Handle) -> Effect:
    """The effect of a handle that an ensemble cannot repeat: none once it is detached.

    Raises:
        ValueError: it is not.
    """
    check(not handle.hooks, "what it does depends on each network, and an ensemble does not repeat it")
    return Effect()


def replace(optimizer: Optimizer, layer: Units, units: Tensor, stream: Generator) -> None:
    """New incoming weights for these units of a layer, outgoing weights of 0, and no memory of either."""
    for module, leaf, parameter in layer.written():
        parameter[units] = initial_rows(module, leaf, len(units), stream).to(parameter)
        forget(optimizer, parameter, 0, units)
    columns = layer.columns(units)
    layer.reader.weight.index_fill_(1, columns, 0.0)
    forget(optimizer, layer.reader.weight, 1, columns)


def forget(optimizer: Optimizer, parameter: Tensor, axis: int, index: Tensor) -> None:
    """Set to 0 what an optimizer remembers of these entries."""
    for kept in optimizer.state.get(parameter, {}).values():
        if isinstance(kept, Tensor) and kept.shape == parameter.shape:
            kept.index_fill_(axis, index, 0.0)
