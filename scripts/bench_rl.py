"""Steps a second of PPO on the ants of figure 6: ours against stable-baselines3's, and against the bare physics.

All three have one thread, the hyperparameters of figure 6 and a fresh policy; a turn is a rollout of 2048 steps and,
but for the physics, the update on it. stable-baselines3 runs as it is installed, on the stock environment of gymnasium
or pybullet_envs_gymnasium, and once more on ours, which tells what the agent gains from what the environment does.
"""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any, cast

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium.envs.mujoco.ant_v4 import AntEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from scripts.bench_table import Effort, Row
from syre.data import DataError
from syre.learners import Replica
from syre.metrics.cost import Step
from syre.optim import Adam
from syre.rl import PPO, ActorCritic, SlipperyAnt
from syre.rl.silence import silence
from syre.trainer import Training


def ours(backend: str, rollout: int) -> Step:
    """An iteration as figure 6 runs it."""
    ant, task = SlipperyAnt(backend=backend, change_every=93_000), PPO(rollout=rollout)
    env = ant.load()
    policy = ActorCritic().build(env.input_shape, env.num_classes)
    start = Replica(model=policy, optimizer=Adam(lr=1e-4).build(policy, 0.0), noise=torch.Generator())
    agent = task.agent(start, ant.load, Training(steps=rollout, batch_size=128), seed=0)

    def step() -> None:
        agent.collect()
        agent.update()

    return step


def stock(env: gymnasium.Env, rollout: int) -> Step:
    """An iteration of stable-baselines3."""
    networks = {"net_arch": {"pi": [256, 256], "vf": [256, 256]}, "activation_fn": nn.ReLU, "ortho_init": False}
    training: dict[str, Any] = {"learning_rate": 1e-4, "n_steps": rollout, "batch_size": 128, "n_epochs": 10}
    training |= {"vf_coef": 1.0, "max_grad_norm": 1e9, "policy_kwargs": networks}
    ppo = stable_baselines3.PPO("MlpPolicy", env, **training, device="cpu", seed=0)
    ppo.set_logger(Logger(folder=None, output_formats=[]))  # its own would leave a folder among the temporary files
    environments = cast(VecEnv, ppo.env)
    _, callback = ppo._setup_learn(rollout)

    def step() -> None:
        ppo.collect_rollouts(environments, callback, ppo.rollout_buffer, rollout)
        ppo.train()

    return step


def physics(env: gymnasium.Env, rollout: int) -> Step:
    """A rollout of random actions, without a policy."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)

    def step() -> None:
        for action in rng.standard_normal((rollout, 8)).astype(np.float32):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return step


def stock_environment(backend: str) -> gymnasium.Env:
    """The environment as its own package makes it, with the same time limit."""
    if backend == "mujoco":
        return TimeLimit(AntEnv(), 1000)
    from syre.rl.bullet_ant import AntBulletEnv  # not for every Python

    return TimeLimit(AntBulletEnv(), 1000)


def rl(effort: Effort) -> Iterator[Row]:
    """One backend after the other."""
    rollout = 128 if effort.quick else 2048
    effort = replace(effort, rounds=min(7, effort.rounds), seconds=0.0)
    for backend, name in (("mujoco", "MuJoCo"), ("pybullet", "PyBullet")):
        try:
            SlipperyAnt(backend=backend).load()
        except DataError as error:
            print(f"  {name} left out: {error}")
            continue
        with silence():
            contenders = {
                "stable-baselines3": stock(stock_environment(backend), rollout),
                "stable-baselines3 on our ant": stock(SlipperyAnt(backend=backend).load(), rollout),
                "ours": ours(backend, rollout),
                "physics": physics(stock_environment(backend), rollout),
            }
        taken = effort.times(contenders)
        for slow, fast, target in (
            ("stable-baselines3", "ours", ">= 1.3"),
            ("stable-baselines3 on our ant", "ours", ""),
            ("ours", "physics", ""),
        ):
            speeds = " and ".join(f"{rollout / median(taken[one]):.0f}" for one in (slow, fast))
            yield Row(f"{slow} / {fast}: {name}", taken[slow] / taken[fast], target, f"{speeds} steps/s")
