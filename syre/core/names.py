"""The names of parameters: what anchors, scales and frozen entries are known and drawn by."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

_SPLIT = ParametrizationList
_CONTAINERS = (ParametrizationList, nn.ParameterList, nn.ParameterDict)
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def canonical_name(name: str) -> str:
    """The name a parameter has in the plain model: `_orig_mod.module.fc.weight` -> `fc.weight`.

    Strips what torch.compile, (Distributed)DataParallel, FSDP, activation checkpointing and parametrizations add. A
    leading `module` is always stripped, so a model that calls its own child `module` has the same names wrapped and
    plain.
    """
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    if len(parts) >= 3 and parts[-3] == "parametrizations" and parts[-1] == "original":
        parts[-3:] = [parts[-2]]
    return ".".join(parts)


@runtime_checkable
class DrawsAs(Protocol):
    """A model that says under which name the random tensors of a parameter are drawn."""

    def drawn_as(self, name: str) -> str: ...


def drawn_as(model: nn.Module, name: str) -> str:
    """The name under which the fixed random tensors of a parameter (or module) are drawn: its canonical name.

    A model may say otherwise by a method `drawn_as(name) -> name`: what is drawn under one name is equal. So the two
    networks of a pair (`syre.models.Pair`) share their anchors, as networks must that are to be interpolated.
    """
    name = canonical_name(name)
    return model.drawn_as(name) if isinstance(model, DrawsAs) else name


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One place where a parameter sits: `module.<leaf>`, under its canonical name.

    Attributes:
        place: (module, leaf); of an entry of a container (ParameterList, ParameterDict, what `weight_norm` splits), the
            module that has the container, and what it is called there.
        ties: the other places of a tied parameter.
    """

    name: str
    module: nn.Module
    leaf: str
    parameter: nn.Parameter
    place: tuple[nn.Module, str]
    ties: list["Slot"] = field(default_factory=list)


def walk(model: nn.Module) -> Iterator[Slot]:
    """Every place of every parameter, in the order of `named_parameters()`; a tied one once for each of its ends."""
    modules = dict(model.named_modules())
    for path, module in modules.items():
        for leaf, parameter in module._parameters.items():  # a class may have a `named_parameters` of its own
            if parameter is None:
                continue
            name = canonical_name(f"{path}.{leaf}" if path else leaf)
            owner, key = module, leaf
            if isinstance(module, _CONTAINERS) and path:
                parent, key = path.rpartition(".")[::2]  # of a ParametrizationList: <owner>.parametrizations
                parent = parent.removesuffix("parametrizations").rstrip(".") if isinstance(module, _SPLIT) else parent
                owner = modules[parent]
            whole = isinstance(module, _SPLIT) and leaf == "original"  # the parameter itself, not a part
            where = (owner, key) if whole else (module, leaf)
            yield Slot(name=name, module=where[0], leaf=where[1], parameter=parameter, place=(owner, key))


def slots(model: nn.Module) -> dict[str, Slot]:
    """Canonical name -> slot, each parameter once: a tied parameter goes by the first of its names.

    Raises:
        ValueError: two parameters get the same canonical name; one of a lazy module that has no shape yet.
    """
    found: dict[str, Slot] = {}
    seen: dict[int, Slot] = {}
    for slot in walk(model):
        if id(slot.parameter) in seen:
            seen[id(slot.parameter)].ties.append(slot)
            continue
        if is_lazy(slot.parameter):
            raise ValueError(f"parameter {slot.name!r} has no shape yet (a lazy module): run one forward pass first")
        if slot.name in found:
            raise ValueError(f"two parameters have the canonical name {slot.name!r}: rename one of the modules")
        seen[id(slot.parameter)] = found[slot.name] = slot
    return found


def canonical_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Canonical name -> parameter, each parameter once (the keys of anchors and scales)."""
    return {name: slot.parameter for name, slot in slots(model).items()}


def select(model: nn.Module, names: Collection[str] | None) -> dict[str, Slot]:
    """The slots of these names; None means all.

    Raises:
        ValueError: a name that the model does not have.
    """
    found = slots(model)
    if names is None:
        return found
    if unknown := sorted(set(names) - found.keys()):
        raise ValueError(f"the model has no parameter named {unknown[0]!r}; it has {', '.join(found)}")
    return {name: slot for name, slot in found.items() if name in names}
