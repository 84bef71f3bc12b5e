"""Module form: `w = theta + b` inside the model, Eq. (6) as written. Any optimizer's decay then acts on theta."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from torch import nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, remove_parametrizations
from torch.optim import Optimizer

from . import arguments, once
from .anchor import draw_anchors, draw_scales, given_by, named
from .attach import attach_anchors
from .decay import AddAnchor, require_decayable, require_start, require_whole
from .names import Slot, slots, walk
from .scale import Sigma, is_gain


def parametrize(
    model: nn.Module,
    *,
    sigma: Sigma = 0.01,
    unit: str = "relative",
    gains: float = 0.0,
    seed: int = 0,
    sigma_d: float = 0.0,
    start: str = "shift",
    parameters: Collection[str] | None = None,
    optimizer: Optimizer | None = None,
    strict: bool = False,
) -> nn.Module:
    """Make `model` compute `f(theta + b)`, in place: arXiv 2408.15495v3, Eq. (6). `merge` bakes b in again.

    The trained parameters are now theta (`<layer>.parametrizations.<name>.original`, the same Parameter objects as
    before, so an optimizer made earlier stays right), and the optimizer's weight_decay acts on them. Same anchors,
    hence the same method, as `attach`; but every parameter that could have one gets an anchor, decayed or not. Attach
    nothing else.

    Eq. (7), sigma_d > 0: D enters through the decay alone, `lambda D theta`, and lambda belongs to the optimizer.
    (Rescaling `theta = phi / sqrt(D)` instead would change the metric of the gradient too, which is another
    trajectory.) So the optimizer must be given, and D is attached to it by step hooks: the same trajectory as
    `attach(..., sigma_d=...)`.

    Args:
        sigma, unit, gains, seed, sigma_d, strict: as in `attach`.
        start: `"shift"` keeps theta = init, so w = init + b, as Eq. (6) (of gains: init less the mean of b);
            `"keep"` makes theta = init - b. Frozen parameters always keep their value.
        parameters: canonical names to parametrize; default all.
        optimizer: the optimizer of these parameters; only, and always, with sigma_d > 0.

    Returns:
        The model.

    Raises:
        TypeError: no model; an argument that is no number.
        ValueError: tied weights (parametrizing one end would untie them), a parameter that is parametrized already,
            sigma_d > 0 without optimizer or the reverse; and as `attach` for sigma, unit, gains, sigma_d, start,
            precision and, with strict, unknown kinds.
    """
    require_start(start)
    model, sigma_d = arguments.module(model), arguments.number("sigma_d", sigma_d)
    if (sigma_d != 0) != (optimizer is not None):
        raise ValueError("the module form takes an optimizer with sigma_d > 0 (D acts by its decay), and only then")
    anchors = draw_anchors(model, sigma=sigma, unit=unit, gains=gains, seed=seed, parameters=parameters, strict=strict)
    found = slots(model)
    _refuse_tied(model, anchors)
    for name in anchors:
        _refuse_unfit(found[name])
    recipe = {"seed": seed, "sigma": named(sigma), "unit": unit, "gains": gains}
    stds = given_by(sigma, unit, [found[name] for name in anchors])
    if start == "shift":  # planned before the model is touched: this may raise
        shift = {name: anchor - gains if is_gain(found[name]) else anchor for name, anchor in anchors.items()}
        plan = once.plan(found, shift, once.line(recipe), resumed=False, stds=stds)
    if optimizer is not None:  # before the model is touched: this may raise
        scales = draw_scales(model, sigma_d=sigma_d, seed=seed, parameters=anchors)
        attach_anchors(optimizer, model, {}, scales=scales, recipe={"seed": seed, "sigma_d": sigma_d})
    if start == "shift":
        plan.carry_out()  # registering takes b off again
    _own_class(found[name].module for name in anchors)
    for name, anchor in anchors.items():
        slot = found[name]
        register_parametrization(slot.module, slot.leaf, AddAnchor(anchor))
    return model


def merge(model: nn.Module) -> nn.Module:
    """Bake the anchors in, in place: `w = theta + b` becomes the plain parameter (the same object).

    For inference and export. To train on with syre, `attach(..., start="keep")`: plain decay would pull w toward 0.

    Raises:
        TypeError: no model.
        ValueError: no parameter is in module form, or one has another parametrization on top.
    """
    model = arguments.module(model)
    chains = [
        (module, leaf, [type(step) for step in chain])
        for module in model.modules()
        if is_parametrized(module)
        for leaf, chain in module.parametrizations.items()  # type: ignore[operator, union-attr]
    ]
    mine = [(module, leaf, kinds) for module, leaf, kinds in chains if AddAnchor in kinds]
    if not mine:
        raise ValueError("nothing to merge: no parameter of the model was parametrized by syre")
    for _, leaf, kinds in mine:
        if len(kinds) > 1:
            raise ValueError(f"{leaf!r} has another parametrization on top of syre's: remove that first")
    _own_class(module for module, _, _ in mine)
    for module, leaf, _ in mine:
        remove_parametrizations(module, leaf, leave_parametrized=True)
    return model


def _own_class(modules: Iterable[nn.Module]) -> None:
    """Give each that is parametrized a class of its own.

    torch makes one when it parametrizes a module, and its copies share it: a leaf that is put on the class, or taken
    off, would change them all.
    """
    for module in {id(module): module for module in modules if is_parametrized(module)}.values():
        kind = type(module)
        own = {key: value for key, value in vars(kind).items() if key not in ("__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, kind.__bases__, own)


def _refuse_tied(model: nn.Module, names: Collection[str]) -> None:
    ends: dict[int, list[str]] = defaultdict(list)
    for slot in walk(model):
        ends[id(slot.parameter)].append(slot.name)
    for tied in ends.values():
        if len(tied) > 1 and tied[0] in names:
            both = " and ".join(tied)
            raise ValueError(f"{both} are tied, and parametrizing would untie them: use syre.attach instead")


def _refuse_unfit(slot: Slot) -> None:
    require_whole(slot.name, slot.parameter)
    require_decayable(slot.name, slot.parameter)
    if is_parametrized(slot.module, slot.leaf):
        raise ValueError(f"{slot.name!r} is parametrized already: use syre.attach, or remove that first")
