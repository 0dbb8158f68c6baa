"""REINFORCE++: REINFORCE with the rewards whitened over the whole step (arXiv 2501.03262)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre

if TYPE_CHECKING:
    from torch import Tensor


class ReinforcePlusPlus(AdvantageEstimator):
    """A_i = (r_i − m) / sqrt(v + 1e-8), with mean m and variance v over all response tokens of the step.

    A row counts as often as its response has tokens, and v has ddof 1, as in verl 0.9.1. The reward is the verdict's
    alone: a KL term is part of the loss (``loss.kl``), not of the reward (our choice). Over the tokens A has mean 0 and
    variance 1, so no |A| exceeds the square root of their number. All rewards equal give 0.
    """

    kind: Literal["reinforce_plus_plus"] = "reinforce_plus_plus"

    @property
    def by_group(self) -> bool:
        return False

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B]; needs ``context.lengths``, ``groups`` and ``correct`` are not used."""
        return whiten_over_tokens(rewards, context.need_lengths("objective reinforce_plus_plus"))


def whiten_over_tokens(values: Tensor, lengths: Tensor) -> Tensor:
    """The values [B] centred and scaled over rows that count ``lengths`` [B] times."""
    one_group = lengths.new_zeros(lengths.shape).long()
    centred = centre(values, one_group, lengths)
    variance = (centred**2 * lengths).sum() / (lengths.sum() - 1).clamp_min(1)
    return centred / (variance + 1e-8).sqrt()
