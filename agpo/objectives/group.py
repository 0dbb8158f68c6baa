"""Statistics of a group: the rollouts of one problem in one step.

These functions use tensor methods only, so that the objectives' settings load without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def group_sizes(groups: Tensor, like: Tensor) -> Tensor:
    """Rows of each row's group. ``groups``: [B] ids in 0..P−1; result [B] in the dtype of ``like``."""
    return group_sums(like.new_ones(groups.shape[0]), groups)


def group_sums(values: Tensor, groups: Tensor) -> Tensor:
    """Each row's group total, [B]. Deterministic: the rows are summed in their order."""
    if groups.numel() == 0:
        return values
    totals = values.new_zeros(int(groups.max()) + 1).index_add(0, groups, values)
    return totals[groups]


def group_means(values: Tensor, groups: Tensor) -> Tensor:
    """Each row's group mean, [B]."""
    return group_sums(values, groups) / group_sizes(groups, values)


def group_variances(values: Tensor, groups: Tensor, ddof: int) -> Tensor:
    """Each row's group variance, [B]; 0 where the group has no more than ``ddof`` rows."""
    squares = group_sums((values - group_means(values, groups)) ** 2, groups)
    freedom = group_sizes(groups, values) - ddof
    return (squares / freedom.clamp_min(1)).where(freedom > 0, squares.new_zeros(()))
