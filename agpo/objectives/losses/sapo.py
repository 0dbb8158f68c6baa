"""SAPO: Soft Adaptive Policy Optimization (arXiv 2511.20347)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.losses.token_loss import TokenLoss

if TYPE_CHECKING:
    from torch import Tensor


class Sapo(TokenLoss):
    """A smooth gate in place of the clip: the gradient fades as a token's ratio leaves 1.

        loss = −A · (4/τ) · sigmoid(τ (ρ − 1))          ρ = exp(logprobs − old_logprobs)

    τ is ``tau_positive`` for A > 0 and ``tau_negative`` else; the larger one fades faster. Both are the paper's, whose
    aggregation is ``loss.normalisation.kind = "sequence_mean"``. At ρ = 1 the gradient is that of −A ρ. The loss lies
    between 0 and −A · 4/τ.
    """

    kind: Literal["sapo"] = "sapo"
    tau_positive: float = Field(1.0, gt=0, title="Tau positive", description="τ for positive advantages")
    tau_negative: float = Field(1.05, gt=0, title="Tau negative", description="τ for the others")

    def token_losses(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> Tensor:
        ratio = (logprobs - old_logprobs).exp()
        tau = advantages.new_full(advantages.shape, self.tau_negative).masked_fill(advantages > 0, self.tau_positive)
        return -advantages * (tau * (ratio - 1)).sigmoid() * 4 / tau
