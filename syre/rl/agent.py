"""stable-baselines3's PPO with the protocol of the borrowed code, a lean path through its two loops, and exact resume.

Where the time goes (profiled, one thread): of the 500 us or so that stable-baselines3 takes for a step of MuJoCo's ant,
150 are physics, 180 the update, and the rest mostly forward pass, distribution, value and log-probability of batches of
one. None of that rest has to happen then: a rollout is collected with one policy, so its values and log-probabilities
are those of one batch at its end, and a step needs the mean action alone, three products of a matrix and a vector (9
us). In the update a quarter goes into torch's distributions and their backward pass, which are written out here. What
remains is physics, and matrix products at the speed of the core. `make bench ARGS="--only rl"` measures it.
"""

import math
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import Tensor, nn
from torch.distributions import Distribution

from syre.learners.protocol import Replica, keep_freed_memory
from syre.rl.slippery_ant import Slippery
from syre.seeding import restore_generator

T = TypeVar("T")
LOG_ROOT_TAU = math.log(math.sqrt(2 * math.pi))


class Agent(stable_baselines3.PPO):
    """PPO on a policy, its optimizer and its environments, all made elsewhere.

    Two ways to collect a rollout:
    - `solo`, one environment: actions go to the environment as they are drawn, the end of the time limit is an end (no
      bootstrap), nothing is normalised. This is the protocol of Dohare et al.
    - `stock`: stable-baselines3's own loop, with actions clipped, the time limit bootstrapped, and observations and
      rewards normalised by `VecNormalize`; over any number of environments.

    Args:
        replica: the policy, the optimizer that steps it (syre's hooks and all), and the stream of exploration (`solo`)
            and of the order of minibatches.
        environments: one, or for `stock` any number, freshly made.
        seeds: of the environments' starts; the first also of the exploration of `stock`.
        normalize: advantages over the whole "rollout", or over each "batch".
        more: settings of stable-baselines3's PPO; `max_grad_norm` 0 is no bound, and `clip_range` a number.

    Making one turns off, for this process, the checks that torch's distributions make of their arguments.
    """

    # made here and in no way optional, whatever the base class says
    env: Any
    action_space: gymnasium.spaces.Box
    rollout_buffer: RolloutBuffer
    _last_obs: np.ndarray
    _last_episode_starts: np.ndarray

    def __init__(
        self, replica: Replica, environments: list[Slippery], seeds: list[int], stock: bool, normalize: str, **more: Any
    ) -> None:
        self._replica = replica
        policy, self.noise = cast(ActorCriticPolicy, replica.model), replica.noise
        self.environments, self.stock, self.normalize = environments, stock, normalize
        self.monitors = [Monitor(environment) for environment in environments]
        vectorised: VecEnv = DummyVecEnv([partial(_same, monitor) for monitor in self.monitors])
        if stock:
            vectorised = VecNormalize(vectorised, gamma=more["gamma"])
        super().__init__(
            ActorCriticPolicy, vectorised, use_sde=policy.use_sde, device="cpu", _init_setup_model=False, **more
        )
        self.policy, policy.optimizer = policy, replica.optimizer
        spaces = vectorised.observation_space, vectorised.action_space
        returns: dict[str, Any] = {"gamma": self.gamma, "gae_lambda": self.gae_lambda, "n_envs": len(environments)}
        self.rollout_buffer = RolloutBuffer(self.n_steps, *spaces, device="cpu", **returns)
        keep_freed_memory()
        Distribution.set_default_validate_args(False)  # the checks take as long as the log-probability
        self._callback = CallbackList([])
        self._callback.init_callback(self)
        self.ended: list[tuple[float, int]] = []  # undiscounted return and length of the episodes since they were read
        self.ongoing = (0.0, 0)  # of the episode of `solo`
        starts = [env.reset(seed=start)[0] for env, start in zip(self.environments, seeds, strict=True)]
        self._exploration = torch.Generator().manual_seed(seeds[0]).get_state()
        self._last_obs = np.asarray(vectorised.reset() if stock else starts)
        self._last_episode_starts = np.ones(len(self.environments), dtype=bool)

    # ---- collecting a rollout ----------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Fill the rollout buffer with `n_steps` steps of each environment."""
        if self.stock:
            with torch.random.fork_rng(devices=[]):  # stable-baselines3 explores by torch's global generator
                torch.set_rng_state(self._exploration)
                self.collect_rollouts(self.env, self._callback, self.rollout_buffer, self.n_steps)
                self._exploration = torch.get_rng_state()
        else:
            self._collect_solo(self.environments[0], self.rollout_buffer)

    @torch.no_grad()
    def mean_action(self, observation: np.ndarray) -> np.ndarray:
        """The action without exploration."""
        inputs = self.env.normalize_obs(observation[None]) if self.stock else observation[None]
        action = self.policy.get_distribution(torch.from_numpy(inputs).float()).mode()[0].numpy()
        return action.clip(self.action_space.low, self.action_space.high) if self.stock else action

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        self.ended += [(info["episode"]["r"], info["episode"]["l"]) for info in infos if "episode" in info]

    @torch.no_grad()
    def _collect_solo(self, environment: Slippery, buffer: RolloutBuffer) -> None:
        buffer.reset()
        layers: list[Any] = [*self.policy.mlp_extractor.policy_net, self.policy.action_net]
        steps = [(m.weight, m.bias) if isinstance(m, nn.Linear) else m for m in layers]
        std = cast(Tensor, self.policy.log_std).exp()
        noise = std * torch.randn(self.n_steps, len(std), generator=self.noise)
        observation, start, (total, length) = self._last_obs[0], self._last_episode_starts[0], self.ongoing
        for t, draw in enumerate(noise):
            h = torch.from_numpy(observation.astype(np.float32))
            for step in steps:  # not by numpy, whose threads are not torch's
                h = torch.addmv(step[1], step[0], h) if isinstance(step, tuple) else step(h)
            action = (h + draw).numpy()
            buffer.observations[t, 0], buffer.actions[t, 0], buffer.episode_starts[t, 0] = observation, action, start
            observation, reward, terminated, truncated, _ = environment.step(action)
            buffer.rewards[t, 0], start = reward, terminated or truncated
            total, length = total + reward, length + 1
            if start:
                self.ended.append((total, length))
                total, length = 0.0, 0
                observation, _ = environment.reset()
        self._last_obs[0], self._last_episode_starts[0], self.ongoing = observation, start, (total, length)
        self.num_timesteps += self.n_steps
        self._evaluate(buffer)

    def _evaluate(self, buffer: RolloutBuffer) -> None:
        """Values, log-probabilities, returns and advantages of a full buffer, all under the policy that filled it."""
        values, log_probs, _ = self.policy.evaluate_actions(_tensor(buffer.observations), _tensor(buffer.actions))
        buffer.values[:], buffer.log_probs[:] = values.numpy().reshape(-1, 1), log_probs.numpy().reshape(-1, 1)
        buffer.pos, buffer.full = self.n_steps, True
        last = self.policy.predict_values(torch.from_numpy(self._last_obs).float())
        buffer.compute_returns_and_advantage(last_values=last, dones=self._last_episode_starts)

    # ---- the update --------------------------------------------------------------------------------------------------

    def update(self) -> dict[str, Tensor]:
        """The epochs of minibatch steps on the buffer; means of their losses, and of what the steps did."""
        buffer, policy = self.rollout_buffer, self.policy
        policy.set_training_mode(True)
        names = ("observations", "actions", "log_probs", "advantages", "returns")
        observations, actions, log_probs, advantages, returns = (_tensor(getattr(buffer, name)) for name in names)
        log_probs, advantages, returns = log_probs.view(-1), advantages.view(-1), returns.view(-1)
        if self.normalize == "rollout":
            advantages = _standardise(advantages)
        rows, parameters, clip = [], list(policy.parameters()), cast(float, self.clip_range)
        for _ in range(self.n_epochs):
            order = torch.randperm(len(actions), generator=self.noise)
            for index in order.split(self.batch_size):
                advantage = advantages[index]
                if self.normalize == "batch":
                    advantage = _standardise(advantage)
                batch = Batch(observations[index], actions[index], log_probs[index], advantage, returns[index])
                policy.optimizer.zero_grad()
                rows.append(gradients(policy, batch, clip=clip, value=self.vf_coef, entropy=self.ent_coef))
                if self.max_grad_norm:
                    nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                policy.optimizer.step()
        self._n_updates += self.n_epochs
        means = torch.stack(rows).double().mean(0)
        return dict(zip(("loss", "loss/policy", "loss/value", "kl", "clipped"), means, strict=True))

    # ---- all that the rest depends on --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Between two iterations, when the buffer is spent."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.policy.optimizer.state_dict(),
            "noise": self.noise.get_state(),
            **self._replica.progress(),
            "exploration": self._exploration,
            "steps": self.num_timesteps,
            "observation": torch.from_numpy(self._last_obs),
            "starts": torch.from_numpy(self._last_episode_starts),
            "ended": self.ended,
            "ongoing": self.ongoing,
            "environments": [environment.state_dict() for environment in self.environments],
            "monitors": [list(map(float, monitor.rewards)) for monitor in self.monitors],
            "normalisation": self._normalisation(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on, bit for bit on the same machine."""
        self.policy.load_state_dict(state["policy"])
        self.policy.optimizer.load_state_dict(state["optimizer"])
        restore_generator(self.noise, state["noise"])
        self._replica.go_on(state)
        self._exploration, self.num_timesteps = state["exploration"], state["steps"]
        self._last_obs, self._last_episode_starts = state["observation"].numpy().copy(), state["starts"].numpy().copy()
        self.ended, self.ongoing = list(map(tuple, state["ended"])), tuple(state["ongoing"])
        for environment, saved in zip(self.environments, state["environments"], strict=True):
            environment.load_state_dict(saved)
        for monitor, rewards in zip(self.monitors, state["monitors"], strict=True):
            monitor.rewards, monitor.needs_reset = list(rewards), False
        if state["normalisation"] is not None:
            env, saved = self.env, state["normalisation"]
            for statistics, (mean, var, count) in zip((env.obs_rms, env.ret_rms), saved["statistics"], strict=True):
                statistics.mean, statistics.var, statistics.count = mean.numpy(), var.numpy(), count
            env.returns = saved["returns"].numpy()

    def _normalisation(self) -> dict[str, Any] | None:
        if not self.stock:
            return None
        statistics = [(_copy(s.mean), _copy(s.var), float(s.count)) for s in (self.env.obs_rms, self.env.ret_rms)]
        return {"statistics": statistics, "returns": _copy(self.env.returns)}


# ---- the loss --------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Steps of a rollout: observations [B, n], actions [B, m], and of each step [B] its log-probability under the
    policy that acted (nats), its advantage and its return."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor


def gradients(policy: ActorCriticPolicy, batch: Batch, *, clip: float, value: float, entropy: float) -> Tensor:
    """Add the gradients of PPO's loss to the parameters; what it is made of, and how far the policy has moved, [5].

    `loss = -mean min(r A, clamp(r, 1 - clip, 1 + clip) A) + value * mean (v - R)^2 - entropy * H`, with the ratio of
    probabilities r (Schulman et al., arXiv 1707.06347, Eq. 7 and 9), as stable-baselines3 computes it. Returned: the
    loss, its first two terms, the estimate of the KL in nats, and the share of steps whose ratio is clipped.
    """
    if entropy or policy.use_sde:
        return _gradients_by_autograd(policy, batch, clip=clip, value=value, entropy=entropy)
    mean = policy.action_net(policy.mlp_extractor.policy_net(batch.observations))
    values = policy.value_net(policy.mlp_extractor.value_net(batch.observations))
    log_std = cast(Tensor, policy.log_std)
    *ends, row = _gaussian_loss(mean.detach(), values.detach(), log_std.detach(), batch, clip=clip, value=value)
    torch.autograd.backward((mean, values, log_std), ends)
    return row


def _gradients_by_autograd(
    policy: ActorCriticPolicy, batch: Batch, *, clip: float, value: float, entropy: float
) -> Tensor:
    values, log_prob, spread = policy.evaluate_actions(batch.observations, batch.actions)
    ratio = (log_prob - batch.log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    policy_loss = -torch.minimum(batch.advantages * ratio, batch.advantages * clipped).mean()
    value_loss = nn.functional.mse_loss(values.view(-1), batch.returns)
    loss = policy_loss + value * value_loss
    if entropy:
        loss = loss - entropy * (-log_prob if spread is None else spread).mean()
    loss.backward()
    return torch.stack([t.detach() for t in (loss, policy_loss, value_loss)] + _moved(ratio.detach(), clipped))


def _gaussian_loss(
    mean: Tensor, values: Tensor, log_std: Tensor, batch: Batch, *, clip: float, value: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the loss with respect to mean [B, m], values [B, 1] and log std [m] of a Gaussian policy; and
    what `gradients` returns.

    Written out: for batches this small torch's distributions and their backward pass take longer than the matrix
    products of the networks. The operations and their order are autograd's own.
    """
    std = log_std.exp().expand_as(mean)
    away, twice = batch.actions - mean, 2 * std**2
    against = -(away**2)
    log_prob = (against / twice - std.log() - LOG_ROOT_TAU).sum(1)
    ratio = (log_prob - batch.log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    free, bounded = batch.advantages * ratio, batch.advantages * clipped
    policy_loss = -torch.minimum(free, bounded).mean()
    error = values.view(-1) - batch.returns
    value_loss = (error**2).mean()
    loss = policy_loss + value * value_loss

    size = len(ratio)
    # None where it is clipped; half on the edge, where the two are equal, as autograd has it for a minimum.
    inside = (ratio > 1 - clip) & (ratio < 1 + clip)
    share = torch.where(inside | (free < bounded), 1.0, 0.5 * (free == bounded))
    on_ratio = batch.advantages * share * (-1 / size)
    on_log_prob = (on_ratio * ratio).unsqueeze(1).expand_as(mean)
    on_against = on_log_prob / twice
    on_mean = on_against * (2 * away)
    on_twice = -on_log_prob * ((against / twice) / twice)
    on_std = on_twice * 2 * (2 * std) - on_log_prob / std
    on_log_std = on_std.sum(0) * log_std.exp()
    on_values = (error * (2 / size) * value).view_as(values)
    row = torch.stack([loss, policy_loss, value_loss, *_moved(ratio, clipped)])
    return on_mean, on_values, on_log_std, row


def _moved(ratio: Tensor, clipped: Tensor) -> list[Tensor]:
    """How far a policy is from the one that acted: Schulman's estimate of the KL in nats, and the share clipped."""
    return [(ratio - 1 - ratio.log()).mean(), (ratio != clipped).float().mean()]


# ----------------------------------------------------------------------------------------------------------------------


def _same(thing: T) -> T:
    return thing


def _tensor(array: np.ndarray) -> Tensor:
    """A buffer [steps, environments, ...] as a float32 tensor [steps * environments, ...]."""
    return torch.from_numpy(array.reshape(-1, *array.shape[2:])).float()


def _copy(array: Any) -> Tensor:
    return torch.tensor(np.asarray(array, dtype=np.float64))


def _standardise(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.std() + 1e-8)
