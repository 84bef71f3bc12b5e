"""The image data sets on disk: torchvision's own layout, names and checksums, under one root.

root/MNIST/raw  root/FashionMNIST/raw  root/cifar-10-batches-py  root/cifar-100-python
"""

import glob
import gzip
import hashlib
import os
import secrets
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syre.extras import extra

ABANDONED = 3600.0  # seconds after which a file that was begun is being written no more
SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}

# torchvision publishes the md5 of the MNIST-style archives only; these are of the files they hold. What one holds that
# is not here is checked when it is unpacked, as a part of its archive, and no more afterwards.
UNPACKED_MD5 = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",  # MNIST train images
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",  # train labels
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",  # test images
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",  # test labels
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "f4a8712d7a061bf5bd6d2ca38dc4d50a",  # Fashion-MNIST train images
    "25c81989df183df01b3e8a0aad5dffbe": "9018921c3c673c538a1fc5bad174d6f9",  # train labels
    "bef4ecab320f06d8554ea6380940ec79": "8181f5470baa50b63fa0f6fddb340f0a",  # test images
    "bb300cfdad3c16e7a12a480ee83cd310": "15d484375f8d13e6eb1aabb0c3f46965",  # test labels
}


class DataError(Exception):
    """A data set is missing, damaged or cannot be fetched; the message is one line that says what to do."""


def data_root(root: str | Path | None = None) -> Path:
    """The folder of all data sets: `root`, else $SYRE_DATA, else ~/.cache/syre."""
    return Path(root or os.environ.get("SYRE_DATA") or "~/.cache/syre").expanduser().absolute()


def torchvision_class(name: str) -> Any:
    """The torchvision data set class of one of `SETS`."""
    with extra("repro"):
        import torchvision.datasets  # here, so that `import syre` stays light

    return getattr(torchvision.datasets, SETS[name])


def bundled(name: str, delimiter: str | None = None) -> NDArray[np.float64]:
    """A table that scikit-learn brings with it, read without importing it: that takes as long as importing torch.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    with extra("repro"):
        folder = distribution("scikit-learn").locate_file("sklearn/datasets/data")
    return np.loadtxt(f"{folder}/{name}", delimiter=delimiter)


def md5_of(path: Path) -> str | None:
    """The md5 of a file, None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One file to fetch, and the files inside it that are read: `holds` maps their names to their md5, if known."""

    urls: tuple[str, ...]
    path: Path
    md5: str
    folder: Path
    holds: dict[str, str | None]

    def whole(self) -> bool:
        """Whether the archive itself is here and undamaged."""
        return md5_of(self.path) == self.md5

    def unpacked(self) -> bool:
        """Whether all it holds is here and undamaged."""
        found = {file: md5_of(self.folder / file) for file in self.holds}
        return all(found[file] and md5 in (None, found[file]) for file, md5 in self.holds.items())

    def unpack(self) -> None:
        """Write what it holds into `folder`, each file whole and checked before it takes its name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _members(self.path) as members:
            for file, stream in members:
                if file in self.holds:
                    write(self.folder / file, stream, self.holds[file])


def archives(name: str, root: Path) -> list[Archive]:
    """What torchvision's class says of a data set's archives: addresses, checksums, places and contents."""
    source = torchvision_class(name)
    if hasattr(source, "mirrors"):  # MNIST and its kin: one gzip per file
        folder = root / source.__name__ / "raw"
        found = []
        for file, md5 in source.resources:
            urls, holds = (
                (mirror + file for mirror in source.mirrors),
                {file.removesuffix(".gz"): UNPACKED_MD5.get(md5)},
            )
            found.append(Archive(urls=tuple(urls), path=folder / file, md5=md5, folder=folder, holds=holds))
        return found
    holds = dict(source.train_list + source.test_list) | {source.meta["filename"]: source.meta["md5"]}
    place = root / source.base_folder
    return [Archive(urls=(source.url,), path=root / source.filename, md5=source.tgz_md5, folder=place, holds=holds)]


def ensure(name: str, root: Path) -> None:
    """Check every file of a data set by md5; files not there are unpacked from their archive where that is.

    Raises:
        DataError: a file is missing or damaged, or cannot be read or unpacked.
    """
    fetch = f"`make data DATA={name}`"
    try:
        for archive in archives(name, root):
            paths = [archive.folder / file for file in archive.holds]
            if all(path.is_file() for path in paths):
                expected = dict(zip(paths, archive.holds.values(), strict=True))
            else:
                expected = {archive.path: archive.md5}
            for path, md5 in expected.items():
                found = md5_of(path)
                if found is None:
                    raise DataError(
                        f"{name} is not in {root}: {fetch} fetches it, and data=digits runs with nothing to fetch"
                    )
                if md5 not in (None, found):
                    raise DataError(f"{path} is damaged (md5 {found}, not {md5}): {fetch} replaces it")
            if archive.path in expected:
                archive.unpack()
    except OSError as error:
        raise DataError(f"{name}: {error}") from error


def splits(name: str, root: Path) -> list[Any]:
    """torchvision's data sets of the training and the test images, their files checked (`ensure`)."""
    ensure(name, root)
    return [torchvision_class(name)(root, train=train, download=False) for train in (True, False)]


@contextmanager
def _members(path: Path) -> Iterator[Iterable[tuple[str, Any]]]:
    """The (file name, stream) pairs of a .tar.gz, or the one pair of a .gz."""
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            yield ((Path(member.name).name, tar.extractfile(member)) for member in tar if member.isfile())
    else:
        with gzip.open(path) as stream:
            yield [(path.name.removesuffix(".gz"), stream)]


def write(path: Path, stream: Any, md5: str | None) -> None:
    """Copy `stream` to `path` if it has this md5 (None: any): through a file beside it, synced, then renamed.

    What processes have left of it that were killed meanwhile is removed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # no pid: the disk may be another machine's too
    for other in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > ABANDONED:
                other.unlink()
    try:
        digest = hashlib.md5(usedforsecurity=False)
        with temporary.open("wb") as file:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if md5 not in (None, digest.hexdigest()):
            raise DataError(f"{path.name} is not what its archive should hold (md5 {digest.hexdigest()}, not {md5})")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
