"""Ranks of the weight matrices: the `weights` of a diagnosis."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from syre.core.sharded import whole
from syre.metrics import effective_rank, numerical_rank, singular_values, stable_rank

DEAD = 1e-6  # of the largest norm: a row or column that is no longer than this is dead
SHOWN = 64  # singular values of each matrix
SMALL = 32  # rows or columns, below which the reference is drawn: there the formulas are off by 0.3 % and more
TW_MEAN, TW_VARIANCE = -1.2065335745820, 1.6077810345810  # of the Tracy-Widom law of real matrices


def measure(parameters: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The entries `weights` of a `Diagnosis`: each floating-point parameter of two axes or more, as a matrix.

    Rows are the first axis, columns all others: of a convolution [out, in * k * k], of a grouped one [out, in / groups
    * k * k]. Computed in float64, where the tensor is (on the CPU, where a device has no float64), of whatever
    precision it is. Beside what `Diagnosis` lists, an entry has "not_finite": how many numbers are NaN or infinite; if
    any, the ranks and the norm are None and "singular" is empty.

    Left out: parameters of fewer axes, without entries or values (meta, lazy), and those that are no dense matrix of
    real numbers (integers, booleans, quantized, packed, complex, sparse, nested).
    """
    return [_entry(name, parameter) for name, parameter in parameters.items() if is_matrix(parameter)]


def is_matrix(parameter: Tensor) -> bool:
    """Whether `measure` measures it."""
    if is_lazy(parameter) or parameter.layout != torch.strided or parameter.is_nested:
        return False
    real = parameter.is_floating_point() and not str(parameter.dtype).startswith("torch.float4")  # two to a byte
    return real and parameter.dim() >= 2 and parameter.numel() > 0 and not parameter.is_meta


def as_rows(parameter: Tensor) -> Tensor:
    """A copy in float64: [first axis, rest]."""
    full = whole(parameter.detach())
    full = full.cpu() if full.device.type == "mps" else full  # which has no float64
    return full.to(torch.float64, copy=True).flatten(1)


def _entry(name: str, parameter: Tensor) -> dict[str, Any]:
    matrix = as_rows(parameter)
    rows, columns = matrix.shape
    peak = matrix.abs().amax()
    finite = bool(peak.isfinite())
    if finite and peak > 0:
        matrix /= peak  # so that no square is too large or too small
    lengths, widths = matrix.norm(dim=1), matrix.norm(dim=0)
    ranks: dict[str, Any] = {"rank": None, "rank/effective": None, "rank/stable": None}
    shown: list[float] = []
    if finite:
        singular = singular_values(matrix if rows >= columns else matrix.mT)
        eps = max(torch.finfo(torch.float32).eps, _rounding(parameter.dtype, matrix, peak, singular))
        rank = numerical_rank(singular, max(rows, columns), eps)
        ranks = {"rank": rank, "rank/effective": effective_rank(singular), "rank/stable": stable_rank(singular)}
        places = torch.linspace(0, len(singular) - 1, min(SHOWN, len(singular)), dtype=torch.float64).round().long()
        relative = singular / singular[0] if singular[0] > 0 else singular
        shown = relative[places.to(relative.device)].tolist()
    return {
        "name": name,
        "shape": list(parameter.shape),
        "rows": rows,
        "columns": columns,
        **{key: _number(value) for key, value in ranks.items()},
        "random": gaussian(rows, columns),
        "dead_rows": _dead(lengths),
        "dead_columns": _dead(widths),
        "singular": shown,
        "norm": _number(peak * lengths.norm()),
        "not_finite": 0 if finite else int((~matrix.isfinite()).sum()),
    }


def _rounding(dtype: torch.dtype, matrix: Tensor, peak: Tensor, singular: Tensor) -> float:
    """The largest singular value of the rounding of its entries, over that of the matrix and its longer side.

    Rounding to 8 bits of a mantissa gives any matrix full rank. Its errors are like independent numbers of standard
    deviation eps |w| / sqrt(12), at most, so their matrix has a largest singular value of (sqrt(rows) + sqrt(columns))
    times that. In float32 it lies far below the usual tolerance of the numerical rank.
    """
    if dtype in (torch.float32, torch.float64) or singular[0] == 0:
        return 0.0
    about = torch.finfo(dtype)
    steps = matrix.abs().clamp(min=about.smallest_normal / float(peak)) * about.eps
    rows, columns = matrix.shape
    noise = (math.sqrt(rows) + math.sqrt(columns)) * float(steps.square().mean().sqrt()) / math.sqrt(12)
    return noise / (float(singular[0]) * max(rows, columns))


