"""Which anchor belongs to which parameter of an optimizer's groups: by identity, however the groups change."""

import operator
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .anchor import checksum
from .decay import require_decayable
from .names import canonical_parameters
from .sharded import gradient, is_sharded, local, shard_like

Named = dict[str, Tensor]  # by canonical parameter name
Draw = Callable[..., tuple[Named, Named]]  # the anchors, and the scales, of these parameters


@dataclass(frozen=True, kw_only=True)
class Part:
    """The anchored parameters of one parameter group and one dtype, as parallel lists.

    Attributes:
        anchors, scales: those of the shards that are here, where parameters are sharded; scales None where D = 1.
    """

    names: list[str]
    parameters: list[Tensor]
    anchors: list[Tensor]
    scales: list[Tensor] | None
    sharded: bool

    @property
    def dtype(self) -> torch.dtype:
        return self.parameters[0].dtype

    def weights(self) -> list[Tensor]:
        """What is here of the parameters: to write to."""
        return [local(p) for p in self.parameters] if self.sharded else self.parameters

    def gradients(self) -> list[Tensor]:
        """What is here of their gradients, none of which is None."""
        if self.sharded:
            return [gradient(p) for p in self.parameters]
        return [p.grad for p in self.parameters if p.grad is not None]

    def live(self, has: Callable[[Tensor], bool]) -> "Part":
        """The part whose parameters satisfy `has`; itself, at no cost, when all do."""
        return self.at([i for i, p in enumerate(self.parameters) if has(p)])

    def at(self, index: list[int]) -> "Part":
        """The part at these indices, which are in order; itself, at no cost, when they are all."""
        if len(index) == len(self.parameters):
            return self
        return Part(
            names=[self.names[i] for i in index],
            parameters=[self.parameters[i] for i in index],
            anchors=[self.anchors[i] for i in index],
            scales=None if self.scales is None else [self.scales[i] for i in index],
            sharded=self.sharded,
        )


