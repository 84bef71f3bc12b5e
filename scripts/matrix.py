"""Tests the library as its users get it, on old and new torch.

    python -m scripts.matrix             every row, the oldest torch first
    python -m scripts.matrix torch2.4    those whose name has one of these words

A row is a file in scripts/matrix: a version of Python, one of torch, and every package pinned with hashes. In an
environment of these alone, with the wheel, it runs the tests that are in the source distribution. A row whose Python is
not on this machine is left out, and says so; but the newest torch of the rows asked for has to run.

All of it lies in .matrix, some 5 GB a row on Linux, where the torch of PyPI comes with CUDA; `make clean` removes it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "scripts/matrix"
NAME = re.compile(r"python(\d+\.\d+)-torch(\d+\.\d+)")
UV = Path(sys.executable).with_name("uv")
VERSIONS = "import torch, numpy, syre; print('torch', torch.__version__, 'numpy', numpy.__version__, syre.__file__)"


class Failed(Exception):
    """A step failed; its output is in the log."""


def python_of(row: str) -> str:
    """The version of Python in the name of a row."""
    return NAME.fullmatch(row)[1]  # type: ignore[index]  # all names match: `rows`


def rows(words: Sequence[str] = ()) -> list[str]:
    """The names that have one of the words, the oldest torch first."""
    found = [match for path in LOCKS.glob("*.lock") if (match := NAME.fullmatch(path.stem))]
    found.sort(key=lambda match: [int(part) for part in match[2].split(".")])
    return [match[0] for match in found if not words or any(word in match[0] for word in words)]


def find_python(version: str) -> str | None:
    """A Python of this version: $PYTHON, one on the path or known to uv, or one of pyenv's."""
    known = subprocess.run([UV, "python", "find", version], capture_output=True, text=True).stdout.strip()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    own = sorted(str(path) for path in pyenv.glob(f"{version}.*/bin/python"))
    for candidate in (os.environ.get("PYTHON", ""), f"python{version}", known, *own):
        path = shutil.which(candidate)
        asked = "import sys; print('%d.%d' % sys.version_info[:2])"
        if path and subprocess.run([path, "-c", asked], capture_output=True, text=True).stdout.strip() == version:
            return path
    return None


def call(log: Path, *command: str | Path, cwd: Path = ROOT, path: str = "") -> str:
    """The output of a command, which goes to the end of a log; path: $PYTHONPATH. Raises: Failed."""
    # `syre` is the wheel's, and not that of a folder where a test starts Python.
    own = {
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        "UV_CACHE_DIR": str(log.parent / "cache"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **own}
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=pipe, stderr=both, text=True)
    with log.open("a") as file:
        file.write(done.stdout)
    if done.returncode:
        raise Failed("\n".join(done.stdout.splitlines()[-30:]))
    return done.stdout


def build(folder: Path) -> Path:
    """The wheel; beside it the unpacked source distribution, `source`. By the setuptools of this environment."""
    for name in ("dist", "source"):
        shutil.rmtree(folder / name, ignore_errors=True)
    call(folder / "build.log", UV, "build", "--no-build-isolation", "--python", sys.executable, "-o", folder / "dist")
    (source,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    (folder / source.name.removesuffix(".tar.gz")).rename(folder / "source")
    shutil.rmtree(folder / "source/syre")  # for the tests not to find it
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def run(row: str, python: str, wheel: Path, folder: Path) -> str:
    """Make the environment of a row and run the tests in it: what it has, and pytest's last line. Raises: Failed."""
    log, own = folder / f"{row}.log", folder / row / "bin/python"
    log.unlink(missing_ok=True)
    if not own.exists():
        call(log, UV, "venv", "--clear", "--python", python, folder / row)
    call(log, UV, "pip", "sync", "--python", own, "--require-hashes", LOCKS / f"{row}.lock")
    call(log, UV, "pip", "install", "--python", own, "--no-deps", wheel)
    *versions, place = call(log, own, "-c", VERSIONS).split()
    if not Path(place).is_relative_to(folder / row):
        raise Failed(f"syre is imported from {place}, and not from the wheel")
    source = folder / "source"  # where the tests find one another
    tests = call(log, own, "-m", "pytest", "-p", "no:cacheprovider", "tests", cwd=source, path=str(source))
    return f"{' '.join(versions)}: {tests.splitlines()[-1]}"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="parts of the names of rows (default: all rows)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where all of it lies (default .matrix)")
    asked = parser.parse_args(words)
    chosen, folder = rows(asked.words), asked.folder.absolute()
    if not chosen:
        parser.error(f"no row has {' or '.join(asked.words)} in its name: {', '.join(rows())}")
    folder.mkdir(exist_ok=True)
    wheel, failed, ran = build(folder), [], []
    for row in chosen:
        python = find_python(python_of(row))
        if python is None:
            print(f"{row}: left out, no Python {python_of(row)} is found: PYTHON=/path/to/python{python_of(row)}")
            continue
        start = time.monotonic()
        ran.append(row)
        try:
            said = run(row, python, wheel, folder)
        except Failed as error:
            failed.append(row)
            print(f"{error}\n{row}: failed, see {folder.name}/{row}.log", file=sys.stderr)
        else:
            print(f"{row}: {said}; {time.monotonic() - start:.0f} s in all", flush=True)
    if chosen[-1] not in ran:
        print(f"error: the newest, {chosen[-1]}, did not run", file=sys.stderr)
    return int(bool(failed) or chosen[-1] not in ran)


if __name__ == "__main__":
    sys.exit(main())
