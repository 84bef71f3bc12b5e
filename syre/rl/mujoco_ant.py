"""The ant in MuJoCo: gymnasium's Ant-v4, the closest still kept to the Ant-v3 of the borrowed code.

Ant-v4 observes 27 numbers and is rewarded `forward velocity + 1 - 0.5 |a|^2`; Ant-v3 had 84 more observations, the
contact forces, which MuJoCo 2.1 left at about 0.
"""

import math
from functools import cached_property
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv

from syre.rl.slippery_ant import Slippery

INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION  # what an integration step depends on, warm start included


class Ant(AntEnv):
    """Ant-v4, stepped with a third of Python's share of the time; all that it returns is the same, bit for bit."""

    @cached_property
    def torso(self) -> int:
        """The index of the body whose position is rewarded."""
        return int(self.model.body("torso").id)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        if self._use_contact_forces or self.render_mode == "human":
            return super().step(action)
        data, torso = self.data, self.torso
        before = data.xpos[torso, :2].copy()
        self.do_simulation(action, self.frame_skip)
        after = data.xpos[torso, :2].copy()
        velocity = (after - before) / self.dt
        state = np.concatenate((data.qpos, data.qvel))
        low, high = self._healthy_z_range
        healthy = low <= state[2] <= high and np.isfinite(state).all()
        survival = float(healthy or self._terminate_when_unhealthy) * self._healthy_reward
        cost = self._ctrl_cost_weight * np.square(action).sum()
        info = {
            "reward_forward": velocity[0],
            "reward_ctrl": -cost,
            "reward_survive": survival,
            "x_position": after[0],
            "y_position": after[1],
            "distance_from_origin": math.sqrt(after.dot(after)),
            "x_velocity": velocity[0],
            "y_velocity": velocity[1],
            "forward_reward": velocity[0],
        }
        observation = state[2:] if self._exclude_current_positions_from_observation else state
        terminated = bool(self._terminate_when_unhealthy and not healthy)
        return observation, velocity[0] + survival - cost, terminated, False, info


class MuJoCoAnt(Slippery, Ant):  # type: ignore[misc]
    """Ant-v4 on ground of changing friction."""

    def __init__(self, **settings: Any) -> None:
        gymnasium.logger.min_level, level = gymnasium.logger.ERROR, gymnasium.logger.min_level
        try:  # gymnasium would say at each start that Ant-v4 has a successor, which pays and shows other numbers
            super().__init__(**settings)
        finally:
            gymnasium.logger.min_level = level

    def set_friction(self, coefficient: float) -> None:
        """The sliding friction of every geom: of two that touch MuJoCo takes the larger."""
        self.model.geom_friction[:, 0] = coefficient

    def physics(self) -> dict[str, Any]:
        state = np.empty(mujoco.mj_stateSize(self.model, INTEGRATION))
        mujoco.mj_getState(self.model, self.data, state, INTEGRATION)
        # Positions of bodies are those of the last substep's start, and the next reward is measured from them.
        return {"state": state.tolist(), "bodies": self.data.xpos.tolist()}

    def load_physics(self, state: dict[str, Any]) -> None:
        mujoco.mj_setState(self.model, self.data, np.array(state["state"]), INTEGRATION)
        self.data.xpos[:] = state["bodies"]
