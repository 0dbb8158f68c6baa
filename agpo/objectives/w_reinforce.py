"""W-REINFORCE: weighted REINFORCE (arXiv 2506.01347)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import full_precision

if TYPE_CHECKING:
    from torch import Tensor


class WReinforce(AdvantageEstimator):
    """REINFORCE with right rollouts weighed down: A_i = λ where rollout i is right, −1 where it is wrong.

    λ = 0.1 is the paper's recommendation; 1 is REINFORCE with rewards ±1, and 0 is NSR.
    """

    kind: Literal["w_reinforce"] = "w_reinforce"
    positive_weight: float = Field(0.1, ge=0, title="Positive weight", description="λ, of right rollouts")

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] in the dtype of ``rewards``, from the verdict alone."""
        right = correct.to(full_precision(rewards).dtype)
        return right * self.positive_weight - (1 - right)
