"""The data of linear regression: one teacher a seed, and fewer samples are the first of more."""

import pytest
import torch

from syre.data import LinearRegression


def test_without_noise_the_targets_are_linear_in_the_inputs_and_the_teacher_has_norm_1():
    data = LinearRegression(samples=700, dims=400, noise=0.0).load(seed=3)
    teacher = torch.linalg.lstsq(data.train_inputs.double(), data.train_targets.double().unsqueeze(1)).solution
    torch.testing.assert_close(
        data.test_inputs.double() @ teacher, data.test_targets.double().unsqueeze(1), rtol=0, atol=1e-5
    )
    assert abs(teacher.norm() - 1) < 0.15  # four standard deviations, 4 / sqrt(2 d)
    assert (data.input_shape, data.num_classes, data.train_targets.shape) == ((400,), 1, (700,))


def test_the_noise_has_its_std_on_both_splits():
    quiet, loud = (LinearRegression(samples=2000, dims=5, noise=noise).load(seed=0) for noise in (0.0, 0.5))
    for split in ("train", "test"):
        noise = getattr(loud, f"{split}_targets") - getattr(quiet, f"{split}_targets")
        assert abs(noise.std() - 0.5) < 0.05
        assert torch.equal(getattr(loud, f"{split}_inputs"), getattr(quiet, f"{split}_inputs"))


def test_fewer_samples_are_the_first_of_more_and_the_test_set_is_the_same():
    few, many = (LinearRegression(samples=n, dims=7).load(seed=1) for n in (20, 50))
    torch.testing.assert_close(few.train_inputs, many.train_inputs[:20], rtol=0, atol=0)
    torch.testing.assert_close(few.train_targets, many.train_targets[:20])
    assert torch.equal(few.test_inputs, many.test_inputs)
    other = LinearRegression(samples=20, dims=7).load(seed=2)  # control
    assert not torch.isclose(few.train_inputs, other.train_inputs).any()


def test_a_sparse_teacher_has_norm_1_and_leaves_the_other_inputs_and_the_noise_as_they_were():
    sparse, dense = (LinearRegression(samples=700, dims=400, nonzero=k, noise=0.0).load(seed=3) for k in (40, 0))
    x, y = sparse.train_inputs.double(), sparse.train_targets.double()
    teacher = torch.linalg.lstsq(x, y.unsqueeze(1)).solution.squeeze(1)
    assert (teacher.abs() > 1e-5).nonzero().squeeze(1).tolist() == list(range(40))
    assert abs(teacher.norm() - 1) < 0.45  # four standard deviations, 4 / sqrt(2 nonzero)
    assert torch.equal(sparse.train_inputs, dense.train_inputs)
    same = LinearRegression(samples=700, dims=400, nonzero=400, noise=0.0).load(seed=3)
    assert torch.equal(same.train_targets, dense.train_targets)
    assert not torch.isclose(sparse.train_targets, dense.train_targets).all()  # control
    noise = [
        LinearRegression(samples=9, dims=8, nonzero=k, noise=n).load().train_targets for k in (2, 0) for n in (1, 0)
    ]
    torch.testing.assert_close(noise[0] - noise[1], noise[2] - noise[3])


def test_a_teacher_has_no_more_entries_than_there_are_inputs():
    with pytest.raises(ValueError, match=r"data.nonzero must be at most data.dims, 5, got 6"):
        LinearRegression(dims=5, nonzero=6).load()
    with pytest.raises(ValueError, match=r"data.nonzero must be a number >= 0, got -1"):
        LinearRegression(nonzero=-1)


def test_runs_of_one_seed_share_their_tensors():
    assert LinearRegression().load(seed=0) is LinearRegression().load(root="anywhere", seed=0)


@pytest.mark.parametrize("name", ["samples", "dims", "test_samples"])
def test_settings_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=f"data.{name} must be an integer > 0, got 0"):
        LinearRegression(**{name: 0})
    with pytest.raises(ValueError, match=r"data.noise must be a number >= 0, got -1"):
        LinearRegression(noise=-1)
