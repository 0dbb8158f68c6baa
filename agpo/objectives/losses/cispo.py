"""CISPO: clipped importance-sampling weights (MiniMax-M1, arXiv 2506.13585)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.losses.token_loss import TokenLoss

if TYPE_CHECKING:
    from torch import Tensor


class Cispo(TokenLoss):
    """REINFORCE with a clipped ratio as a constant weight, so that no token loses its gradient.

        loss = −sg(clip(ρ, 1 − clip_low, 1 + clip_high)) A logprobs          ρ = exp(logprobs − old_logprobs)

    sg stops the gradient. The paper has no lower bound, as has clip_low = 1 here, and does not publish the upper one;
    our choice of 4 is the cap of 5 that TRL 1.16 cites.
    """

    kind: Literal["cispo"] = "cispo"
    clip_low: float = Field(1.0, gt=0, le=1, title="Clip low", description="1: no lower bound")
    clip_high: float = Field(4.0, gt=0, title="Clip high")

    def token_losses(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> Tensor:
        ratio = (logprobs.detach() - old_logprobs).exp()
        return -ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * advantages * logprobs

    def clipped(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> dict[str, Tensor]:
        ratio = (logprobs - old_logprobs).exp()
        return {"low": ratio < 1 - self.clip_low, "high": ratio > 1 + self.clip_high}
