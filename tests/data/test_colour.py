"""Colour images: pixels as they are in the files, subsets of a seed, and settings that are refused."""

import pytest
import torch

from syre.data import Cifar10, RgbDigits


@pytest.fixture
def root(script, cifar10, tmp_path):
    """A folder with the small CIFAR-10 of the tests."""
    script.main(["cifar10", "--root", str(tmp_path)])
    return tmp_path


def test_cifar_images_are_channels_first_and_stay_uint8(root, cifar10):
    loaded = Cifar10(normalize=False).load(root)
    image = torch.tensor(cifar10["test_batch"]["data"][1]).view(3, 32, 32)
    assert loaded.test_inputs.dtype == torch.uint8
    assert torch.equal(loaded.test_inputs[1], image.byte())
    assert loaded.test_targets.tolist() == cifar10["test_batch"]["labels"]
    assert (loaded.num_classes, loaded.input_shape, len(loaded.train_targets)) == (10, (3, 32, 32), 7)
    assert (loaded.mean, loaded.std) == ((0.0,), (1.0,))
    assert len(Cifar10().load(root).mean) == 3  # control: standardised by channel


def test_runs_of_any_seed_share_the_whole_set_and_runs_of_one_seed_a_subset(root):
    assert Cifar10(input_scale=0.1).load(root, seed=0) is Cifar10(input_scale=2.0).load(root, seed=0)
    whole = Cifar10().load(root, seed=0).train_inputs
    assert Cifar10().load(root, seed=1).train_inputs.data_ptr() == whole.data_ptr()
    some = Cifar10(samples=4, test_samples=2).load(root, seed=1)
    assert some is Cifar10(samples=4, test_samples=2).load(root, seed=1)
    assert (len(some.train_inputs), len(some.test_inputs)) == (4, 2)
    assert len(some.train_inputs.unique(dim=0)) == 4


def test_a_subset_is_of_the_seed_and_keeps_images_and_labels_together():
    whole = RgbDigits().load()
    subsets = [RgbDigits(samples=200).load(seed=seed) for seed in (1, 2)]
    assert not torch.equal(subsets[0].train_inputs, subsets[1].train_inputs)
    labels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(whole.train_inputs, whole.train_targets, strict=True)
    }
    for some in subsets:
        for image, label in zip(some.train_inputs, some.train_targets, strict=True):
            assert labels[image.numpy().tobytes()] == label


def test_the_stated_mean_and_std_are_those_of_the_training_pixels():
    data = RgbDigits().load()
    pixels = data.train_inputs.double() / 255
    assert data.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-4)
    assert data.std[0] == pytest.approx(float(pixels.std()), abs=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"augment": "crop"}, "data.augment must be one of none, crop_flip, randaugment, simclr, got 'crop'"),
        ({"samples": -1}, "data.samples must be a number >= 0, got -1"),
        ({"input_scale": 0.0}, "data.input_scale must be a number > 0, got 0.0"),
    ],
)
def test_settings_out_of_range_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Cifar10(**bad)


def test_more_images_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"data\.samples must be at most 1442, the images there are, got 2000"):
        RgbDigits(samples=2000).load()
