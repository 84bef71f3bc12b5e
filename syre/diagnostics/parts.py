"""Axes that are reshaped, narrowed and stacked: of which parts of which spaces the new ones are.

An axis that is split is a product of a slow and a fast part, as one of heads and of what is in them. Where one index of
the slow part is taken out, as q is of an axis of q, k and v, it was a concatenation: each index has units of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from syre.diagnostics.spaces import SINGLE, Axis, Factor, Form, Label, Segment, Spaces, factors, fixed, length, width


class Parts:
    """The parts that the spaces of a network were split into.

    Attributes:
        behind: the rows of tables of which none was taken out: what is said of the table is said of them at the end.
    """

    def __init__(self, spaces: Spaces) -> None:
        self.spaces = spaces
        self.behind: dict[int, list[Segment]] = {}  # the whole of a table of rows -> its rows
        self._split: dict[int, tuple[int, int]] = {}  # the slow part of a split space -> the whole, and the fast part
        self._pickings: dict[int, _Picking] = {}  # the slow part of a split space -> what was made of it

    def reshape(self, label: Label, old: Sequence[int], new: Sequence[int]) -> Label:
        """The axes of a tensor of shape `old`, as one of shape `new`."""
        result: Label = []
        i = j = 0
        while i < len(old) or j < len(new):
            k, m = i + 1, j + 1
            have, want = prod(old[i:k]), prod(new[j:m])
            while have != want:
                if (have < want and k < len(old)) or m >= len(new):
                    k += 1
                    have = prod(old[i:k])
                else:
                    m += 1
                    want = prod(new[j:m])
            result += self.regroup(label[i:k], list(new[j:m]))
            i, j = k, m
        return result[: len(new)] + [SINGLE] * (len(new) - len(result))

    def regroup(self, axes: Label, sizes: list[int]) -> Label:
        """Axes, one after the other, as one or several of other sizes."""
        axes = [axis for axis in axes if length(axis) > 1]
        if not axes:
            return [fixed(size) for size in sizes]
        if len(axes) == 1 and len(axes[0]) == sizes[0] > 1 and len({width(segment) for segment in axes[0]}) == 1:
            axes = [self._rows(axes[0])]
        if any(len(axis) > 1 for axis in axes[1:]) or (len(axes[0]) > 1 and sum(size > 1 for size in sizes) > 1):
            for axis in axes:
                self.spaces.fix(axis)
            return [fixed(size) for size in sizes]
        inner = tuple(factor for axis in axes[1:] for factor in axis[0])
        joined = tuple((*segment, *inner) for segment in axes[0])
        if sum(size > 1 for size in sizes) == 1:
            return [joined if size > 1 else SINGLE for size in sizes]
        rest = list(joined[0])
        result: Label = []
        for size in sizes:
            taken: list[Factor] = []
            while width(taken) < size and size % width(taken) == 0:
                factor, need = rest.pop(0), size // width(taken)
                if factor.size > need:
                    if factor.size % need or (factor.space >= 0 and self.spaces.spaces[factor.space].kind):
                        self.spaces.fix((joined[0],))
                        return [fixed(size) for size in sizes]
                    whole = factor.space
                    factor, left = self.spaces.divide(factor, "product", [need, factor.size // need])
                    rest.insert(0, left)
                    if whole >= 0:
                        self._split[factor.space] = (whole, left.space)
                taken.append(factor)
            if width(taken) != size:
                self.spaces.fix((joined[0],))
                return [fixed(size) for size in sizes]
            result.append((tuple(taken),))
        return result

    def _rows(self, axis: Axis) -> Axis:
        """Segments of equal sizes, as the rows of a table: a stand-in, until one of them is taken out by `_pick`."""
        whole = self.spaces.new(length(axis))
        slow, fast = self.spaces.divide(whole, "product", [len(axis), width(axis[0])])
        self._split[slow.space] = (whole.space, fast.space)
        self.behind[whole.space] = list(axis)
        return ((slow, fast),)

    def stack(self, axes: Sequence[Axis]) -> tuple[Axis, Axis]:
        """A new axis along which these are one after the other, and the axis that they have in common."""
        axis = axes[0]
        if any(len(other) != 1 or factors_of(other) != factors_of(axis) for other in axes) and all(map(is_row, axes)):
            ((slow, fast),) = self._rows(tuple(other[0] for other in axes))
            return ((slow,),), ((fast,),)
        for other in axes[1:]:
            axis = self.spaces.meet(axis, other, "sum")
        return fixed(len(axes)), axis

    def narrow(self, label: Label, k: int, start: int, size: int) -> Label:
        """Indices start, ..., start + size - 1 of dimension k."""
        axis = label[k]
        if size == length(axis):
            return label
        if size == 1 and len(axis) == 1 and len(axis[0]) == 1 and axis[0][0].space in self._split:
            return self._pick(label, k, start)
        todo, place, pieces = list(axis), 0, []
        while todo and place < start + size:
            segment = todo.pop(0)
            end = place + width(segment)
            edge = start if place < start < end else start + size if place < start + size < end else 0
            if edge:
                both = self.spaces.cut(segment, edge - place)
                if both is None:
                    self.spaces.fix(axis)
                    return [*label[:k], fixed(size), *label[k + 1 :]]
                todo[:0] = both
                continue
            if place >= start:
                pieces.append(segment)
            place = end
        kept: Axis = tuple(pieces) if size > 1 else SINGLE
        if size == 1:
            self.spaces.fix(tuple(pieces))
        return [*label[:k], kept, *label[k + 1 :]]

    def _pick(self, label: Label, k: int, index: int) -> Label:
        """One index of the slow part of a split axis, as q, k and v are of one: of each the fast part is another space.

        That holds as long as nothing is said of the two parts but this: `finish` looks whether it was so.
        """
        slow = label[k][0][0].space
        picked = [*label[:k], SINGLE, *label[k + 1 :]]
        if slow not in self._pickings and not self._take_apart(slow):
            self.spaces.fix_space(slow)
            return picked
        moved, renamed = self._copy(self._pickings[slow], index)

        def copy(f: Factor) -> Factor:
            return Factor(moved.get(f.space, f.space), f.size, rename(f.sign, renamed), rename(f.scale, renamed))

        return [tuple(tuple(copy(f) for f in segment) for segment in axis) for axis in picked]

    def _take_apart(self, slow: int) -> bool:
        """Make the product of a slow and a fast part a concatenation, as many as the slow part counts."""
        whole, fast = self._split[slow]
        parent = self.spaces.spaces[whole]
        count = len(parent.variables)
        if parent.kind != "product" or not (self._untouched(fast, count) and self._untouched(slow, count)):
            return False
        parts = {variable: self.spaces.split.pop(variable) for variable in parent.variables}
        parent.kind, parent.parts = "", ()
        sizes = [self.spaces.spaces[fast].size] * self.spaces.spaces[slow].size
        self.spaces.divide(Factor(whole, parent.size), "cat", sizes)
        self._pickings[slow] = _Picking(slow, fast, self.spaces.spaces[whole].parts, parts)
        rows = self.behind.pop(whole, [])
        for index in range(len(rows)):
            forms: list[Form] = [((self.spaces.split[v][index], 1),) for v in parts]
            part = Factor(self.spaces.spaces[whole].parts[index], sizes[0], forms[0], forms[0])
            self.spaces.meet(((part,),), (rows[index],), "sum")
        return True

    def _copy(self, picking: "_Picking", index: int) -> tuple[dict[int, int], dict[int, int]]:
        """Part number `index`, split as the fast part is: of its spaces, and of their variables, which became which."""
        moved: dict[int, int] = {}
        renamed = {old[1]: self.spaces.split[variable][index] for variable, old in picking.variables.items()}
        self._clone(picking.fast, picking.parts[index], moved, renamed)
        return moved, renamed

    def _untouched(self, space: int, variables: int) -> bool:
        """Whether nothing but splits has happened to a space, and to its parts."""
        it = self.spaces.spaces[space]
        alone = it.kind in ("", "product") and not it.fixed and len(it.variables) == variables
        return alone and all(self._untouched(part, variables) for part in it.parts)

    def _clone(self, old: int, new: int, moved: dict[int, int], renamed: dict[int, int]) -> None:
        """Split `new` as `old` is; note which space, and which variable, became which."""
        spaces = self.spaces
        moved[old] = new
        it = spaces.spaces[old]
        if it.kind in ("product", "cat"):
            copies = spaces.divide(
                Factor(spaces.root(new), it.size), it.kind, [spaces.spaces[p].size for p in it.parts]
            )
            for number, (before, after) in enumerate(zip(it.parts, copies, strict=True)):
                if after.space < 0:  # `new` was split in another way
                    spaces.fix_space(old)
                    return
                renamed |= {
                    spaces.split[v][number]: spaces.split[renamed[v]][number] for v in it.variables if v in renamed
                }
                self._clone(before, after.space, moved, renamed)

    def _used(
        self, slow: int, fast: int, variables: list[int], split: Mapping[int, tuple[int, ...]] | None = None
    ) -> bool:
        """Whether anything is said of a slow and a fast part, beside what is said of each index of the slow one."""
        split = self.spaces.split if split is None else split
        along = {split[variable][0] for variable in variables}
        count = len(variables)
        said = any(variable in along for _, form in self.spaces.equations for variable, _ in form)
        return said or not (self._untouched(fast, count) and self._untouched(slow, count))

    def finish(self) -> None:
        """Close what was left open until all of the forward pass was seen."""
        for slow, (whole, fast) in self._split.items():
            if whole in self.behind and self._used(slow, fast, self.spaces.spaces[whole].variables[:1]):
                for segment in self.behind[whole]:
                    variable = self.spaces.split[self.spaces.spaces[whole].variables[0]]
                    self.spaces.require("sign", ((variable[0], 1),))
                    self.spaces.require("scale", ((variable[0], 1),))
                    form: Form = ((variable[1], 1),)
                    self.spaces.meet(((Factor(fast, width(segment), form, form),),), (segment,), "sum")
                self.spaces.fix_space(slow)
        for picking in self._pickings.values():
            if self._used(picking.slow, picking.fast, list(picking.variables), picking.variables):
                for space in (picking.fast, *picking.parts):  # what was made of the whole tells more of them
                    self.spaces.fix_space(space)
            self.spaces.fix_space(picking.slow)
            for index in range(len(picking.parts)):
                renamed = self._copy(picking, index)[1]
                for kind, form in list(self.spaces.equations):
                    if any(variable in renamed for variable, _ in form):
                        self.spaces.require(kind, rename(form, renamed))


@dataclass
class _Picking:
    """A split space of which indices of the slow part were taken out: the parts that there are in its place.

    `variables`: of the whole -> what they were split into, for the slow and for the fast part.
    """

    slow: int
    fast: int
    parts: tuple[int, ...]
    variables: dict[int, tuple[int, ...]]


def rename(form: Form, names: Mapping[int, int]) -> Form:
    return tuple(sorted((names.get(variable, variable), multiple) for variable, multiple in form))


def is_row(axis: Axis) -> bool:
    """Whether it is one segment, of units that are not told apart."""
    return len(axis) == 1 and any(factor.space >= 0 for factor in axis[0])


def factors_of(axis: Axis) -> list[tuple[int, int]]:
    return [(factor.space, factor.size) for factor in factors(axis)]
