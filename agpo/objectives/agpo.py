"""AGPO: Asymmetric Group Policy Optimization (arXiv 2605.05826)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from agpo.objectives.group import group_means, group_sums, group_variances

if TYPE_CHECKING:
    from torch import Tensor


class Agpo(BaseModel):
    """A variance-scaled group advantage for all rollouts, and a constant negative term for the wrong ones.

        A_i = (r_i − μ) / sqrt(σ² + δ²)  +  1[rollout i is wrong] · R

    μ and σ are the mean and standard deviation of the rewards of the rollout's group. A rare correct answer in a hard
    group gets up to 2/δ, a correct answer in a solved group close to 0; a wrong answer always gets at least R. An
    all-wrong group gives R to every rollout (a pure negative-sample update), an all-correct one gives 0.

    The structure of the formula is public; the constants δ and R, the rewards ±1 and the population standard
    deviation are our choice, as is masking all-wrong groups.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["agpo"] = "agpo"
    delta: float = Field(1.0, ge=0, title="Delta", description="δ: larger values flatten the advantage over difficulty")
    negative: float = Field(-1.0, le=0, title="Negative term", description="R, added to every wrong rollout")
    all_wrong: Literal["nsr", "mask"] = Field(
        "nsr", title="All-wrong groups", description="nsr: every rollout gets R; mask: the group gives no signal"
    )
    ddof: Literal[0, 1] = Field(0, title="ddof", description="0: population variance; 1: sample variance")

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor) -> Tensor:
        """Advantages [B] from rewards [B], group ids [B] in 0..P−1 and the verdict "correct" [B] (bool).

        Rows are verified rollouts only: an unverifiable one must not enter a group's statistics. The gate follows the
        verdict, not the sign of a reward that may have been shaped. A group of one has no relative term.
        """
        rewards = rewards.float() if rewards.element_size() < 4 else rewards
        centred = rewards - group_means(rewards, groups)
        scale = (group_variances(rewards, groups, self.ddof) + self.delta**2).sqrt()
        relative = (centred / scale.where(scale > 0, scale.new_ones(()))).where(scale > 0, scale.new_zeros(()))
        advantage = relative + (~correct).to(rewards.dtype) * self.negative
        if self.all_wrong == "mask":
            advantage = advantage * (group_sums(correct.to(rewards.dtype), groups) > 0)
        return advantage
