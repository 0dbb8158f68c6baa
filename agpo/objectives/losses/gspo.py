"""GSPO: Group Sequence Policy Optimization (arXiv 2507.18071)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.group import group_means
from agpo.objectives.losses.token_loss import TokenLoss

if TYPE_CHECKING:
    from torch import Tensor


class Gspo(TokenLoss):
    """PPO's clip on one ratio a response, the geometric mean of its tokens' ratios.

        s = exp(mean over the row's tokens of (logprobs − old_logprobs))
        loss = max(−A s, −A clip(s, 1 − clip_low, 1 + clip_high))

    The ranges are the paper's: s is far closer to 1 than a token's ratio. The paper's aggregation is
    ``loss.normalisation.kind = "sequence_mean"``. There is no dual clip: with a negative advantage the loss is
    unbounded in s.
    """

    kind: Literal["gspo"] = "gspo"
    clip_low: float = Field(3e-4, gt=0, lt=1, title="Clip low")
    clip_high: float = Field(4e-4, gt=0, title="Clip high")

    def token_losses(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> Tensor:
        ratio = group_means(logprobs - old_logprobs, rows).exp()
        return (-advantages * ratio).maximum(-advantages * ratio.clamp(1 - self.clip_low, 1 + self.clip_high))

    def clipped(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> dict[str, Tensor]:
        ratio = group_means(logprobs - old_logprobs, rows).exp()
        return {
            "low": (ratio < 1 - self.clip_low) & (advantages < 0),
            "high": (ratio > 1 + self.clip_high) & (advantages > 0),
        }
