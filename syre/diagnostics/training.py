"""What the gradient and weight decay do to the units of a network: do they pull them onto symmetric states, or off?

Of a unit u and its nearest twin S u' (see `syre.diagnostics.units`) the **broken part** is u - S u', 0 where the two
are symmetric, and the **symmetric part** u + S u'. Weight decay pulls both towards 0, at the rate lambda. The gradient
has no part along the broken one on a symmetric state (arXiv 2408.15495v3, section 4, Corollary 1), and next to it one
that is linear in it: a loss that wants the two to differ must push with more than lambda times their difference, or
they end up equal (Theorem 3: syre puts a constant there). Measured is which of the two is stronger, now, on the given
batches.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from syre.core.forms import EXACT
from syre.core.handle import attached
from syre.core.names import canonical_parameters
from syre.diagnostics.features import call_of, each
from syre.diagnostics.structure import Structure
from syre.diagnostics.undisturbed import undisturbed
from syre.diagnostics.units import Look

BATCHES = 8  # of those given, at most
CLOSE = 1e-3  # distance below which two units are taken apart that far, to see where they go
LossFn = Callable[..., Tensor]


def measure(
    structure: Structure,
    looks: Mapping[str, Look | None],
    model: nn.Module,
    batches: Any,
    optimizer: Optimizer,
    loss_fn: LossFn | None = None,
) -> dict[str, Any]:
    """The entry `training` of a diagnosis (see `syre.diagnostics.diagnosis`).

    The gradient is that of the loss in eval mode, averaged over at most 8 batches; no gradient of the caller's is
    touched. With the second moments of an Adam it is divided by their root, and so is a decay that is coupled. Of syre
    the decay is lambda (w - b). Two units that are equal are taken apart by a thousandth of their length, at random
    with a fixed seed, and so is one that is 0: where they then go tells whether their state is a trap.

    Args:
        looks: name of a set of units -> what `units.look` saw.
        loss_fn: (output, targets) -> loss; None: the output's own `loss`, else cross-entropy of integer targets and the
            mean squared error of others.

    Raises:
        ValueError: a batch without targets, and no loss in the output; a loss that is no finite number; no batch.
    """
    parameters = canonical_parameters(model)
    rates = decays(parameters, optimizer)
    coupled = not any(_is_decoupled(optimizer, group) for group in optimizer.param_groups)
    entry: dict[str, Any] = {"decay": max(rates.values(), default=0.0), "coupled": coupled, "batches": 0, "units": []}
    weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    _take_apart(looks, weights)
    gradients, entry["batches"] = _gradients(model, parameters, weights, batches, loss_fn)
    pulls = {name: lam * _from_anchor(name, weights[name], optimizer) for name, lam in rates.items()}
    for name, parameter in parameters.items():
        root = _second_moment(optimizer, parameter)
        if root is not None:
            gradients[name] = gradients[name] / root
            if coupled and name in pulls:
                pulls[name] = pulls[name] / root
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for units in structure.units:
        look = looks[units.name]
        if look is None:
            continue
        lam = [rates[at.name] for at in look.entries if at.name in rates]
        parts = _parts(look, weights, zeros | pulls, gradients)
        entry["units"].append({"name": units.name, "lambda": max(lam, default=0.0), **parts})
    return entry


def decays(parameters: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, float]:
    """Name -> weight decay, of the parameters that the optimizer steps."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in names:
                found[names[id(parameter)]] = float(group.get("weight_decay", 0.0))
    return found