class Followed:
    """The parameters of an optimizer and their anchors.

    Those that begin to decay later get their anchors then; one that took another's place, whole or sharded, has its
    anchor.

    Attributes:
        anchors, scales: canonical name -> tensor, laid out as the parameter is.
        draw: what draws for parameters that come later; without it such a parameter is an error.
        adopted: the names of those that came later, until somebody takes them off.
    """

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, anchors: Named, scales: Named, *, whole: str | None = None,
        stochastic: bool = False,
    ) -> None:  # fmt: skip
        """`whole`: the checksum of anchors and scales, if only shards of them are here."""
        self.anchors, self.scales, self.stochastic = anchors, scales, stochastic
        self.draw: Draw | None = None
        self.adopted: list[str] = []  # that have got anchors since anybody looked
        self._checksum = whole
        self.model = weakref.ref(model)
        parameters = canonical_parameters(model)
        self._names = {id(parameters[name]): name for name in anchors}
        self._known = {name: parameters[name] for name in anchors}  # keeps the identities above alive
        decaying = [p for group in optimizer.param_groups if group.get("weight_decay", 0) > 0 for p in group["params"]]
        self._plain = {id(p): p for p in decaying if id(p) not in self._names}
        self._frozen = [p for p in self._plain.values() if not p.requires_grad]
        self._displaced: dict[int, Tensor] = {}  # of `_plain`: others have their names, and their anchors
        self._changed = False  # some group, since it was last looked at which parameters there are
        # by group: its parameters and their dtypes, and what was made of them
        self._parts: dict[int, tuple[list[Tensor], list[torch.dtype], list[Part]]] = {}

    def copied(self, anchors: Named, scales: Named) -> "Followed":
        """Of a copy of the handle, which follows no parameter: for its checksum."""
        other = copy(self)
        other.anchors, other.scales = anchors, scales
        other._names, other._known, other._plain, other._frozen, other._parts = {}, {}, {}, [], {}
        other._displaced = {}
        return other

    def known(self) -> Mapping[str, Tensor]:
        """Canonical name -> parameter of all that have an anchor."""
        return self._known

    def names(self, parameters: Sequence[Tensor]) -> list[str]:
        """Of those that have an anchor."""
        return [self._names[id(p)] for p in parameters if id(p) in self._names]

    def is_sharded(self) -> bool:
        """Whether any of it is a part of a tensor only."""
        return any(map(is_sharded, (*self.anchors.values(), *self.scales.values())))

    def checksum(self) -> str | None:
        """Of all anchors and scales, while they are whole; of shards what it was before, or None."""
        if not self.is_sharded():
            scales = {f"{name}:scale": scale for name, scale in self.scales.items()}
            self._checksum = checksum(self.anchors | scales)
        return self._checksum

    def decayed(self, optimizer: Optimizer) -> Iterator[tuple[dict[str, Any], Part]]:
        """What decays now, part by part, each with its group."""
        self._ask_again()
        for index, group in enumerate(optimizer.param_groups):
            if group.get("weight_decay", 0) != 0:
                for part in self._of(index, group):
                    yield group, part
        self._tidy(optimizer)

    def anchored(self, optimizer: Optimizer) -> list[Part]:
        """What decays, or has anchors from when it did."""
        self._ask_again()
        parts = [
            part
            for index, group in enumerate(optimizer.param_groups)
            if group.get("weight_decay", 0) != 0 or any(id(p) in self._names for p in group["params"])
            for part in self._of(index, group)
        ]
        self._tidy(optimizer)
        return parts

    def _of(self, index: int, group: Mapping[str, Any]) -> list[Part]:
        """The parts of a group: those of the step before, unless the group has changed."""
        parameters: list[Tensor] = group["params"]
        held, dtypes, parts = self._parts.get(index, (None, [], []))
        as_they_were = held is not None and len(held) == len(parameters) and all(map(operator.is_, held, parameters))
        if not as_they_were or [p.dtype for p in parameters] != dtypes:  # a part of the model may be cast since
            if unknown := [p for p in parameters if id(p) not in self._names and id(p) not in self._plain]:
                self._adopt(unknown)
            parts, self._changed = self._make(parameters), True
            self._parts[index] = list(parameters), [p.dtype for p in parameters], parts
        return parts

    def _ask_again(self) -> None:
        """Ask anew about those that were frozen, and about those that others have displaced."""
        if self._frozen and any(p.requires_grad for p in self._frozen):  # are trained since
            for p in self._frozen:
                self._plain.pop(id(p), None)
            self._frozen = []
            self._parts.clear()
        self._take_again()

    def _tidy(self, optimizer: Optimizer) -> None:
        """Keep no parameter that neither optimizer nor model has: the anchor of its name waits, should it come back."""
        if not self._changed and max(self._parts, default=-1) < len(optimizer.param_groups):
            return
        self._changed = False
        self._parts = {i: parts for i, parts in self._parts.items() if i < len(optimizer.param_groups)}
        if (model := self.model()) is None:
            return  # a parameter may be out of the optimizer for a while
        still = {id(p) for group in optimizer.param_groups for p in group["params"]}
        still |= {id(p) for p in model.parameters()}
        self._plain = {key: p for key, p in self._plain.items() if key in still}
        self._displaced = {key: p for key, p in self._displaced.items() if key in still}
        self._frozen = [p for p in self._frozen if id(p) in still]
        self._known = {name: p for name, p in self._known.items() if id(p) in still}
        self._names = {key: name for key, name in self._names.items() if key in still}

    def _take_again(self) -> None:
        """Follow those again that others had displaced, and that are trained, in the model, once more."""
        trained = {key for key, p in self._displaced.items() if p.grad is not None}
        if trained and (model := self.model()) is not None:
            for key in trained & {id(p) for p in model.parameters()}:
                del self._displaced[key], self._plain[key]
                self._parts.clear()

    def _make(self, parameters: list[Tensor]) -> list[Part]:
        parts = []
        mine = [(self._names[id(p)], p) for p in parameters if id(p) in self._names]
        for dtype in dict.fromkeys(p.dtype for _, p in mine):
            names = [name for name, p in mine if p.dtype is dtype]
            held = [p for _, p in mine if p.dtype is dtype]
            scales = None
            if any(name in self.scales for name in names):
                ones = [local(p).new_ones(()).expand_as(local(p)) for p in held]
                scales = [local(self.scales.get(name, one)) for name, one in zip(names, ones, strict=True)]
            anchors = [local(self.anchors[name]) for name in names]
            sharded = any(map(is_sharded, held))
            parts.append(Part(names=names, parameters=held, anchors=anchors, scales=scales, sharded=sharded))
        return parts

    def _adopt(self, unknown: list[Tensor]) -> None:
        """Anchor parameters that have come since, as start="keep"; one that took another's place has its anchor."""
        model = self.model()
        parameters = {} if model is None else canonical_parameters(model)
        names = {id(p): name for name, p in parameters.items()}
        for p in unknown:
            name = names.get(id(p))
            if name is None:
                raise RuntimeError(f"the optimizer decays a parameter of shape {tuple(p.shape)} that the model lacks")
            if name not in self.anchors:
                if self.draw is None:
                    before = "but did not, or did not exist, when syre was attached"
                    raise RuntimeError(
                        f"parameter {name!r} decays {before}: detach, and attach again with start='keep'"
                    )
                if p.requires_grad:
                    require_decayable(name, p, self.stochastic)
                anchors, scales = self.draw([name])
                if name not in anchors:  # left out, as it would have been from the start
                    self._plain[id(p)] = p
                    self._frozen += [] if p.requires_grad else [p]
                    continue
                self.anchors.update(anchors)
                self.scales.update(scales)
                self.adopted.append(name)
            elif self.anchors[name].shape != p.shape:
                was, now = tuple(self.anchors[name].shape), tuple(p.shape)
                raise RuntimeError(
                    f"parameter {name!r} has shape {now}, and had {was} when syre was attached: detach, take the old "
                    "one out of the optimizer, and attach again with start='keep'"
                )
            if is_sharded(p) and not is_sharded(self.anchors[name]):
                self.checksum()  # while they are whole
            self.anchors[name] = shard_like(self.anchors[name], p)
            if name in self.scales:
                self.scales[name] = shard_like(self.scales[name], p)
            old = self._known.get(name)
            if old is not None and old is not p:  # it may still be in the optimizer, with no gradient any more
                self._names.pop(id(old), None)
                self._plain[id(old)] = self._displaced[id(old)] = old
            self._names[id(p)] = name
            self._known[name] = parameters[name]
