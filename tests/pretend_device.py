"""A GPU that is not there: CPU tensors that claim to be on cuda:0, and are refused where CUDA would refuse them.

    with PretendDevice() as device:
        x = torch.zeros(3, device="cuda")   # x.device == cuda:0
        x + torch.ones(3)                   # raises: a CPU tensor among them
        float(x.sum())                      # device.waits: what makes the host wait for the device, with its place

It sees what Python calls, not what the kernels of one call do inside: enough for code that is all Python. Numbers are
the CPU's. Generators made for the device are tagged too, for which `torch.Generator` is exchanged while it lasts.
"""

import functools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode, resolve_name

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ROOT = Path(__file__).parents[1]


def words(*lines: str) -> set[str]:
    return set(" ".join(lines).split())


READS = words(
    "item tolist __float__ __int__ __bool__ __index__ __complex__ __repr__ __format__ equal allclose",
    "is_nonzero",
)
SIZED = words(
    "nonzero argwhere masked_select unique _unique2 bincount unique_consecutive repeat_interleave",
    "eigvalsh linalg_eigvalsh linalg_eigh eigh svdvals linalg_svdvals svd linalg_svd linalg_pinv",
    "linalg_solve linalg_inv linalg_cholesky",
)
# What takes tensors of two devices: copies, and what looks at a device only to go there.
MIXES = words("copy_ to type_as __set__ set_ _has_compatible_shallow_copy_type view_as expand_as reshape_as")
# Where CUDA does not take even a number, a CPU tensor without dimensions, beside its own tensors.
STRICT = words(
    "stack cat concat concatenate hstack vstack index_select gather scatter scatter_ index_copy_",
    "cross_entropy linear matmul __matmul__ mm bmm baddbmm",
)
FACTORIES = {"tensor", "as_tensor", "asarray", "scalar_tensor"}


class DeviceMismatch(RuntimeError):
    """What CUDA refuses."""


def _base(tensor: Tensor) -> Tensor:
    """The tensor that functorch's wrappers (vmap, grad) are around."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def tagged(tensor: Tensor) -> bool:
    """Whether it claims to be on the device."""
    return getattr(_base(tensor), "_pretends", False)


def _tag(tensor: Tensor) -> Tensor:
    _base(tensor)._pretends = True
    return tensor


def _like(tensor: Any, result: Any) -> Any:
    """The result, tagged if the tensor is."""
    both = isinstance(tensor, Tensor) and isinstance(result, Tensor)
    return _tag(result) if both and tagged(tensor) else result


def _tensors(x: Any) -> Iterator[Tensor]:
    """All tensors in arguments or results."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from _tensors(list(x.values()))
    elif isinstance(x, slice):
        yield from _tensors([x.start, x.stop, x.step])
    elif isinstance(x, list | tuple):
        for item in x:
            yield from _tensors(item)


def _device(x: Any) -> torch.device | None:
    """A device as an argument may name it; None if it names none."""
    if isinstance(x, str) and x.split(":")[0] in ("cpu", "cuda"):
        x = torch.device(x)
    return x if isinstance(x, torch.device) else None


_Generator = torch.Generator


class PretendGenerator(torch.Generator):
    """A generator of the CPU that claims to be the device's."""

    device = CUDA


class _Kind(type):
    """What stands in for the class `torch.Generator`."""

    def __call__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        return PretendGenerator() if torch.device(device).type == "cuda" else _Generator(device)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _Generator)


class _Generators(metaclass=_Kind): ...


