"""Token losses: one small pure file each."""

from agpo.objectives.losses.kl import kl_k3
from agpo.objectives.losses.ppo import ppo_clip_loss

__all__ = ["kl_k3", "ppo_clip_loss"]
