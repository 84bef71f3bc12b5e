"""The patients: a split of each seed, standardised on its training set, and inputs that say nothing."""

import pytest
import torch
from sklearn.datasets import load_diabetes

from syre.data import Diabetes, tabular


def test_measurements_and_target_have_mean_0_and_std_1_on_the_training_patients_and_the_others_are_the_test_set():
    data = Diabetes(samples=200).load(seed=3)
    assert data.input_shape == (10,)
    assert (len(data.train_inputs), len(data.test_inputs), data.num_classes) == (200, 242, 1)
    for values in (data.train_inputs, data.train_targets):
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1:]), rtol=0, atol=1e-5)
        torch.testing.assert_close(values.std(0), torch.ones(values.shape[1:]), rtol=0, atol=1e-5)
    assert (data.test_inputs.mean(0).abs() > 1e-3).any()  # control: nothing of the test set is used
    assert len(torch.cat([data.train_inputs, data.test_inputs]).unique(dim=0)) == 442


def test_the_patients_are_those_of_scikit_learn():
    inputs, targets = (torch.tensor(values) for values in load_diabetes(return_X_y=True, scaled=False))
    ours = tabular._patients()
    assert torch.equal(ours[0], inputs)
    assert torch.equal(ours[1], targets)


def test_inputs_of_noise_come_after_the_measurements_and_leave_them_as_they_are():
    plain, more = Diabetes().load(seed=1), Diabetes(irrelevant=90).load(seed=1)
    assert torch.equal(more.train_inputs[:, :10], plain.train_inputs)
    assert torch.equal(more.test_targets, plain.test_targets)
    noise = torch.cat([more.train_inputs, more.test_inputs])[:, 10:]
    assert noise.shape == (442, 90)
    assert abs(noise.std() - 1) < 0.02  # four standard deviations, 4 / sqrt(2 * 442 * 90)


def test_a_linear_fit_explains_part_of_the_target_from_the_measurements_and_nothing_from_the_noise():
    data = Diabetes(samples=400, irrelevant=10).load(seed=0)
    x, y = data.train_inputs.double(), data.train_targets.double()
    left = [(y - part @ torch.linalg.lstsq(part, y).solution).var().item() for part in (x[:, :10], x[:, 10:])]
    assert left[0] < 0.6 < 0.9 < left[1]


def test_runs_of_one_seed_share_their_tensors_and_another_seed_has_another_split():
    assert Diabetes().load(seed=0) is Diabetes().load(root="anywhere", seed=0)
    assert not torch.equal(Diabetes().load(seed=0).train_targets, Diabetes().load(seed=1).train_targets)


def test_settings_out_of_range_are_named():
    for samples in (1, 442):
        with pytest.raises(ValueError, match=rf"data.samples must be in 2, ..., 441, got {samples}"):
            Diabetes(samples=samples).load()
    with pytest.raises(ValueError, match=r"data.samples must be an integer > 0, got 0"):
        Diabetes(samples=0)
    with pytest.raises(ValueError, match=r"data.irrelevant must be a number >= 0, got -1"):
        Diabetes(irrelevant=-1)
