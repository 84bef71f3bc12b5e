"""Section 5.3, general groups: Theorem 5 on permutation groups of the neurons of a network."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import log2, pi, sqrt
from typing import ClassVar

import torch
from torch import Tensor

from syre.checks import among, at_least, open_fraction, positive
from syre.theory.numerics import gaussian, gradient
from syre.theory.symmetry import anchored, teacher_student
from syre.trainer import Measurement

Permutation = tuple[int, ...]
Subgroup = frozenset[Permutation]


def symmetric(n: int) -> list[Permutation]:
    """Generators of S_n on n points: a transposition and the cycle."""
    return [(1, 0, *range(2, n)), *cyclic(n)][: max(1, n - 1)]


def cyclic(n: int) -> list[Permutation]:
    """The generator of Z_n on n points."""
    return [(*range(1, n), 0)]


def pairs(k: int) -> list[Permutation]:
    """Z_2^k on 2k points: each generator swaps a pair of its own."""
    return [tuple(p ^ (p // 2 == i) for p in range(2 * k)) for i in range(k)]


def regular(k: int) -> list[Permutation]:
    """Z_2^k on itself, 2^k points."""
    return [tuple(p ^ (1 << i) for p in range(2**k)) for i in range(k)]


GROUPS = {"symmetric": symmetric, "cyclic": cyclic, "pairs": pairs, "regular": regular}


def generate(generators: Iterable[Permutation]) -> Subgroup:
    """All products of the generators (in a finite group these hold the inverses)."""
    generators = list(generators)
    identity = tuple(range(len(generators[0])))
    group, new = {identity}, [identity]
    while new:
        new = list({tuple(a[b] for b in g) for a in new for g in generators} - group)
        group.update(new)
    return frozenset(group)


def subgroups(group: Subgroup) -> list[Subgroup]:
    """All subgroups but the trivial one: the cyclic ones, and what they generate together."""
    cycles = {generate([g]) for g in group} - {generate([tuple(sorted(next(iter(group))))])}
    found, new = set(cycles), set(cycles)
    while new:
        new = {generate(v | c) for v in new for c in cycles if not c <= v} - found
        found |= new
    return sorted(found, key=lambda v: (len(v), sorted(v)))


def average(subgroup: Subgroup) -> Tensor:
    """Eq. (11): the mean of the permutation matrices, [points, points]; it projects on the invariant vectors."""
    eye = torch.eye(len(next(iter(subgroup))), dtype=torch.float64)
    return torch.stack([eye[list(g)] for g in sorted(subgroup)]).mean(0)


@lru_cache
def lattice(kind: str, size: int) -> tuple[list[Permutation], list[Subgroup], Tensor]:
    """Generators of a group, its subgroups, and their broken projections I - V̄ [subgroups, points, points]."""
    generators = GROUPS[kind](size)
    found, eye = subgroups(generate(generators)), torch.eye(len(generators[0]), dtype=torch.float64)
    return generators, found, torch.stack([eye - average(v) for v in found])


def minimal_subspaces(broken: Tensor) -> int:
    """How many different projections [s, m, m] hold the range of no other one."""
    different: list[Tensor] = []
    for p in broken:
        if not any(torch.allclose(p, q) for q in different):
            different.append(p)
    holds = lambda p, q: torch.allclose(p @ q, q)  # noqa: E731  q's range is in p's
    return sum(not any(q is not p and holds(p, q) for q in different) for p in different)


@dataclass(frozen=True, kw_only=True)
class Theorem5(Measurement):
    """Theorem 5: how strongly a group U of permutations of a tanh network's neurons, and its subgroups V, are broken.

    Delta_V of Eq. (12) is `|(I - V̄) grad l_r|` at a point that all of U leaves in place, over draws of theta_0.
    `group`: symmetric or cyclic (S_n, Z_n on n = `size` neurons); pairs or regular (Z_2^k, k = `size`, on 2k neurons in
    pairs, or on 2^k neurons). Measures

    - (1) `rank` of I - Ū; `rms` of Delta_U over 2 gamma sigma; `ratio`, the same over sqrt(rank); `ratio/worst`, the
      largest |ratio - 1| over the subgroups;
    - (2) `violations`: draws, for any V' < V, with Delta_V' > Delta_V; `gap`: the largest difference between min_V
      Delta_V and the minimum over minimal subgroups, over 2 gamma sigma; `subgroups`, `minimal`, `order`, numbers;
    - (3) `subspaces`: different broken subspaces that hold no other; `log2`, that of the order; `missed`: the fraction
      of draws in which some V is weaker than all subgroups of the cyclic groups of the generators;
    - (4) `weakest`: the mean of min_V Delta_V over 2 gamma sigma; `frequency`: that of a minimum below the epsilon at
      which a union bound over log2 |U| Gaussians of std 2 gamma sigma sqrt(smallest rank) says delta.
    """

    group: str = "symmetric"
    size: int = 3
    inputs: int = 3
    outputs: int = 2
    gamma: float = 0.1
    sigma: float = 0.1
    draws: int = 1000
    delta: float = 0.1
    ranges: ClassVar = {"group": among(*GROUPS), "delta": open_fraction}
    ranges |= dict.fromkeys(("inputs", "outputs", "gamma", "sigma", "draws"), positive)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("task.size", self.size, 1 if self.group in ("pairs", "regular") else 2)

    def measure(self, seed: int) -> dict[str, float]:
        generators, groups, broken = lattice(self.group, self.size)
        order, strength = len(groups[-1]), self._strength(seed, broken)
        ranks = broken.diagonal(dim1=1, dim2=2).sum(1) * (self.inputs + self.outputs)
        ratios = strength.square().mean(0).sqrt() / ranks.sqrt()
        minimal = [k for k, v in enumerate(groups) if not any(w < v for w in groups)]
        nested = [(k, i) for k, v in enumerate(groups) for i, w in enumerate(groups) if w < v]
        above = [(strength[:, i] > strength[:, k] * (1 + 1e-9)).sum().item() for k, i in nested]
        smallest = strength.amin(1)
        cycles = [generate([g]) for g in generators]
        generated = [k for k, v in enumerate(groups) if any(v <= c for c in cycles)]
        missed = (strength[:, generated].amin(1) > smallest * (1 + 1e-9)).double().mean().item()
        bound = self.delta * sqrt(2 * pi * ranks.min().item()) / (2 * log2(order))
        return {
            "rank": ranks[-1].item(),
            "rms": strength[:, -1].square().mean().sqrt().item(),
            "ratio": ratios[-1].item(),
            "ratio/worst": (ratios - 1).abs().max().item(),
            "violations": sum(above),
            "gap": (strength[:, minimal].amin(1) - smallest).abs().max().item(),
            "subgroups": len(groups),
            "minimal": len(minimal),
            "order": order,
            "subspaces": minimal_subspaces(broken),
            "log2": log2(order),
            "missed": missed,
            "weakest": smallest.mean().item(),
            "frequency": (smallest < bound).double().mean().item(),
        }

    def _strength(self, seed: int, broken: Tensor) -> Tensor:
        """Delta_V over 2 gamma sigma, [draws, subgroups]."""
        neurons = broken.shape[1]
        net = teacher_student(seed, inputs=self.inputs, neurons=neurons, outputs=self.outputs, samples=16)
        theta = (torch.eye(neurons, dtype=torch.float64) - broken[-1]) @ gaussian(seed, "theta", neurons, net.block)
        theta_0 = self.sigma * gaussian(seed, "theta_0", self.draws, net.dims)
        slope = gradient(anchored(net.loss, self.gamma, theta_0), theta.flatten().expand_as(theta_0))
        along = broken @ slope.unflatten(1, (1, neurons, net.block))
        return along.flatten(2).norm(dim=2) / (2 * self.gamma * self.sigma)
