"""NSR: Negative Sample Reinforcement (arXiv 2506.01347)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import full_precision

if TYPE_CHECKING:
    from torch import Tensor


class Nsr(AdvantageEstimator):
    """Learn from wrong rollouts only: A_i = −1[rollout i is wrong], that is −1 or 0.

    The released code leaves right rollouts out of the batch. Here they stay with advantage 0 and count in the loss's
    denominator, as for every method (our choice), so that the step shrinks as errors become rare.
    """

    kind: Literal["nsr"] = "nsr"

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] in the dtype of ``rewards``, from the verdict alone."""
        return -(~correct).to(full_precision(rewards).dtype)
