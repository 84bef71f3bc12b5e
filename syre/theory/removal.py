"""Sections 5.1 and 5.2: which symmetries are left of a loss with a static bias and weight decay."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from syre.checks import above, at_least, positive
from syre.theory.numerics import Function, diagonal, gaussian
from syre.theory.symmetry import anchored, biased, project, reflect, residual, search, teacher_student
from syre.trainer import Measurement


def reparametrised(seed: int, features: int = 2, samples: int = 16) -> tuple[Function, list[Tensor]]:
    """Least squares with coefficients `u_i w_i`, theta = (u_1, w_1, u_2, ...), and normals [d, 1] of its reflections.

    They are `(u_i, w_i) -> (w_i, u_i)` and `-> (-w_i, -u_i)`, of rank 1, and belong to its rescaling symmetry.
    """
    x, y = gaussian(seed, "x", samples, features), gaussian(seed, "y", samples)

    def loss(theta: Tensor) -> Tensor:
        return (theta.unflatten(-1, (features, 2)).prod(-1) @ x.mT - y).square().mean(-1) / 2

    pairs = torch.eye(2 * features, dtype=torch.float64).unflatten(1, (features, 2)).unbind(1)
    return loss, [
        pair @ torch.tensor([[1.0], [sign]], dtype=torch.float64) / sqrt(2) for pair in pairs for sign in (-1.0, 1.0)
    ]


@dataclass(frozen=True, kw_only=True)
class Theorem1(Measurement):
    """Theorem 1: with a bias and weight decay no reflection symmetry is left; with one of the two, all are.

    The loss `theta -> l(theta + theta_0) + gamma |theta|^2`, Eq. (6), for two l: a tanh network (swaps and sign flips
    of neurons) and least squares in u * w (reflections of the rescaling symmetry). Measures

    - `known`: the smallest, over all known reflections of both, of the largest `|l_r(p) - l_r(reflection of p)|` about
      the translated centre -P theta_0, at random points; `known/max`, the largest;
    - `ratio`: the mean over them of the same over what it should be, `max |4 gamma theta_0^T P p|` (0 where that is 0);
    - `origin`: the smallest about the old centre, 0;
    - `found`: the rms residual of the reflection of rank 1 that the second l_r comes nearest to having, about any
      centre, as a blind search finds it.
    """

    gamma: float = 0.1
    sigma: float = 0.1
    starts: int = 32
    ranges: ClassVar = {"gamma": at_least, "sigma": at_least, "starts": positive}

    def measure(self, seed: int) -> dict[str, float]:
        net = teacher_student(seed, inputs=3, neurons=3, outputs=2)
        product, exchanges = reparametrised(seed)
        swaps_and_flips = [net.swap(0, 1), net.swap(0, 2), net.swap(1, 2), *map(net.flip, range(3))]
        known, ratios, origin = [], [], []
        for loss, reflections in ((net.loss, swaps_and_flips), (product, exchanges)):
            dims = len(reflections[0])
            theta_0, points = self.sigma * gaussian(seed, f"theta_0/{dims}", dims), gaussian(seed, "points", 64, dims)
            f = biased(loss, self.gamma, theta_0)
            for normals in reflections:
                centre = -project(theta_0, normals)
                expected = 4 * self.gamma * ((points - centre) @ -centre).abs().max().item()
                known.append(residual(f, normals, points, centre))
                ratios.append(known[-1] / expected if expected else 0.0)
                origin.append(residual(f, normals, points))
        rms, _ = search(f, points, gaussian(seed, "starts", self.starts, dims))
        return {
            "known": min(known),
            "known/max": max(known),
            "ratio": sum(ratios) / len(ratios),
            "origin": min(origin),
            "found": rms,
        }


def sphere(theta: Tensor) -> Tensor:
    """`(|theta|^2 - 1)^2`: it has every reflection about 0, uncountably many."""
    return (theta.square().sum(-1) - 1).square()


@dataclass(frozen=True, kw_only=True)
class Theorem2(Measurement):
    """Theorem 2: the distinct D_ii of Eq. (7) remove what Eq. (6) leaves of uncountably many symmetries.

    `(|theta|^2 - 1)^2` with decay toward theta_0. For D = I (sigma_d 0) each n orthogonal to theta_0 remains. For
    distinct D_ii a remaining P is diagonal, with P theta_0 = 0. Measures rms residuals at random points:

    - `orthogonal`: mean over random n orthogonal to theta_0;
    - `found`: of the nearest reflection of rank 1 about any centre;
    - `planted`: of the nearest one where the first entry of theta_0 is 0, as Theorem 2 allows, and `planted/entry`,
      |n_1| of that reflection.
    """

    dims: int = 5
    gamma: float = 0.1
    sigma: float = 0.1
    sigma_d: float = 0.0
    starts: int = 32
    ranges: ClassVar = {"dims": above(2), "gamma": positive, "sigma": positive, "starts": positive, "sigma_d": at_least}

    def measure(self, seed: int) -> dict[str, float]:
        theta_0, scales = self.sigma * gaussian(seed, "theta_0", self.dims), diagonal(seed, self.dims, self.sigma_d)
        planted = theta_0.clone()
        planted[0] = 0
        points, starts = gaussian(seed, "points", 64, self.dims), gaussian(seed, "starts", self.starts, self.dims)
        f, g = (anchored(sphere, self.gamma, anchor, scales) for anchor in (theta_0, planted))
        normals = starts - project(starts, (theta_0 / theta_0.norm()).unsqueeze(1))
        normals = (normals / normals.norm(dim=1, keepdim=True)).unsqueeze(-1)
        gaps = torch.stack([f(points) - f(reflect(points, n)) for n in normals])
        rms, n = search(g, points, starts)
        return {
            "orthogonal": gaps.square().mean(1).sqrt().mean().item(),
            "found": search(f, points, starts)[0],
            "planted": rms,
            "planted/entry": n[0].abs().item(),
        }
