"""OPO: On-Policy RL with Optimal Reward Baseline (arXiv 2505.23585)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre

if TYPE_CHECKING:
    from torch import Tensor


class Opo(AdvantageEstimator):
    """The reward relative to the length-weighted mean of the group: A_i = r_i − Σ l_j r_j / Σ l_j.

    The baseline minimises the gradient's variance if a response's squared gradient grows with its length l, in tokens.
    With rewards ±1 the advantage lies between −2 and 2. A group of one gives 0 (our choice; verl gives the reward).
    """

    kind: Literal["opo"] = "opo"

    @property
    def least_group(self) -> int:
        return 2

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B]; needs ``context.lengths``, ``correct`` is not used."""
        return centre(rewards, groups, context.need_lengths("objective opo"))
