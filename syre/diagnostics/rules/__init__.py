"""What every operator of torch makes of the axes of its arguments: the rules that a `Trace` is given.

A rule is a function of a trace and of an operator's positional arguments, all of its arguments by name, and its result.
It says to the trace which axes are the same units, and returns the axes of the result: of each, where there are several
results. Where it returns None, the units of all arguments and results are told apart. Each is written below the names
of its operators, in the module of its family.
"""

from syre.diagnostics.rules import (
    contractions,
    creations,
    elementwise,
    images,
    indexing,
    norms,
    reductions,
    shapes,
)
from syre.diagnostics.trace import Rule

FAMILIES = (elementwise, contractions, norms, reductions, images, shapes, indexing, creations)
RULES: dict[str, Rule] = {name: rule for family in FAMILIES for name, rule in family.RULES.items()}
