"""Pass@k training with analytical advantages (arXiv 2508.10751)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import full_precision, group_sizes, group_sums

if TYPE_CHECKING:
    from torch import Tensor


class PassAtK(AdvantageEstimator):
    """The advantage of a rollout as a member of all subsets of k that it is in, scored by their best.

        ρ  = 1 − C(n−c, k) / C(n, k)          pass@k of the group: n rollouts, c of them right
        A⁺ = (1 − ρ) / (σ + 1e-6)             σ = sqrt(ρ (1 − ρ))
        A⁻ = (1 − ρ − C(n−c−1, k−1) / C(n−1, k−1)) / (σ + 1e-6)

    The sum over a group is 0, so A⁻ = −c A⁺ / (n − c); A⁺ is at most √(n/k − 1), where c = 1. A group
    without right rollouts, or with fewer than k wrong ones, gives 0. k = 8 is our choice. A group that has fewer than k
    rollouts, some being unverifiable, is taken with k = n (our choice): 0.
    """

    kind: Literal["pass_at_k"] = "pass_at_k"
    k: int = Field(8, ge=1, title="k", description="size of the subsets; less than rollout.samples")

    @property
    def least_group(self) -> int:
        return self.k + 1  # with k = n every group is solved or not, and no advantage differs from 0

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B] in the dtype of ``rewards``, from group ids [B] and the verdict [B] (bool) alone."""
        right = correct.to(full_precision(rewards).dtype)
        n, c = group_sizes(groups, right), group_sums(right, groups)
        k = n.clamp_max(self.k)
        miss = _all_wrong(n, c, k, self.k)
        scale = (miss * (1 - miss)).sqrt() + 1e-6
        return (miss - (1 - right) * _all_wrong(n - 1, c, k - 1, self.k - 1)) / scale


def _all_wrong(n: Tensor, c: Tensor, k: Tensor, largest: int) -> Tensor:
    """C(n − c, k) / C(n, k), the chance that k of n rows hold none of the c right ones; k ≤ ``largest``."""
    chance = n.new_ones(n.shape)
    for drawn in range(largest):
        chance = chance * ((n - c - drawn) / (n - drawn)).clamp_min(0).where(drawn < k, chance.new_ones(()))
    return chance
