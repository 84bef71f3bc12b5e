"""Twins, sign-twins and dead units: how far the units of each set are from a state in which they are symmetric.

A unit is the vector u of all numbers that belong to it: of a hidden neuron its incoming weights, its bias, scale and
shift of a norm, its outgoing weights. The permutation of two units, alone or together with a change of sign, is a
reflection R of the parameters, and its fixed points, R w = w, are where u_i = S u_j: there the two are **twins** (S the
identity) or **sign-twins**. The distance of the parameters from these is `|w - R w| / 2 = |u_i - S u_j| / sqrt(2)`
(arXiv 2408.15495v3, Definition 1, with P = (I - R) / 2). A unit that is 0 is **dead**: a fixed point of its own change
of sign. Distances are given over the length sqrt(|u_i|^2 + |u_j|^2): two independent units are at about 0.71.

Where the scale of a unit may be changed (the incoming weights of a ReLU times c, the outgoing ones over c), its vector
is taken at the scale at which all its parts are as long as one another, which does not depend on where it stands.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syre.diagnostics.structure import Attention, Entries, Structure, Units
from syre.metrics import singular_values_of_product

TOLERANCE = (
    0.01  # distance up to which two units are twins, and length, relative to the others, up to which one is dead
)
LISTED = 8, 32  # groups of twins that are listed, and members of each
MOST_SIGNS = 4  # independent changes of sign that are tried in all combinations; more of them, two at a time
BLOCK = 4096  # rows of one matrix product

Key = tuple[bool, tuple[int, ...]]  # whether it is read, and by which of the changes of sign it changes
Parts = dict[Key, list[Tensor]]


@dataclass(frozen=True)
class Look:
    """A set of units, as it was seen.

    Attributes:
        factors: by what the numbers of each of the parameters' entries are multiplied, [units, 1], so that neither
            scale nor inner signs matter; `keys`: the part of the unit that these numbers belong to.
        other, flips: of each unit the nearest other one, [units], and the change of sign to it, one of `changes`.
        near, signed, copies, zero: distances, [units]: to a twin, to a sign-twin, to a twin by what they are made of
            alone, and to 0. `dead`: [units].
    """

    units: Units
    entries: list[Entries]
    factors: list[Tensor]
    keys: list[Key]
    changes: list[tuple[int, ...]]
    size: int
    dead: Tensor
    near: Tensor
    signed: Tensor
    copies: Tensor
    zero: Tensor
    other: Tensor
    flips: Tensor
    plain: Tensor

    def seen(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """Numbers of the units, or of their gradient, where neither scale nor inner signs matter: [units, numbers]."""
        pairs = zip(self.entries, self.factors, strict=True)
        return [at.of(parameters).float().flatten(1) * factor for at, factor in pairs]

    def mirrored(self, seen: list[Tensor]) -> list[Tensor]:
        """Of each unit the nearest other one, with its signs: S u_j in the place of u_i."""
        signs = torch.tensor([[_sign(key, flips) for flips in ((), *self.changes)] for key in self.keys])
        rows = signs.to(self.flips.device)[:, self.flips]
        return [values[self.other] * row.unsqueeze(1) for values, row in zip(seen, rows, strict=True)]


def measure(
    structure: Structure, parameters: Mapping[str, Tensor], *, tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """The entry `units` of a diagnosis (see `syre.diagnostics.diagnosis`), one for each set of units.

    Args:
        parameters: name -> tensor, by the names of the structure; on any device, where it is computed, in float32.
        tolerance: the distance up to which two units are twins.
    """
    return [described(units, look(units, parameters, tolerance), tolerance) for units in structure.units]


def described(units: Units, seen: Look | None, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """The entry of one set of units; without numbers, if some of its own are not finite."""
    entries = [at for at in units.entries if at.parameter]
    entry: dict[str, Any] = {
        "name": units.name,
        "kind": units.kind,
        "count": units.count,
        "entries": seen.size if seen else None,
        "symmetry": ["permutation", *(["sign"] if units.signs else []), *(["scale"] if units.scales else [])],
        "made_by": [str(at) for at in entries if not at.read],
        "read_by": [str(at) for at in entries if at.read],
    }
    if seen is None:
        return entry | {
            "twins": None, "sign_twins": None, "duplicates": None, "dead": None, "symmetric": None,
            "groups": [], "distances": [None] * units.count, "nearest": dict.fromkeys(("min", "median", "random")),
        }  # fmt: skip
    twins, mirrored, dead = seen.near <= tolerance, seen.signed <= tolerance, seen.dead
    distances = torch.minimum(torch.minimum(seen.near, seen.signed), seen.zero).where(~dead, 0).clamp(max=1)
    return entry | {
        "twins": int(twins.sum()),
        "sign_twins": int((mirrored & ~twins).sum()),
        "duplicates": int((seen.copies <= tolerance).sum()),
        "dead": int(dead.sum()),
        "symmetric": int((twins | mirrored | dead).sum()),
        "groups": groups(seen.plain, tolerance),
        "distances": [round(d, 6) for d in distances.tolist()],
        "nearest": {
            "min": float(distances.min()),
            "median": float(distances.median()),
            "random": random_distance(units.count, seen.size, 1 + len(seen.changes)),
        },
    }


@torch.no_grad()
def look(units: Units, parameters: Mapping[str, Tensor], tolerance: float = TOLERANCE) -> Look | None:
    """How far the units of a set are from symmetric states; None if their numbers are not finite."""
    entries = [at for at in units.entries if at.parameter]
    raw = [at.of(parameters).float().flatten(1) for at in entries]
    if not all(bool(values.isfinite().all()) for values in raw):
        return None
    factors, keys, signs = frame(units, entries, raw)
    changes, parts = sign_changes(signs), dict[Key, list[Tensor]]()
    for key, values, factor in zip(keys, raw, factors, strict=True):
        parts.setdefault(key, []).append(values * factor)
    products = {key: gram(tensors) for key, tensors in parts.items()}
    dead = _dead(products, tolerance)
    plain = _Pairs(products, dead)
    near, other, _ = plain.nearest(parts, [()])
    signed, at, flips = plain.nearest(parts, changes)
    better = signed < near
    other, flips = other.where(~better, at), (flips + 1).where(better, 0)
    made = {key: product for key, product in products.items() if not key[0]}
    copies = _Pairs(made, dead).nearest(parts, [(), *changes])[0] if made else torch.full_like(near, math.inf)
    lengths = torch.stack([product.diagonal() for product in products.values()]).sum(0).clamp(min=0).sqrt()
    typical = lengths[~dead].square().mean().sqrt() if bool((~dead).any()) else lengths.new_tensor(1.0)
    return Look(
        units=units, entries=entries, factors=factors, keys=keys, changes=changes,
        size=sum(values.shape[1] for values in raw), dead=dead, near=near, signed=signed, copies=copies,
        zero=lengths / (lengths.square() + typical.square()).sqrt(), other=other, flips=flips, plain=plain.distances(),
    )  # fmt: skip


def frame(units: Units, entries: list[Entries], raw: list[Tensor]) -> tuple[list[Tensor], list[Key], int]:
    """Factors, [units, 1] for each of the entries, by which neither scale nor inner signs of a unit matter.

    At the scale of the docstring above. Changes of sign within what a unit is made of, as of a convolution's rows and
    the scales of the norm after it, are undone: the scale is made positive. Returned too: which part of a unit each
    of the entries belongs to, that is whether it is read, and which of the changes of sign that are left change it; and
    the number of these.
    """
    signs = [list(at.signs) for at in entries]
    factors = _balance(entries, raw) if units.scales else [values.new_ones(len(values), 1) for values in raw]
    left = list(range(units.signs))
    for change in range(units.signs):
        flipped = [k for k, by in enumerate(signs) if by[change]]
        single = [k for k in flipped if raw[k].shape[1] == 1]
        if not single or any(entries[k].read for k in flipped):
            continue
        pivot = max(single, key=lambda k: float((raw[k] * factors[k]).square().sum()))
        sign = torch.where(raw[pivot] * factors[pivot] < 0, -1.0, 1.0).to(raw[pivot])
        touched = list(signs[pivot])
        for k in flipped:
            factors[k] = factors[k] * sign
            # so that no other change touches the pivot
            signs[k] = [
                a if n == change else (a + b) % 2 for n, (a, b) in enumerate(zip(signs[k], touched, strict=True))
            ]
        left.remove(change)
    return factors, [(at.read, tuple(by[n] for n in left)) for at, by in zip(entries, signs, strict=True)], len(left)


def _balance(entries: list[Entries], raw: list[Tensor]) -> list[Tensor]:
    """Least squares, unit by unit, over the parts that are not 0: sum_c (log |u_c| + e_c t)^2 over the scales t."""
    classes: dict[tuple[float, ...], Tensor] = {}
    for at, values in zip(entries, raw, strict=True):
        squares = values.square().sum(1, dtype=torch.float64)
        classes[at.scales] = classes[at.scales] + squares if at.scales in classes else squares
    exponents = torch.tensor(list(classes), dtype=torch.float64)  # [classes, scales]
    squares = torch.stack(list(classes.values()), 1).cpu()  # [units, classes]
    logs, there = squares.clamp(min=1e-300).log() / 2, (squares > 0).double()
    normal = torch.einsum("uc,ck,cl->ukl", there, exponents, exponents)
    right = torch.einsum("uc,ck,uc->uk", there, exponents, logs)
    change = -(torch.linalg.pinv(normal, hermitian=True) @ right.unsqueeze(-1)).squeeze(-1)  # [units, scales]
    logs_of = [change @ torch.tensor(at.scales, dtype=torch.float64) for at in entries]
    return [log.exp().to(values).unsqueeze(1) for log, values in zip(logs_of, raw, strict=True)]


def gram(tensors: list[Tensor]) -> Tensor:
    """sum U U^T over [units, numbers], in float64."""
    total = None
    for values in tensors:
        for piece in values.split(max(1, 2**26 // max(1, values.shape[0])), 1):
            product = (piece @ piece.mT).double()
            total = product if total is None else total + product
    assert total is not None
    return total


def sign_changes(independent: int) -> list[tuple[int, ...]]:
    """The changes of sign of one unit against another that are tried: combinations of the independent ones."""
    most = independent if independent <= MOST_SIGNS else 2
    chosen = [set(c) for size in range(1, most + 1) for c in combinations(range(independent), size)]
    return [tuple(int(k in one) for k in range(independent)) for one in chosen]


def _sign(key: Key, flips: tuple[int, ...]) -> int:
    return -1 if sum(a * b for a, b in zip(key[1], flips, strict=False)) % 2 else 1


class _Pairs:
    """All pairs of units of a set, by the products <u_i, u_j> of their parts; a dead one is no twin of another one."""

    def __init__(self, products: Mapping[Key, Tensor], dead: Tensor) -> None:
        self.products = products
        self.inner = torch.zeros_like(next(iter(products.values())))
        for product in products.values():
            self.inner += product
        squares = self.inner.diagonal()
        self.weight = (squares.unsqueeze(0) + squares.unsqueeze(1)).clamp_(min=1e-300).reciprocal_()
        nothing = dead.unsqueeze(0) | dead.unsqueeze(1)
        self.barrier = torch.zeros_like(self.inner).masked_fill_(nothing.fill_diagonal_(True), -math.inf)

    def distances(self) -> Tensor:
        """|u_i - u_j| / sqrt(2) over sqrt(|u_i|^2 + |u_j|^2), [units, units]."""
        return torch.addcmul(self.barrier, self.inner, self.weight).neg_().add_(0.5).clamp_(min=0).sqrt_()

    def nearest(self, parts: Parts, changes: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, Tensor]:
        """Of each unit the smallest distance to S u_j, of another one, over the changes S; to which; and by which S.

        Where |u_i|^2 + |u_j|^2 = t, that is the largest <u_i, S u_j> / t. Small distances, which cancellation blurs
        there, are taken from the numbers.
        """
        best = self.inner.new_full((len(self.inner),), -math.inf)
        other, number = (torch.zeros_like(best, dtype=torch.int64) for _ in range(2))
        for k, change in enumerate(changes):
            found, at = torch.addcmul(self.barrier, self._changed(change), self.weight).max(1)
            better = found > best
            best, other, number = best.where(~better, found), other.where(~better, at), number.masked_fill(better, k)
        distance = (0.5 - best).clamp_(min=0).sqrt_()
        for some in torch.nonzero(distance < 0.1).flatten().split(BLOCK):
            gap = total = distance.new_zeros(len(some))
            for key in self.products:
                signs = distance.new_tensor([_sign(key, change) for change in changes])[number[some]].unsqueeze(1)
                for values in parts[key]:
                    a, b = values[some].double(), values[other[some]].double().mul_(signs)
                    total = total + a.square().sum(1) + b.square().sum(1)
                    gap = gap + a.sub_(b).square_().sum(1)
            distance[some] = (gap / (2 * total)).sqrt()
        return distance, other, number

    def _changed(self, change: tuple[int, ...]) -> Tensor:
        """<u_i, S u_j>, [units, units]."""
        inner = self.inner
        for product in (product for key, product in self.products.items() if _sign(key, change) < 0):
            inner = inner.add(product, alpha=-2) if inner is self.inner else inner.add_(product, alpha=-2)
        return inner


def _dead(products: Mapping[Key, Tensor], tolerance: float) -> Tensor:
    """Units of which the incoming numbers, or the outgoing ones, are 0 next to those of the others."""
    dead = torch.zeros_like(next(iter(products.values())).diagonal(), dtype=torch.bool)
    for read in (False, True):
        side = [product.diagonal() for key, product in products.items() if key[0] == read]
        if side:
            length = torch.stack(side).sum(0).clamp(min=0).sqrt()
            dead |= length <= tolerance * length.square().mean().sqrt()
    return dead


def groups(distances: Tensor, tolerance: float) -> list[list[int]]:
    """The largest groups of units that are one another's twins, by their indices."""
    left, found = (distances <= tolerance).cpu(), []
    while bool(left.any()):
        reached = torch.zeros(len(left), dtype=torch.bool)
        reached[left.any(1).nonzero()[0, 0]] = True
        while bool((more := left[reached].any(0) & ~reached).any()):
            reached |= more
        found.append(reached.nonzero().flatten().tolist())
        left[reached] = False
        left[:, reached] = False
    most, members = LISTED
    return [group[:members] for group in sorted(found, key=len, reverse=True)[:most]]


