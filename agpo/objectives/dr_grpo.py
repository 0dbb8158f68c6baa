"""Dr. GRPO: GRPO without its two normalisations (arXiv 2503.20783)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre

if TYPE_CHECKING:
    from torch import Tensor


class DrGrpo(AdvantageEstimator):
    """The reward relative to the group: A_i = r_i − μ. With rewards ±1 it lies between −2 and 2.

    The method's other half is a loss that divides by a constant: ``loss.normalisation.kind = "constant"``. The rewards
    ±1 are our choice; with {0, 1} every advantage is half as large.
    """

    kind: Literal["dr_grpo"] = "dr_grpo"

    @property
    def least_group(self) -> int:
        return 2

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] from rewards [B] and group ids [B] in 0..P−1; ``correct`` is not used."""
        return centre(rewards, groups)
