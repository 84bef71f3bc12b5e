"""The networks of PPO: stable-baselines3's actor-critic policy, started as the borrowed code starts its own."""

from dataclasses import dataclass, field
from math import sqrt
from typing import ClassVar

import gymnasium
import numpy as np
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from syre.checks import all_widths, among
from syre.models.base import Architecture
from syre.models.mlp import ACTIVATIONS

INITIALISATIONS = ("lecun", "torch")


@dataclass(frozen=True, kw_only=True)
class ActorCritic(Architecture):
    """A Gaussian policy and a value function, networks apart, with a learned log std that does not see the state.

    Source of the defaults: Dohare et al., their configurations of Slippery Ant.

    Args:
        hidden: widths of the hidden layers of each of the two.
        activation: relu or tanh.
        init: lecun, weights uniform of variance 1 / fan_in and biases 0; or torch, the default of its linear layers.
        log_std: where the log std starts.
        gsde: generalised state-dependent exploration (Raffin et al., arXiv 2005.05719) instead of Gaussian noise.
    """

    hidden: list[int] = field(default_factory=lambda: [256, 256])
    activation: str = "relu"
    init: str = "lecun"
    log_std: float = 0.0
    gsde: bool = False
    ranges: ClassVar = {"hidden": all_widths, "activation": among("relu", "tanh"), "init": among(*INITIALISATIONS)}

    def build(self, input_shape: tuple[int, ...], outputs: int) -> ActorCriticPolicy:
        """The policy for observations of `input_shape` and `outputs` motors, from torch's global generator.

        It comes with an optimizer of its own that is not used.
        """
        policy = ActorCriticPolicy(
            gymnasium.spaces.Box(-np.inf, np.inf, input_shape, np.float32),
            gymnasium.spaces.Box(-1.0, 1.0, (outputs,), np.float32),
            lambda _: 0.0,
            net_arch={"pi": list(self.hidden), "vf": list(self.hidden)},
            activation_fn=ACTIVATIONS[self.activation],
            ortho_init=False,
            use_sde=self.gsde,
            log_std_init=self.log_std,
        )
        if self.init == "lecun":
            for module in policy.modules():
                if isinstance(module, nn.Linear):
                    nn.init.uniform_(module.weight, -sqrt(3 / module.in_features), sqrt(3 / module.in_features))
                    nn.init.zeros_(module.bias)
        return policy
