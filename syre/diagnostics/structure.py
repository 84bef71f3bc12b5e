"""What reads which unit of a network: read off one forward pass, kept as names and indices."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from syre.core.names import canonical_name
from syre.diagnostics.rules import RULES
from syre.diagnostics.spaces import FIXED, Axis, Factor, Form, factors, width
from syre.diagnostics.tensors import tensors_of
from syre.diagnostics.trace import Trace
from syre.diagnostics.undisturbed import undisturbed, unwrapped


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """Numbers of a parameter that belong to the units of a set: along `axis` of it, at `index` [units, others].

    `read`: whether the units are what this parameter reads, not what it makes. `parameter`: and no buffer. `signs`,
    `scales`: by what a change of the sign, or of the logarithm of the scale, of a unit multiplies these numbers, one
    entry for each independent change: by (-1)^sign, by exp(scale).
    """

    name: str
    axis: int
    index: np.ndarray
    read: bool
    parameter: bool = True
    signs: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()

    def of(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The numbers, [units, others, ...]."""
        tensor = parameters[self.name].detach()
        where = torch.from_numpy(self.index.reshape(-1)).to(tensor.device)
        taken = tensor if len(where) == tensor.shape[self.axis] and self.in_order else None
        taken = tensor.index_select(self.axis, where) if taken is None else taken
        return taken.movedim(self.axis, 0).unflatten(0, self.index.shape)

    def added(self, tensor: Tensor, values: Tensor) -> Tensor:
        """The parameter with values [units, others] added to these numbers."""
        moved = tensor.movedim(self.axis, 0)
        where = torch.from_numpy(self.index.reshape(-1)).to(tensor.device)
        laid = values.reshape(len(where), *moved.shape[1:]).to(tensor)
        return moved.index_add(0, where, laid).movedim(0, self.axis).contiguous()

    @property
    def in_order(self) -> bool:
        return bool((np.diff(self.index.reshape(-1)) == 1).all())

    def __str__(self) -> str:
        return f"{self.name}[{self.axis}]"


@dataclass(frozen=True, kw_only=True)
class Units:
    """A set of units that a network would not miss if they were permuted: neurons, channels or heads."""

    name: str
    kind: str
    count: int
    entries: tuple[Entries, ...]
    signs: int = 0
    scales: int = 0


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The heads of an attention: what the scores are made of, and the output, each as two sets of rows of each head."""

    name: str
    count: int
    size: int
    query_key: tuple[Entries, Entries] | None
    output_value: tuple[Entries, Entries] | None


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What `read` found. `source`: where the inputs came from; `why`: why nothing was found, or not all; `unread`:
    parameters that the forward pass did not use; `unknown`: operations that no rule is known of."""

    source: str
    inputs: str = ""
    why: str | None = None
    unread: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    units: tuple[Units, ...] = ()
    attentions: tuple[Attention, ...] = field(default=())


def changed(
    structure: Structure, parameters: Mapping[str, Tensor], stream: torch.Generator, *, scale: float = 0.5
) -> dict[str, Tensor]:
    """The parameters of another network that computes the same: every set of units permuted at random, and every sign
    and scale that may be changed, changed at random. (A control of what `read` says, and of what a diagnosis must not
    depend on.)
    """
    result = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    for units in structure.units:
        order = torch.randperm(units.count, generator=stream)
        flips = torch.randint(2, (units.signs, units.count), generator=stream)
        logs = scale * torch.randn(units.scales, units.count, generator=stream, dtype=torch.float64)
        for at in units.entries:
            tensor, where = result[at.name], torch.from_numpy(at.index)
            signs, scales = torch.tensor(at.signs, dtype=torch.int64), torch.tensor(at.scales, dtype=torch.float64)
            sign = 1 - 2 * ((flips * signs.unsqueeze(1)).sum(0) % 2)
            factor = (sign * (logs * scales.unsqueeze(1)).sum(0).exp())[:, None].expand(where.shape)
            shape = [-1 if k == at.axis else 1 for k in range(tensor.dim())]
            taken = tensor.index_select(at.axis, where[order].flatten().to(tensor.device))
            moved = taken * factor[order].flatten().view(shape).to(tensor)
            result[at.name] = tensor.index_copy(at.axis, where.flatten().to(tensor.device), moved)
    return result


