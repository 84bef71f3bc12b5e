"""Range checks of settings: one clear line that names the setting, what it was and what is allowed."""

from collections.abc import Iterable
from math import isfinite


def check(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)


def at_least(name: str, value: float, low: float = 0.0) -> None:
    check(isfinite(value) and value >= low, f"{name} must be a number >= {low:g}, got {value}")


def positive(name: str, value: float) -> None:
    check(isfinite(value) and value > 0, f"{name} must be a number > 0, got {value}")


def fraction(name: str, value: float) -> None:
    check(0 <= value < 1, f"{name} must be a fraction in [0, 1), got {value}")


def one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    allowed = list(allowed)
    check(value in allowed, f"{name} must be one of {', '.join(allowed)}, got {value!r}")