def random_distance(count: int, size: int, changes: int = 1) -> float:
    """The median distance of a unit to the nearest of the others, in a network of independent Gaussian numbers.

    The cosine x of two such vectors of `size` numbers has a density proportional to (1 - x^2)^((size - 3) / 2), and
    their distance is sqrt((1 - x) / 2). The nearest of `count - 1` others, each with `changes` choices of its signs, is
    taken as that of so many independent ones; and all lengths as equal: an approximation for few numbers.
    """
    if count < 2 or size < 2:
        return math.sqrt(0.5)
    angle = np.linspace(0, math.pi, 20001)
    with np.errstate(divide="ignore"):
        density = np.exp(np.maximum((size - 2) * np.log(np.sin(angle)), -700.0))  # of the angle
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    below /= below[-1]
    wanted = -math.expm1(math.log(0.5) / ((count - 1) * changes))  # P(one of them is nearer) = 1/2
    return float(np.sin(np.interp(wanted, below, angle) / 2))


# ---- heads -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def heads(structure: Structure, parameters: Mapping[str, Tensor], *, tolerance: float = TOLERANCE) -> list[dict]:
    """The entry `heads` of a diagnosis: of each head, the ranks of W_Q^T W_K and of W_O W_V, in whatever basis."""
    return [_heads(attention, parameters, tolerance) for attention in structure.attentions]


