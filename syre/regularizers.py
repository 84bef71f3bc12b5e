"""What is done against collapse: one frozen dataclass per regularizer, spelt alike in YAML, class, table and legend.

Each owns its weight decay (torch's convention: the gradient of `weight_decay / 2 * |theta|^2`), which the caller gives
to the optimizer's decayed group. "vanilla" is no decay at all. The paper often calls plain weight decay "vanilla"; here
that is always "weight_decay".
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre import checks
from syre.checks import Settings, among, at_least, check, each, fraction, positive, share
from syre.core import Effect, Handle, SharedAnchors, SyreHandle, attach, attach_anchors
from syre.core.anchor import draw_anchors
from syre.core.frozen import Frozen, FrozenHandle, draw_frozen
from syre.core.names import canonical_name, canonical_parameters, drawn_as
from syre.core.scale import TOKENS, UNITS
from syre.models.layers import Activation, FiGLU
from syre.models.noise import Dropout as DropoutModule
from syre.models.pair import PairModule
from syre.optim import SCOPES, decayed
from syre.seeding import derive_seed, generator


class Regularizer(Settings):
    """The interface of every class below, and what most of them do: nothing but decay.

    scope: what decays, and has anchors: all parameters, or the matrices alone (`syre.optim.decayed`).
    """

    name: ClassVar[str]
    weight_decay: float
    scope: str = "all"
    prefix = "regularizer"
    ranges: ClassVar = {"weight_decay": at_least, "scope": among(*SCOPES)}

    def prepare(self, model: nn.Module, seed: int) -> None:
        """Change the model before its optimizer exists."""

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> Handle | None:
        """Hook the optimizer; what was attached states its effect, for an ensemble to repeat it."""
        return None


def _decays(name: str, value: float) -> None:
    positive(f"{name} (without decay syre only moves the symmetry)", value)


@dataclass(frozen=True, kw_only=True)
class _Anchored(Regularizer):
    """What all that decay toward random anchors, `b ~ N(0, std^2)` drawn once, share.

    sigma, unit: relative, std = sigma / sqrt(fan_in), as section 5.4 has it, which recommends 0.01; or absolute,
        std = sigma for every entry, as others have used the method (vuenc/neuron-identifiability, arXiv 2606.04754).
    start: shift, `w_0 = init + b`, Eq. (6); or keep, `w_0 = init`.
    gains: the mean of the anchors of norm gains: 0 as of all others, or 1, the gain that changes nothing.
    """

    weight_decay: float
    scope: str = "all"
    sigma: float = 0.01
    start: str = "shift"
    unit: str = "relative"
    gains: float = 0.0
    ranges: ClassVar = {
        "weight_decay": _decays,
        "sigma": at_least,
        "start": among("shift", "keep"),
        "unit": among(*UNITS),
        "gains": at_least,
    }

    def drawn(self, seed: int) -> dict[str, Any]:
        """By what its anchors are drawn, as `draw_anchors` takes it."""
        return {"sigma": self.sigma, "unit": self.unit, "gains": self.gains, "seed": anchor_seed(seed)}


def anchor_seed(seed: int) -> int:
    """The seed of a run's anchors: the same whatever the regularizer."""
    return derive_seed(seed, "anchor")


