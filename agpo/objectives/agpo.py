"""AGPO: Asymmetric Group Policy Optimization (arXiv 2605.05826)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import centre, group_variances, success_rates
from agpo.objectives.grpo import Grpo
from agpo.objectives.schedule import Constant, Schedule

if TYPE_CHECKING:
    from torch import Tensor


class Agpo(AdvantageEstimator):
    """A variance-scaled group advantage for all rollouts, and a constant negative term for the wrong ones.

        A_i = (r_i − μ) / sqrt(σ² + δ²)  +  1[rollout i is wrong] · R

    μ and σ are the mean and standard deviation of the rewards of the rollout's group. A rare correct answer in a hard
    group gets up to 2/δ, a correct answer in a solved group close to 0; a wrong answer gets between R − 2/δ and R. An
    all-wrong group gives R to every rollout (a pure negative-sample update), an all-correct one gives 0.

    The structure of the formula is public; the constants δ and R, the rewards ±1 and the population standard
    deviation are our choice, and so is every further option, applied in this order: R times its schedule; right
    rollouts times the positive weight; all-wrong groups to 0 (mask); times (1 − p̂)^focus with the group's success
    rate p̂; times one factor for the whole step that makes its mean |A| that of GRPO. Nothing centres or whitens the
    result, which would remove R.
    """

    kind: Literal["agpo"] = "agpo"
    delta: float = Field(1.0, ge=0, title="Delta", description="δ: larger values flatten the advantage over difficulty")
    negative: float = Field(-1.0, le=0, title="Negative term", description="R, added to every wrong rollout")
    schedule: Schedule = Field(Constant(), title="Schedule of the negative term")
    positive_weight: float = Field(1.0, ge=0, title="Positive weight", description="factor on right rollouts")
    all_wrong: Literal["nsr", "mask"] = Field(
        "nsr", title="All-wrong groups", description="nsr: every rollout gets R; mask: the group gives no signal"
    )
    focus: float = Field(0.0, ge=0, title="Difficulty focus", description="a of the factor (1 − p̂)^a; 0 is none")
    scale_to_grpo: bool = Field(
        False, title="Scale to GRPO", description="mean |A| of a step as GRPO's, to compare without a change of scale"
    )
    ddof: Literal[0, 1] = Field(0, title="ddof", description="0: population variance; 1: sample variance")

    @property
    def by_group(self) -> bool:
        return not self.scale_to_grpo and self.schedule.kind != "unsolved"

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B]; a linear schedule needs ``context.step``. A group of one has no relative term."""
        centred = centre(rewards, groups)
        scale = (group_variances(centred, groups, self.ddof) + self.delta**2).sqrt()
        relative = centred / scale.where(scale > 0, scale.new_ones(()))  # where the scale is 0, so is the numerator
        negative = self.negative * self.schedule.factor(groups, correct, context)
        advantage = (relative * self.positive_weight).where(correct, relative + negative)
        solved = success_rates(correct, groups, centred)
        if self.all_wrong == "mask":
            advantage = advantage * (solved > 0)
        advantage = advantage * (1 - solved) ** self.focus
        if self.scale_to_grpo:
            advantage = _scale(advantage, Grpo(ddof=self.ddof).advantages(rewards, groups, correct))
        return advantage


def _scale(advantage: Tensor, other: Tensor) -> Tensor:
    """The first advantages with the mean magnitude of the second; 0 stays 0."""
    own = advantage.abs().sum()
    return advantage * (other.abs().sum() / own) if own > 0 else advantage