# ---- reading ---------------------------------------------------------------------------------------------------------


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers by their canonical names; one that is used in several places, once."""
    found = {canonical_name(name): tensor for name, tensor in model.named_parameters()}
    buffers = {canonical_name(name): tensor for name, tensor in model.named_buffers()}
    return found | {name: tensor for name, tensor in buffers.items() if tensor.is_floating_point()}


def read(model: nn.Module, inputs: "Inputs | None" = None) -> Structure:
    """The sets of units of a model, from one forward pass in eval mode, without gradients.

    Args:
        inputs: what the forward pass is given; None: guessed from the model's own hints or from its first layer.
    """
    plain = unwrapped(model)
    candidates = [inputs] if inputs is not None else list(guesses(plain))
    source = "batches" if inputs is not None else "guessed inputs"
    failed = "its forward pass is not known to take an image, a vector, a sequence or tokens"
    for candidate in candidates:
        trace = Trace(named_tensors(plain), RULES)
        try:
            with undisturbed(plain), _step_by_step(plain), trace:
                output = plain(*candidate.args, **candidate.kwargs)
        except Exception as error:  # whatever a stranger's forward pass raises
            failed = f"{type(error).__name__}: {error}".split("\n")[0]
            if inputs is not None:
                raise ValueError(f"the forward pass of {type(model).__name__} fails on the batch: {failed}") from error
            continue
        trace.fix(*tensors_of(outputs_of(output)))
        trace.parts.finish()
        return _structure(trace, plain, source, str(candidate))
    why = f"no input is known that {type(model).__name__} takes ({failed}): pass batches"
    return Structure(source="none", why=why)


@contextmanager
def _step_by_step(model: nn.Module) -> Iterator[None]:
    """Inside, recurrent layers are not computed by one operation, in which nothing can be seen."""
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        yield
        return
    backends: Any = torch._C  # `torch.backends.mkldnn.flags` would set other flags too, and warn of them
    was = backends._get_mkldnn_enabled(), backends._get_cudnn_enabled()
    try:
        backends._set_mkldnn_enabled(False)
        backends._set_cudnn_enabled(False)
        yield
    finally:
        backends._set_mkldnn_enabled(was[0])
        backends._set_cudnn_enabled(was[1])


def outputs_of(output: Any) -> list[Any]:
    """All that a forward pass gives, as a list. (Caches are for the next pass, inside.)"""
    if isinstance(output, Tensor | list | tuple | set | Mapping) or is_dataclass(output):
        return [output]
    return [vars(output)] if hasattr(output, "__dict__") else []


@dataclass(frozen=True)
class Inputs:
    """Arguments of a forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = [" x ".join(map(str, tensor.shape)) for tensor in tensors_of([*self.args, *self.kwargs.values()])]
        return ", ".join(shapes) or "no tensors"


