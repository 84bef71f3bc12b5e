"""Permuted MNIST: which images, and which permutations of their pixels, a seed gives."""

import pytest
import torch

from syre.data import Digits, PermutedMnist

DIGITS = PermutedMnist(base="digits", samples=200, test_samples=50)


def test_the_first_task_is_the_data_set_and_each_further_one_a_permutation_of_its_own():
    data = DIGITS.load()
    assert data.stages == 10
    assert data.permutations[0].tolist() == list(range(64))
    assert (data.permutations.sort(1).values == torch.arange(64)).all()
    assert len(data.permutations.unique(dim=0)) == 10


def test_a_subset_holds_distinct_images_of_its_split_with_their_labels():
    data, base = DIGITS.load(seed=3), Digits().load()
    assert (len(data.train_inputs), len(data.test_inputs)) == (200, 50)
    for inputs, targets, whole, labels in (
        (data.train_inputs, data.train_targets, base.train_inputs, base.train_targets),
        (data.test_inputs, data.test_targets, base.test_inputs, base.test_targets),
    ):
        places = (inputs.flatten(1)[:, None] == whole.flatten(1)).all(-1)
        assert (places.sum(1) == 1).all()
        assert len(places.int().argmax(1).unique()) == len(inputs)
        assert torch.equal(labels[places.int().argmax(1)], targets)


def test_zero_samples_are_all_of_them_in_order():
    data, base = PermutedMnist(base="digits", samples=0, test_samples=0).load(seed=5), Digits().load()
    assert torch.equal(data.train_inputs, base.train_inputs)
    assert torch.equal(data.test_targets, base.test_targets)


def test_subset_and_permutations_are_of_the_seed_and_shared_by_its_runs():
    one, other = DIGITS.load(seed=0), DIGITS.load(seed=1)
    assert DIGITS.load(seed=0) is one
    assert not torch.equal(one.permutations[1:], other.permutations[1:])
    assert not torch.equal(one.train_inputs, other.train_inputs)
    fewer = PermutedMnist(base="digits", samples=100, test_samples=50).load(seed=0)
    assert torch.equal(fewer.permutations, one.permutations)
    assert torch.equal(fewer.train_inputs, one.train_inputs[:100])


def test_mnist_is_standardised_as_ever(script, mnist, tmp_path):
    script.main(["mnist", "--root", str(tmp_path)])
    data = PermutedMnist(samples=0, test_samples=0, tasks=2).load(tmp_path)
    pixels = torch.tensor(mnist["train-images-idx3-ubyte"]).unsqueeze(1) / 255
    torch.testing.assert_close(data.train_inputs, (pixels - 0.1307) / 0.3081)
    assert data.permutations.shape == (2, 784)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "letters"}, "data.base must be one of mnist, digits"),
        ({"tasks": 0}, "data.tasks must be an integer > 0"),
        ({"samples": -1}, "data.samples must be a number >= 0"),
        ({"test_samples": -1}, "data.test_samples"),
        ({"input_scale": 0.0}, "data.input_scale"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PermutedMnist(**settings)


def test_more_samples_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"data\.samples must be at most 1442, the images there are, got 2000"):
        PermutedMnist(base="digits", samples=2000, test_samples=10).load()
