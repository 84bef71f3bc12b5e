"""Range checks of settings: one clear line that names the setting, what it was and what is allowed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, ClassVar

Rule = Callable[[str, Any], None]  # name and value of a setting; raises ValueError


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def at_least(name: str, value: float, low: float = 0.0) -> None:
    check(isfinite(value) and value >= low, f"{name} must be a number >= {low:g}, got {value}")


def positive(name: str, value: float) -> None:
    check(isfinite(value) and value > 0, f"{name} must be a number > 0, got {value}")


def count(name: str, value: int) -> None:
    check(value > 0, f"{name} must be an integer > 0, got {value}")


def fraction(name: str, value: float) -> None:
    check(0 <= value < 1, f"{name} must be a fraction in [0, 1), got {value}")


def share(name: str, value: float) -> None:
    check(0 <= value <= 1, f"{name} must be a fraction in [0, 1], got {value}")


def open_fraction(name: str, value: float) -> None:
    check(0 < value < 1, f"{name} must be a fraction in (0, 1), got {value}")


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    check(value in allowed, f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def all_widths(name: str, values: Sequence[int]) -> None:
    check(bool(values) and min(values) > 0, f"{name} must list positive widths, got {list(values)}")


def all_ranks(name: str, values: Sequence[int]) -> None:
    check(all(i >= 1 for i in values), f"{name} must list integers >= 1, got {list(values)}")


def all_indices(name: str, values: Sequence[int]) -> None:
    check(all(i >= 0 for i in values), f"{name} must list integers >= 0, got {list(values)}")


def all_fractions(name: str, values: Sequence[float]) -> None:
    check(all(0 < value < 1 for value in values), f"{name} must be fractions in (0, 1), got {list(values)}")


def all_positive(name: str, values: Sequence[float]) -> None:
    check(bool(values) and min(values) > 0, f"{name} must be numbers > 0, got {list(values)}")


def among(*allowed: str) -> Rule:
    return partial(one_of, allowed=allowed)


def each(rule: Rule) -> Rule:
    def check_all(name: str, values: Sequence[Any]) -> None:
        for value in values:
            rule(name, value)

    return check_all


def above(low: float) -> Rule:
    return partial(at_least, low=low)


class Settings:
    """What every dataclass of settings extends: its values are checked when it is made.

    Attributes:
        prefix: what they are settings of: the first word of their names.
        ranges: the rule of each setting that has one, beside those that a class inherits.
    """

    prefix: ClassVar[str]
    ranges: ClassVar[Mapping[str, Rule]] = {}

    def __post_init__(self) -> None:
        for kind in reversed(type(self).__mro__):
            for name, rule in vars(kind).get("ranges", {}).items():
                rule(f"{self.prefix}.{name}", getattr(self, name))
