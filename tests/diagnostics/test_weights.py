"""Ranks of weight matrices: known ones, what must not change them, the Gaussian reference, and what is left out."""

import json
import math

import pytest
import torch
from torch import nn

from syre.diagnostics import weights
from syre.diagnostics.rows import equal_rows
from syre.metrics import duplicated_neurons, effective_rank, stable_rank


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_singular(*values: float, rows: int = 12, columns: int = 20) -> torch.Tensor:
    """A matrix with these singular values."""
    left = torch.linalg.qr(normal(rows, len(values))).Q
    right = torch.linalg.qr(normal(columns, len(values), seed=1)).Q
    return left * torch.tensor(values, dtype=torch.float64) @ right.mT


def entry(matrix: torch.Tensor) -> dict:
    (found,) = weights.measure({"w": matrix})
    json.dumps(found, allow_nan=False)
    return found


RANKS = ("rank", "rank/effective", "rank/stable")


@pytest.mark.parametrize("r", [1, 3, 12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_r_equal_singular_values_have_rank_r_in_every_precision(r, dtype):
    found = entry(of_singular(*[2.0] * r).to(dtype))
    assert found["rank"] == r
    # What rounding adds counts a little in the effective rank.
    assert [found[key] for key in RANKS[1:]] == pytest.approx([r, r], rel=0.02 + 40 * torch.finfo(dtype).eps)
    assert found["norm"] == pytest.approx(2 * math.sqrt(r), rel=1e-2)
    assert found["singular"][:r] == pytest.approx([1.0] * r, rel=0.02)
    assert max(found["singular"][r:], default=0) < 0.02


def test_the_numerical_rank_is_right_where_the_matrix_is_nearly_singular():
    for small, rank in ((1e-3, 3), (1e-5, 3), (1e-6, 2), (1e-8, 2)):  # the tolerance is 20 * 1.2e-7
        assert entry(of_singular(1.0, 0.5, small))["rank"] == rank
        tall = entry(of_singular(1.0, 0.5, small, rows=20, columns=12))
        assert tall["rank"] == rank
        if small > 1e-7:  # in float32 a product of the matrix with itself would lose it
            assert tall["singular"][2] == pytest.approx(small, rel=1e-3)


def test_rounding_to_eight_bits_gives_no_rank_and_control_a_matrix_of_full_rank_keeps_it():
    low = (normal(200, 5) @ normal(5, 300, seed=1)).bfloat16()
    assert entry(low)["rank"] == 5
    assert entry(low.float())["rank"] > 150  # control: of float32, these are numbers like others
    assert entry(normal(200, 300).bfloat16())["rank"] == 200
    assert entry(torch.eye(40).bfloat16())["rank"] == 40


def test_a_convolution_is_a_matrix_of_its_output_channels():
    kernel = nn.Conv2d(6, 8, 3, groups=2).weight
    found = entry(kernel)
    assert (found["shape"], found["rows"], found["columns"]) == ([8, 3, 3, 3], 8, 27)
    singular = torch.linalg.svdvals(kernel.detach().double().flatten(1))
    assert found["rank/effective"] == pytest.approx(float(effective_rank(singular)))
    assert found["rank/stable"] == pytest.approx(float(stable_rank(singular)))
    assert found["singular"] == pytest.approx((singular / singular[0]).tolist())


def test_ranks_ignore_order_scale_and_rotation_and_control_not_a_stretch():
    matrix = of_singular(5.0, 3.0, 2.0, 1.0, 1e-2)
    plain = entry(matrix)
    turn = torch.linalg.qr(normal(20, 20, seed=3)).Q
    same = (matrix[torch.randperm(12, generator=torch.Generator().manual_seed(0))], matrix.flip(1), matrix @ turn)
    for other in (*same, matrix.mT, 1e-200 * matrix, 1e200 * matrix, -matrix):
        assert [entry(other)[key] for key in RANKS] == pytest.approx([plain[key] for key in RANKS], rel=1e-9)
        assert entry(other)["singular"] == pytest.approx(plain["singular"], rel=1e-6, abs=1e-7)
    stretched = entry(matrix * torch.linspace(1, 9, 20))
    assert stretched["rank/effective"] != pytest.approx(plain["rank/effective"], rel=1e-2)
    assert entry(1e200 * matrix)["norm"] == pytest.approx(1e200 * plain["norm"])


def test_64_singular_values_at_most_evenly_spaced():
    singular = torch.linspace(1, 0.1, 100, dtype=torch.float64)
    shown = entry(torch.diag(singular))["singular"]
    assert len(shown) == 64
    assert shown[0] == 1.0
    assert shown[-1] == pytest.approx(0.1)
    assert shown == sorted(shown, reverse=True)
    steps = torch.tensor(shown).diff().abs()
    assert 0.9 * 0.9 / 99 < steps.min() <= steps.max() < 2.1 * 0.9 / 99


def test_dead_rows_and_columns_are_those_of_no_length_next_to_the_longest():
    matrix = normal(6, 9)
    matrix[1] = 0
    matrix[2] *= 1e-9
    matrix[3] *= 1e-3  # small and alive
    matrix[:, 4] = 0
    found = entry(matrix)
    assert (found["dead_rows"], found["dead_columns"]) == (2, 1)
    nothing = entry(torch.zeros(4, 5))
    assert (nothing["dead_rows"], nothing["dead_columns"], nothing["norm"]) == (4, 5, 0.0)
    assert [nothing[key] for key in RANKS] == [0.0, 0.0, 0.0]
    assert nothing["singular"] == [0.0] * 4


def test_numbers_that_are_not_finite_are_told_and_leave_the_rest_alone():
    broken = normal(4, 5).float()
    broken[0, 0], broken[1, 1] = math.nan, -math.inf
    found = weights.measure({"broken": broken, "whole": torch.eye(3)})
    json.dumps(found, allow_nan=False)
    assert [found[0][key] for key in (*RANKS, "norm")] == [None] * 4
    assert (found[0]["not_finite"], found[0]["singular"], found[0]["dead_rows"]) == (2, [], 0)
    assert (found[1]["rank"], found[1]["not_finite"]) == (3.0, 0)


def test_what_is_no_matrix_of_real_numbers_is_left_out():
    left = {
        "bias": torch.zeros(3),
        "scalar": torch.tensor(1.0),
        "integers": torch.ones(3, 3, dtype=torch.int64),
        "booleans": torch.ones(3, 3, dtype=torch.bool),
        "complex": torch.eye(3, dtype=torch.complex64),
        "meta": torch.empty(3, 3, device="meta"),
        "empty": torch.empty(3, 0),
        "sparse": torch.eye(3).to_sparse(),
        "lazy": nn.LazyLinear(3).weight,
    }
    assert weights.measure(left) == []
    assert [found["name"] for found in weights.measure({**left, "w": torch.eye(3)})] == ["w"]  # control
    assert entry(torch.eye(4).to(torch.float8_e4m3fn))["rank"] == 4


def test_the_parameters_are_left_as_they_are():
    matrix = 3 * normal(5, 4)
    parameter = nn.Parameter(matrix.clone())
    assert entry(parameter)["rank"] == 4
    assert torch.equal(parameter.detach(), matrix)


@pytest.mark.parametrize("shape", [(1, 9), (2, 2), (5, 3), (8, 64), (31, 31), (32, 32), (40, 300), (90, 60)])
def test_the_reference_is_the_mean_of_gaussian_matrices(shape):
    draws = 1000
    singular = torch.linalg.svdvals(normal(draws, *shape))
    for key, simulated in (("rank/effective", effective_rank(singular)), ("rank/stable", stable_rank(singular))):
        error = 4 * float(simulated.std()) / math.sqrt(draws)
        assert weights.gaussian(*shape)[key] == pytest.approx(float(simulated.mean()), rel=5e-3, abs=error)
        assert entry(normal(*shape))["random"][key] == weights.gaussian(*shape[::-1])[key]


def test_the_two_ways_to_the_reference_meet_and_control_the_first_term_alone_is_off():
    for long in (32, 200):
        drawn, integrated = weights._drawn(32, long), weights._integrated(32, long)
        assert drawn == pytest.approx(integrated, rel=1e-2)
    edge = 32 * 32 / (2 * math.sqrt(32)) ** 2  # stable rank, if the largest singular value were at the edge
    assert edge != pytest.approx(weights._integrated(32, 32)[1], rel=5e-2)


# ---- rows that equal another one -------------------------------------------------------------------------------------


def planted() -> torch.Tensor:
    """Of 300 rows, 0 to 4 equal one another or nearly, 5 and 6 are opposite, 7 is a multiple of 8, 9 is dead."""
    w = normal(300, 30)
    w[1], w[2] = w[0], w[0] + 1e-3 * w[30]
    w[4] = w[3]
    w[6] = -w[5] * (1 + 1e-4)
    w[7] = 2 * w[8]
    w[9] = 0
    return w


def test_planted_equal_and_opposite_rows_are_counted_in_any_order_and_scale():
    w = planted()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    for same in (w, w[order], 1e-6 * w, w.flip(1), w @ torch.linalg.qr(normal(30, 30)).Q):
        assert equal_rows(same) == (5, 2)
    assert equal_rows(normal(300, 30)) == (0, 0)  # control


def test_rows_are_compared_with_their_bias():
    w, bias = planted(), normal(300, seed=5)
    assert equal_rows(w, bias) == (0, 0)
    bias[0], bias[2], bias[5] = bias[1], bias[1], -bias[6]
    assert equal_rows(w, bias) == (3, 2)


def test_every_row_is_found_that_a_comparison_of_all_pairs_finds():
    generator = torch.Generator().manual_seed(2)
    for trial in range(20):
        rows, columns = 40 + 13 * trial, 3 + 5 * trial
        w = normal(rows, columns, seed=trial)
        for one, other in torch.randint(rows, (rows // 3, 2), generator=generator).tolist():
            w[one] = w[other] * (-1) ** one + 1e-4 * w[one]
        found, opposite = equal_rows(w)
        assert found == duplicated_neurons(w)
        distances = (w[:, None] + w[None]).norm(dim=-1)
        lengths = w.norm(dim=1)
        assert opposite == (distances <= 1e-2 * torch.maximum(lengths[:, None], lengths)).any(1).sum()


def test_rows_of_two_numbers_are_not_compared_and_those_not_finite_are_left_out():
    assert equal_rows(normal(50, 2)) == (None, None)
    assert equal_rows(normal(50, 2), normal(50, seed=1)) == (0, 0)  # with the bias, three
    w = planted()
    w[1, 0], w[20, 0] = math.nan, math.inf
    assert equal_rows(w) == (4, 2)
    assert equal_rows(torch.zeros(5, 4, dtype=torch.float64)) == (0, 0)
    assert equal_rows(torch.full((5, 4), math.nan, dtype=torch.float64)) == (0, 0)
    assert equal_rows(normal(1, 4)) == (0, 0)


# ---- on a device -----------------------------------------------------------------------------------------------------


def test_a_tensor_on_a_device_is_measured_there():
    pretend = pytest.importorskip("pretend_device", reason="of the checkout")
    w = planted().float()
    here, rows = weights.measure({"w": w}), equal_rows(weights.as_rows(w))
    with pretend.PretendDevice():
        there = w.to("cuda")
        assert weights.as_rows(there).device.type == "cuda"
        assert weights.measure({"w": there}) == here
        assert equal_rows(weights.as_rows(there), None) == rows
        with pytest.raises(pretend.DeviceMismatch):  # control
            there @ torch.ones(30, 1)
