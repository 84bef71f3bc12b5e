"""Data sets and packages as files that are small enough to be taken to a machine without network: a borrowed GPU, say.

    python -m scripts.carry data cifar10,cifar100 --into CARRY       here: CARRY/cifar10.1-of-3, ...
    python -m scripts.carry packages --into CARRY/packages           here: wheels for the Python there
    python -m scripts.carry unpack CARRY --root DATA                 there: what `data_root=DATA` reads
    python -m pip install --no-index --no-deps CARRY/packages/*.whl  there: what `scripts.gpu_queue` needs beside torch

The files of a data set may be taken one by one; `unpack` wants all of them, and writes the files that they were, byte
for byte, each checked. Of 32 x 32 colour images the differences to the neighbours and between the channels are stored,
by Huffman codes: 104 MB of the 186 of CIFAR-10, in three files of 33 MiB, in seconds, and every Python can read them.
(LZMA, of a better prediction, takes a minute per 10,000 images for 98 MB; JPEG XL, of 90 MB, wants a decoder there.)
"""

import argparse
import io
import json
import pickle
import subprocess
import sys
import zlib
from argparse import RawDescriptionHelpFormatter as Raw
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from syre.data.files import SETS, DataError, archives, data_root, ensure, write

ROOT = Path(__file__).parents[1]
MIB = 40  # of a file: with a checkout of 16 MiB beside it, it fits where 64 MiB do
# What the GPU queue imports beside torch and torchvision, and what that imports; pytest is for its tests.
PACKAGES = ["antlr4-python3-runtime", "hydra-core", "omegaconf", "filelock", "tqdm", "pyyaml", "numpy", "pandas"]
PACKAGES += ["python-dateutil", "pytest", "iniconfig", "packaging", "pluggy", "pygments"]
PLATFORMS = "manylinux_2_28_x86_64,manylinux_2_17_x86_64,manylinux2014_x86_64"


# ---- a file as bytes that take less room -----------------------------------------------------------------------------


def differences(images: np.ndarray) -> np.ndarray:
    """uint8 [n, 3, h, w] -> [3, n, h, w]: green, red - green and blue - green, each less its neighbours (mod 256)."""
    red, green, blue = images.transpose(1, 0, 2, 3)
    planes = np.stack([green, red - green, blue - green])
    for axis in (-1, -2):
        planes = np.diff(planes, axis=axis, prepend=np.uint8(0))
    return planes


def restored(planes: np.ndarray) -> np.ndarray:
    """The images of such differences."""
    for axis in (-2, -1):
        planes = np.cumsum(planes, axis=axis, dtype=np.uint8)
    green, red, blue = planes
    return np.stack([red + green, green, blue + green], 1)


