"""Rows of a matrix that equal another one, or its opposite: found among 50,000 rows in seconds."""

import torch
from torch import Tensor

from syre.diagnostics.weights import DEAD

TOLERANCE = 1e-2  # of the longer of two rows, as in `syre.metrics.duplicated_neurons`
FEWEST = 3  # numbers in a row: of two and fewer, some among hundreds of random rows are equal by chance
DIRECTIONS = 16  # onto which the rows are projected
# Within so many standard deviations the projections of two rows lie that are just near enough; all but 6 in 100,000.
REACH = 4.0
BLOCK = 256  # rows that are compared at once


def equal_rows(weights: Tensor, bias: Tensor | None = None) -> tuple[int, int] | tuple[None, None]:
    """How many rows i have another one j with |w_i - w_j|, and with |w_i + w_j|, <= 1 % of the longer: [rows, columns].

    A row is its weights and its entry of the bias. Dead rows, and those with NaN or infinite numbers, are left out.
    (None, None) of rows of fewer than three numbers, which are equal by chance.

    Every row is compared with the one that is nearest to it in random projections of their directions and in length,
    and of these only with rows whose first projection is close: not every pair of rows, which would take minutes.
    """
    norms = weights.norm(dim=1)
    alive = norms > DEAD * norms[norms.isfinite()].amax(dim=0) if norms.isfinite().any() else norms.isfinite()
    w = weights if bias is None else torch.cat([weights, bias.to(weights)[:, None]], 1)
    w = w[alive & w.isfinite().all(1)]
    if w.shape[1] < FEWEST:
        return None, None
    if len(w) < 2:
        return 0, 0
    w, times = _distinct(w)
    lengths = w.norm(dim=1)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(w.shape[1], DIRECTIONS, generator=generator, dtype=w.dtype).to(w.device)
    points = (w @ directions / lengths[:, None]).float()
    sizes = (DIRECTIONS**0.5 * lengths.log()[:, None]).float()
    equal = (times > 1) | _has_near(w, points, sizes, 1)
    return int(times[equal].sum()), int(times[_has_near(w, points, sizes, -1)].sum())


def _distinct(w: Tensor) -> tuple[Tensor, Tensor]:
    """The rows, of those that are the same number for number only one, and how often each occurs."""
    w = w[(w @ torch.linspace(1, 2, w.shape[1], dtype=w.dtype, device=w.device)).argsort()]
    new = torch.ones(len(w), dtype=torch.bool, device=w.device)
    new[1:] = (w[1:] != w[:-1]).any(1)
    return w[new], torch.bincount(new.cumsum(0) - 1)


def _has_near(w: Tensor, points: Tensor, sizes: Tensor, sign: int) -> Tensor:
    """Whether the nearest among sign * w is within the tolerance, of each row. A row itself does not count."""
    mine, others = torch.cat([points, sizes], 1), torch.cat([sign * points, sizes], 1)
    window = torch.full_like(mine[0], REACH * TOLERANCE)
    window[-1] = DIRECTIONS**0.5 * 1.01 * TOLERANCE  # of logarithms
    axis = int((mine.std(0, correction=0) / window).argmax())  # along which the fewest rows are close
    order = mine[:, axis].argsort()
    ranked = order if sign > 0 else others[:, axis].argsort()
    keys, reach = others[ranked, axis].contiguous(), 1.01 * float(window[axis])
    found = torch.zeros(len(w), dtype=torch.bool, device=w.device)
    for start in range(0, len(w), BLOCK):
        rows = order[start : start + BLOCK]
        ends = torch.stack([mine[rows[0], axis] - reach, mine[rows[-1], axis] + reach])
        first, last = torch.searchsorted(keys, ends).tolist()
        near = ranked[first:last]
        if not len(near):
            continue
        distances = torch.cdist(mine[rows], others[near])
        if sign > 0:
            place = torch.arange(len(rows), device=w.device)
            distances[place, place + start - first] = torch.inf
        nearest = near[distances.argmin(1)]
        apart = (w[rows] - sign * w[nearest]).norm(dim=1)
        longer = torch.maximum(w[rows].norm(dim=1), w[nearest].norm(dim=1))
        found[rows] = (apart <= TOLERANCE * longer) & (nearest != rows)
    return found
