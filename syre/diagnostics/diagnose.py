"""`syre.diagnose`: is this model collapsed, by decay, and what is there to try?"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from syre.core.names import canonical_parameters
from syre.core.wrapped import as_model, stepped
from syre.diagnostics import advice, features, training, units, weights
from syre.diagnostics.diagnosis import Diagnosis
from syre.diagnostics.structure import Inputs, named_tensors, read
from syre.diagnostics.undisturbed import unwrapped


def diagnose(
    model: nn.Module,
    batches: Any = None,
    optimizer: Any = None,
    loss_fn: training.LossFn | None = None,
    *,
    tolerance: float = units.TOLERANCE,
) -> Diagnosis:
    """How near a model is to the symmetric states in which it has less capacity, what took it there, and what to try.

        print(syre.diagnose(model, batches, optimizer))

    The weights alone tell the ranks of the matrices and, by one forward pass on inputs that the model is likely to
    take, twins, sign-twins and dead units and the ranks of attention heads; batches tell the features; an optimizer
    tells what decay and gradient do to the units. The model is left as it was: modes, buffers, gradients, random
    numbers; no hook.

    Args:
        model: any `nn.Module`; what torch.compile, DDP or DataParallel wraps is looked at itself.
        batches: one batch or an iterable of them, as the training has: tensors, tuples (inputs, targets, ...) or dicts.
        optimizer: the one that trains it, for what weight decay does; it needs batches. syre may be attached to it.
        loss_fn: (output, targets) -> loss, for the gradient; None: the output's `loss`, cross-entropy of integer
            targets or the mean squared error of others.
        tolerance: distance up to which two units are twins, in (0, 1), over the length that they have together.

    Returns:
        A plain dict (see `syre.diagnostics.diagnosis`) that prints as a table; `save(path)` writes a page of pictures.

    Raises:
        TypeError: no module (a state dict is none), no optimizer, or batches that hold no tensors.
        ValueError: parameters that are sharded, or on the meta device, or none; a batch on which the forward pass or
            the loss fails; an optimizer without batches, or of other parameters; a tolerance outside (0, 1).

    Source: arXiv 2408.15495v3, Definition 1 (symmetries), Theorem 3 and Corollary 1 (what decay does there).
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1), got {tolerance!r}")
    if isinstance(model, Mapping) and model and all(isinstance(part, Tensor) for part in model.values()):
        raise TypeError("a state dict has no forward pass: load it into its model (or: python -m syre diagnose FILE)")
    if optimizer is not None and batches is None:
        raise ValueError("what decay and gradient do is measured on batches: pass them too, or no optimizer")
    plain = unwrapped(as_model(model))
    features.require_whole(plain, "a diagnosis is of whole parameters")
    named = named_tensors(plain)
    trained = canonical_parameters(plain)
    if not trained:
        raise ValueError(f"{type(plain).__name__} has no parameters")
    if any(tensor.is_meta for tensor in named.values()):
        raise ValueError("the parameters are on the meta device, without numbers: load them first")
    stepping = None if optimizer is None else stepped(optimizer)
    if stepping is not None and not training.decays(trained, stepping):
        raise ValueError(f"the optimizer steps none of the parameters of {type(plain).__name__}")
    held = some(batches) if batches is not None else []
    if batches is not None and not held:
        raise ValueError("batches are empty: pass at least one batch with at least one row")
    structure = read(plain, Inputs(*features.call_of(plain, held[0])) if held else None)
    seen = {one.name: units.look(one, named, tolerance) for one in structure.units}
    finite = all(bool(parameter.detach().isfinite().all()) for parameter in trained.values())
    diagnosis = Diagnosis(
        model={
            "class": type(plain).__name__,
            "parameters": sum(named[name].numel() for name in trained),
            "tensors": len(trained),
        },
        structure={
            "source": structure.source,
            "inputs": structure.inputs,
            "why": structure.why,
            "unread": list(structure.unread),
            "unknown": list(structure.unknown),
        },
        units=[units.described(one, seen[one.name], tolerance) for one in structure.units],
        weights=weights.measure({name: tensor for name, tensor in named.items() if name in trained}),
        heads=units.heads(structure, named, tolerance=tolerance),
        features=features.measure(plain, held) if held else None,
        training=training.measure(structure, seen, plain, held, stepping, loss_fn) if stepping and finite else None,
    )
    diagnosis["verdict"] = advice.judge(diagnosis)
    diagnosis["advice"] = advice.advise(diagnosis)
    return diagnosis


def some(batches: Any) -> list[Any]:
    """The first batches: as many as hold the samples that are looked at, and at most 64."""
    held: list[Any] = []
    rows = 0
    with features.unmoved(batches):
        for batch in features.each(batches):
            held.append(batch)
            tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
            rows += tensors[0].shape[0] if tensors and tensors[0].dim() else 1
            if rows >= features.ROWS or len(held) == 64:
                break
    return held