def _dead(norms: Tensor) -> int:
    """How many are 0 next to the largest; of the finite ones."""
    norms = norms[norms.isfinite()]
    return int((norms <= DEAD * norms.amax()).sum()) if len(norms) else 0


def _number(value: Tensor | None) -> float | None:
    return float(value) if value is not None and bool(value.isfinite()) else None


@cache
def _gaussian(short: int, long: int) -> tuple[float, float]:
    """Mean effective and stable rank of a matrix of independent Gaussian entries."""
    if short == 1:
        return 1.0, 1.0
    return _drawn(short, long) if short < SMALL else _integrated(short, long)


def gaussian(rows: int, columns: int) -> dict[str, float]:
    """The ranks that a matrix of independent Gaussian entries has on average, to 0.5 %: what initialization gives."""
    effective, stable = _gaussian(min(rows, columns), max(rows, columns))
    return {"rank/effective": effective, "rank/stable": stable}


def _integrated(short: int, long: int) -> tuple[float, float]:
    """From the law of Marchenko and Pastur, with the terms of next order.

    With y = short / long and x = 1 + y + 2 sqrt(y) cos(t), the mean of sum_i f(lambda_i / long) is short (2 / pi) times
    the integral over t in [0, pi] of sin(t)^2 f(x) / x, plus (f(a) + f(b)) / 4 at the two edges, less half the mean of
    f over t (Bai and Silverstein, CLT for linear spectral statistics, Ann. Probab. 2004). The effective rank is
    exp(ln S - T / S) of the sums S of sigma and T of sigma ln(sigma). The largest eigenvalue follows the law of Tracy
    and Widom (Johnstone, Ann. Statist. 2001; the halves: Ma, Bernoulli 2012).
    """
    y = short / long
    angles = (np.arange(4096) + 0.5) * math.pi / 4096
    x = 1 + y + 2 * math.sqrt(y) * np.cos(angles)
    edges = np.array([(1 - math.sqrt(y)) ** 2, (1 + math.sqrt(y)) ** 2])
    weight = 2 * np.sin(angles) ** 2 / x

    def total(f: Any) -> float:
        return float(short * (weight * f(x)).mean() + f(edges).sum() / 4 - f(x).mean() / 2)

    def entropy(x: Any) -> Any:
        return np.sqrt(x) * np.log(np.maximum(x, 1e-300)) / 2

    size = total(np.sqrt)
    effective = math.exp(math.log(size) - total(entropy) / size)
    a, b = math.sqrt(long - 0.5), math.sqrt(short - 0.5)
    spread = (a + b) * (1 / a + 1 / b) ** (1 / 3)
    largest = (a + b) ** 2 + TW_MEAN * spread
    stable = short * long / largest * (1 + TW_VARIANCE * (spread / largest) ** 2)  # the mean of 1 / largest
    return effective, stable


def _drawn(short: int, long: int) -> tuple[float, float]:
    """The mean over thousands of matrices, always the same ones.

    A Gaussian matrix [short, long] has the singular values of a triangular one [short, short], with chi-distributed
    numbers of long, long - 1 ... degrees of freedom on its diagonal (Bartlett).
    """
    draws = 2**16 // short
    generator = np.random.Generator(np.random.Philox(key=(short, long)))
    matrices = np.tril(generator.standard_normal((draws, short, short)), -1)
    diagonal = np.sqrt(generator.chisquare(long - np.arange(short), (draws, short)))
    matrices[:, np.arange(short), np.arange(short)] = diagonal
    singular = torch.linalg.svdvals(torch.from_numpy(matrices))
    return float(effective_rank(singular).mean()), float(stable_rank(singular).mean())
