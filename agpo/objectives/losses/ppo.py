"""The clipped policy loss of PPO (arXiv 1707.06347) with dual clip (arXiv 1912.09729)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def ppo_clip_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float
) -> Tensor:
    """Token losses, in the shape of ``logprobs``.

        ρ = exp(logprobs − old_logprobs)
        loss = max(−A ρ, −A clip(ρ, 1 − clip_low, 1 + clip_high))          A ≥ 0
        loss = min(−A dual_clip, the same maximum)                        A < 0

    Without the dual clip a negative advantage is unbounded in ρ, which matters most for a negative-dominant objective.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = (-advantages * ratio).maximum(clipped)
    return loss.where(advantages >= 0, loss.minimum(-advantages * dual_clip))
