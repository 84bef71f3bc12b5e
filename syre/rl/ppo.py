"""Proximal policy optimization as a task that brings its own loop: collect a rollout, update on it, again."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from syre import metrics
from syre.checks import among, at_least, check, fraction, positive, share
from syre.learners import Replica
from syre.rl.agent import Agent
from syre.rl.slippery_ant import Slippery
from syre.seeding import derive_seed
from syre.trainer import Events, Interaction, Make, Record, Snapshot, State, Stop, Training, milestones, resuming

WINDOW = 1000  # last observations on which the features are measured
# Settings that stable-baselines3 has too, and its names for them.
STOCK = {"rollout": "n_steps", "epochs": "n_epochs", "value_coef": "vf_coef", "entropy_coef": "ent_coef"}
STOCK |= {"sde_every": "sde_sample_freq", "clip_range": "clip_range", "gamma": "gamma", "gae_lambda": "gae_lambda"}
ACTIVE = 0.01  # a unit that is positive on no more of them is dead


@dataclass(frozen=True, kw_only=True)
class PPO(Interaction):
    """PPO (Schulman et al., arXiv 1707.06347); the defaults are those of Dohare et al. on Slippery Ant.

    With `train.steps` steps of the environment, batches of `train.batch_size` (0: a whole rollout), and gradients
    clipped at `train.clip`.

    Args:
        rollout: steps of each environment between two updates.
        epochs: passes over a rollout in an update.
        gamma, gae_lambda: discount, and the lambda of generalised advantage estimation.
        clip_range: of the ratio of probabilities.
        value_coef, entropy_coef: weights of the value's squared error and of the entropy in the loss.
        normalize_advantage: over the whole "rollout", or over each "batch".
        collector: solo or stock, see `syre.rl.agent.Agent`.
        environments: side by side; 1 for solo.
        sde_every: steps between two draws of the exploration matrix of gSDE; stock alone.
        final_episodes: episodes of the mean action, without exploration, after training; 0: none.
    """

    rollout: int = 2048
    epochs: int = 10
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    value_coef: float = 1.0
    entropy_coef: float = 0.0
    normalize_advantage: str = "rollout"
    collector: str = "solo"
    environments: int = 1
    sde_every: int = 4
    final_episodes: int = 0
    ranges: ClassVar = {"gamma": fraction, "gae_lambda": share, "normalize_advantage": among("rollout", "batch")}
    ranges |= dict.fromkeys(("rollout", "epochs", "clip_range", "environments", "sde_every"), positive)
    ranges |= dict.fromkeys(("value_coef", "entropy_coef", "final_episodes"), at_least)
    ranges |= {"collector": among("solo", "stock")}

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.collector == "stock" or self.environments == 1, "task.environments > 1 needs task.collector=stock")

    def accept(self, model: nn.Module, data: Any, settings: Training) -> None:
        """Raise ValueError for what this loop does not do, rather than leave it undone."""
        check(isinstance(data, Slippery), "task=ppo needs an environment: data=slippery_ant")
        check(isinstance(model, ActorCriticPolicy), f"task=ppo needs model=ppo, got {type(model).__name__}")
        policy = cast(ActorCriticPolicy, model)
        check(self.collector == "stock" or not policy.use_sde, "model.gsde=true needs task.collector=stock")
        check(policy.device.type == "cpu", "PPO runs on the CPU: compute.device=cpu")
        check(settings.steps > 0, "PPO takes train.steps, steps of the environment, with train.epochs=0")
        check(self.rollout * self.environments > 1, "task.rollout must be > 1 for advantages to be normalised")
        check(settings.batch_size != 1, "PPO takes batches of more than 1: train.batch_size > 1, or 0, a whole rollout")
        for name, only in (("schedule", "constant"), ("warmup", 0), ("accumulate", 1), ("restart", False)):
            given = getattr(settings, name)
            check(given == only, f"PPO has train.{name}={only} only, got {given}")

    def interact(
        self, replica: Replica, make: Make, settings: Training, *, seed: int, resume: State = None, stop: Stop = None
    ) -> Events:
        """Train for `settings.steps` steps, rounded up to whole rollouts, as `syre.trainer.train` does.

        A record is due at the first end of an iteration at or after its evenly spaced step. Split "test": `return`
        (undiscounted) and `length`, means over the episodes that ended since the last record, and their number
        `episodes`; `friction` now; and of the policy's last hidden features at the last 1000 observations the ranks of
        `syre.metrics.ranks` (`rank/99` is the "stable rank" of the borrowed code) and `dead`, the units positive on at
        most 1 % of them; `weight/norm` and `weight/mean`, Euclidean norm and mean absolute value of its weights, and
        `weight/change`, the mean absolute change of a weight in an update. Split "train": means over the updates since
        the last record. Training that is no longer finite ends there, with a record that says so.
        """
        agent, total = self.agent(replica, make, settings, seed), settings.steps
        evaluations, checkpoints = milestones(settings.evaluations, total), milestones(settings.checkpoints + 1, total)
        updates: list[dict[str, Tensor]] = []  # since the last record
        if resume is not None:
            with resuming():
                agent.load_state_dict(resume["agent"])
                updates = resume["updates"]
        while (before := agent.num_timesteps) < total:
            agent.collect()
            step = agent.num_timesteps
            due, saved = (any(before < goal <= step for goal in goals) for goals in (evaluations, checkpoints))
            acted = _acted(agent) if due else {}
            updates.append(_update(agent))
            healthy = bool(updates[-1]["loss"].isfinite())
            if due or not healthy:
                means = {name: torch.stack([row[name] for row in updates]).mean().view(1) for name in updates[0]}
                measured = acted | {"weight/change": means.pop("weight/change")}
                if healthy and step >= total and self.final_episodes:
                    measured |= self._final(agent, make(), seed)
                yield Record(step=step, split="train", values=means)
                yield Record(step=step, split="test", values=measured)
                updates = []
            if not healthy or step >= total:
                return
            halt = stop is not None and stop(step, total)
            if halt or saved:
                state = {"step": step, "agent": agent.state_dict(), "updates": updates}
                yield Snapshot(step=step, total=total, state=state)
            if halt:
                return

    def agent(self, replica: Replica, make: Make, settings: Training, seed: int) -> Agent:
        """The agent that these settings make of a replica and of as many environments as it takes."""
        many = range(self.environments)
        seeds = [derive_seed(seed, "environment", k) for k in many]
        more = {theirs: getattr(self, ours) for ours, theirs in STOCK.items()}
        more |= {"batch_size": settings.batch_size or self.rollout * self.environments, "max_grad_norm": settings.clip}
        stock = self.collector == "stock"
        return Agent(replica, [make() for _ in many], seeds, stock, self.normalize_advantage, **more)

    def _final(self, agent: Agent, environment: Slippery, seed: int) -> dict[str, Tensor]:
        """Mean return of whole episodes of the mean action, on ground as it is now."""
        environment.changes = agent.environments[0].changes
        observation, _ = environment.reset(seed=derive_seed(seed, "final"))
        returns = []
        for _ in range(self.final_episodes):
            total, ended = 0.0, False
            while not ended:
                observation, reward, terminated, truncated, _ = environment.step(agent.mean_action(observation))
                total, ended = total + reward, terminated or truncated
            returns.append(total)
            observation, _ = environment.reset()
        return {"return/final": torch.tensor([np.mean(returns)])}


def _weights(policy: ActorCriticPolicy) -> Tensor:
    """All entries of the weight matrices of the policy, not of its value function: a copy [weights]."""
    modules = [*policy.mlp_extractor.policy_net, policy.action_net]
    return torch.cat([module.weight.detach().flatten() for module in modules if isinstance(module, nn.Linear)])


def _update(agent: Agent) -> dict[str, Tensor]:
    """The update on a rollout: what it reports, and the mean absolute change of a weight of the policy."""
    before = _weights(agent.policy)
    reported = agent.update()
    return {**reported, "weight/change": (_weights(agent.policy) - before).abs().double().mean()}


@torch.no_grad()
def _acted(agent: Agent) -> dict[str, Tensor]:
    """What is recorded of a rollout and of the policy that acted in it, [1] each; the episodes are read off."""
    observations = agent.rollout_buffer.observations
    recent = torch.from_numpy(observations.reshape(-1, observations.shape[-1])[-WINDOW:]).float()
    features = agent.policy.mlp_extractor.policy_net(recent)
    active, weights = (features > 0).double().mean(0), _weights(agent.policy).double()
    values = {
        **metrics.ranks(features),
        "dead": (active <= ACTIVE).double().sum(),
        "weight/norm": weights.norm(),
        "weight/mean": weights.abs().mean(),
        "episodes": torch.tensor(float(len(agent.ended))),
    }
    if agent.ended:
        returns, lengths = zip(*agent.ended, strict=True)
        values |= {"return": torch.tensor(np.mean(returns)), "length": torch.tensor(np.mean(lengths))}
    if agent.environments[0].friction.change_every:
        values["friction"] = torch.tensor(agent.environments[0].coefficient)
    agent.ended = []
    return {name: value.view(1) for name, value in values.items()}
