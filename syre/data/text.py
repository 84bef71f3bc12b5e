"""Text that every machine has: the source of Python's standard library."""

import os
import sysconfig
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from platform import python_version
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from syre.checks import at_least, check, count
from syre.data.files import DataError
from syre.data.images import Dataset, DataSource, Split
from syre.seeding import generator

BYTES = 256
HELD_OUT = 0.05  # of the files
ELSEWHERE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}  # folders that are left out


@dataclass(frozen=True, kw_only=True)
class Text(DataSource):
    """The source of Python's standard library, byte by byte, in windows of `context` bytes; nothing to fetch.

    The target of each byte is the one after it. Its tests are left out. Files are put one after the other, a zero byte
    between them, in an order that is shuffled once, the same for all seeds; the last twentieth of them is the test set.
    The text differs with the version of Python: `what_was_read` says which it was.

    Args:
        context: bytes of a window. Windows do not overlap.
        tasks: with more than one, each further task is the same text with the 256 bytes renamed by a permutation, drawn
            from the run's seed, independently of the others.
        samples, test_samples: windows, evenly spaced over the text of each split; 0 means all.
    """

    name: ClassVar[str] = "text"
    context: int = 128
    tasks: int = 1
    samples: int = 0
    test_samples: int = 0
    ranges: ClassVar = {"context": count, "tasks": count, "samples": at_least, "test_samples": at_least}

    def load(self, root: str | Path | None = None, seed: int = 0) -> Dataset:
        """Read from the library of this Python, whatever the root; renamings are of the seed.

        Raises:
            DataError: a library without source. ValueError: more windows asked for than there are.
        """
        whole = _cut(library(), self.context, self.samples, self.test_samples)
        return whole if self.tasks == 1 else _renamed(whole, self.tasks, seed)


class Source(NamedTuple):
    """The text of the two splits, uint8 [bytes], and what it is, in words."""

    train: Tensor
    test: Tensor
    what: str


def library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def what_was_read() -> dict[str, str]:
    """Which text this process has read, for the versions of a run; empty if none."""
    return {"text": _read(library()).what} if _read.cache_info().currsize else {}


@lru_cache(maxsize=1)
def _read(folder: Path) -> Source:
    names = sorted(_modules(folder))
    if len(names) < 2:
        missing = f"data=text reads the source of Python's standard library, and {folder} has no *.py files"
        raise DataError(f"{missing}: use a Python that is installed with them")
    try:
        files = [(folder / name).read_bytes() for name in names]
    except OSError as error:
        raise DataError(f"data=text: {error}") from error
    digest = blake2b(digest_size=6)
    for name, content in zip(names, files, strict=True):
        digest.update(f"{name} {len(content)} ".encode() + content)
    size = sum(map(len, files))
    what = f"Python {python_version()}, {len(files)} files, {size} bytes, blake2b {digest.hexdigest()}"
    order = torch.randperm(len(files), generator=generator(0, "text", "files")).tolist()
    held = max(1, round(HELD_OUT * len(files)))
    train, test = (_joined([files[i] for i in part]) for part in (order[:-held], order[-held:]))
    return Source(train, test, what)


def _modules(folder: Path) -> list[str]:
    """The paths of its Python files, tests and installed packages left out, with slashes on any machine."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in ELSEWHERE]
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in files if name.endswith(".py")]
    return found


def _joined(files: list[bytes]) -> Tensor:
    return torch.from_numpy(np.frombuffer(b"\0".join(files), np.uint8).copy())


@lru_cache(maxsize=2)
def _cut(folder: Path, context: int, samples: int, test_samples: int) -> Dataset:
    source = _read(folder)
    train = _windows(source.train, context, samples, "samples")
    return Dataset.of(train, _windows(source.test, context, test_samples, "test_samples"), num_classes=BYTES)


def _windows(text: Tensor, context: int, samples: int, setting: str) -> Split:
    """int32 and int64 [samples, context]: windows, and the byte after each of theirs."""
    there = (len(text) - 1) // context
    check(there > 0, f"data.context must be less than the {len(text)} bytes there are, got {context}")
    check(samples <= there, f"data.{setting} must be at most {there}, the windows there are, got {samples}")
    starts = torch.linspace(0, there - 1, samples or there, dtype=torch.float64).round().long()
    chosen = text.unfold(0, context + 1, context)[starts]
    return chosen[:, :-1].int(), chosen[:, 1:].long()


@lru_cache(maxsize=8)
def _renamed(whole: Dataset, tasks: int, seed: int) -> Dataset:
    stream = generator(seed, "alphabets")
    later = [torch.randperm(BYTES, generator=stream) for _ in range(tasks - 1)]
    return replace(whole, alphabets=torch.stack([torch.arange(BYTES), *later]))
