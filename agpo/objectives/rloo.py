"""RLOO: REINFORCE with a leave-one-out baseline (arXiv 2402.14740)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre, group_sizes

if TYPE_CHECKING:
    from torch import Tensor


class Rloo(AdvantageEstimator):
    """The reward relative to the mean of the group's other rollouts.

        A_i = r_i − 1/(G−1) Σ_{j≠i} r_j = G/(G−1) · (r_i − μ)

    With rewards ±1 it lies between −2 and 2. A group of one gives 0 (our choice; verl gives the reward).
    """

    kind: Literal["rloo"] = "rloo"

    @property
    def least_group(self) -> int:
        return 2

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] from rewards [B] and group ids [B] in 0..P−1; ``correct`` is not used."""
        centred = centre(rewards, groups)
        sizes = group_sizes(groups, centred)
        return centred * sizes / (sizes - 1).clamp_min(1)
