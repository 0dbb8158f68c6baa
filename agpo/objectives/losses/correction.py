"""Importance-sampling correction where the sampler's log-probs are not the trainer's: another engine or precision.

The forms are those of TRL 1.16. Truncation: F. Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy
RL Training", 2025. Masking outside a range on either side is IcePop (arXiv 2510.18855).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from agpo.objectives.group import group_sums

if TYPE_CHECKING:
    from torch import Tensor


class Correction(BaseModel):
    """Weights of the policy loss; the KL term and the entropy bonus have none.

        ρ_t = exp(trainer log-prob − sampler log-prob) of token t           level = token
        ρ_t = the product of these over the tokens of t's response          level = sequence
        w_t = clip(ρ_t, floor, cap)                                         mode = truncate
        w_t = ρ_t, but 0 where ρ_t < floor or ρ_t > cap                     mode = mask

    The trainer's log-probs are those before the step's first optimiser step, without gradient. A masked token keeps its
    place in the normalisation, so that any cut into micro-batches gives the same gradient: our choice, and TRL's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    level: Literal["token", "sequence"] = Field("token", title="Level")
    mode: Literal["truncate", "mask"] = Field("truncate", title="Mode")
    cap: float = Field(3.0, ge=1, title="Cap", description="largest weight")
    floor: float = Field(0.0, ge=0, le=1, title="Floor", description="least weight; IcePop masks below 0.5")

    def token_weights(self, logprobs: Tensor, sampled_logprobs: Tensor, rows: Tensor) -> Tensor:
        """[tokens] from the trainer's and the sampler's log-probs, both [tokens].

        ``rows`` [tokens]: row numbers from 0; every row's tokens are all there.
        """
        ratios = self._ratios(logprobs, sampled_logprobs, rows)
        if self.mode == "truncate":
            return ratios.clamp(self.floor, self.cap)
        return ratios.masked_fill(self._outside(ratios), 0)

    def held(self, logprobs: Tensor, sampled_logprobs: Tensor, rows: Tensor) -> Tensor:
        """Which tokens [tokens] (bool) are truncated or masked. For diagnostics."""
        return self._outside(self._ratios(logprobs, sampled_logprobs, rows))

    def _ratios(self, logprobs: Tensor, sampled_logprobs: Tensor, rows: Tensor) -> Tensor:
        change = logprobs - sampled_logprobs
        return (change if self.level == "token" else group_sums(change, rows)).exp()

    def _outside(self, ratios: Tensor) -> Tensor:
        return (ratios < self.floor) | (ratios > self.cap)
