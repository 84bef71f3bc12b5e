"""Sequences of tasks: which images a seed gives, and which permutations of their pixels, or labels."""

import pytest
import torch

from syre.batches import Batches
from syre.data import Cifar10, DataError, Digits, PermutedMnist, RandomLabels

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


# ---- random labels ---------------------------------------------------------------------------------------------------

LABELLED = RandomLabels(base="digits", samples=1000)


def test_every_task_has_uniform_labels_of_its_own_for_the_same_images():
    data = LABELLED.load(seed=3)
    assert (data.stages, data.num_classes, data.permutations) == (10, 10, None)
    assert data.train_targets.shape == (1000, 10)
    for task, labels in enumerate(data.train_targets.T):
        assert labels.bincount(minlength=10).sub(100).abs().max() < 45  # 4.7 standard deviations
        for other in data.train_targets.T[:task]:
            assert abs(int((labels == other).sum()) - 100) < 45
    base = Digits().load()
    places = (data.train_inputs.flatten(1)[:, None] == base.train_inputs.flatten(1)).all(-1)
    assert (places.sum(1) == 1).all()
    true = base.train_targets[places.int().argmax(1)]
    assert abs(int((data.train_targets[:, 0] == true).sum()) - 100) < 45  # the first task too has nothing of the images


def test_what_is_memorised_is_what_is_measured():
    data = LABELLED.load(seed=3)
    assert torch.equal(data.test_inputs, data.train_inputs)
    assert torch.equal(data.test_targets, data.train_targets)


def test_images_and_labels_are_of_the_seed_and_the_task_and_shared_by_its_runs():
    one, other = LABELLED.load(seed=0), LABELLED.load(seed=1)
    assert LABELLED.load(seed=0) is one
    assert not torch.equal(one.train_targets, other.train_targets)
    assert not torch.equal(one.train_inputs, other.train_inputs)
    fewer = RandomLabels(base="digits", samples=1000, tasks=3).load(seed=0)
    assert torch.equal(fewer.train_targets, one.train_targets[:, :3])
    assert torch.equal(fewer.train_inputs, one.train_inputs)
    whole = RandomLabels(base="digits", samples=0, tasks=2).load(seed=0)
    assert torch.equal(whole.train_inputs, Digits().load().train_inputs)


def test_the_network_sees_standardised_pixels_of_cifar(script, cifar10, tmp_path):
    script.main(["cifar10", "--root", str(tmp_path)])
    data, base = RandomLabels(samples=0, tasks=2).load(tmp_path), Cifar10().load(tmp_path)
    batches = Batches([data], scales=[1.0], seeds=[0], batch_size=0)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (Cifar10.mean, Cifar10.std))
    for split in ("train", "test"):
        ((inputs, targets),) = batches.evaluation(split)
        torch.testing.assert_close(inputs[0], (base.train_inputs / 255 - mean) / std)
        assert torch.equal(targets[0], data.train_targets[:, 0])
    inputs, _ = batches.train(0)
    torch.testing.assert_close(inputs[0], (base.train_inputs / 255 - mean) / std)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": "letters"}, "data.base must be one of cifar10, mnist, digits"),
        ({"tasks": 0}, "data.tasks must be an integer > 0"),
        ({"samples": -1}, "data.samples must be a number >= 0"),
        ({"input_scale": 0.0}, "data.input_scale"),
    ],
)
def test_settings_of_random_labels_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomLabels(**settings)


def test_of_random_labels_missing_files_and_too_many_samples_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^cifar10 is not in .*: `make data DATA=cifar10` fetches it") as error:
        RandomLabels().load(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^data\.samples must be at most 1442, the images there are, got 1443"):
        RandomLabels(base="digits", samples=1443).load()
