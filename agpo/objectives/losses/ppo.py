"""The clipped policy loss of PPO (arXiv 1707.06347) with dual clip (arXiv 1912.09729)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.losses.token_loss import TokenLoss

if TYPE_CHECKING:
    from torch import Tensor


class PpoClip(TokenLoss):
    """The probability ratio of each token, held in a range around 1; see `ppo_clip_loss`.

    Clip 0.2 and dual clip 3 are verl's defaults and our choice for AGPO; a clip high of 0.28 is DAPO's clip-higher
    (arXiv 2503.14476).
    """

    kind: Literal["ppo_clip"] = "ppo_clip"
    clip_low: float = Field(0.2, gt=0, lt=1, title="Clip low")
    clip_high: float = Field(0.2, gt=0, title="Clip high")
    dual_clip: float = Field(3.0, gt=1, title="Dual clip", description="bound of the ratio for negative advantages")

    def token_losses(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> Tensor:
        return ppo_clip_loss(logprobs, old_logprobs, advantages, self.clip_low, self.clip_high, self.dual_clip)

    def clipped(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> dict[str, Tensor]:
        ratio = (logprobs - old_logprobs).exp()
        return {
            "low": (ratio < 1 - self.clip_low) & (advantages < 0),
            "high": (ratio > 1 + self.clip_high) & (advantages > 0),
            "dual": (ratio > self.dual_clip) & (advantages < 0),
        }


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
