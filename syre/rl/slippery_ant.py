"""Slippery Ant: an ant whose friction changes every so many steps, in MuJoCo and in PyBullet.

Source: Dohare et al., Loss of plasticity in deep continual learning (Nature 2024), and their code: one coefficient of
friction, log-uniform in [0.02, 2], drawn anew at the first end of an episode after `change_every` steps. Their physics
is MuJoCo's; the paper that is reproduced here (arXiv 2408.15495, section 6.6) says PyBullet. Both are here.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import register

from syre.checks import Settings, among, at_least, check
from syre.core.anchor import philox
from syre.data import DataError

BACKENDS = {"mujoco": "SlipperyAnt-MuJoCo-v0", "pybullet": "SlipperyAnt-PyBullet-v0"}

register("SlipperyAnt-MuJoCo-v0", entry_point="syre.rl.mujoco_ant:MuJoCoAnt")
register("SlipperyAnt-PyBullet-v0", entry_point="syre.rl.bullet_ant:BulletAnt")


@dataclass(frozen=True, kw_only=True)
class Friction(Settings):
    """A sequence of coefficients of friction, log-uniform in [low, high], each held for `change_every` steps.

    The k-th is a function of (seed, k) alone. Without changes (`change_every` 0) the physics keeps its own.
    """

    seed: int = 0
    low: float = 0.02
    high: float = 2.0
    change_every: int = 0
    prefix = "data"
    ranges: ClassVar = {"change_every": at_least}

    def __post_init__(self) -> None:
        super().__post_init__()
        ordered = 0 < self.low <= self.high < math.inf
        check(ordered, f"data.low and data.high must be 0 < low <= high, got {self.low} and {self.high}")

    def coefficient(self, k: int) -> float:
        """The k-th coefficient, from 0; dimensionless."""
        low, high = math.log(self.low), math.log(self.high)
        return math.exp(low + (high - low) * philox(self.seed, "friction", str(k)).random())


class Slippery(gymnasium.Env):
    """The friction schedule, the time limit, and an exact `state_dict`: mixed in before a backend's environment.

    A backend gives it `set_friction`, `physics` and `load_physics`.

    Args:
        friction: its schedule. An episode's friction is that of its start: a change waits for the next `reset`.
        max_episode_steps: an episode is truncated after so many steps.
    """

    def __init__(self: Any, friction: Friction | None = None, max_episode_steps: int = 1000, **backend: Any) -> None:
        super().__init__(**backend)
        self.friction, self.max_episode_steps = friction or Friction(), max_episode_steps
        self.steps = 0  # of the whole life
        self.changed = 0  # the value of `steps` at the last change
        self.changes = 0
        self.elapsed = 0  # steps of this episode

    @property
    def coefficient(self) -> float:
        """The friction now; NaN where it is the physics' own."""
        return self.friction.coefficient(self.changes) if self.friction.change_every else math.nan

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What a network takes in."""
        return tuple(self.observation_space.shape or ())

    @property
    def num_classes(self) -> int:
        """What a network puts out: one number for each motor."""
        return int(np.prod(self.action_space.shape or ()))

    def reset(
        self: Any, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, with the next friction if it is due."""
        period = self.friction.change_every
        if period and self.steps - self.changed > period:
            self.changed, self.changes = self.steps, self.changes + 1
        self.elapsed = 0
        first = super().reset(seed=seed, options=options)
        if period:
            self.set_friction(self.coefficient)
        return first

    def step(self: Any, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        self.elapsed += 1
        return observation, float(reward), bool(terminated), truncated or self.elapsed >= self.max_episode_steps, info

    def set_friction(self, coefficient: float) -> None:
        """Make every contact slide with this coefficient; it outlives `reset`."""
        raise NotImplementedError

    def physics(self) -> dict[str, Any]:
        """All that the next steps depend on, as lists and plain numbers."""
        raise NotImplementedError

    def load_physics(self, state: dict[str, Any]) -> None:
        """Go on, bit for bit, from what `physics` returned, in this or another process."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of this environment's life depends on, between two steps."""
        return {
            "clock": [self.steps, self.changed, self.changes, self.elapsed],
            "random": self.np_random.bit_generator.state,
            "physics": self.physics(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`, bit for bit."""
        self.steps, self.changed, self.changes, self.elapsed = state["clock"]
        if self.friction.change_every:
            self.set_friction(self.coefficient)
        self.load_physics(state["physics"])
        self.np_random.bit_generator.state = state["random"]


@dataclass(frozen=True, kw_only=True)
class SlipperyAnt(Settings):
    """Which ant: its physics and its schedule of friction (see `Friction`), drawn from the run's seed.

    backend: mujoco (gymnasium's Ant-v4: 27 observations) or pybullet (AntBulletEnv: 28 observations).
    change_every: steps between changes of friction; 0: the stock ant, whose friction never changes.
    """

    backend: str = "mujoco"
    change_every: int = 5_000_000
    low: float = 0.02
    high: float = 2.0
    prefix = "data"
    ranges: ClassVar = {"backend": among(*BACKENDS)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._friction(0)  # checks the ranges

    def _friction(self, seed: int) -> Friction:
        return Friction(seed=seed, low=self.low, high=self.high, change_every=self.change_every)

    def load(self, root: str | Path | None = None, seed: int = 0) -> Slippery:
        """A new environment; nothing is read.

        Raises:
            DataError: the physics is not installed.
        """
        try:
            made = gymnasium.make(BACKENDS[self.backend], friction=self._friction(seed), disable_env_checker=True)
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            reason = f"is not installed here ({error}); PyBullet's packages end at Python 3.11"
            other = "the other backend is data.backend=mujoco"
            raise DataError(f"data.backend={self.backend} {reason}: {other}") from None
        return cast(Slippery, made.unwrapped)
