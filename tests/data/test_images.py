"""The data sets: what `load` returns, what it refuses, and the configs that name them."""

import dataclasses
import math
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from syre.data import Cifar10, DataError, Digits, Mnist, data_root, files

CONFIGS = Path(__file__).parents[2] / "configs" / "data"


def test_digits_are_split_by_class_with_nothing_lost():
    digits = Digits().load()
    assert digits.input_shape == (1, 8, 8)
    assert (len(digits.train_inputs), len(digits.test_inputs)) == (1442, 355)
    assert digits.train_inputs.dtype == torch.float32
    assert digits.train_targets.dtype == torch.int64
    assert (digits.train_inputs.min(), digits.train_inputs.max()) == (0, 1)
    for targets in (digits.train_targets, digits.test_targets):
        share = targets.bincount(minlength=digits.num_classes) / len(targets)
        assert (share - 0.1).abs().max() < 0.005
    both = torch.cat([digits.train_inputs, digits.test_inputs])
    assert len(both.unique(dim=0)) == 1797


def test_digits_are_those_of_scikit_learn():
    theirs = load_digits()
    pixels, classes = torch.tensor(theirs.images, dtype=torch.float32)[:, None] / 16, torch.tensor(theirs.target)
    fifth = torch.zeros(len(classes), dtype=torch.bool)
    for of_class in (torch.where(classes == c)[0] for c in range(10)):
        fifth[of_class[4::5]] = True
    digits = Digits().load()
    assert torch.equal(digits.train_inputs, pixels[~fifth])
    assert torch.equal(digits.train_targets, classes[~fifth])
    assert torch.equal(digits.test_inputs, pixels[fifth])
    assert torch.equal(digits.test_targets, classes[fifth])


def test_without_scikit_learn_one_line_says_what_brings_its_tables(monkeypatch):
    monkeypatch.setattr(files, "distribution", lambda name: distribution(f"{name}-not"))
    with pytest.raises(ModuleNotFoundError, match=r"^scikit-learn-not is not installed: pip install -e '\.\[repro\]'"):
        files.bundled("digits.csv.gz")


def test_runs_of_any_input_scale_share_one_tensor_that_is_not_scaled():
    assert Digits(input_scale=0.1).load() is Digits(input_scale=3.0).load("elsewhere", seed=1)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_an_input_scale_that_is_not_positive_is_refused(bad):
    with pytest.raises(ValueError, match=f"data.input_scale must be a number > 0, got {bad}"):
        Mnist(input_scale=bad)


def test_mnist_pixels_are_in_0_1_and_then_standardised(script, mnist, tmp_path):
    script.main(["mnist", "--root", str(tmp_path)])
    plain, standard = Mnist(normalize=False).load(tmp_path), Mnist().load(tmp_path)
    pixels = torch.tensor(mnist["train-images-idx3-ubyte"]).unsqueeze(1)
    torch.testing.assert_close(plain.train_inputs, pixels / 255)
    torch.testing.assert_close(standard.train_inputs, (pixels / 255 - 0.1307) / 0.3081)
    assert plain.test_targets.tolist() == mnist["t10k-labels-idx1-ubyte"].tolist()
    assert plain.train_targets.dtype == torch.int64
    assert Mnist(input_scale=0.5).load(tmp_path) is standard


@pytest.mark.parametrize("keep", ["*.gz", "*-ubyte"])
def test_archives_alone_or_unpacked_files_alone_are_enough(script, mnist, tmp_path, keep):
    script.main(["mnist", "--root", str(tmp_path)])
    raw = tmp_path / "MNIST" / "raw"
    for path in set(raw.iterdir()) - set(raw.glob(keep)):
        path.unlink()
    assert len(Mnist().load(tmp_path).train_inputs) == 7


def test_missing_data_is_one_line_that_says_what_to_do(mnist, tmp_path):
    with pytest.raises(DataError) as error:
        Mnist().load(tmp_path)
    assert "\n" not in str(error.value)
    assert "make data DATA=mnist" in str(error.value)
    assert "data=digits" in str(error.value)


@pytest.mark.parametrize("file", ["MNIST/raw/t10k-labels-idx1-ubyte", "cifar-10-batches-py/test_batch"])
def test_one_wrong_bit_is_one_line_with_the_name_of_the_file(script, mnist, cifar10, tmp_path, file):
    name, kind = ("mnist", Mnist) if "MNIST" in file else ("cifar10", Cifar10)
    script.main([name, "--root", str(tmp_path)])
    path = tmp_path / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataError) as error:
        kind().load(tmp_path)
    assert "\n" not in str(error.value)
    assert f"{path} is damaged" in str(error.value)
    assert f"make data DATA={name}" in str(error.value)
    path.write_bytes(content)
    kind().load(tmp_path)  # control: the same call on the whole file


def test_the_root_is_the_argument_else_syre_data_else_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("SYRE_DATA", raising=False)
    assert data_root() == Path.home() / ".cache" / "syre"
    monkeypatch.setenv("SYRE_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("/elsewhere") == Path("/elsewhere")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_config_spells_out_every_field_with_its_default(path):
    config = OmegaConf.load(path)
    kind = get_class(config.pop("_target_"))
    assert config.pop("name") == path.stem == getattr(kind, "name", path.stem)
    later = config.pop("_later_", {})
    assert dict(config) == dataclasses.asdict(kind())
    assert later.items() <= config.items()


@pytest.mark.slow
def test_importing_the_data_sets_and_reading_what_scikit_learn_brings_imports_neither_torchvision_nor_sklearn():
    heavy = "{'torchvision', 'sklearn'} & set(sys.modules)"
    code = f"import sys, syre.data as data; data.Digits().load(); data.Diabetes().load(); sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