def _is_decoupled(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    default = any(EXACT.get(kind, False) for kind in type(optimizer).__mro__)
    return bool(group.get("decoupled_weight_decay", default))


def _from_anchor(name: str, weight: Tensor, optimizer: Optimizer) -> Tensor:
    """w, or w - b where syre is attached."""
    handle = attached(optimizer)
    anchor = None if handle is None else handle.anchors.get(name)
    return weight if anchor is None else weight - anchor.to(weight)


def _second_moment(optimizer: Optimizer, parameter: Tensor) -> Tensor | None:
    """sqrt(v) + eps of an Adam, v without its bias; None where there is none."""
    state = optimizer.state.get(parameter, {})
    moment, steps = state.get("exp_avg_sq"), float(state.get("step", 0))
    if moment is None or steps < 1:
        return None
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    return (moment / (1 - group["betas"][1] ** steps)).sqrt() + group["eps"]


def _gradients(
    model: nn.Module, parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor], batches: Any, loss_fn: Any
) -> tuple[dict[str, Tensor], int]:
    """The gradient at other weights, mean over the batches, in float32; and how many batches that were."""
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    held = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    wanted = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    count = 0
    with undisturbed(model):
        try:
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
            for batch in each(batches):
                with torch.enable_grad():
                    loss = _loss(model, batch, loss_fn)
                    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
                for name, gradient in zip(wanted, found, strict=True):
                    if gradient is not None:
                        total[name] += gradient
                count += 1
                if count == BATCHES:
                    break
        finally:
            for name, parameter in parameters.items():
                parameter.copy_(held[name])
    if not count:
        raise ValueError("batches are empty: pass at least one batch")
    return {name: gradient / count for name, gradient in total.items()}, count


def _loss(model: nn.Module, batch: Any, loss_fn: LossFn | None) -> Tensor:
    args, kwargs = call_of(model, batch)
    output = model(*args, **kwargs)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    targets = batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
    if loss_fn is not None or loss is None:
        if not isinstance(targets, Tensor):
            raise ValueError(
                "the gradient needs a loss: pass batches (inputs, targets), or a model whose output has a `loss`"
            )
        output = output.logits if hasattr(output, "logits") else output
        targets = targets.to(output.device)
        loss = (loss_fn or _usual)(output, targets)
    if not isinstance(loss, Tensor) or loss.dim() or not bool(loss.isfinite()):
        raise ValueError(f"the loss must be one finite number, got {str(loss).splitlines()[0]}")
    return loss


def _usual(output: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype == torch.int64:
        return nn.functional.cross_entropy(output, targets)
    return nn.functional.mse_loss(output, targets.to(output.dtype))


def _take_apart(looks: Mapping[str, Look | None], weights: dict[str, Tensor]) -> None:
    """Move units that are symmetric, or nearly, by a thousandth of a unit's length, in the weights."""
    stream = torch.Generator().manual_seed(0)
    for look in looks.values():
        if look is None:
            continue
        near = torch.minimum(look.near, look.signed) < CLOSE
        close = (near | look.dead).cpu()
        if not bool(close.any()):
            continue
        for at in look.entries:
            numbers = at.of(weights).float().flatten(1)
            size = CLOSE * numbers.square().mean().sqrt()
            noise = torch.randn(numbers.shape, generator=stream).to(numbers) * close.to(numbers.device).unsqueeze(1)
            weights[at.name] = at.added(weights[at.name], size * noise)


def _parts(
    look: Look, weights: Mapping[str, Tensor], pulls: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Of the broken and the symmetric part: rms of the decay and of the gradient along it, and how often it shrinks."""
    seen = [look.seen(tensors) for tensors in (weights, pulls, gradients)]
    twins = [look.mirrored(values) for values in seen]
    alone = look.zero < torch.minimum(look.near, look.signed)  # nearest to being dead: the twin is 0
    result = {}
    for part, sign in (("symmetric", 1.0), ("broken", -1.0)):
        w, d, g = (
            [a + sign * b * (~alone).to(b).unsqueeze(1) for a, b in zip(mine, other, strict=True)]
            for mine, other in zip(seen, twins, strict=True)
        )
        length = _dot(w, w).sqrt().clamp(min=1e-300)
        pull, push = _dot(d, w) / length, _dot(g, w) / length
        there = (length > 1e-12) & ~(look.near.isinf() & look.signed.isinf() & ~look.dead & ~alone)
        count = int(there.sum())
        result[part] = {
            "decay": _rms(pull[there]) if count else None,
            "gradient": _rms(push[there]) if count else None,
            "inward": float(((pull + push)[there] > 0).double().mean()) if count else None,
        }
    return result


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x.double() * y.double()).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)


def _rms(values: Tensor) -> float | None:
    value = float(values.square().mean().sqrt())
    return value if math.isfinite(value) else None
