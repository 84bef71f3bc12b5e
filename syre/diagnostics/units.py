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
    plain = _distances(products, (), dead)
    near, other = _nearest(parts, plain, ())
    signed, flips = torch.full_like(near, math.inf), torch.zeros_like(other)
    for number, change in enumerate(changes, 1):
        found, at = _nearest(parts, _distances(products, change, dead), change)
        better = found < torch.minimum(near, signed)
        signed = torch.minimum(signed, found)
        other, flips = other.where(~better, at), flips.masked_fill(better, number)
    made = {key: product for key, product in products.items() if not key[0]}
    some, copies = {key: parts[key] for key in made}, torch.full_like(near, math.inf)
    for change in [(), *changes] if made else []:
        copies = torch.minimum(copies, _nearest(some, _distances(made, change, dead), change)[0])
    lengths = torch.stack([product.diagonal() for product in products.values()]).sum(0).clamp(min=0).sqrt()
    typical = lengths[~dead].square().mean().sqrt() if bool((~dead).any()) else lengths.new_tensor(1.0)
    return Look(
        units=units, entries=entries, factors=factors, keys=keys, changes=changes,
        size=sum(values.shape[1] for values in raw), dead=dead, near=near, signed=signed, copies=copies,
        zero=lengths / (lengths.square() + typical.square()).sqrt(), other=other, flips=flips, plain=plain,
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


def _distances(products: Mapping[Key, Tensor], flips: tuple[int, ...], dead: Tensor) -> Tensor:
    """|u_i - S u_j| / sqrt(2) over sqrt(|u_i|^2 + |u_j|^2), [units, units]; dead units are no twins of one another."""
    squares = torch.stack([product.diagonal() for product in products.values()]).sum(0)
    inner = torch.zeros_like(next(iter(products.values())))
    for key, product in products.items():
        inner.add_(product, alpha=_sign(key, flips))
    total = squares.unsqueeze(0) + squares.unsqueeze(1)
    distances = ((total - 2 * inner).clamp(min=0) / (2 * total).clamp(min=1e-300)).sqrt()
    nothing = dead.unsqueeze(0) | dead.unsqueeze(1) | torch.eye(len(dead), dtype=torch.bool, device=dead.device)
    return distances.masked_fill(nothing, math.inf)


def _nearest(parts: Parts, distances: Tensor, flips: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of each unit the smallest distance, and to which; small ones, which cancellation blurs, from the numbers."""
    if len(distances) < 2:
        return distances.new_full((len(distances),), math.inf), distances.new_zeros(len(distances), dtype=torch.int64)
    found, other = distances.min(1)
    close = torch.nonzero(found < 0.1).flatten()
    for some in close.split(BLOCK) if len(close) else ():
        gap = total = distances.new_zeros(len(some))
        for key, tensors in parts.items():
            for values in tensors:
                a, b = values[some].double(), _sign(key, flips) * values[other[some]].double()
                gap = gap + (a - b).square().sum(1)
                total = total + (a.square() + b.square()).sum(1)
        found[some] = (gap / (2 * total)).sqrt()
    return found, other


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
        values = torch.linalg.svdvals(torch.linalg.qr(a.mT).R @ torch.linalg.qr(b.mT).R.mT)
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
