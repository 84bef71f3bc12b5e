"""Settings are checked when they are made: by the rules of their class, and of those that it extends."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from syre.checks import Settings, above, among, at_least, each, fraction


@dataclass(frozen=True, kw_only=True)
class Base(Settings):
    prefix = "thing"
    size: int = 1
    kind: str = "a"
    ranges: ClassVar = {"size": above(1), "kind": among("a", "b")}


@dataclass(frozen=True, kw_only=True)
class More(Base):
    rates: tuple[float, ...] = ()
    ranges: ClassVar = {"rates": each(fraction), "size": at_least}


@pytest.mark.parametrize("cls", [Base, More])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "thing.size must be a number >= 1, got 0"),
        ({"size": float("nan")}, "thing.size must be a number >= 1, got nan"),
        ({"kind": "c"}, "thing.kind must be one of a, b, got 'c'"),
    ],
)
def test_a_class_keeps_the_rules_of_what_it_extends(cls, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        cls(**settings)
    cls()  # control


def test_a_rule_for_each_value_names_the_one_that_breaks_it():
    with pytest.raises(ValueError, match=r"^thing.rates must be a fraction in \[0, 1\), got 1.5$"):
        More(rates=(0.5, 1.5))
    assert More(rates=(0.5, 0.9)).rates == (0.5, 0.9)
