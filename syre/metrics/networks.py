"""What a network has learned and lost: accuracy, symmetry, dead and duplicated neurons.

Any leading batch dimensions; every result is float64, and NaN where its input has a NaN.
"""

import math

import torch
from torch import Tensor

from syre.metrics.spectra import count_where


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction in [0, 1] of rows whose largest logit is the label: [..., n, c], [..., n] or [n] -> [...]."""
    correct = (logits.argmax(-1) == labels).double().mean(-1)
    return correct.masked_fill(logits.isnan().any(-1).any(-1), math.nan)


def degree_of_symmetry(w: Tensor, eigenvectors: Tensor, threshold: float) -> Tensor:
    """Number of i with |v_i^T w| < threshold: w [..., N], v_i the columns of eigenvectors [..., N, N] -> [...].

    arXiv 2408.15495v3, section 6.2: on how many of the N mirror planes P_i = v_i v_i^T the solution lies. Columns as
    `torch.linalg.eigh` gives them. The paper does not state its threshold c_th.
    """
    projections = (w.double().unsqueeze(-2) @ eigenvectors.double()).squeeze(-2)
    return count_where(projections.abs() < threshold, projections)


def dead_units(activations: Tensor, threshold: float = 0.0) -> Tensor:
    """Number of units with |activation| <= threshold on every one of n samples: [..., n, d] -> [...]."""
    peaks = activations.abs().amax(-2)
    return count_where(peaks <= threshold, peaks)


def duplicated_neurons(weights: Tensor, tolerance: float = 1e-2) -> Tensor:
    """Number of units i with |w_i - w_j| <= tolerance * max(|w_i|, |w_j|) for some j != i: [..., units, k] -> [...].

    A row is all that tells a unit from another: its incoming weights and bias, and outgoing weights if they count.
    Two rows of zeros are duplicates; w and -w are not.
    """
    w = weights.double()
    lengths = w.norm(dim=-1)
    scale = torch.maximum(lengths.unsqueeze(-1), lengths.unsqueeze(-2))
    # Not by matrix products, whose cancellation would blur small distances.
    excess = torch.cdist(w, w, compute_mode="donot_use_mm_for_euclid_dist") - tolerance * scale
    itself = torch.eye(w.shape[-2], dtype=torch.bool, device=w.device)
    nearest = excess.masked_fill(itself, math.inf).amin(-1)
    return count_where(nearest <= 0, nearest)


def symmetric_neurons(weights: Tensor, tolerance: float = 1e-2) -> Tensor:
    """Number of units on a mirror plane, duplicated or dead, in [0, units]: weights [..., units, k] -> [...].

    Duplicated as in `duplicated_neurons`; dead if |w_i| <= tolerance * max_j |w_j|: a unit whose weights decayed to 0.
    """
    w = weights.double()
    lengths = w.norm(dim=-1, keepdim=True)
    dead = lengths <= tolerance * lengths.amax(-2, keepdim=True)
    # A dead unit duplicates the origin, even if it is the only one; the origin is no unit, so it is taken off again.
    with_origin = torch.cat([w.masked_fill(dead, 0), torch.zeros_like(w[..., :1, :])], -2)
    return duplicated_neurons(with_origin, tolerance) - dead.any(-2).squeeze(-1).double()