def paired(optimizer: Optimizer, model: nn.Module, **options: Any) -> SyreHandle:
    """`attach` for runs that are compared seed by seed: that those of one seed share their anchors is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SharedAnchors)
        return attach(optimizer, model, **options)


@dataclass(frozen=True, kw_only=True)
class Vanilla(Regularizer):
    """No regularizer and no decay."""

    name: ClassVar[str] = "vanilla"
    weight_decay: ClassVar[float] = 0.0  # type: ignore[misc]  # no setting


@dataclass(frozen=True, kw_only=True)
class WeightDecay(Regularizer):
    """Plain weight decay, `l(theta) + lambda / 2 |theta|^2`: the control of every syre run at the same lambda."""

    name: ClassVar[str] = "weight_decay"
    weight_decay: float
    scope: str = "all"


@dataclass(frozen=True, kw_only=True)
class Syre(_Anchored):
    """`l(theta + b) + lambda / 2 |theta|^2`, Eq. (6)."""

    name: ClassVar[str] = "syre"

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> SyreHandle:
        return paired(optimizer, model, **self.drawn(seed), start=self.start)


@dataclass(frozen=True, kw_only=True)
class SyreAdvanced(_Anchored):
    """`l(theta + b) + lambda / 2 theta^T D theta`, Eq. (7); `D_ii ~ U(1 -+ sqrt(3) sigma_d)` also breaks rotations."""

    name: ClassVar[str] = "syre_advanced"
    sigma_d: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.sigma_d < 3**-0.5, f"regularizer.sigma_d must be in (0, 1/sqrt(3)), got {self.sigma_d}")

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> SyreHandle:
        return paired(optimizer, model, **self.drawn(seed), sigma_d=self.sigma_d, start=self.start)


@dataclass(frozen=True, kw_only=True)
class SyreLayers(_Anchored):
    """`syre` with anchors in the submodules `modules` alone: all parameters decay, those of the others towards 0.

    What has an anchor has the one that `syre` gives it.
    """

    name: ClassVar[str] = "syre_layers"
    gains: ClassVar[float] = 0.0  # type: ignore[misc]  # no setting
    modules: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.modules), "regularizer.modules must name the modules that get anchors")

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> SyreHandle:
        names = list(canonical_parameters(model))
        outer = ", ".join(dict.fromkeys(".".join(name.split(".")[:-1][:2]) for name in names))
        for module in self.modules:
            known = any(name.startswith(f"{module}.") for name in names)
            check(known, f"regularizer.modules: no {module!r} in {type(model).__name__}; it has {outer}")
        decays = decayed(model, self.scope)
        chosen = [n for n in names if n in decays and n.startswith(tuple(f"{module}." for module in self.modules))]
        anchors = draw_anchors(model, **self.drawn(seed), parameters=chosen)
        return attach_anchors(optimizer, model, anchors, start=self.start)


@dataclass(frozen=True, kw_only=True)
class SyreChanging(_Anchored):
    """`syre` with other anchors in each task: what is it about them, that they are there, or that they stay?

    In the first task they are those of `syre`, and so is the start. The weights stay where they are when a task begins.

    change: redrawn, independent draws in each task; or halved, the draws of the first task times `keep` with each new
        one, so that the decay of late tasks is plain weight decay (of gains, toward the mean `gains`).
    """

    name: ClassVar[str] = "syre_changing"
    change: str = "redrawn"
    keep: float = 0.5
    ranges: ClassVar = {"change": among("redrawn", "halved"), "keep": share}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "ChangingHandle":
        return ChangingHandle(paired(optimizer, model, **self.drawn(seed), start=self.start), self, seed)

    def drawn_in(self, stage: int, seed: int) -> dict[str, Any]:
        """The seed and the scale of the anchors of a task."""
        if self.change == "halved":
            return {"seed": anchor_seed(seed), "sigma": self.sigma * self.keep**stage}
        return {"seed": derive_seed(seed, "anchor", stage) if stage else anchor_seed(seed), "sigma": self.sigma}


class ChangingHandle(Handle):
    """The handle of syre on one run, whose anchors it changes with the task: a matter of (seed, task) alone."""

    def __init__(self, inner: SyreHandle, settings: SyreChanging, seed: int) -> None:
        self.inner, self.settings, self.seed = inner, settings, seed
        self.hooks = inner.hooks
        self.stage = 0

    def effect(self) -> Effect:
        """That of syre, with the anchors of the task."""
        return self.inner.effect()

    def vary(self, stage: int) -> None:
        if stage != self.stage:
            self.inner.redraw(**self.settings.drawn_in(stage, self.seed))
            self.stage = stage

    def detach(self) -> None:
        self.inner.detach()
        self.hooks = ()


@dataclass(frozen=True, kw_only=True)
class L2Init(Regularizer):
    """Decay towards the initial weights, `l(w) + lambda / 2 |w - w_init|^2` (Kumar et al. 2023, arXiv 2308.11958).

    syre's nearest relative: its centre is the start itself, so a symmetric start stays symmetric.
    """

    name: ClassVar[str] = "l2_init"
    weight_decay: float
    scope: str = "all"
    ranges: ClassVar = {"weight_decay": positive}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> SyreHandle:
        initial = {canonical_name(n): weight.detach().clone() for n, weight in decayed(model, self.scope).items()}
        return attach_anchors(optimizer, model, initial, start="keep")


@dataclass(frozen=True, kw_only=True)
class Offset(Regularizer):
    """syre's start without its decay: `w_0 = init + b` where syre has anchors, then plain decay towards 0 (or none).

    The control that tells the anchored decay of Eq. (6) from the larger (and, for a pair, shared) start it brings. At
    `weight_decay` 0 it *is* Eq. (6) at gamma = 0: a bias alone only moves the symmetry (Proposition 1).
    """

    name: ClassVar[str] = "offset"
    weight_decay: float = 0.0
    scope: str = "all"
    sigma: float
    unit: str = "relative"
    ranges: ClassVar = {"sigma": at_least, "unit": among(*UNITS)}

    @torch.no_grad()
    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> None:
        parameters = {canonical_name(name): weight for name, weight in decayed(model, self.scope).items()}
        drawn: dict[str, Any] = {"sigma": self.sigma, "unit": self.unit, "seed": anchor_seed(seed)}
        for name, anchor in draw_anchors(model, **drawn, parameters=parameters).items():
            parameters[name].add_(anchor)


@dataclass(frozen=True, kw_only=True)
class ShrinkPerturb(Regularizer):
    """At the start of each new task `w <- shrink * w + perturb * w_new`, `w_new` a fresh initial draw.

    Source: Ash & Adams 2020, arXiv 1910.08475 (shrink 0.4, noise 0.1 in their experiments). The draw is Gaussian with
    the std 1/sqrt(fan_in) of each tensor; without further tasks the regularizer is plain decay.
    """

    name: ClassVar[str] = "shrink_perturb"
    weight_decay: float = 0.0
    scope: str = "all"
    shrink: float = 0.4
    perturb: float = 0.1
    ranges: ClassVar = {"shrink": fraction, "perturb": at_least}

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> "ShrinkPerturbHandle":
        return ShrinkPerturbHandle(model, self, seed)


class ShrinkPerturbHandle(Handle):
    """Renews the weights of one run when the trainer enters a new task, each time by draws of their own."""

    def __init__(self, model: nn.Module, settings: ShrinkPerturb, seed: int) -> None:
        self.model, self.settings, self.seed = model, settings, seed

    def effect(self) -> Effect:
        """None on a step: it acts between tasks."""
        return Effect()

    @torch.no_grad()
    def renew(self, parameters: Mapping[str, Tensor], stage: int) -> None:
        fresh = draw_anchors(self.model, sigma=self.settings.perturb, seed=derive_seed(self.seed, "perturb", stage))
        for name, weight in parameters.items():
            weight.mul_(self.settings.shrink)
            if (draw := fresh.get(canonical_name(name))) is not None:
                weight.add_(draw)


@dataclass(frozen=True, kw_only=True)
class Dropout(Regularizer):
    """Dropout at `rate` in every `syre.models.Dropout` of the model (after each hidden activation of the MLP)."""

    name: ClassVar[str] = "dropout"
    weight_decay: float = 0.0
    scope: str = "all"
    rate: float
    ranges: ClassVar = {"rate": fraction}

    def prepare(self, model: nn.Module, seed: int) -> None:
        check(
            not isinstance(model, PairModule),
            "regularizer=dropout is not for a pair of networks, each of which sees its half of a batch",
        )
        places = [module for module in model.modules() if isinstance(module, DropoutModule)]
        check(bool(places), f"regularizer=dropout needs a model with dropout layers, {type(model).__name__} has none")
        for module in places:
            module.rate.fill_(self.rate)


class _Freezing(Regularizer, ABC):
    """What all that hold entries of the weight matrices fixed share."""

    @abstractmethod
    def row(self, index: int, count: int, length: int) -> tuple[int, float]:
        """Of matrix `index` of `count`, how many of the `length` entries of a row are frozen, and the std of values."""

    def frozen(self, model: nn.Module, seed: int) -> Frozen:
        """For each weight matrix: the mask of its frozen entries and their values, both shaped like the weight."""
        named = {name: weight for name, weight in model.named_parameters() if weight.dim() >= 2}
        # Not the tokens of a transformer, which are biases of its sequence.
        matrices = {name: weight for name, weight in named.items() if name.split(".")[-1] not in TOKENS}
        places, drawn = list(dict.fromkeys(drawn_as(model, name) for name in matrices)), {}
        for name, weight in matrices.items():
            place = drawn_as(model, name)
            entries, std = self.row(places.index(place), len(places), weight[0].numel())
            drawn[name] = draw_frozen(weight, entries, std, generator(seed, "w_fix", place))
        return drawn

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> FrozenHandle:
        return FrozenHandle(optimizer, model, self.frozen(model, seed))


@dataclass(frozen=True, kw_only=True)
class WFix(_Freezing):
    """W-fix: a `fraction` of the entries of every row of every weight matrix is frozen at draws of `kappa * N(0, 1)`.

    Source: the W-asymmetric networks of Lim et al. 2024 (mask type "random subsets": the same number of frozen entries
    in each row, output unit or channel, at other places; `kappa` is the std itself, with no fan-in scaling), with
    explicit integer seeds. Biases and norm layers are free.
    """

    name: ClassVar[str] = "w_fix"
    weight_decay: float = 0.0
    scope: str = "all"
    fraction: float
    kappa: float = 1.0
    ranges: ClassVar = {"fraction": checks.fraction, "kappa": at_least}

    def row(self, index: int, count: int, length: int) -> tuple[int, float]:
        return round(self.fraction * length), self.kappa


@dataclass(frozen=True, kw_only=True)
class WAsym(_Freezing):
    """W-asymmetric: W-fix with settings of its own for each weight matrix, in the order of the network.

    Of each row of matrix l, `fixed[l]` entries are frozen at draws of `kappa[l] * N(0, 1)`. Source: the MLP of Lim et
    al. 2024 (arXiv 2405.20231) and its values. The two networks of a pair that draws as one (`syre.models.Pair`) have
    the same frozen entries. Without `hold` they only start at these values: the control for the start.
    """

    name: ClassVar[str] = "w_asym"
    weight_decay: float = 0.0
    scope: str = "all"
    fixed: list[int] = field(default_factory=lambda: [64, 64, 64, 256])
    kappa: list[float] = field(default_factory=lambda: [1.0, 1.0, 0.5, 0.25])
    hold: bool = True
    ranges: ClassVar = {"fixed": each(at_least), "kappa": each(at_least)}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(len(self.fixed) == len(self.kappa), "regularizer.fixed and regularizer.kappa must be of one length")

    def attach(self, optimizer: Optimizer, model: nn.Module, seed: int) -> FrozenHandle:
        handle = super().attach(optimizer, model, seed)
        if not self.hold:
            handle.detach()
        return handle

    def row(self, index: int, count: int, length: int) -> tuple[int, float]:
        needed = f"an entry for each of the {count} weight matrices"
        check(count == len(self.fixed), f"regularizer.fixed must have {needed}, got {self.fixed}")
        entries = self.fixed[index]
        check(entries <= length, f"regularizer.fixed: matrix {index} has rows of {length} entries, not {entries}")
        return entries, self.kappa[index]


@dataclass(frozen=True, kw_only=True)
class SigmaAsym(Regularizer):
    """sigma-asymmetric: every activation becomes `sigmoid(C x) * x`, C fixed and N(0, 1) entrywise, with no scaling.

    Source: FiGLU of Lim et al. 2024 (arXiv 2405.20231), for networks with a norm before their activations. The two
    networks of a pair that draws as one (`syre.models.Pair`) have the same C in the same layer.
    """

    name: ClassVar[str] = "sigma_asym"
    weight_decay: float = 0.0
    scope: str = "all"

    def prepare(self, model: nn.Module, seed: int) -> None:
        places = {name: module for name, module in model.named_modules() if isinstance(module, Activation)}
        check(bool(places), f"regularizer=sigma_asym needs a model with activations, {type(model).__name__} has none")
        like = next(model.parameters())
        for name, module in places.items():
            stream = generator(seed, "sigma_asym", drawn_as(model, name))
            module.function = FiGLU(torch.randn(module.width, module.width, generator=stream).to(like))
