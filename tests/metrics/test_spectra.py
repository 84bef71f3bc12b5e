"""Spectra and ranks: matrices of known rank, invariances, hand-computed cases, and what must not be confused."""

import math
from functools import partial

import pytest
import torch

from syre.metrics import (
    covariance_spectrum,
    effective_rank,
    numerical_rank,
    rank_99,
    singular_values,
    singular_values_of_product,
    stable_rank,
    threshold_rank,
)

N, D = 60, 12
RANKS = {
    "threshold": lambda h: threshold_rank(covariance_spectrum(h)),
    "numerical": lambda h: numerical_rank(singular_values(h), N),
    "effective": lambda h: effective_rank(singular_values(h)),
    "stable": lambda h: stable_rank(singular_values(h)),
    "rank_99": lambda h: rank_99(singular_values(h)),
}
every_rank = pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS.keys())
close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(d: int, seed: int = 1) -> torch.Tensor:
    return torch.linalg.qr(normal(d, d, seed=seed)).Q


def isometric(rank: int) -> torch.Tensor:
    """[N, D], centred, whose `rank` nonzero singular values are all 1."""
    columns = normal(N, rank)
    return torch.linalg.qr(columns - columns.mean(0)).Q @ orthogonal(D)[:rank]


def test_the_covariance_spectrum_is_that_of_torch_cov_and_the_singular_values_those_of_the_svd():
    h = normal(N, D) + 3
    close(covariance_spectrum(h), torch.linalg.eigvalsh(torch.cov(h.T, correction=0)).flip(-1))
    close(singular_values(h), torch.linalg.svdvals(h))
    close(singular_values(h, centered=True), torch.linalg.svdvals(h - h.mean(0)))
    assert singular_values(h)[0] > 2 * singular_values(h, centered=True)[0]  # control: the mean counts
    close(singular_values(h[:5])[:5], torch.linalg.svdvals(h[:5]))  # fewer samples than units
    assert singular_values(h[:5])[5:].eq(0).all()


@every_rank
@pytest.mark.parametrize("r", [1, 5, 12])
def test_r_equal_singular_values_have_rank_r_under_every_definition(rank, r):
    close(rank(isometric(r)), torch.tensor(float(r), dtype=torch.float64))


@pytest.mark.parametrize("r", [1, 5, 8])
def test_numerical_and_threshold_rank_find_the_rank_of_a_float32_product(r):
    h = (normal(N, r) @ normal(r, D, seed=1)).float()
    assert RANKS["numerical"](h) == RANKS["threshold"](h) == torch.linalg.matrix_rank(h) == r


@every_rank
def test_ranks_ignore_scale_rotation_and_order_but_not_a_stretch(rank):
    h = isometric(6) @ torch.diag(torch.logspace(0, -1.2, D, dtype=torch.float64))
    for same in (1e-30 * h, 1e8 * h, h @ orthogonal(D, seed=7), h.roll(5, dims=1), h.flip(0)):
        close(rank(same), rank(h))
    stretched = h + 1e4 * torch.outer(h[:, 0], h[0])
    assert rank(stretched) < rank(h) or rank is RANKS["numerical"]  # control


@every_rank
def test_a_batch_is_a_loop(rank):
    h = normal(3, 2, N, D) @ torch.diag(torch.logspace(0, -3, D, dtype=torch.float64))
    close(rank(h), torch.stack([torch.stack([rank(x) for x in row]) for row in h]))


@every_rank
def test_nothing_has_rank_0_and_nan_has_rank_nan_without_touching_its_neighbours(rank):
    h = torch.stack([isometric(4), torch.zeros(N, D), isometric(4)]).float()
    h[2, 0, 0] = math.nan
    fine, zero, diverged = rank(h)
    close(fine, torch.tensor(4.0, dtype=torch.float64))
    assert zero == 0
    assert diverged.isnan()
    assert rank(h[2].nan_to_num(nan=math.inf)).isnan()


def test_constant_features_have_covariance_rank_0_and_matrix_rank_1():
    h = torch.rand(D, generator=torch.Generator().manual_seed(0)).expand(N, D)
    assert threshold_rank(covariance_spectrum(h)) == 0
    assert numerical_rank(singular_values(h), N) == 1


def test_hand_computed_ranks():
    eigenvalues = torch.tensor([10.0, 1.0, 0.5, 0.005], dtype=torch.float64)
    assert threshold_rank(eigenvalues) == 3
    assert threshold_rank(eigenvalues, 1e-4) == 4
    assert threshold_rank(eigenvalues, 0.1) == 1  # strictly above 0.1 * 10
    assert threshold_rank(eigenvalues, 0.1, relative=False) == 3
    assert threshold_rank(eigenvalues, 100, relative=False) == 0
    sigma = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    close(stable_rank(sigma), torch.tensor(6 / 4, dtype=torch.float64))
    close(effective_rank(sigma), torch.tensor(2 * math.sqrt(2), dtype=torch.float64))  # entropy 1.5 ln 2
    assert rank_99(sigma) == 3
    assert rank_99(sigma, share=0.75) == 2
    assert rank_99(sigma.square(), share=0.8) == 2 != rank_99(sigma, share=0.8)  # control: not of the squares
    assert rank_99(torch.full((100,), 0.1)) == 99


def test_the_singular_values_of_a_product_are_those_of_the_matrix():
    a, b = normal(3, 4, D), normal(3, 4, 9, seed=1)
    close(singular_values_of_product(a, b), torch.linalg.svdvals(a.mT @ b)[:, :4])
    close(singular_values_of_product(a.mT, normal(3, D, 2)), torch.linalg.svdvals(a @ normal(3, D, 2)))
    assert singular_values_of_product(normal(5, 2), normal(5, 3, seed=1)).shape == (2,)


def test_the_rank_of_a_product_is_the_smaller_of_two():
    a, b = (normal(8, r, seed=r) @ normal(r, D, seed=10 + r) for r in (3, 6))
    assert numerical_rank(singular_values_of_product(a, b), D) == 3
    assert numerical_rank(singular_values_of_product(b, b), D) == 6  # control


def test_a_product_with_a_number_that_is_not_finite_has_nan():
    a = normal(2, 4, D)
    a[0, 0, 0] = torch.inf
    assert singular_values_of_product(a, a).isnan().all()
