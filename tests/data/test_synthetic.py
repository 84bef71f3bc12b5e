"""A teacher's data: what the seed decides, what each noise changes, and that no class is missing."""

from dataclasses import replace

import pytest
import torch

from syre.data import DataError, TeacherStudent
from syre.data.synthetic import CLASSES, _label
from syre.models import MLP

torch.set_num_threads(1)

SEEDS = range(5)
CLEAN = TeacherStudent(inputs=7)
TENSORS = ("train_inputs", "train_targets", "test_inputs", "test_targets")


def same(a, b, names=TENSORS) -> list[bool]:
    return [torch.equal(getattr(a, name), getattr(b, name)) for name in names]


def test_equal_settings_and_seed_give_one_object_and_another_seed_another_draw():
    assert CLEAN.load(seed=1) is TeacherStudent(inputs=7).load(seed=1)
    assert not any(same(CLEAN.load(seed=1), CLEAN.load(seed=2)))


def test_the_seed_alone_decides_and_the_global_generator_is_left_alone():
    before = CLEAN.load(seed=3)
    _label.cache_clear()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert all(same(CLEAN.load(seed=3), before))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("inputs", [5, 20, 300])
def test_all_ten_classes_occur_and_none_is_more_than_half(inputs, activation):
    for seed in SEEDS:
        targets = TeacherStudent(inputs=inputs, activation=activation).load(seed=seed).train_targets
        counts = torch.bincount(targets, minlength=CLASSES)
        assert len(counts) == CLASSES
        assert 0 < counts.min() <= counts.max() < 500


def test_one_input_is_too_little_to_tell_ten_classes_apart():
    with pytest.raises(DataError, match=r"no teacher with data.inputs=1 and data.hidden=100 uses all of 10 classes"):
        TeacherStudent(inputs=1).load(seed=0)


def test_the_number_of_samples_does_not_change_the_teacher():
    few, many = (TeacherStudent(inputs=5, samples=n).load(seed=0) for n in (50, 500))
    assert same(few, many, TENSORS[2:]) == [True, True]


def test_inputs_are_standard_gaussian_and_labels_a_function_of_them_that_is_not_linear():
    data = TeacherStudent(inputs=4, samples=4000, test_samples=4000, activation="relu").load(seed=0)
    for x in (data.train_inputs, data.test_inputs):
        torch.testing.assert_close(torch.cov(x.T), torch.eye(4), atol=0.1, rtol=0)
        assert x.mean(0).abs().max() < 0.1
    # The nearest training neighbour has the same label far more often than by chance, which is about a tenth.
    nearest = torch.cdist(data.test_inputs, data.train_inputs).argmin(1)
    assert (data.train_targets[nearest] == data.test_targets).double().mean() > 0.6
    ones = torch.nn.functional.one_hot(data.train_targets, CLASSES).float()
    design = torch.cat([data.train_inputs, torch.ones(4000, 1)], 1)
    linear = design @ torch.linalg.lstsq(design, ones).solution
    assert (linear.argmax(1) == data.train_targets).double().mean() < 0.8


@pytest.mark.parametrize("fraction", [0.2, 0.5, 1.0])
def test_label_noise_redraws_its_fraction_of_the_training_labels_and_nothing_else(fraction):
    settings = TeacherStudent(inputs=7, samples=4000)
    clean, noisy = settings.load(seed=0), replace(settings, label_noise=fraction).load(seed=0)
    changed = (clean.train_targets != noisy.train_targets).double().mean()
    assert abs(changed - 0.9 * fraction) < 0.03  # one redrawn label in ten is the old one
    assert same(clean, noisy) == [True, False, True, True]
    new = noisy.train_targets[clean.train_targets != noisy.train_targets]
    assert torch.bincount(new, minlength=CLASSES).min() > 0.05 * len(new)


def test_what_is_noisy_at_a_low_level_is_noisy_at_a_higher_one():
    clean, low, high = (replace(CLEAN, label_noise=p).load(seed=0).train_targets for p in (0.0, 0.2, 0.5))
    assert torch.equal(low[low != clean], high[low != clean])
    near, far = (replace(CLEAN, input_noise=s).load(seed=0).train_inputs for s in (0.5, 1.0))
    torch.testing.assert_close(2 * (near - CLEAN.load(seed=0).train_inputs), far - CLEAN.load(seed=0).train_inputs)


def test_input_noise_has_its_std_and_leaves_labels_and_test_set_alone():
    settings = TeacherStudent(inputs=7, samples=4000)
    clean, noisy = settings.load(seed=0), replace(settings, input_noise=0.3, label_noise=0.0).load(seed=0)
    assert abs((noisy.train_inputs - clean.train_inputs).std() - 0.3) < 0.01
    assert same(clean, noisy) == [False, True, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": 0}, "data.inputs must be an integer > 0, got 0"),
        ({"samples": -1}, "data.samples must be an integer > 0, got -1"),
        ({"activation": "sine"}, "data.activation must be one of relu, tanh"),
        ({"label_noise": 1.1}, r"data.label_noise must be a fraction in \[0, 1\], got 1.1"),
        ({"input_noise": -0.1}, "data.input_noise must be a number >= 0, got -0.1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TeacherStudent(**settings)


def test_the_teacher_can_be_learned_by_a_student_of_its_own_size():
    """Control of the whole set-up: a student fits clean labels, and not labels that are all noise."""
    accuracies = {}
    for noise in (0.0, 1.0):
        data = TeacherStudent(inputs=5, samples=500, label_noise=noise).load(seed=0)
        torch.manual_seed(0)
        student = MLP(hidden=[100], activation="tanh").build((5,), CLASSES)
        optimizer = torch.optim.Adam(student.parameters(), lr=0.01, weight_decay=0.01)
        for _ in range(200):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(student(data.train_inputs), data.train_targets).backward()
            optimizer.step()
        accuracies[noise] = (student(data.test_inputs).argmax(1) == data.test_targets).double().mean()
    assert accuracies[0.0] > 0.8
    assert accuracies[1.0] < 0.3
