"""Spectra of a representation and the ranks read off them.

Features are [..., samples n, units d] with any leading batch dimensions; everything is computed and returned in
float64. An all-zero matrix has rank 0; a matrix with NaN or infinite entries has a NaN spectrum and NaN ranks, and
leaves the rest of the batch alone: a collapsed or a diverged run is a row of a table, not an exception.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def covariance_spectrum(features: Tensor, centered: bool = True) -> Tensor:
    """Eigenvalues of the covariance (1/n) sum_i (h_i - m)(h_i - m)^T, descending: [..., n, d] -> [..., d].

    With `centered=False`, m = 0: the second moment. Eigenvalues below d * eps (float64) of the mean of |h|^2 are
    rounding and set to 0, so that constant features, a collapsed network, have rank 0 and not the rank of their noise.
    """
    h = features.double()
    floor = h.shape[-1] * torch.finfo(h.dtype).eps * h.square().sum(-1).mean(-1)[..., None]
    if centered:
        h = h - h.mean(-2, keepdim=True)
    moment = h.mT @ h / h.shape[-2]
    finite = moment.isfinite().all(-1).all(-1)[..., None]
    # eigvalsh raises on NaN, for the whole batch.
    eigenvalues = torch.linalg.eigvalsh(moment.where(finite[..., None], 0)).flip(-1)
    return eigenvalues.where(eigenvalues > floor, 0).where(finite, math.nan)


def singular_values(features: Tensor, centered: bool = False) -> Tensor:
    """Singular values of the feature matrix, descending, d of them even if n < d: [..., n, d] -> [..., d].

    They are sqrt(n lambda_i) of `covariance_spectrum`, many times cheaper than an SVD as n >> d; below sqrt(d) * 1.5e-8
    of |A|_F, the rounding of float32 features, they are 0.
    """
    return (covariance_spectrum(features, centered) * features.shape[-2]).sqrt()


def singular_values_of_product(a: Tensor, b: Tensor) -> Tensor:
    """Singular values of A^T B that can be above 0, descending: [..., k, n] and [..., k, m] -> [..., min(k, n, m)].

    By the triangles of A^T = Q R and B^T = Q' R', whose R R'^T has the same ones, so that a product of narrow matrices
    costs what they do and not what it does. NaN, for the whole batch, where there is any.
    """
    a, b = a.double(), b.double()
    if not bool(a.isfinite().all() and b.isfinite().all()):  # svdvals raises on NaN
        return a.new_full((*a.shape[:-2], min(a.shape[-2], a.shape[-1], b.shape[-1])), math.nan)
    return torch.linalg.svdvals(torch.linalg.qr(a.mT).R @ torch.linalg.qr(b.mT).R.mT)


def threshold_rank(eigenvalues: Tensor, threshold: float = 1e-3, relative: bool = True) -> Tensor:
    """Number of covariance eigenvalues above `threshold` times the largest: [..., d] -> [...].

    The rank of arXiv 2408.15495v3, figures 5 and 9. The paper states neither threshold nor unit; with `relative=False`
    the threshold is absolute, the only reading under which small but nonzero features have rank 0 (figure 9).
    """
    scale = eigenvalues.amax(-1, keepdim=True) if relative else 1.0
    return count_where(eigenvalues > threshold * scale, eigenvalues)


def numerical_rank(singular_values: Tensor, size: int, eps: float = torch.finfo(torch.float32).eps) -> Tensor:
    """Number of singular values above size * eps * sigma_max, size = max(n, d): [..., d] -> [...].

    The tolerance of `torch.linalg.matrix_rank` for float32 features, in which the networks compute.
    """
    return threshold_rank(singular_values, size * eps)


def effective_rank(singular_values: Tensor) -> Tensor:
    """exp(-sum_i p_i ln p_i), p = sigma / sum(sigma): [..., d] -> [...], in [1, d].

    Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
    """
    total = singular_values.sum(-1, keepdim=True)
    rank = torch.special.entr(singular_values / total).sum(-1).exp()
    return rank.where(total.squeeze(-1) != 0, 0)


def stable_rank(singular_values: Tensor) -> Tensor:
    """|A|_F^2 / |A|_2^2 = sum(sigma^2) / sigma_max^2: [..., d] -> [...], in [1, d]."""
    largest = singular_values.amax(-1, keepdim=True)
    rank = (singular_values / largest).square().sum(-1)
    return rank.where(largest.squeeze(-1) != 0, 0)


def rank_99(singular_values: Tensor, share: float = 0.99) -> Tensor:
    """Number of leading singular values that hold `share` of the sum of all: [..., d] -> [...].

    Not squared. Reported as "stable rank" by Dohare et al., Loss of plasticity in deep continual learning, Nature 2024.
    """
    held = singular_values.sort(-1, descending=True).values.cumsum(-1)
    total = held[..., -1:]
    short = held < share * total * (1 - 1e-12)  # so that a tie does not depend on rounding
    return (count_where(short, held) + 1).where(total.squeeze(-1) != 0, 0)


def ranks(features: Tensor, eigenvalues: Tensor | None = None, thresholds: Sequence[float] = ()) -> dict[str, Tensor]:
    """All of the above by the names of the records: [..., n, d] -> {name: [...]}.

    `rank` (numerical), `rank/effective`, `rank/stable` and `rank/99` of the features as they are, and for each of the
    thresholds t `rank/<t>` of their covariance, whose `eigenvalues` are computed if need be.
    """
    singular = singular_values(features)
    values = {
        "rank": numerical_rank(singular, max(features.shape[-2:])),
        "rank/effective": effective_rank(singular),
        "rank/stable": stable_rank(singular),
        "rank/99": rank_99(singular),
    }
    if thresholds:
        eigenvalues = covariance_spectrum(features) if eigenvalues is None else eigenvalues
        values |= {f"rank/{t:g}": threshold_rank(eigenvalues, t) for t in thresholds}
    return values


def count_where(mask: Tensor, values: Tensor) -> Tensor:
    """How many of `mask` hold along the last dimension; NaN where `values`, which the mask came from, has a NaN."""
    return mask.sum(-1).double().masked_fill(values.isnan().any(-1), math.nan)
