"""The ant in PyBullet: AntBulletEnv of pybullet_envs_gymnasium, read in few calls, and continued exactly."""

from typing import Any

import numpy as np

from syre.rl.silence import silence
from syre.rl.slippery_ant import Slippery

with silence():
    import pybullet
    from pybullet_envs_gymnasium.gym_locomotion_envs import AntBulletEnv, WalkerBaseBulletEnv
    from pybullet_envs_gymnasium.robot_locomotors import Ant


class Robot(Ant):
    """The robot of AntBulletEnv, with one call to the physics where the original makes one for each joint and link.

    Observations are the same to the last bit (tested), in a quarter of the time.
    """

    def robot_specific_reset(self, bullet_client: Any) -> None:
        super().robot_specific_reset(bullet_client)
        joints, torso = self.ordered_joints, self.robot_body
        self._body = torso.bodies[torso.bodyIndex]
        self._joints = [joint.jointIndex for joint in joints]
        self._low = np.array([joint.lowerLimit for joint in joints])
        self._range = np.array([joint.upperLimit for joint in joints]) - self._low
        self._torque = np.array([self.power * joint.power_coef for joint in joints])
        # Rows in the order of the original: links of the robot, its base (link -1), and the floor, which counts.
        own = [(row, part) for row, part in enumerate(self.parts.values()) if part.bodies[part.bodyIndex] == self._body]
        self._rows = [row for row, part in own if part.bodyPartIndex >= 0]
        self._links = [part.bodyPartIndex for _, part in own if part.bodyPartIndex >= 0]
        self._base = next(row for row, part in own if part.bodyPartIndex < 0)
        self._positions = np.array([part.pose().xyz() for part in self.parts.values()])

    def apply_action(self, a: np.ndarray) -> None:
        """Torques of the motors, the action clipped to [-1, 1]."""
        torques = self._torque * np.clip(a, -1, +1).astype(np.float64)
        self._p.setJointMotorControlArray(self._body, self._joints, pybullet.TORQUE_CONTROL, forces=torques.tolist())

    def calc_state(self) -> np.ndarray:
        """The observation [28], and the attributes from which the environment makes its reward."""
        states = self._p.getJointStates(self._body, self._joints)
        j = np.empty(2 * len(states), dtype=np.float32)
        j[0::2] = 2 * (np.array([state[0] for state in states]) - self._low) / self._range - 1.0
        j[1::2] = 0.1 * np.array([state[1] for state in states])
        self.joint_speeds = j[1::2]
        self.joints_at_limit = np.count_nonzero(np.abs(j[0::2]) > 0.99)

        base, orientation = self._p.getBasePositionAndOrientation(self._body)
        self._positions[self._rows] = [link[0] for link in self._p.getLinkStates(self._body, self._links)]
        self._positions[self._base] = base
        self.body_real_xyz = np.array(base)
        self.body_rpy = roll, pitch, yaw = pybullet.getEulerFromQuaternion(orientation)
        x, y, z = self.body_xyz = self._positions[:, 0].mean(), self._positions[:, 1].mean(), base[2]
        if self.initial_z is None:
            self.initial_z = z
        dx, dy = self.walk_target_x - x, self.walk_target_y - y
        self.walk_target_theta, self.walk_target_dist = np.arctan2(dy, dx), np.linalg.norm([dy, dx])
        turn = self.walk_target_theta - yaw

        to_body = np.array([[np.cos(-yaw), -np.sin(-yaw), 0], [np.sin(-yaw), np.cos(-yaw), 0], [0, 0, 1]])
        velocity = 0.3 * np.dot(to_body, self._p.getBaseVelocity(self._body)[0])
        more = np.array([z - self.initial_z, np.sin(turn), np.cos(turn), *velocity, roll, pitch], dtype=np.float32)
        return np.clip(np.concatenate([more, j, self.feet_contact]), -5, +5)


class BulletAnt(Slippery, AntBulletEnv):
    """AntBulletEnv on ground of changing friction; `terminated` when the torso comes down."""

    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        super().__init__(render_mode=render_mode, **settings)
        self.robot = Robot()
        WalkerBaseBulletEnv.__init__(self, self.robot, render_mode=render_mode)
        # An environment's first episode differs from the others, whose scene has a floor: none of ours is the first.
        with silence():
            AntBulletEnv.reset(self, seed=0)
        self._begin()

    def _begin(self) -> None:
        self._start = self.np_random.bit_generator.state
        self._actions: list[np.ndarray] = []

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self.seed(seed)
        self._begin()
        return super().reset(seed=None, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._actions.append(np.array(action, dtype=np.float32))
        return super().step(action)

    def set_friction(self, coefficient: float) -> None:
        """The floor gets the coefficient and the ant 1: Bullet multiplies those of the two that touch."""
        for body in self.ground_ids:
            self._p.changeDynamics(*body, lateralFriction=coefficient)
        robot = self.robot.objects[0]
        for link in range(-1, self._p.getNumJoints(robot)):
            self._p.changeDynamics(robot, link, lateralFriction=1.0)

    def physics(self) -> dict[str, Any]:
        return {"start": self._start, "actions": [action.tolist() for action in self._actions]}

    def load_physics(self, state: dict[str, Any]) -> None:
        """Replay the episode: a saved state of Bullet does not continue exactly in a new process, its actions do."""
        self.np_random.bit_generator.state = state["start"]
        self._begin()
        AntBulletEnv.reset(self)
        for action in state["actions"]:
            self._actions.append(np.array(action, dtype=np.float32))
            AntBulletEnv.step(self, self._actions[-1])
