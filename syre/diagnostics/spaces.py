"""Axes of tensors and what they count: which indices of two axes are the same units, and what may be done to them.

An **axis** is a list of segments, one after the other, each the product of factors, the first the slowest: the axis of
10 heads of size 64 is one segment (10, 64), that of a concatenation of 5 and 7 channels is two segments (5), (7). A
**factor** counts the units of a **space**: units that a network would not miss if they were permuted. Where two axes
meet (in a sum, a product, a contraction) their spaces are one, which `match` notes; a space that is then cut or split
is replaced by its parts, for all axes at once. A space whose units are told apart is *fixed*.

Beside being permuted, a unit may have its sign changed, or be scaled. What such a change does to a tensor along a
factor is written as a **form**, a sum of multiples of variables, of which each axis of each parameter has one: in
y = W x the units of x and the columns of W have opposite forms. `require` notes what forms must be 0.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import prod

# Spaces of units that are told apart; of copies, all the same, that fit every space; and of such ones that are all 0.
FIXED, ANY, ZERO = -1, -2, -3

Form = tuple[tuple[int, int], ...]  # (variable, multiple), sorted; no multiple is 0


def add(a: Form, b: Form, times: int = 1) -> Form:
    """a + times * b."""
    total = dict(a)
    for variable, multiple in b:
        total[variable] = total.get(variable, 0) + times * multiple
    return tuple(sorted((v, m) for v, m in total.items() if m))


def multiply(form: Form, times: int) -> Form:
    return tuple((variable, multiple * times) for variable, multiple in form) if times else ()


@dataclass(frozen=True)
class Factor:
    """`size` units of a space, and forms of the tensor along them: of the sign, and of the logarithm of the scale."""

    space: int
    size: int
    sign: Form = ()
    scale: Form = ()

    @property
    def plain(self) -> "Factor":
        return Factor(self.space, self.size)


Segment = tuple[Factor, ...]
Axis = tuple[Segment, ...]
Label = list[Axis]  # of a tensor: an axis for each of its dimensions
SINGLE: Axis = ((),)  # an axis of size 1


def width(segment: Iterable[Factor]) -> int:
    return prod(factor.size for factor in segment)


def length(axis: Axis) -> int:
    return sum(width(segment) for segment in axis)


def fixed(size: int) -> Axis:
    return SINGLE if size == 1 else ((Factor(FIXED, size),),)


def alike(size: int, space: int = ANY) -> Axis:
    return SINGLE if size == 1 else ((Factor(space, size),),)


def factors(axis: Axis) -> Iterator[Factor]:
    for segment in axis:
        yield from segment


def plain(axis: Axis) -> Axis:
    """Without forms."""
    return tuple(tuple(factor.plain for factor in segment) for segment in axis)


def times(label: Label, sign: int, scale: int | None = None) -> Label:
    """With multiples of the forms: that of the sign for both, where only it is given."""
    by = sign, sign if scale is None else scale
    return [
        tuple(
            tuple(Factor(f.space, f.size, multiply(f.sign, by[0]), multiply(f.scale, by[1])) for f in segment)
            for segment in axis
        )
        for axis in label
    ]


def has_copies(label: Label) -> bool:
    """Whether units of it are all the same."""
    return any(factor.space <= ANY for axis in label for factor in factors(axis))


def not_zero(label: Label) -> Label:
    """Where a tensor is 0 it is at least the same everywhere."""
    if not any(factor.space == ZERO for axis in label for factor in factors(axis)):
        return label
    return [
        tuple(tuple(Factor(ANY, f.size) if f.space == ZERO else f for f in segment) for segment in axis)
        for axis in label
    ]


@dataclass
class Space:
    """A space: as it is, or (`kind`) the same as another one, or the product or the concatenation of others."""

    size: int
    fixed: bool = False
    kind: str = ""  # "", "same", "product", "cat"
    parts: tuple[int, ...] = ()
    variables: list[int] = field(default_factory=list)


@dataclass
class Spaces:
    """All spaces of a network, and the equations that the variables must fulfil."""

    spaces: list[Space] = field(default_factory=list)
    split: dict[int, tuple[int, ...]] = field(default_factory=dict)  # a variable of a space -> those of its parts
    owners: list[int] = field(default_factory=list)  # the variable that each one is a part of: its own, at first
    equations: list[tuple[str, Form]] = field(default_factory=list)  # ("sign" or "scale", a form that is 0)

    def new(self, size: int) -> Factor:
        """A space of its own, for the axis of a parameter: with a variable."""
        self.spaces.append(Space(size))
        variable = self._variable(None)
        self.spaces[-1].variables.append(variable)
        return Factor(len(self.spaces) - 1, size, ((variable, 1),), ((variable, 1),))

    def _variable(self, owner: int | None) -> int:
        self.owners.append(len(self.owners) if owner is None else self.owners[owner])
        return len(self.owners) - 1

    def root(self, space: int) -> int:
        while space >= 0 and self.spaces[space].kind == "same":
            space = self.spaces[space].parts[0]
        return space

    # ---- cutting and splitting ---------------------------------------------------------------------------------------

    def _divide(self, space: int, kind: str, sizes: list[int]) -> None:
        whole = self.spaces[space]
        assert not whole.kind
        whole.kind, whole.parts = kind, tuple(range(len(self.spaces), len(self.spaces) + len(sizes)))
        for size in sizes:
            self.spaces.append(Space(size, whole.fixed))
        for variable in whole.variables:
            self.split[variable] = tuple(self._variable(variable) for _ in sizes)
            for part, copy in zip(whole.parts, self.split[variable], strict=True):
                self.spaces[part].variables.append(copy)

    def form(self, form: Form, part: int) -> Form:
        """That of part number `part`, of a space that has been divided."""
        return tuple(sorted((self.split[variable][part], multiple) for variable, multiple in form))

    def _parts(self, factor: Factor) -> list[Factor]:
        """Of a factor whose space has been divided."""
        return [
            Factor(part, self.spaces[part].size, self.form(factor.sign, k), self.form(factor.scale, k))
            for k, part in enumerate(self.spaces[factor.space].parts)
        ]

    def resolve(self, axis: Axis) -> Axis:
        """The axis in terms of spaces as they are now. (A concatenation inside a product stays one factor.)"""
        return tuple(segment for old in axis for segment in self._resolve(old))

    def _resolve(self, segment: Segment) -> list[Segment]:
        done: list[Factor] = []
        todo = list(segment)
        while todo:
            factor = todo.pop(0)
            factor = replace(factor, space=self.root(factor.space)) if factor.space >= 0 else factor
            space = self.spaces[factor.space] if factor.space >= 0 else None
            if factor.size == 1:
                continue
            if space is not None and space.kind == "product":
                todo = self._parts(factor) + todo
            elif space is not None and space.kind == "cat" and not done:
                return [found for part in self._parts(factor) for found in self._resolve((part, *todo))]
            elif space is not None and space.fixed and not space.kind:
                done.append(Factor(FIXED, factor.size))
            else:
                done.append(factor)
        return [tuple(done)]

    def divide(self, factor: Factor, kind: str, sizes: list[int]) -> list[Factor]:
        """A resolved factor in parts: a "product" or a "cat" of these sizes."""
        if factor.space < 0:
            return [replace(factor, size=size) for size in sizes]
        space = self.spaces[factor.space]
        if not space.kind:
            self._divide(factor.space, kind, sizes)
        elif space.kind != kind or [self.spaces[part].size for part in space.parts] != sizes:
            self.fix_space(factor.space)
            return [Factor(FIXED, size) for size in sizes]
        return self._parts(factor)

    def cut(self, segment: Segment, size: int) -> tuple[Segment, Segment] | None:
        """The first `size` indices of a resolved segment, and the others; None where that cuts through a block."""
        first, rest = segment[0], segment[1:]
        block = width(rest)
        if size % block:
            return None
        a, b = self.divide(first, "cat", [size // block, first.size - size // block])
        return (a, *rest), (b, *rest)

    # ---- the same units ----------------------------------------------------------------------------------------------

    def fix_space(self, space: int) -> None:
        """Its units are told apart."""
        space = self.root(space)
        if space >= 0 and not (self.spaces[space].fixed and not self.spaces[space].kind):
            self.spaces[space].fixed = True
            for part in self.spaces[space].parts:
                self.fix_space(part)

    def fix(self, axis: Axis) -> None:
        for factor in factors(axis):
            self.fix_space(factor.space)

    def match(self, a: Axis, b: Axis) -> tuple[Axis, Axis]:
        """The two axes, index by index of the same units: in the same segments and factors, of the same spaces.

        Where that cannot be said of them, all of their units are fixed.
        """
        if not self._match(list(self.resolve(a)), list(self.resolve(b))):
            self.fix(a)
            self.fix(b)
            return fixed(length(a)), fixed(length(b))
        a, b = self.resolve(a), self.resolve(b)
        if [[f.size for f in s] for s in a] != [[f.size for f in s] for s in b]:
            # a later merge has divided an earlier factor of one of them, of which the other has another view
            self.fix(a)
            self.fix(b)
            return fixed(length(a)), fixed(length(b))
        return a, b

    def _match(self, a: list[Segment], b: list[Segment]) -> bool:
        while a and b:
            sizes = width(a[0]), width(b[0])
            if sizes[0] != sizes[1]:
                longer, shorter = (a, b) if sizes[0] > sizes[1] else (b, a)
                pieces = self.cut(longer[0], width(shorter[0]))
                if pieces is None:
                    return False
                longer[:1] = pieces
            elif not self._match_segments(list(a.pop(0)), list(b.pop(0))):
                return False
        return True

    def _match_segments(self, a: list[Factor], b: list[Factor]) -> bool:
        while a and b:
            x, y = a[0], b[0]
            if x.size == y.size:
                self._merge(x.space, y.space)
                a.pop(0), b.pop(0)
                continue
            longer, size, other = (a, y.size, x.size) if x.size > y.size else (b, x.size, y.size)
            if max(size, other) % min(size, other) or (longer[0].space >= 0 and self._divided(longer[0])):
                return False
            longer[:1] = self.divide(longer[0], "product", [min(size, other), max(size, other) // min(size, other)])
        return True

    def _divided(self, factor: Factor) -> bool:
        return bool(self.spaces[self.root(factor.space)].kind)

    def _merge(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        if a == b or min(a, b) <= ANY:
            return
        if FIXED in (a, b):
            self.fix_space(max(a, b))
            return
        x, y = self.spaces[a], self.spaces[b]
        if x.kind and y.kind:
            whole = [((Factor(space, self.spaces[space].size),),) for space in (a, b)]
            if not self._match(list(self.resolve(whole[0])), list(self.resolve(whole[1]))):
                self.fix_space(a)
                self.fix_space(b)
            return
        if y.kind:
            a, b, x, y = b, a, y, x
        if x.kind:  # the other one is divided as this one is, and then they are the same part by part
            self._divide(b, x.kind, [self.spaces[part].size for part in x.parts])
            for p, q in zip(x.parts, y.parts, strict=True):
                self._merge(p, q)
            return
        y.kind, y.parts = "same", (a,)
        x.variables += y.variables
        if y.fixed:
            self.fix_space(a)

    # ---- what comes of two tensors -----------------------------------------------------------------------------------

    def meet(self, a: Axis, b: Axis, how: str) -> Axis:
        """Two axes of the same units: the forms of what comes of a sum, a product or a quotient of their tensors."""
        a, b = self.match(a, b)
        met: list[Segment] = []
        for s, t in zip(a, b, strict=True):
            segment = []
            for f, g in zip(s, t, strict=True):
                space = max(f.space, g.space) if min(f.space, g.space) <= ANY else f.space
                if (how != "sum" and f.space == ZERO) or (how == "product" and g.space == ZERO):
                    segment.append(Factor(ZERO, f.size))
                elif how == "sum" and ZERO in (f.space, g.space):
                    segment.append(g if f.space == ZERO else f)
                elif how == "sum":
                    self.require("sign", add(f.sign, g.sign, -1))
                    self.require("scale", add(f.scale, g.scale, -1))
                    segment.append(Factor(space, f.size, f.sign or g.sign, f.scale or g.scale))
                else:
                    power = -1 if how == "quotient" else 1
                    segment.append(Factor(space, f.size, add(f.sign, g.sign, power), add(f.scale, g.scale, power)))
            met.append(tuple(segment))
        return tuple(met)

    def contract(self, a: Axis, b: Axis) -> None:
        """sum_i a_i b_i: the same units, whose forms are opposite."""
        for f in factors(self.meet(a, b, "product")):
            self.require("sign", f.sign)
            self.require("scale", f.scale)

    # ---- what may be done to them ------------------------------------------------------------------------------------

    def require(self, kind: str, form: Form) -> None:
        if form:
            self.equations.append((kind, form))

    def still(self, axis: Axis, *kinds: str) -> None:
        """Neither sign nor scale of these units may change (or only one of `kinds`)."""
        for factor in factors(axis):
            for kind in kinds or ("sign", "scale"):
                self.require(kind, getattr(factor, kind))

    def solved(self) -> Iterator[tuple[str, Form]]:
        """The equations in variables of spaces as they are now."""
        todo = list(self.equations)
        while todo:
            kind, form = todo.pop()
            copies = {len(self.split[v]) for v, _ in form if v in self.split}
            if copies:
                todo += [(kind, self.form(form, part)) for part in range(min(copies))]
            else:
                yield kind, form