def _deflated(content: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    coder = zlib.compressobj(9, strategy=strategy)
    return coder.compress(content) + coder.flush()


def encode(content: bytes) -> tuple[list[bytes], list[int]]:
    """A file as deflated parts: all of it, or what is before, in and after its one block of images, and their shape."""
    batch = pickle.loads(content, encoding="latin1") if content.startswith(b"\x80") else None  # its md5 was right
    if not isinstance(batch, dict) or "data" not in batch:
        return [_deflated(content)], []
    images = batch["data"].reshape(-1, 3, 32, 32)
    start = content.index(images.tobytes())
    coded = _deflated(np.ascontiguousarray(differences(images)).tobytes(), zlib.Z_HUFFMAN_ONLY)
    parts = [_deflated(content[:start]), coded, _deflated(content[start + images.nbytes :])]
    return parts, list(images.shape)


def decode(parts: Sequence[bytes], shape: Sequence[int]) -> bytes:
    """The file of such parts."""
    plain = [zlib.decompress(part) for part in parts]
    if shape:
        n, channels, *size = shape
        planes = np.frombuffer(plain[1], np.uint8).reshape(channels, n, *size)
        plain[1] = restored(planes).tobytes()
    return b"".join(plain)


# ---- a data set as files ---------------------------------------------------------------------------------------------


def pack(name: str, root: Path, into: Path, mib: float) -> list[Path]:
    """The files, each of at most `mib` MiB, that hold a data set of `root`. Raises: DataError if it is not whole."""
    ensure(name, root)
    files, body = [], []
    for archive in archives(name, root):
        for file, md5 in archive.holds.items():
            path = archive.folder / file
            parts, shape = encode(path.read_bytes())
            files.append({"path": str(path.relative_to(root)), "md5": md5, "sizes": [*map(len, parts)], "shape": shape})
            body += parts
    content = b"".join([json.dumps(files).encode(), b"\n", *body])
    count = -(-len(content) // int(mib * 2**20))
    size = -(-len(content) // count)
    into.mkdir(parents=True, exist_ok=True)
    for old in into.glob(f"{name}.*-of-*"):
        old.unlink()
    made = [into / f"{name}.{k + 1}-of-{count}" for k in range(count)]
    for k, path in enumerate(made):
        path.write_bytes(content[k * size : (k + 1) * size])
    return made


def unpack(folder: Path, root: Path) -> list[str]:
    """Write the data sets that a folder holds into `root`, every file whole and checked; their names.

    Raises: DataError where there is none, or a file of one is missing or damaged.
    """
    names = sorted({path.name.split(".")[0] for path in folder.glob("*.*-of-*")})
    if not names:
        raise DataError(f"{folder} holds no data set, such as {next(iter(SETS))}.1-of-1")
    for name in names:
        found = {path.name for path in folder.glob(f"{name}.*-of-*")}
        count = int(next(iter(found)).rsplit("-", 1)[1])
        parts = [f"{name}.{k + 1}-of-{count}" for k in range(count)]
        if lacking := sorted({*parts} ^ found):
            raise DataError(f"{folder}: {name} is to be {', '.join(parts)}; missing, or too many: {', '.join(lacking)}")
        content = b"".join((folder / part).read_bytes() for part in parts)
        try:
            _write_all(content, root)
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise DataError(f"{name} in {folder} is damaged ({error}): take it there again") from error
    return names


def _write_all(content: bytes, root: Path) -> None:
    header, body = content.split(b"\n", 1)
    stream = io.BytesIO(body)
    for file in json.loads(header):
        path = root / file["path"]
        if ".." in path.parts or not path.is_relative_to(root):
            raise ValueError(f"{file['path']} is no place in it")
        parts = [stream.read(size) for size in file["sizes"]]
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, io.BytesIO(decode(parts, file["shape"])), file["md5"])


# ---- packages --------------------------------------------------------------------------------------------------------


def pinned(names: Sequence[str], python: str) -> list[str]:
    """These packages at the versions that requirements.lock has for a version of Python. Raises: DataError if not."""
    from packaging.requirements import Requirement  # here: the other machine may not have it

    lines = (line.rstrip(" \\") for line in (ROOT / "requirements.lock").read_text().splitlines())
    chosen = [Requirement(line) for line in lines if line.split("==")[0] in names]
    if lacking := set(names) - {found.name for found in chosen}:
        raise DataError(f"requirements.lock has no {', '.join(sorted(lacking))}")
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    return [f"{found.name}{found.specifier}" for found in chosen if not found.marker or found.marker.evaluate(here)]


def packages(into: Path, names: Sequence[str], python: str, platforms: Sequence[str]) -> None:
    """Wheels for another machine; what comes as source only, the runtime of antlr4, is pure Python and built here.

    Raises: DataError where pip failed, and has said why.
    """
    wanted = pinned(names, python)
    source = [line for line in wanted if line.startswith("antlr4")]
    ready = [line for line in wanted if line not in source]
    target = [f"--python-version={python}", "--only-binary=:all:", *(f"--platform={name}" for name in platforms)]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    into.mkdir(parents=True, exist_ok=True)
    for words in (["wheel", "--wheel-dir", str(into)], source), (["download", "--dest", str(into), *target], ready):
        if words[1] and subprocess.run([*pip, *words[0], "--no-deps", *words[1]]).returncode:
            raise DataError(f"pip {words[0][0]} failed: {into} is not complete")


# ---- the command line ------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 2 after one line for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m scripts.carry", description=__doc__, formatter_class=Raw)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write data sets as files that fit")
    data.add_argument("names", help=f"some of {','.join(SETS)}")
    data.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    data.add_argument("--mib", type=float, default=MIB, help=f"MiB of a file, at most (default {MIB})")
    back = commands.add_parser("unpack", help="write the data sets of such files into --root")
    back.add_argument("folder", type=Path)
    for each in (data, back):
        each.add_argument("--root", help="of the data sets (default: $SYRE_DATA, else ~/.cache/syre)")
    wheels = commands.add_parser("packages", help="fetch wheels for a Python elsewhere")
    wheels.add_argument("names", nargs="?", default=",".join(PACKAGES), help="default: %(default)s")
    wheels.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    wheels.add_argument("--python", default="3.12", help="its version (default 3.12)")
    named = "its platforms, as pip names them (default: %(default)s)"
    wheels.add_argument("--platforms", default=PLATFORMS, help=named)
    for command, run in ((data, _data), (back, _unpack), (wheels, _packages)):
        command.set_defaults(run=run)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _data(options: argparse.Namespace) -> None:
    names = options.names.split(",")
    if unknown := [name for name in names if name not in SETS]:
        raise DataError(f"unknown data set {unknown[0]!r}: choose from {', '.join(SETS)}")
    if not options.mib > 0:
        raise DataError(f"--mib must be > 0, got {options.mib:g}")
    for name in names:
        for path in pack(name, data_root(options.root), options.into, options.mib):
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def _unpack(options: argparse.Namespace) -> None:
    root = data_root(options.root)
    for name in unpack(options.folder, root):
        print(f"{name}: unpacked into {root}")


def _packages(options: argparse.Namespace) -> None:
    packages(options.into, options.names.split(","), options.python, options.platforms.split(","))
    sizes = [path.stat().st_size for path in options.into.glob("*.whl")]
    print(f"{options.into}: {len(sizes)} wheels, {sum(sizes) / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