def guesses(model: nn.Module) -> Iterator[Inputs]:
    """Inputs that the model may take: its own, or by its first parameter of two axes or more."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    if not weights:
        return
    place: dict[str, Any] = {"device": weights[0].device}
    typed: dict[str, Any] = {**place, "dtype": weights[0].dtype}
    own = getattr(model, "dummy_inputs", None)
    if isinstance(own, Mapping):
        yield Inputs(kwargs={k: v.to(**place) if isinstance(v, Tensor) else v for k, v in own.items()})
    for settings in (getattr(model, name, None) for name in ("pretrained_cfg", "default_cfg")):
        size = settings.get("input_size") if isinstance(settings, Mapping) else getattr(settings, "input_size", None)
        if isinstance(size, Sequence) and all(isinstance(n, int) for n in size):
            yield Inputs((torch.zeros(1, *size, **typed),))
    for layer in first_layers(model):
        if isinstance(layer, nn.Embedding):
            yield from (Inputs((torch.zeros(1, n, dtype=torch.int64, **place),)) for n in (16, 8))
        elif isinstance(layer, nn.Conv1d):
            yield from (Inputs((torch.zeros(1, layer.in_channels, n, **typed),)) for n in (64, 1024, 16000))
        elif isinstance(layer, nn.Conv2d):
            yield from (Inputs((torch.zeros(1, layer.in_channels, n, n, **typed),)) for n in (224, 32, 28, 64, 16, 299))
        elif isinstance(layer, nn.Conv3d):
            yield from (Inputs((torch.zeros(1, layer.in_channels, n, 112, 112, **typed),)) for n in (16, 8))
        else:
            yield from _vectors(weights[0].shape[-1] if layer is model else _width(layer), typed)


def _width(layer: nn.Module) -> int:
    return next(p for p in layer.parameters(recurse=False) if p.dim() > 1).shape[-1]


def _vectors(size: int, typed: dict[str, Any]) -> Iterator[Inputs]:
    """Vectors, sequences of them, and images of that many numbers."""
    yield from (Inputs((torch.zeros(*leading, size, **typed),)) for leading in ((2,), (2, 8), (8, 2)))
    for channels in (3, 1):
        side = round((size / channels) ** 0.5)
        if channels * side * side == size:
            yield Inputs((torch.zeros(2, channels, side, side, **typed),))


def first_layers(model: nn.Module) -> list[nn.Module]:
    """The first of torch's layers, in the order in which they were made, and the first module with a matrix."""
    kinds = (nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    known = [module for module in model.modules() if isinstance(module, kinds)][:1]
    other = [module for module in model.modules() if any(p.dim() > 1 for p in module.parameters(recurse=False))][:1]
    return known + [module for module in other if module not in known]


# ---- from axes to sets of units --------------------------------------------------------------------------------------


def _structure(trace: Trace, model: nn.Module, source: str, inputs: str) -> Structure:
    parameters = {canonical_name(name): p for name, p in model.named_parameters()}
    found = _occurrences(trace, set(parameters))
    batch = [f.space for axis in trace.heads for f in factors(trace.spaces.resolve(axis))]
    heads = {space for space in batch if space in found}
    inner = {f.space for items in found.values() for one in items for f in one.segment if heads & one.spaces} - heads
    equations: dict[int, dict[tuple[str, Form], None]] = {}  # of a variable, each once, in their order
    for kind, form in trace.spaces.solved():
        for variable, _ in form:
            equations.setdefault(variable, {})[kind, form] = None
    units = []
    for space, items in found.items():
        matrices = [one for one in items if one.name in parameters and parameters[one.name].dim() > 1]
        if space not in inner and matrices:
            known = trace.spaces.spaces[space].variables
            units.append(_units(items, matrices, "heads" if space in heads else "units", equations, known))
    return Structure(
        source=source,
        inputs=inputs,
        unread=tuple(sorted(set(parameters) - set(trace.axes))),
        unknown=tuple(sorted(trace.unknown)),
        units=tuple(_told_apart(units)),
        attentions=tuple(_attentions({space: found[space] for space in heads}, parameters)),
    )


@dataclass(frozen=True, eq=False)
class _Occurrence:
    """A factor of a segment of an axis of a parameter; `index`: where on the axis the segment is, [*sizes]."""

    name: str
    axis: int
    index: np.ndarray
    segment: tuple[Factor, ...]
    place: int
    read: bool
    parameter: bool

    @property
    def spaces(self) -> set[int]:
        return {factor.space for factor in self.segment}

    @property
    def variable(self) -> int:
        return self.segment[self.place].sign[0][0]

    @property
    def home(self) -> str:
        """The module that holds the one whose parameter it is."""
        return self.name.rpartition(".")[0].rpartition(".")[0]

    def entries(self, signs: Sequence[int] = (), scales: Sequence[float] = (), last: bool = False) -> Entries:
        """Unit by unit; with `last`, the last factor apart: [units, size], whatever is between being units too."""
        index = np.moveaxis(self.index, self.place, 0)
        index = index.reshape(-1, index.shape[-1]) if last else index.reshape(len(index), -1)
        return Entries(
            name=self.name, axis=self.axis, index=index, read=self.read, parameter=self.parameter,
            signs=tuple(signs), scales=tuple(scales),
        )  # fmt: skip


def _occurrences(trace: Trace, parameters: set[str]) -> dict[int, list[_Occurrence]]:
    """Of each space that is not fixed, where in the parameters its units are."""
    found: dict[int, list[_Occurrence]] = {}
    for name, label in trace.axes.items():
        for dimension, axis in enumerate(label):
            read = (name, dimension) in trace.read
            for segment, index in _pieces(trace, axis):
                for place, factor in enumerate(segment):
                    if factor.space >= 0:
                        one = _Occurrence(name, dimension, index, segment, place, read, name in parameters)
                        found.setdefault(factor.space, []).append(one)
    return found


def _pieces(trace: Trace, axis: Axis) -> Iterator[tuple[tuple[Factor, ...], np.ndarray]]:
    """The segments of an axis, and where they are on it; concatenations inside products taken apart."""
    start = 0
    todo = []
    for segment in trace.spaces.resolve(axis):
        sizes = [factor.size for factor in segment]
        todo.append((segment, np.arange(start, start + width(segment)).reshape(sizes)))
        start += width(segment)
    while todo:
        segment, index = todo.pop(0)
        mixed = [k for k, f in enumerate(segment) if f.space >= 0 and trace.spaces.spaces[f.space].kind]
        if not mixed:
            yield segment, index
            continue
        k, begin = mixed[0], 0
        for part in trace.spaces.resolve(((segment[k],),)):
            piece = index.take(range(begin, begin + width(part)), k)
            shape = [*index.shape[:k], *(factor.size for factor in part), *index.shape[k + 1 :]]
            todo.append(((*segment[:k], *part, *segment[k + 1 :]), piece.reshape(shape)))
            begin += width(part)


def _units(
    items: list[_Occurrence],
    matrices: list[_Occurrence],
    kind: str,
    equations: Mapping[int, Iterable[tuple[str, Form]]],
    known: Sequence[int],
) -> Units:
    variables = sorted({one.variable for one in items})
    variables += sorted(set(known) - set(variables))  # and of what is computed, of which the parameters are not free
    here = dict.fromkeys(equation for variable in variables for equation in equations.get(variable, ()))
    column = {variable: k for k, variable in enumerate(variables)}
    own = sorted({column[one.variable] for one in items})
    signs = kernel([dict(form) for which, form in here if which == "sign"], variables, modulus=2)
    signs = independent(signs, own, modulus=2)
    scales = independent(kernel([dict(form) for which, form in here if which == "scale"], variables), own)
    entries = [
        one.entries(signs[:, column[one.variable]].astype(int).tolist(), scales[:, column[one.variable]].tolist())
        for one in items
    ]
    first = next((one for one in matrices if not one.read), matrices[0])
    return Units(
        name=first.name.rpartition(".")[0] or first.name,
        kind=kind,
        count=first.segment[first.place].size,
        entries=tuple(entries),
        signs=len(signs),
        scales=len(scales),
    )


def _told_apart(units: list[Units]) -> Iterator[Units]:
    """With names that differ."""
    seen: dict[str, int] = {}
    for one in units:
        seen[one.name] = seen.get(one.name, 0) + 1
        yield one if seen[one.name] == 1 else replace(one, name=f"{one.name} ({seen[one.name]})")


def kernel(equations: list[dict[int, int]], variables: list[int], modulus: int = 0) -> np.ndarray:
    """A basis of the solutions, [independent solutions, variables]: of sum_v multiple_v x_v = 0 for every equation.

    With modulus 2, of the equations modulo 2. By Gauss's elimination; the numbers stay small.
    """
    matrix = np.zeros((len(equations), len(variables)))
    column = {variable: k for k, variable in enumerate(variables)}
    for number, equation in enumerate(equations):
        for variable in equation.keys() & column.keys():
            matrix[number, column[variable]] = equation[variable]
    matrix = matrix % modulus if modulus else matrix
    matrix = np.unique(matrix, axis=0)
    pivots: list[int] = []
    for k in range(len(variables)):
        row = len(pivots)
        below = np.flatnonzero(np.abs(matrix[row:, k]) > 1e-9)
        if not below.size:
            continue
        matrix[[row, row + below[0]]] = matrix[[row + below[0], row]]
        matrix[row] /= matrix[row, k]
        others = np.flatnonzero(np.abs(matrix[:, k]) > 1e-9)
        others = others[others != row]
        matrix[others] -= np.outer(matrix[others, k], matrix[row])
        if modulus:
            matrix %= modulus
        pivots.append(k)
    free = [k for k in range(len(variables)) if k not in pivots]
    basis = np.zeros((len(free), len(variables)))
    for number, k in enumerate(free):
        basis[number, k] = 1
        basis[number, pivots] = -matrix[: len(pivots), k]
    return basis % modulus if modulus else basis


def independent(rows: np.ndarray, columns: list[int], modulus: int = 0) -> np.ndarray:
    """As many of the rows as are independent of one another in these columns."""
    if len(columns) == rows.shape[1]:
        return rows
    kept: list[int] = []
    for number in range(len(rows)):
        some = rows[np.ix_([*kept, number], columns)]
        # they are, if no sum of multiples of them is 0
        if not len(kernel([dict(enumerate(row)) for row in some.T], list(range(len(some))), modulus)):
            kept.append(number)
    return rows[kept]


def _attentions(heads: Mapping[int, list[_Occurrence]], parameters: Mapping[str, Tensor]) -> Iterator[Attention]:
    """Of each set of heads, the pairs of matrices that share the inner axis of each head."""
    for _space, items in heads.items():
        pairs: dict[tuple[str, str, int], list[_Occurrence]] = {}
        matrices = [one for one in items if one.parameter and parameters[one.name].dim() == 2 and len(one.segment) > 1]
        for one in (one for one in matrices if one.segment[-1].space != FIXED):
            pairs.setdefault(("", "", one.segment[-1].space), []).append(one)
        for one in (one for one in matrices if one.segment[-1].space == FIXED and not one.read):  # turned by position
            pairs.setdefault((one.home, "", FIXED), []).append(one)
        found: dict[str, dict[str, tuple[Entries, Entries]]] = {}
        for pair in pairs.values():
            if len(pair) == 2 and not all(one.read for one in pair):
                made = [one for one in pair if not one.read]
                which = "query_key" if len(made) == 2 else "output_value"
                ordered = made if len(made) == 2 else [one for one in pair if one.read] + made
                found.setdefault(made[0].home, {})[which] = (
                    ordered[0].entries(last=True),
                    ordered[1].entries(last=True),
                )
        for home, both in found.items():
            a, b = next(iter(both.values()))
            yield Attention(
                name=home or a.name,
                count=max(len(a.index), len(b.index)),
                size=a.index.shape[1],
                query_key=both.get("query_key"),
                output_value=both.get("output_value"),
            )
