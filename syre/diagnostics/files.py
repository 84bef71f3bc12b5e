"""Reads checkpoints: files of `torch.save`, .safetensors, their shards, and folders that hold them. Runs no code."""

import argparse
import contextlib
import json
import math
import mmap
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Where trainers keep the state dict: Lightning and timm, fairseq and torchtitan, DeepSpeed, others.
NESTED = ("state_dict", "model_state_dict", "model", "module", "model_state", "network", "params")
# What lies beside the weights in the folder of a Trainer.
BESIDE = ("optimizer", "scheduler", "scaler", "sampler", "rng_state", "random_states", "training_args")
ENDINGS = (".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt")
ALLOWED = f"*{', *'.join(ENDINGS[:-1])} or *{ENDINGS[-1]}"
INSTEAD = "save model.state_dict() instead"
WORDS = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint cannot be read or says nothing; the message is one line that names it and what is allowed."""


def load(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, on the CPU: name -> tensor, the names as they were saved.

    `path` is a file of `torch.save` (a state dict, plain or inside the dict that a trainer saves), a .safetensors, the
    .index.json of several of either, or a folder that holds one of these. Nothing in it is run: a file that holds other
    objects than tensors, numbers, words, containers of these and settings of argparse is refused. The tensors lie
    in the files until they are used.

    Raises:
        CheckpointError: there is no such file, or it is none of these, damaged, or of an optimizer.
    """
    path = Path(path)
    try:
        if path.is_dir():
            path = _in_folder(path)
        if path.name.endswith(".index.json"):
            return _shards(path)
        return _file(path)
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: {error.strerror or error}") from error


