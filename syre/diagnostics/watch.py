"""`syre.Watch`: is the network collapsing? Ranks of its weights and distances to symmetry, every n steps of a training.

    watch = syre.Watch(optimizer, model, log=wandb.log)

It reads the weights alone, after the step and all that other hooks do in it, draws no random number and writes to
nothing, so the training is the same to the bit.
"""

import math
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.core.arguments import integer
from syre.core.names import canonical_parameters
from syre.core.wrapped import as_model, outside, stepped
from syre.diagnostics import structure, units
from syre.diagnostics.features import call_of, require_whole
from syre.diagnostics.undisturbed import undisturbed, unwrapped
from syre.diagnostics.weights import gaussian, is_matrix
from syre.metrics import effective_rank, singular_values, stable_rank

SHORT, LONG = 512, 4096  # rows and columns that are measured of a matrix: at most so many, the same ones each time
WORST = 3  # matrices, and sets of units, that are logged beside the summary
KEPT = 1000  # measurements in `history`
NEEDS = "call syre.diagnose(model, batches, optimizer)"


class Collapsing(UserWarning):
    """A rank or a distance of a network in training has fallen through a threshold of its `Watch`."""


class Watch:
    """Measures the weights after every n-th step of an optimizer; each measurement is a dict of plain numbers.

    With the default prefix these are, of the matrix of each parameter of two axes or more that is trained:
        syre/<parameter>/effective, syre/<parameter>/stable: effective and stable rank over that of a Gaussian matrix
            of the same shape, about 1 at initialization; of at most 512 x 4096 rows and columns, the same each time.
    Of each set of units that the network would not miss if they were permuted (read from one forward pass at the
    start, see `syre.diagnose`):
        syre/<units>/symmetric: the share of them that are twins of another one, but for a sign, or dead;
        syre/<units>/nearest: the smallest distance of one to such a state, 0 if it is there;
        syre/<units>/distance: the median distance over that of independent Gaussian units, about 1 at initialization.
    And over all of them: syre/step; syre/effective, syre/nearest, syre/distance: the smallest; syre/symmetric: the
    share of all units.

    A measurement is skipped, and due again n steps later, where the one before took more than `budget` of the time
    since: it costs less than 1 % of a training, however small its steps. Of several processes the first one measures,
    without a word to the others. A copy of the optimizer (deepcopy, pickle) is not watched.

    Warns (`Collapsing`), once for each threshold, when a value falls through it: when it is beyond it, and was not in
    an earlier measurement, the one at the start included. So a layer that starts at 0 is not reported.

    Attributes:
        latest: the last measurement.
        history: the measurements so far, the last 1000, as they were logged; the first is of the start, which is
            not logged.
        step: how many steps the optimizer has taken. Set it after a resume.
        why: None, or a sentence: why no units are known, so that only ranks are measured.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module],
        *,
        every: int = 100,
        budget: float | None = 0.008,
        log: Callable[[dict[str, float]], object] | None = None,
        layers: Literal["summary", "all"] = "summary",
        batch: Any = None,
        rank: float | None = 0.2,
        distance: float | None = 0.3,
        symmetric: float | None = 0.1,
        prefix: str = "syre",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Measure once, and then after every n-th step.

        Args:
            optimizer: a torch optimizer, or a wrapper that holds one (accelerate's, SAM): the one inside is watched.
            model: whose parameters it steps. Put the line after `syre.attach` or before it.
            every: steps between measurements.
            budget: share of the time that measurements may take, so that all of it, the hook too, costs less than 1 %;
                None: measure at every n-th step whatever it costs.
            log: is called with each measurement but the first: `wandb.log`, or any function of a dict.
            layers: "summary" logs what is over all of them, and the 3 matrices and 3 sets of units that are worst
                at the time; "all" logs all.
            batch: a batch for the forward pass at the start; None: inputs are guessed. As in `syre.diagnose`.
            rank: warn when an effective rank over that of a Gaussian matrix falls below this; None: never.
            distance: the same of the median distance of a set of units.
            symmetric: warn when the share of a set of units that are symmetric grows beyond this; None: never.
            prefix: of all names. For two networks with an optimizer each.
            clock: seconds.

        Raises:
            TypeError: no optimizer, or no model; a `log` that cannot be called.
            ValueError: a setting out of range; a model without trained parameters of two axes; sharded parameters;
                a batch on which the forward pass fails.
        """
        self._settings: dict[str, Any] = {"every": every, "budget": budget, "layers": layers, "prefix": prefix}
        self._thresholds = {"effective": rank, "distance": distance, "symmetric": symmetric}
        _check(every, budget, log, layers, rank=rank, distance=distance, symmetric=symmetric)
        self._log, self._clock = log, clock
        self.step, self.latest, self.history = 0, cast(dict[str, float], {}), cast(list[dict[str, float]], [])
        self._extremes: dict[tuple[str, str], float] = {}  # the best value so far, of what has a threshold
        self._warned: set[str] = set()
        self._hooks: list[Any] = []
        self._within = self._removed = False

        inside, whole = stepped(optimizer), as_model(model)
        plain = unwrapped(whole)
        require_whole(plain, "a watch reads whole parameters")
        if not _matrices(plain):
            raise ValueError("there is nothing to watch: the model has no trained parameter of two axes or more")
        self._optimizer, self._model = weakref.ref(inside), weakref.ref(plain)
        self._several = whole if whole is not model and whole is plain else None  # which only this keeps together
        self._structure = self._read(plain, batch)
        self.why = self._structure.why
        self._cost = self._last = 0.0
        self._observe(quiet=True)
        self._hooks = [inside.register_step_pre_hook(self._before), inside.register_step_post_hook(self._after)]

    @staticmethod
    def _read(model: nn.Module, batch: Any) -> structure.Structure:
        with undisturbed(model):
            return structure.read(model, None if batch is None else structure.Inputs(*call_of(model, batch)))

    # ------------------------------------------------------------------------------------------------ what it is asked

    def measure(self) -> dict[str, float]:
        """Measure now, whatever it costs: keep, log and return the numbers.

        Raises:
            RuntimeError: the model does not exist any more, or this is a copy, which watches nothing.
        """
        if self._model() is None:
            raise RuntimeError("this watch has no model (any more): make one, syre.Watch(optimizer, model)")
        self._observe()
        return self.latest

    def remove(self) -> None:
        """Take the hooks off the optimizer; within a step, before the next one. `latest` and `history` stay."""
        self._removed = True
        while self._hooks and not self._within:
            self._hooks.pop().remove()

    def __getstate__(self) -> dict[str, Any]:
        """What has been measured, without the training: hooks, model, optimizer and log are not copied."""
        return {"step": self.step, "latest": self.latest, "history": self.history, "why": self.why}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _hooks=[], _within=False, _model=_nothing, _optimizer=_nothing)

    # ------------------------------------------------------------------------------------------------------- its hooks

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Be the last of the hooks after the step: in the shift form of `syre.attach` the weights are theta before."""
        if self._removed:  # within a step, while the hooks were gone through
            for hook in self._hooks[1:]:
                hook.remove()
            return
        hooks = cast(Any, optimizer)._optimizer_step_post_hooks
        mine = self._hooks[1].id
        if next(reversed(hooks)) != mine:
            hooks.move_to_end(mine)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.step += 1
        if self.step % self._settings["every"] or not _first_process() or not self._affordable():
            return
        self._within = True
        try:
            self._measure_or_stop()
        finally:
            self._within = False

    def _measure_or_stop(self) -> None:
        """A training of days is not to end for a number on a plot."""
        if self._model() is None:
            self.remove()
            return
        try:
            numbers = self._take()
        except Exception as error:
            self.remove()
            reason = str(error).partition("\n")[0]
            warnings.warn(f"syre.Watch stops watching: {type(error).__name__}: {reason}", stacklevel=outside("torch."))
            return
        self._keep(numbers)

    def _affordable(self) -> bool:
        budget = self._settings["budget"]
        return budget is None or self._cost <= budget * (self._clock() - self._last)

    def _observe(self, quiet: bool = False) -> None:
        self._keep(self._take(), quiet)

    def _take(self) -> "_Numbers":
        """All numbers, and what they cost; on a GPU apart from the steps that it has still to do."""
        model = cast(nn.Module, self._model())
        require_whole(model, "a watch reads whole parameters")
        parameters = canonical_parameters(model)
        for device in {p.device for p in parameters.values()}:
            if device.type != "cpu" and self._settings["budget"] is not None:
                getattr(torch, device.type).synchronize(device)
        start = self._clock()
        with torch.no_grad():
            sets = units.measure(self._structure, {name: p.detach() for name, p in parameters.items()})
            numbers = _Numbers(matrix_ranks(_matrices(model)), sets)
        self._last = self._clock()
        self._cost = self._last - start
        return numbers

    def _keep(self, numbers: "_Numbers", quiet: bool = False) -> None:
        prefix = self._settings["prefix"]
        self.latest = numbers.flat(self.step, prefix, None if self._settings["layers"] == "all" else WORST)
        self.history.append(self.latest)
        del self.history[:-KEPT]
        self._warn(numbers)
        if self._log is not None and not quiet:
            self._log(dict(self.latest))

    def _warn(self, numbers: "_Numbers") -> None:
        for kind, threshold in self._thresholds.items():
            sign = -1 if kind == "symmetric" else 1
            fallen = {}
            for name, value in numbers.of(kind).items():
                before = self._extremes.get((kind, name), -math.inf)
                if threshold is not None and sign * value < sign * threshold <= before:
                    fallen[name] = value
                self._extremes[kind, name] = max(before, sign * value)
            if fallen and kind not in self._warned:
                self._warned.add(kind)
                name = min(fallen, key=lambda name: sign * fallen[name])
                words = SENTENCES[kind].format(name=name, value=fallen[name], threshold=threshold)
                warnings.warn(f"step {self.step}: {words}: {NEEDS}", Collapsing, stacklevel=outside("torch."))


SENTENCES = {
    "effective": "the effective rank of {name} has fallen to {value:.2g} of a Gaussian matrix's, below "
    "rank={threshold}",
    "distance": "the units of {name} have come to {value:.2g} of the usual distance to symmetry, below "
    "distance={threshold}",
    "symmetric": "{value:.0%} of the units of {name} are equal to another one or dead, above symmetric={threshold}",
}


class _Numbers:
    """One measurement, by name: of matrices effective and stable, of units symmetric, nearest and distance."""

    def __init__(self, ranks: Mapping[str, tuple[float, float]], sets: Iterable[Mapping[str, Any]]) -> None:
        self.matrices = {name: {"effective": e, "stable": s} for name, (e, s) in ranks.items()}
        self.sets: dict[str, dict[str, float]] = {}
        self.symmetric = self.count = 0
        for entry in sets:
            near = entry["nearest"]
            if entry["symmetric"] is None:  # a number is not finite
                continue
            share, distance = entry["symmetric"] / entry["count"], near["median"] / near["random"]
            self.sets[entry["name"]] = {"symmetric": share, "nearest": near["min"], "distance": distance}
            self.symmetric += entry["symmetric"]
            self.count += entry["count"]

    def of(self, kind: str) -> dict[str, float]:
        """By name, of those that have it, and have it finite."""
        entries = self.matrices if kind in ("effective", "stable") else self.sets
        return {name: v[kind] for name, v in entries.items() if kind in v and math.isfinite(v[kind])}

    def flat(self, step: int, prefix: str, worst: int | None) -> dict[str, float]:
        """As it is logged; of the `worst` only, if that is a number."""
        found: dict[str, float] = {"step": step}
        for kind in ("effective", "nearest", "distance"):
            if values := self.of(kind).values():
                found[kind] = min(values)
        if self.count:
            found["symmetric"] = self.symmetric / self.count
        for entries, kind in ((self.matrices, "effective"), (self.sets, "distance")):
            names: Iterable[str] = entries
            if worst is not None:
                of = self.of(kind)
                names = sorted(of, key=lambda name: of[name])[:worst]
            found |= {f"{name}/{key}": value for name in names for key, value in entries[name].items()}
        return {f"{prefix}/{key}": value for key, value in found.items()}


# ---- the ranks of the weights ----------------------------------------------------------------------------------------


def _matrices(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters that are matrices with two rows and columns or more: others have rank 1 for ever."""
    trained = {name: p for name, p in canonical_parameters(model).items() if p.requires_grad and is_matrix(p)}
    return {name: p.detach() for name, p in trained.items() if min(p.shape[0], p.numel() // p.shape[0]) > 1}


def matrix_ranks(matrices: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Effective and stable rank of each, over those of a Gaussian matrix: of at most 512 x 4096 of its entries.

    They are read from each device in one go. NaN where an entry is not finite.
    """
    found: dict[torch.device, list[Tensor]] = {}
    expected, places = {}, {}
    for name, matrix in matrices.items():
        part = _part(matrix)
        singular = singular_values(part)
        of = found.setdefault(singular.device, [])
        places[name] = (singular.device, len(of))
        expected[name] = gaussian(*part.shape)
        of.append(torch.stack([effective_rank(singular), stable_rank(singular)]))
    read = {device: torch.stack(of).tolist() for device, of in found.items()}
    ranks = {}
    for name, (device, place) in places.items():
        effective, stable = read[device][place]
        ranks[name] = effective / expected[name]["rank/effective"], stable / expected[name]["rank/stable"]
    return ranks


def _part(weight: Tensor) -> Tensor:
    """Its matrix [first axis, rest] or the transpose, as [long, short]; some rows and columns of a large one."""
    matrix = weight.flatten(1)
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    for axis, most in enumerate((LONG, SHORT)):
        if matrix.shape[axis] > most:
            matrix = matrix.index_select(axis, _chosen(matrix.shape[axis], most, matrix.device))
    return matrix.cpu() if matrix.device.type == "mps" else matrix  # which has no float64


@lru_cache(maxsize=64)
def _chosen(count: int, most: int, device: torch.device) -> Tensor:
    """`most` of `count` indices in order, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(count, generator=generator)[:most].sort().values.to(device)


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check(every: int, budget: float | None, log: object, layers: str, **thresholds: float | None) -> None:
    if integer("every", every) < 1:
        raise ValueError(f"every must be an integer >= 1, got {every}")
    if budget is not None and not 0 < budget <= 1:
        raise ValueError(f"budget must be a share of the time in (0, 1], or None, got {budget}")
    if log is not None and not callable(log):
        raise TypeError(f"log must be a function of a dict, as wandb.log is, got {type(log).__name__}")
    if layers not in ("summary", "all"):
        raise ValueError(f"layers must be 'summary' or 'all', got {layers!r}")
    for name, value in thresholds.items():
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} must be a number in (0, 1), or None, got {value}")


def _first_process() -> bool:
    processes = torch.distributed
    return not (processes.is_available() and processes.is_initialized() and processes.get_rank() > 0)


def _nothing() -> None:
    """What a copy has for a model."""
