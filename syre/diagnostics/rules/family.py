"""A family of rules, and what the rules of all families ask of arguments and results."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from syre.diagnostics.spaces import Label, fixed
from syre.diagnostics.trace import Rule


class Family(dict[str, Rule]):
    """Name of an operator -> its rule."""

    def of(self, names: str) -> Callable[[Rule], Rule]:
        """Decorate the rule of these operators, with spaces between their names."""

        def enter(rule: Rule) -> Rule:
            self.update(dict.fromkeys(names.split(), rule))
            return rule

        return enter


def dims(value: Any, total: int) -> list[int]:
    """The dimensions that an argument asks for, counted from the first one; all of them, where it names none."""
    values = range(total) if value is None or value == [] else [value] if isinstance(value, int) else value
    return [v % total for v in values] if total else []


def first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple | list) else result


def shape_of(result: Any) -> tuple[int, ...]:
    return tuple(first(result).shape)


def first_of(result: Any, label: Label) -> Any:
    """The axes of the first of several results; the others are statistics, of which nothing is said."""
    if not isinstance(result, tuple | list):
        return label
    return [label] + [[fixed(size) for size in o.shape] if isinstance(o, Tensor) else [] for o in result[1:]]
