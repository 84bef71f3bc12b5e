"""stable-baselines3: PPO and A2C, whose policies hold their optimizer; fresh, saved and loaded, with their clipping.

The reference is the same algorithm on a policy in module form (`syre.parametrize`), whose optimizer has theta.
"""

import gymnasium
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import FlattenExtractor
from theta import SETTINGS, differs, same

import syre

STEPS, DECAY = 64, 0.5
# The policies are float64, their rollouts float32: equal, but for a last digit that may once in a million runs differ.
TOLERANCE = 1e-9


class Flat(FlattenExtractor):
    def forward(self, observations):
        return super().forward(observations).double()


class Double(ActorCriticPolicy):
    def __init__(self, *args, **options):
        super().__init__(*args, **options, features_extractor_class=Flat)

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.double()


ALGORITHMS = {
    "ppo": (PPO, "CartPole-v1", {"n_steps": 32, "batch_size": 16, "n_epochs": 2}),
    "ppo, continuous actions": (PPO, "Pendulum-v1", {"n_steps": 32, "batch_size": 16, "n_epochs": 2}),
    "a2c": (A2C, "CartPole-v1", {"n_steps": 8}),
    "a2c, its own RMSprop": (A2C, "CartPole-v1", {"n_steps": 8}),  # no optimizer of torch: the shift form
}
algorithms = pytest.mark.parametrize("name", ALGORITHMS)


def make(name, seed=0, *, decay=DECAY, **options):
    kind, env, settings = ALGORITHMS[name]
    policy = {"net_arch": [8]} | ({"optimizer_class": RMSpropTFLike} if "its own" in name else {})
    settings = {"learning_rate": 0.01, "policy_kwargs": policy, "device": "cpu", **settings, **options}
    agent = kind(Double, gymnasium.make(env), seed=seed, **settings)
    agent.policy.optimizer.param_groups[0]["weight_decay"] = decay  # A2C does not listen to optimizer_kwargs
    return agent


def learn(agent, name, seed):
    """A part of the training whose randomness, and start of the environment, are its own."""
    agent.set_env(gymnasium.make(ALGORITHMS[name][1]))
    agent.set_random_seed(seed)
    agent.learn(STEPS, reset_num_timesteps=False)


def weights(agent):
    policy = agent.policy
    layers = {f"net.{i}": m for i, m in enumerate(m for m in policy.modules() if hasattr(m, "in_features"))}
    found = {f"{i}.{leaf}": getattr(m, leaf).detach().clone() for i, m in layers.items() for leaf in ("weight", "bias")}
    return found | ({"log_std": policy.log_std.detach().clone()} if hasattr(policy, "log_std") else {})


def reference(name, attach=lambda agent: syre.parametrize(agent.policy, **SETTINGS), **options):
    agent = make(name, **options)
    attach(agent)
    for seed in (1, 2):
        learn(agent, name, seed)
    return weights(agent)


def line(agent):
    return syre.attach(agent.policy.optimizer, agent.policy, **SETTINGS)


@pytest.mark.parametrize("norm", [0.05, 100.0])
@algorithms
def test_it_trains_theta(name, norm):
    agent = make(name, max_grad_norm=norm)
    assert line(agent).form == ("shift" if "its own" in name else "pull")
    for seed in (1, 2):
        learn(agent, name, seed)
    same(weights(agent), reference(name, max_grad_norm=norm), TOLERANCE)


@algorithms
def test_it_goes_on_from_what_was_saved(name, tmp_path):
    agent = make(name)
    line(agent)
    learn(agent, name, seed=1)
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", device="cpu")
    line(loaded)
    learn(loaded, name, seed=2)
    same(weights(loaded), reference(name), TOLERANCE)


@algorithms
def test_it_goes_on_in_an_agent_that_takes_the_parameters(name, tmp_path):
    agent = make(name)
    line(agent)
    learn(agent, name, seed=1)
    agent.save(tmp_path / "agent")
    other = make(name, seed=5)
    line(other)
    other.set_parameters(tmp_path / "agent", device="cpu")
    learn(other, name, seed=2)
    same(weights(other), reference(name), TOLERANCE)


@algorithms
def test_the_line_that_brings_the_decay_along_is_the_same_after_loading(name, tmp_path):
    def brings(agent):
        return syre.attach(agent.policy.optimizer, agent.policy, weight_decay=DECAY, **SETTINGS)

    agent = make(name, decay=0.0)
    brings(agent)
    learn(agent, name, seed=1)
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", device="cpu")
    brings(loaded)
    learn(loaded, name, seed=2)
    same(weights(loaded), reference(name), TOLERANCE)


@algorithms
def test_control_without_syre_or_with_a_second_shift_it_would_be_seen(name):
    mine = reference(name)
    differs(mine, reference(name, attach=lambda agent: None))

    def twice(agent):
        with torch.no_grad():
            for name, anchor in line(agent).anchors.items():
                agent.policy.get_parameter(name).add_(anchor)

    differs(mine, reference(name, attach=twice))
