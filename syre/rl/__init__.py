"""Reinforcement learning: Slippery Ant, and stable-baselines3's PPO on it (section 6.6, figure 6)."""

from syre.extras import extra

with extra("rl"):
    from syre.rl.policy import ActorCritic
    from syre.rl.ppo import PPO
    from syre.rl.slippery_ant import Friction, Slippery, SlipperyAnt
