"""REINFORCE++-baseline: whitened over the step, after the group's mean was taken off (arXiv 2501.03262)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre
from agpo.objectives.reinforce_plus_plus import whiten_over_tokens

if TYPE_CHECKING:
    from torch import Tensor


class ReinforcePlusPlusBaseline(AdvantageEstimator):
    """A_i = (d_i − m) / sqrt(v + 1e-8), d_i = r_i − μ, with mean m and variance v over all response tokens of the step.

    A row counts as often as its response has tokens, and v has ddof 1, as in verl 0.9.1. Over the tokens A has mean 0
    and variance 1. A group of one has d = 0 (our choice; verl takes the reward).
    """

    kind: Literal["reinforce_plus_plus_baseline"] = "reinforce_plus_plus_baseline"

    @property
    def least_group(self) -> int:
        return 2

    @property
    def by_group(self) -> bool:
        return False

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B]; needs ``context.lengths``, ``correct`` is not used."""
        lengths = context.need_lengths("objective reinforce_plus_plus_baseline")
        return whiten_over_tokens(centre(rewards, groups), lengths)
