"""The mixture of base and policy samples, against enumeration of its draws."""

from __future__ import annotations

from itertools import combinations

import pytest

from agpo.evaluation.mixture import mixture_frontier
from agpo.evaluation.passk import pass_curve
from tests.agpo.evaluation.simulation import make_counts

N, K = 5, 3


def test_ends_are_the_policies_and_the_middle_is_every_draw_of_both() -> None:
    base, policy = make_counts(["a", "a"], [N] * 2, [1, 0]), make_counts(["a", "a"], [N] * 2, [2, 4])
    frame = mixture_frontier(base, policy, K)
    assert frame["base_samples"].to_list() == [3, 2, 1, 0]
    for end, counts in ((0, base), (-1, policy)):
        curve = pass_curve(counts, [1, K])["pass_at_k"]
        assert (frame["pass_at_1"][end], frame["pass_at_k"][end]) == pytest.approx((curve[0], curve[1]))
    outcomes = []
    for base_right, policy_right in ((1, 2), (0, 4)):
        draws = [
            any(left) or any(right)
            for left in combinations([True] * base_right + [False] * (N - base_right), 2)
            for right in combinations([True] * policy_right + [False] * (N - policy_right), 1)
        ]
        outcomes.append(sum(draws) / len(draws))
    assert frame["pass_at_k"][1] == pytest.approx(sum(outcomes) / 2)
    assert frame["pass_at_1"][1] == pytest.approx((2 * 0.1 + 1 * 0.6) / 3)
