"""What scripts/carry.py takes to another machine is there byte for byte, or refused in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts import carry
from scripts.carry import PACKAGES, decode, differences, encode, main, pinned, restored
from syre.data import Cifar10, Mnist

SETS = {"mnist": Mnist, "cifar10": Cifar10}


@pytest.fixture
def home(request, script, tmp_path: Path, mnist, cifar10, capsys) -> Path:
    """The root of two small data sets."""
    root = tmp_path / "home"
    assert [script.main([name, "--root", str(root)]) for name in SETS] == [0, 0]
    capsys.readouterr()
    return root


def packed(home: Path, mib: float) -> Path:
    into = home.parent / "carry"
    assert main(["data", ",".join(SETS), "--root", str(home), "--into", str(into), "--mib", str(mib)]) == 0
    return into


def test_images_of_any_values_come_back_from_their_differences() -> None:
    images = np.random.default_rng(0).integers(256, size=(5, 3, 6, 4), dtype=np.uint8)
    assert differences(images).shape == (3, 5, 6, 4)
    assert np.array_equal(restored(differences(images)), images)
    flat = np.full((2, 3, 6, 4), 7, np.uint8)
    assert np.count_nonzero(differences(flat)) == 2  # control: what is smooth has hardly any


@pytest.mark.parametrize("mib", [40, 0.004])
@pytest.mark.usefixtures("cifar10", "mnist")
def test_data_sets_are_the_same_files_there(home: Path, mib: float) -> None:
    into, there = packed(home, mib), home.parent / "there"
    sizes = [path.stat().st_size for path in into.iterdir()]
    assert max(sizes) <= mib * 2**20
    assert (len(sizes) == 2) == (mib == 40)
    assert main(["unpack", str(into), "--root", str(there)]) == 0
    files = [path.relative_to(there) for path in there.rglob("*") if path.is_file()]
    assert len(files) == 8  # four of each: no archive
    assert all((there / file).read_bytes() == (home / file).read_bytes() for file in files)
    for one in (Mnist(), Cifar10()):
        assert torch.equal(one.load(root=there).train_inputs, one.load(root=home).train_inputs)
    assert main(["unpack", str(into), "--root", str(there)]) == 0  # twice, nothing changes


def test_only_a_block_of_images_is_taken_apart(home: Path) -> None:
    batch, labels = (home / f"cifar-10-batches-py/{name}" for name in ("data_batch_1", "batches.meta"))
    parts, shape = encode(batch.read_bytes())
    assert (len(parts), shape) == (3, [4, 3, 32, 32])
    assert decode(parts, shape) == batch.read_bytes()
    assert encode(labels.read_bytes())[1] == []
    assert decode(*encode(b"")) == b""


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


BREAK = {
    "missing": lambda parts: parts[1].unlink(),
    "damaged": lambda parts: damaged(parts[1]),
    "cut": lambda parts: parts[-1].write_bytes(parts[-1].read_bytes()[:-5]),
    "of another packing": lambda parts: (parts[0].parent / "mnist.1-of-99").write_bytes(b""),
    "elsewhere": lambda parts: parts[0].write_bytes(parts[0].read_bytes().replace(b"MNIST/raw", b"../../raw")),
}


@pytest.mark.parametrize("how", BREAK)
@pytest.mark.usefixtures("cifar10", "mnist")
def test_what_is_not_whole_is_one_line(how: str, home: Path, capsys) -> None:
    into, there = packed(home, 0.004), home.parent / "there"
    BREAK[how](sorted(into.glob("mnist.*-of-*")))
    for path in into.glob("cifar10*"):
        path.unlink()
    capsys.readouterr()
    assert main(["unpack", str(into), "--root", str(there)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "mnist" in error
    kept = [path for path in there.rglob("*") if path.is_file()]
    assert all(path.read_bytes() == (home / path.relative_to(there)).read_bytes() for path in kept)
    assert len(kept) < 4
    assert not list(home.parent.glob("raw"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data", "mnits", "--into", "x"], "unknown data set 'mnits': choose from mnist,"),
        (["data", "mnist", "--into", "x", "--mib", "0"], "--mib must be > 0"),
        (["data", "mnist", "--into", "x", "--root", "nowhere"], "mnist is not in"),
        (["unpack", "nowhere"], "holds no data set"),
        (["packages", "hydra-core,nonesuch", "--into", "x"], "requirements.lock has no nonesuch"),
    ],
)
def test_what_cannot_be_done_is_one_line(words, says, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert says in error
    assert (out, error.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_packages_are_those_of_the_lock_for_the_python_there(tmp_path: Path, monkeypatch) -> None:
    assert [line.split("==")[0] for line in pinned(PACKAGES, "3.12")] == sorted(PACKAGES)
    assert pinned(["numpy"], "3.11") != pinned(["numpy"], "3.12")
    calls: list[list[str]] = []
    monkeypatch.setattr(
        carry.subprocess, "run", lambda words: calls.append(words) or subprocess.CompletedProcess(words, 0)
    )
    assert main(["packages", "omegaconf,antlr4-python3-runtime", "--into", str(tmp_path / "p")]) == 0
    (built, fetched) = (words[words.index("pip") + 3 :] for words in calls)
    assert built == [
        "wheel",
        "--wheel-dir",
        str(tmp_path / "p"),
        "--no-deps",
        *pinned(["antlr4-python3-runtime"], "3.12"),
    ]
    assert fetched[-1:] == pinned(["omegaconf"], "3.12")
    assert {"--python-version=3.12", "--only-binary=:all:", "--no-deps"} <= set(fetched)


def test_the_packages_are_all_that_the_queue_imports_beside_torch() -> None:
    """What it has loaded from outside Python, torch and what those bring along."""
    code = (
        "import sys, torch, torchvision; before = set(sys.modules); import scripts.gpu_queue; "
        "print(*{name.split('.')[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=carry.ROOT, capture_output=True, text=True, check=True)
    of = {"antlr4": "antlr4-python3-runtime", "hydra": "hydra-core", "yaml": "pyyaml", "dateutil": "python-dateutil"}
    loaded = {name for name in done.stdout.split() if not name.startswith("_")} - {"attr"}  # omegaconf can do without
    assert {"hydra", "omegaconf", "antlr4", "pandas", "filelock"} <= loaded  # control
    assert {of.get(name, name) for name in loaded - {"syre", "experiments", "scripts", "hydra_plugins"}} <= set(
        PACKAGES
    )
