"""The ant in MuJoCo: gymnasium's Ant-v4, the closest still kept to the Ant-v3 of the borrowed code.

Ant-v4 observes 27 numbers and is rewarded `forward velocity + 1 - 0.5 |a|^2`; Ant-v3 had 84 more observations, the
contact forces, which MuJoCo 2.1 left at about 0.
"""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv

from syre.rl.slippery_ant import Slippery

INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION  # what an integration step depends on, warm start included


class MuJoCoAnt(Slippery, AntEnv):  # type: ignore[misc]
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
