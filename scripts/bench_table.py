"""What the tables of `scripts.bench` share: how long is measured, a line of a table, and the step of the trainer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median, quantiles

import numpy as np

from syre.batches import Batches
from syre.learners import Learner
from syre.metrics.cost import Clock, Step, in_turns


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long is measured: rounds per ratio, and the time that each contender gets in a round, in seconds.

    quick: that it runs, not what it costs, one round of one step.
    """

    rounds: int
    seconds: float
    clock: Clock
    quick: bool

    def times(self, contenders: Mapping[str, Step]) -> dict[str, np.ndarray]:
        """Seconds per step of each contender in each round, taken in turns."""
        taken = in_turns(contenders, rounds=self.rounds, seconds=self.seconds, clock=self.clock)
        return {name: np.array(seconds) for name, seconds in taken.items()}


@dataclass(frozen=True)
class Row:
    """One line of a table; `ratios` are of one round each."""

    what: str
    ratios: Sequence[float] | np.ndarray
    target: str = ""
    note: str = ""

    def __str__(self) -> str:
        spread = ""
        if len(self.ratios) > 1:
            low, _, high = quantiles(self.ratios, n=4)
            spread = f"{low:.3f} .. {high:.3f}"
        return f"  {self.what:<74}{median(self.ratios):>8.3f}   {spread:<18}{self.target:<9}{self.note}"


def trainer_step(team: Learner, batches: Batches, loss: Callable) -> Step:
    """A step as the trainer takes it, its batch included."""
    steps = cycle(range(batches.steps_per_epoch))
    return lambda: team.step(loss, batches.train(next(steps)), lr_factor=1.0, clip=None)
