"""Every operator has one rule, and every rule that is written is one that a trace is given."""

import pkgutil
from collections import Counter
from importlib import import_module

import pytest
import torch

from syre.diagnostics import rules
from syre.diagnostics.rules.family import Family
from syre.diagnostics.trace import Trace


def families() -> dict[str, Family]:
    """Module -> its rules, of every module in the folder that has some, told of or not."""
    found = {m.name: import_module(f"{rules.__name__}.{m.name}") for m in pkgutil.iter_modules(rules.__path__)}
    return {name: module.RULES for name, module in found.items() if hasattr(module, "RULES")}


def test_a_trace_is_given_the_rules_of_all_families_and_no_operator_has_two():
    operators = Counter(name for family in families().values() for name in family)
    assert {name: times for name, times in operators.items() if times > 1} == {}
    assert set(rules.RULES) == set(operators)


def test_there_is_no_trace_without_rules():
    with pytest.raises(TypeError, match="rules"):
        Trace({})


@pytest.mark.parametrize("known", [True, False])
def test_an_operator_follows_the_rules_that_its_trace_was_given(known):
    weight = torch.randn(3, 4)
    trace = Trace({"weight": weight}, {name: rule for name, rule in rules.RULES.items() if known or name != "mm"})
    with trace:
        torch.randn(2, 4) @ weight.T
    trace.parts.finish()
    assert trace.unknown == (set() if known else {"mm"})
    assert trace.read == ({("weight", 1)} if known else set())