def _in_folder(folder: Path) -> Path:
    """The one checkpoint of a folder; of shards, their index."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if (folder / ".metadata").is_file():
        how = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        raise CheckpointError(f"{folder} is a checkpoint of torch.distributed: make one file of it by `{how}`")
    weights = [name for name in names if not name.startswith(BESIDE)]
    for endings in ((".safetensors.index.json",), (".safetensors",), ENDINGS[1:2], ENDINGS[2:]):
        found = [name for name in weights if name.endswith(endings)]
        if len(found) > 1:
            raise CheckpointError(f"{folder} holds several checkpoints, name one: {', '.join(found)}")
        if found:
            return folder / found[0]
    raise CheckpointError(f"{folder} holds no checkpoint: {ALLOWED}")


def _shards(index: Path) -> dict[str, Tensor]:
    """All tensors of the files that an index names, which lie beside it."""
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        beside = all(Path(file).name == file for file in places.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        beside = False
    if not beside:
        raise CheckpointError(f"{index} is no index: it has no weight_map of tensors to files beside it")
    state: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        state |= _file(index.with_name(file))
    if missing := sorted(places.keys() - state.keys()):
        raise CheckpointError(f"{index} names tensors that its files do not have: {missing[0]}, {len(missing)} in all")
    return state


def _file(path: Path) -> dict[str, Tensor]:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty")
    return _safetensors(path) if path.suffix == ".safetensors" else _state(path, _unpickled(path))


# ------------------------------------------------------------------------------------------------------- .safetensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The format: 8 bytes, the length of a JSON header; the header, name -> dtype, shape, place; then raw bytes."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        _require(2 <= length <= size - 8, path, f"its header would have {length} bytes, and the file has {size}")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path} is no .safetensors, or damaged: its header is no JSON") from error
        _require(isinstance(header, dict), path, "its header is no JSON object")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    header.pop("__metadata__", None)
    first, state, places = 8 + length, {}, [(0, 0), (size - 8 - length, size - 8 - length)]
    for name, about in header.items():
        dtype, shape, start, end = _described(path, name, about)
        count = math.prod(shape)
        _require(end - start == count * dtype.itemsize, path, f"{name} has {end - start} bytes for shape {shape}")
        _require(first + end <= size, path, f"{name} ends at byte {first + end}, and the file at {size}")
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=first + start) if count else torch.empty(0)
        state[name] = flat.to(dtype).view(shape)
        places.append((start, end))
    places.sort()
    joined = all(end == start for (_, end), (start, _) in pairwise(places))
    _require(joined, path, "its tensors overlap, or leave bytes between or behind them")
    return _state(path, state)


def _described(path: Path, name: str, about: Any) -> tuple[torch.dtype, list[int], int, int]:
    """Type, shape and first and last byte, as the header says of a tensor."""
    try:
        word, shape, (start, end) = about["dtype"], about["shape"], about["data_offsets"]
        whole = isinstance(word, str) and all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    _require(whole, path, f"{name} has no dtype, shape and data_offsets")
    _require(word in WORDS, path, f"the dtype of {name} is {word}, which is none of {', '.join(WORDS)}")
    return WORDS[word], shape, start, end


def _require(condition: bool, path: Path, what: str) -> None:
    if not condition:
        raise CheckpointError(f"{path} is no .safetensors, or damaged: {what}")


# -------------------------------------------------------------------------------------------------------- torch.save


def _unpickled(path: Path) -> Any:
    """What a file of `torch.save` holds."""
    with path.open("rb") as file:
        start = file.read(2)
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped and _is_program(path):  # before torch 2.6 that would be loaded
            raise CheckpointError(f"{path} is a program of TorchScript, not a state dict: {INSTEAD}")
        with warnings.catch_warnings(), _harmless():
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes may raise anything
        raise CheckpointError(_refusal(path, start, str(error))) from error


def _is_program(path: Path) -> bool:
    """Whether TorchScript wrote this zip file."""
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("/constants.pkl") for name in file.namelist())


def _refusal(path: Path, start: bytes, said: str) -> str:
    if named := re.search(r"GLOBAL ([\w.]+)", said):
        return f"{path} holds {named[1]}, which needs weights_only=False, and that may run code: {INSTEAD}"
    if start == b"PK":
        return f"{path} is truncated or damaged, or a zip file that torch.save did not write"
    return f"{path} is no file of torch.save, or damaged; a checkpoint is one of {ALLOWED}"


def _harmless() -> contextlib.AbstractContextManager[Any]:
    """Lets settings of argparse, paths and numbers of numpy be read, which trainers save beside the weights."""
    if not hasattr(torch.serialization, "safe_globals"):  # before torch 2.5
        return contextlib.nullcontext()
    kinds = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"}
    numbers = [_called(f"numpy.{core}.multiarray.scalar", _number) for core in ("core", "_core")]
    paths = [_called(f"{place}.PosixPath", os.path.join) for place in ("pathlib", "pathlib._local")]
    return torch.serialization.safe_globals([argparse.Namespace, np.dtype, *kinds, *numbers, *paths])


def _number(dtype: np.dtype, data: bytes) -> Any:
    """What numpy's `scalar` makes of these, of a number."""
    if dtype.kind not in "biufc":
        raise ValueError(f"no number, but of kind {dtype.kind}")
    return np.frombuffer(data, dtype, 1)[0]


def _called(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, as what a pickle knows by this name."""

    def called(*arguments: Any) -> Any:
        return function(*arguments)

    called.__module__, called.__name__ = name.rsplit(".", 1)
    called.__qualname__ = called.__name__
    return called


def _state(path: Path, saved: Any) -> dict[str, Tensor]:
    """The state dict inside what was saved."""
    if not isinstance(saved, Mapping):
        raise CheckpointError(f"{path} holds a {type(saved).__name__}, not a state dict: {INSTEAD}")
    if _is_optimizer(saved):
        raise CheckpointError(f"{path} is the state of an optimizer: the weights are in that of the model")
    state = _tensors(saved)
    if not state:
        held = ", ".join(map(str, list(saved)[:5])) or "nothing"
        raise CheckpointError(f"{path} holds no tensors of a model, but {held}: {INSTEAD}")
    return state


def _tensors(saved: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of the first entry that usually is the state dict, else of all entries that are no optimizer."""
    for key in NESTED:
        if isinstance(inner := saved.get(key), Mapping) and (state := _tensors(inner)):
            return state
    state = {}
    for name, value in saved.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            state[name] = value
        elif isinstance(value, Mapping) and isinstance(name, str) and not _is_optimizer(value):
            state |= {f"{name}.{inner}": tensor for inner, tensor in _tensors(value).items()}
    return state


def _is_optimizer(saved: Mapping[Any, Any]) -> bool:
    return "state" in saved and "param_groups" in saved
