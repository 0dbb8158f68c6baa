"""A-GRAE: Asymmetric Group Relative Advantage Estimation (arXiv 2602.05548)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import full_precision, success_rates
from agpo.objectives.grpo import Grpo

if TYPE_CHECKING:
    from torch import Tensor


class AGrae(AdvantageEstimator):
    """GRPO's advantage, moved from easy to hard problems as the policy gets better, with restrained positives.

        A_i  = ω Â_i / (2 √p) + (1 − ω) Â_i / (2 √(1 − p))       Eq. 12; Â_i where p is 0 or 1
        A*_i = A_i · min(1, ω / α) where A_i > 0, else A_i       Eq. 13

    Â is GRPO's advantage, p the group's success rate, ω the share of right rollouts in the step: over rollouts, not
    groups, which is our choice. |A| is at most √G/2 times |Â| in a group of G. After the paper's equations: the
    released code divides by 1 − √p instead of √(1 − p), and its switch never reaches that branch. α = 1 is the paper's
    value for MATH (0.5 for its multimodal data).
    """

    kind: Literal["a_grae"] = "a_grae"
    alpha: float = Field(1.0, gt=0, title="Alpha", description="α: success share from which positives count in full")
    ddof: Literal[0, 1] = Field(1, title="ddof", description="0: population variance; 1: sample variance")
    epsilon: float = Field(1e-6, gt=0, title="Epsilon", description="added to the standard deviation")

    @property
    def least_group(self) -> int:
        return 2

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] from rewards [B], group ids [B] in 0..P−1 and the verdict [B] (bool)."""
        relative = Grpo(ddof=self.ddof, epsilon=self.epsilon).advantages(rewards, groups, correct)
        p = success_rates(correct, groups, full_precision(rewards))
        omega = correct.to(p.dtype).mean()
        weight = omega / (2 * p.sqrt()) + (1 - omega) / (2 * (1 - p).sqrt())
        advantage = relative * weight.where((p > 0) & (p < 1), weight.new_ones(()))
        return advantage.where(advantage <= 0, advantage * (omega / self.alpha).clamp_max(1))
