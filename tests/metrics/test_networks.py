"""Accuracy, degree of symmetry, dead and duplicated neurons: constructed cases, invariances and controls."""

import math

import pytest
import torch

from syre.metrics import accuracy, dead_units, degree_of_symmetry, duplicated_neurons, symmetric_neurons


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_accuracy_is_the_fraction_of_right_rows_for_each_replica():
    labels = torch.tensor([0, 1, 2, 1])
    right = torch.eye(3)[labels]
    logits = torch.stack([right, right.roll(1, dims=-1), torch.eye(3)[[0, 1, 0, 0]], torch.full((4, 3), math.nan)])
    torch.testing.assert_close(
        accuracy(logits, labels), torch.tensor([1, 0, 0.5, math.nan], dtype=torch.float64), equal_nan=True
    )


def test_degree_of_symmetry_counts_the_mirror_planes_that_hold_w():
    v = torch.linalg.qr(normal(9, 9).double()).Q
    w = v[:, :4] @ torch.tensor([1.0, -2.0, 0.5, 0.04], dtype=torch.float64)
    assert degree_of_symmetry(w, v, 0.05) == 6
    assert degree_of_symmetry(w, v, 0.01) == 5
    assert degree_of_symmetry(0 * w, v, 0.05) == 9
    assert degree_of_symmetry(w, v.T, 0.05) < 6  # control: rows are not eigenvectors
    for i in range(9):  # reflections w -> (I - 2 v_i v_i^T) w leave it alone
        assert degree_of_symmetry(w - 2 * v[:, i] * (v[:, i] @ w), v, 0.05) == 6
    batch = torch.stack([w, 0 * w, w / 0])
    assert degree_of_symmetry(batch, v, 0.05)[:2].tolist() == [6, 9]
    assert degree_of_symmetry(batch, v.expand(3, 9, 9), 0.05)[2].isnan()


def test_a_unit_is_dead_if_it_is_silent_on_every_sample():
    h = torch.tensor([[[0.0, 0.0, 0.01, -3.0], [0.0, 1.0, 0.0, 0.0]], [[0.0] * 4, [0.0] * 4]])
    assert dead_units(h).tolist() == [1, 4]
    assert dead_units(h, threshold=0.1).tolist() == [2, 4]
    assert dead_units(h / h.amax()).tolist() == [1, 4]
    h[1, 0, 0] = math.nan
    assert dead_units(h)[0] == 1
    assert dead_units(h)[1].isnan()


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e6])
def test_duplicated_neurons_are_found_at_any_scale_order_and_rotation(scale):
    w = normal(10, 30)
    assert duplicated_neurons(scale * w) == 0  # control
    w[3], w[7], w[8] = w[0], w[0] * 1.005, w[1] + 1e-3 * w[1].roll(1)
    w[5] = -w[4]  # control: the mirror image is another neuron
    for same in (w, w.flip(0).roll(3, dims=0), w @ torch.linalg.qr(normal(30, 30, seed=1)).Q):
        assert duplicated_neurons(scale * same) == 5
    assert duplicated_neurons(scale * w, tolerance=1e-4) == 2
    batch = torch.stack([w, normal(10, 30, seed=2), torch.zeros(10, 30)])
    assert duplicated_neurons(scale * batch).tolist() == [5, 0, 10]


def test_one_nan_weight_makes_the_count_nan_and_one_unit_has_no_duplicate():
    w = normal(2, 5, 4)
    w[1, 2, 2] = math.nan
    assert duplicated_neurons(w)[0] == 0
    assert duplicated_neurons(w)[1].isnan()
    assert duplicated_neurons(w[0, :1]) == 0


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e6])
def test_symmetric_neurons_are_the_duplicated_and_the_dead_each_once(scale):
    w = normal(10, 30)
    assert symmetric_neurons(scale * w) == 0  # control
    w[2] = 0
    assert symmetric_neurons(scale * w) == 1  # one dead unit is no duplicate
    assert duplicated_neurons(scale * w) == 0
    w[3] = 1e-3 * w[4]
    assert symmetric_neurons(scale * w) == 2
    assert symmetric_neurons(scale * w, tolerance=1e-4) == 1  # control: small, not dead
    w[7] = w[0]
    assert symmetric_neurons(scale * w) == 4
    batch = torch.stack([w, normal(10, 30, seed=2), torch.zeros(10, 30), w / 0])
    torch.testing.assert_close(
        symmetric_neurons(scale * batch), torch.tensor([4, 0, 10, math.nan], dtype=torch.float64), equal_nan=True
    )