class PretendDevice(TorchFunctionMode):
    """See above. `waits` counts (kind, place): "read" device to host, "copy" host to device by a blocking copy, and
    "sized", operations whose result or outcome the host must know; `moved` counts copies that do not block."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.moved = 0
        make, group = nn.Parameter.__new__, torch._C._group_tensors_by_device_and_dtype
        add, remove = torch._functorch.vmap._add_batch_dim, torch._functorch.vmap._remove_batch_dim

        def grouped(lists: Any, *rest: Any) -> dict[Any, Any]:
            found = group(lists, *rest).items()
            of = lambda device, part: CUDA if any(tagged(t) for t in _tensors(part[0])) else device  # noqa: E731
            return {(of(device, part), dtype): part for (device, dtype), part in found}

        def parameter(kind: Any, data: Any = None, *rest: Any, **options: Any) -> Any:
            return _like(data, make(kind, data, *rest, **options))

        self._patches = [
            patch.object(torch, "Generator", _Generators),
            # C++ that no mode sees: optimizers and clipping group tensors by device, vmap takes its batch axis off
            patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped),
            patch.object(nn.Parameter, "__new__", parameter),
            patch.object(torch._functorch.vmap, "_add_batch_dim", _keeping(add)),
            patch.object(torch._functorch.vmap, "_remove_batch_dim", _keeping(remove)),
        ]

    def __enter__(self) -> "PretendDevice":
        for each in self._patches:
            each.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for each in self._patches:
            each.stop()

    def take(self) -> dict[str, int]:
        """How often the host has waited since the last call, by kind, and the copies that did not block."""
        found: Counter[str] = Counter()
        for (kind, _), count in self.waits.items():
            found[kind] += count
        found["moved"] = self.moved
        self.waits.clear()
        self.moved = 0
        return dict(found)

    def _wait(self, kind: str, what: str) -> None:
        frame = sys._getframe(2)
        while frame and not any(str(ROOT / part) in frame.f_code.co_filename for part in ("syre", "experiments")):
            frame = frame.f_back
        place = f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}" if frame else "elsewhere"
        self.waits[kind, f"{what} in {place}"] += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, owner = func.__name__, getattr(getattr(func, "__self__", None), "__name__", "")
        ours = [t for t in _tensors([args, kwargs]) if tagged(t)]
        if name == "__get__":
            return self._attribute(func, owner, args[0], bool(ours))
        if name in ("to", "cuda", "cpu"):
            return self._moved(func, name, args, kwargs)
        if "device" in kwargs or name in FACTORIES:
            return self._made(func, name, args, kwargs, bool(ours))
        self._refuse(func, name, args, kwargs, ours)
        if not ours:
            return func(*args, **kwargs)
        if name == "numpy" or name == "__array__":
            raise DeviceMismatch("a tensor on cuda:0 has no numpy array")
        if name == "__iter__":
            return iter([_tag(row) for row in args[0].unbind(0)])
        if name == "__reduce_ex__":
            self._wait("read", name)
            plain = args[0].detach().clone()  # what is saved carries no tag
            return func(plain, *args[1:], **kwargs)
        if name in READS:
            self._wait("read", name)
        elif name in SIZED or (name == "where" and len(args) + len(kwargs) == 1) or self._masks(name, args):
            self._wait("sized", name)
        elif name in ("copy_", "__setitem__"):
            self._copied(name, args, kwargs)
        result = func(*args, **kwargs)
        if name == "__set__":
            if owner == "data":
                args[0]._pretends = tagged(args[1])
        elif name != "copy_" or tagged(args[0]):
            for tensor in _tensors(result):
                _tag(tensor)
        return result

    def _attribute(self, func: Any, owner: str, tensor: Tensor, ours: bool) -> Any:
        if ours and owner in ("device", "is_cuda", "is_cpu"):
            return {"device": CUDA, "is_cuda": True, "is_cpu": False}[owner]
        result = func(tensor)
        if ours and owner != "grad_fn":
            for found in _tensors(result):
                _tag(found)
        return result

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        """`to`, `cuda`, `cpu`: a copy, as a tensor on another device shares no memory with this one."""
        tensor, *rest = args
        target = CUDA if name == "cuda" else CPU if name == "cpu" else _device(kwargs.pop("device", None))
        if name in ("cuda", "cpu"):
            kwargs.pop("device", None)
            func, rest = Tensor.to, []
        rest = [*rest]
        for k, word in enumerate(rest):
            if isinstance(word, Tensor):
                target, rest[k] = CUDA if tagged(word) else CPU, word.dtype
            elif found := _device(word):
                target, rest[k] = found, CPU
        other = kwargs.get("other")
        if isinstance(other, Tensor):
            target = CUDA if tagged(other) else CPU
        there = tagged(tensor)
        on_device = there if target is None else target.type == "cuda"
        result = func(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if there != on_device:
            if result is tensor:
                result = tensor.clone()
            free = kwargs.get("non_blocking", False) and on_device
            if free:
                self.moved += 1
            else:
                self._wait("copy" if on_device else "read", name)
        return _tag(result) if on_device else result

    def _made(self, func: Any, name: str, args: Any, kwargs: Any, ours: bool) -> Any:
        """A tensor made for a device, or like one of the device's."""
        named = _device(kwargs.pop("device", None)) if "device" in kwargs else None
        like = isinstance(args[0], Tensor) and name not in FACTORIES if args else False
        on_device = named.type == "cuda" if named else ours and (like or name in ("as_tensor", "asarray"))
        if name not in FACTORIES:
            tensors = list(_tensors([args, kwargs]))
            if any(tagged(t) != tagged(tensors[0]) for t in tensors):
                raise DeviceMismatch(f"{name}: tensors of two devices")
            if tensors and name != "empty_like" and not name.endswith("_like") and not name.startswith("new_"):
                self._agree(name, on_device, tagged(tensors[0]))
        elif ours != on_device or (on_device and name == "tensor"):
            self._wait("copy" if on_device else "read", name)
        generator = kwargs.get("generator")
        if isinstance(generator, _Generator):
            self._of_kind(name, generator, on_device)
        result = func(*args, **kwargs, **({"device": CPU} if named else {}))
        if on_device and ours and result is (args[0] if args else None):
            return result
        return _tag(result) if on_device else result

    def _agree(self, name: str, wanted: bool, found: bool) -> None:
        if wanted != found:
            raise DeviceMismatch(f"{name}: on the {'device' if wanted else 'CPU'}, of tensors that are not")

    def _refuse(self, func: Any, name: str, args: Any, kwargs: Any, ours: list[Tensor]) -> None:
        """Raise where CUDA does."""
        generator = kwargs.get("generator")
        if isinstance(generator, _Generator):
            tensors = list(_tensors(args))
            self._of_kind(name, generator, tagged(tensors[0]) if tensors else False)
        if not ours or name in MIXES:
            return
        if name in ("__getitem__", "__setitem__") and tagged(args[0]):
            for index in _tensors(args[1]):
                if not tagged(index) and index.dim():
                    self._wait("copy", "an index of the CPU")
            value = args[2] if len(args) > 2 else None
            if not isinstance(value, Tensor) or tagged(value) or not value.dim():
                return
            if name == "__setitem__":
                return  # a copy, counted there
        strict = name in STRICT
        strangers = [t for t in _tensors([args, kwargs]) if not tagged(t) and (strict or t.dim())]
        if strangers:
            shapes = ", ".join(str(tuple(t.shape)) for t in strangers)
            raise DeviceMismatch(f"{resolve_name(func) or name}: CPU tensors of shape {shapes} among those of cuda:0")

    def _of_kind(self, name: str, generator: torch.Generator, on_device: bool) -> None:
        if isinstance(generator, PretendGenerator) != on_device:
            raise DeviceMismatch(f"{name}: a generator of another device")

    @staticmethod
    def _masks(name: str, args: Any) -> bool:
        """Whether a mask says how large the result is, or where to write."""
        return (
            name in ("__getitem__", "__setitem__")
            and any(t.dtype in (torch.bool, torch.uint8) and t.dim() and tagged(t) for t in _tensors(args[1]))
            and not (name == "__setitem__" and not isinstance(args[2], Tensor))
        )

    def _copied(self, name: str, args: Any, kwargs: Any) -> None:
        """A copy between devices inside an assignment."""
        target, source = args[0], args[1] if name == "copy_" else args[2]
        if not isinstance(source, Tensor) or tagged(source) == tagged(target):
            return
        if tagged(target) and (kwargs.get("non_blocking", False) or (len(args) > 2 and args[2] is True)):
            self.moved += 1
        else:
            self._wait("copy" if tagged(target) else "read", name)


def _keeping(function: Any) -> Any:
    """The function, whose result has the tag of its first argument."""

    @functools.wraps(function)
    def kept(tensor: Any, *rest: Any) -> Any:
        return _like(tensor, function(tensor, *rest))

    return kept