def _heads(attention: Attention, parameters: Mapping[str, Tensor], tolerance: float) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": attention.name, "count": attention.count, "size": attention.size}
    equal: Tensor | None = None
    for key in ("query_key", "output_value"):
        pair = getattr(attention, key)
        entry[key] = None
        if pair is None:
            continue
        a, b = (at.of(parameters).double().flatten(2) for at in pair)  # [heads, size, inputs]
        many = max(len(a), len(b))
        a, b = (x.repeat_interleave(many // len(x), 0) for x in (a, b))  # heads that share keys and values
        if not bool(a.isfinite().all() and b.isfinite().all()):
            continue
        values = singular_values_of_product(a, b)
        full = min(a.shape[1], a.shape[2], b.shape[2])
        share = values / values.sum(1, keepdim=True).clamp(min=1e-300)
        effective = torch.special.entr(share).sum(1).exp()
        smallest = max(a.shape[2], b.shape[2]) * torch.finfo(torch.float32).eps * values[:, :1]
        entry[key] = {
            "rank/effective": [round(float(x), 4) for x in effective],
            "rank": [int(x) for x in (values > smallest).sum(1)],
            "full": full,
        }
        # <A^T B, A'^T B'> = <A A'^T, B B'^T>
        inner = torch.einsum("hsi,gti->hgst", a, a).mul_(torch.einsum("hsi,gti->hgst", b, b)).sum((2, 3))
        squares = inner.diagonal()
        total = squares.unsqueeze(0) + squares.unsqueeze(1)
        gap = (total - 2 * inner).clamp(min=0) / (2 * total).clamp(min=1e-300)
        equal = gap if equal is None else torch.maximum(equal, gap)
    if equal is not None:
        equal = equal.sqrt().fill_diagonal_(math.inf)
    entry["equal"] = [] if equal is None else groups(equal, tolerance)
    return entry
