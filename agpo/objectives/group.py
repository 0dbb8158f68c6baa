"""Statistics of a group: the rollouts of one problem in one step.

These functions use tensor methods only, so that the objectives' settings load without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """The values in fp64 or fp32; half-precision and whole numbers are raised to fp32."""
    return values if values.is_floating_point() and values.element_size() >= 4 else values.float()


def group_sums(values: Tensor, groups: Tensor) -> Tensor:
    """Each row's group total, [B]. ``groups``: [B] ids in 0..P−1."""
    if groups.numel() == 0:
        return values
    totals = values.new_zeros(int(groups.max()) + 1).index_add(0, groups, values)
    return totals[groups]


def group_sizes(groups: Tensor, like: Tensor) -> Tensor:
    """Rows of each row's group, [B], in the dtype of ``like``."""
    return group_sums(like.new_ones(groups.shape[0]), groups)


def group_means(values: Tensor, groups: Tensor) -> Tensor:
    """Each row's group mean, [B]."""
    return group_sums(values, groups) / group_sizes(groups, values)


def centre(values: Tensor, groups: Tensor, weights: Tensor | None = None) -> Tensor:
    """Each row's value less its group's mean, [B], in fp32 at least. Exactly 0 in a group of equal values.

    ``weights`` [B] make it a weighted mean.
    """
    values = full_precision(values)
    if groups.numel() == 0:
        return values
    # Against the group's least value: the mean of equal values may differ from them by rounding, which a small
    # denominator would blow up.
    least = values.new_zeros(int(groups.max()) + 1).scatter_reduce(0, groups, values, "amin", include_self=False)
    shifted = values - least[groups]
    if weights is None:
        return shifted - group_means(shifted, groups)
    weights = weights.to(values.dtype)
    return shifted - group_sums(shifted * weights, groups) / group_sums(weights, groups)


def group_variances(centred: Tensor, groups: Tensor, ddof: int) -> Tensor:
    """Each row's group variance, [B], from centred values; 0 where the group has no more than ``ddof`` rows."""
    freedom = group_sizes(groups, centred) - ddof
    squares = group_sums(centred**2, groups)
    return (squares / freedom.clamp_min(1)).where(freedom > 0, squares.new_zeros(()))


def success_rates(correct: Tensor, groups: Tensor, like: Tensor) -> Tensor:
    """Share of right rows in each row's group, p̂, [B] in the dtype of ``like``."""
    return group_means(correct.to(like.dtype), groups)


def unsolved_share(correct: Tensor, groups: Tensor) -> float:
    """Share of the groups that have no right row; 0 without groups."""
    if groups.numel() == 0:
        return 0.0
    none = groups.new_zeros(int(groups.max()) + 1)
    present, solved = none.index_fill(0, groups, 1), none.index_fill(0, groups[correct], 1)
    return int((present - solved).sum()) / int(present.sum())
