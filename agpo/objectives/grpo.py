"""GRPO: Group Relative Policy Optimization (arXiv 2402.03300)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre, group_variances

if TYPE_CHECKING:
    from torch import Tensor


class Grpo(AdvantageEstimator):
    """The reward relative to the group, in units of the group's standard deviation: A_i = (r_i − μ) / (σ + ε).

    Groups that are all right or all wrong give 0. In a group of G no |A| exceeds (G − 1)/√G, whatever the rewards
    (√(G − 1) with ddof 0). σ with ddof 1 and ε = 1e-6 as in verl 0.9.1 (TRL 1.16 has ε = 1e-4). A group of one gives 0
    (our choice; verl gives the reward).
    """

    kind: Literal["grpo"] = "grpo"
    ddof: Literal[0, 1] = Field(1, title="ddof", description="0: population variance; 1: sample variance")
    epsilon: float = Field(1e-6, gt=0, title="Epsilon", description="added to the standard deviation")

    @property
    def least_group(self) -> int:
        return 2

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] from rewards [B] and group ids [B] in 0..P−1; ``correct`` is not used."""
        centred = centre(rewards, groups)
        return centred / (group_variances(centred, groups, self.ddof).sqrt() + self.epsilon)
