from __future__ import annotations

from itertools import combinations
from math import comb, sqrt
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.objectives.pass_at_k import PassAtK
from tests.agpo.objectives.steps import make_step


@given(st.lists(st.integers(0, 1), min_size=2, max_size=9), st.data())
def test_an_advantage_is_the_mean_over_the_subsets_that_hold_the_rollout(
    verdicts: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(verdicts) - 1))
    best = {subset: max(verdicts[i] for i in subset) for subset in combinations(range(len(verdicts)), k)}
    rho = mean(best.values())
    scale = sqrt(rho * (1 - rho)) + 1e-6
    expected = [
        (mean(value for subset, value in best.items() if row in subset) - rho) / scale for row in range(len(verdicts))
    ]
    assert make_step([verdicts]).advantages(PassAtK(k=k)).tolist() == pytest.approx(expected, abs=1e-9)


@given(n=st.integers(2, 40), c=st.integers(0, 40), k=st.integers(1, 39))
def test_the_closed_form_holds_for_large_groups(n: int, c: int, k: int) -> None:
    c, k = min(c, n), min(k, n - 1)
    miss = comb(n - c, k) / comb(n, k)
    scale = sqrt(miss * (1 - miss)) + 1e-6
    found = make_step([[1] * c + [0] * (n - c)]).advantages(PassAtK(k=k)).tolist()
    assert found[:c] == pytest.approx([miss / scale] * c, rel=1e-9, abs=1e-9)
    if c < n:
        wrong = (miss - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / scale
        assert found[c:] == pytest.approx([wrong] * (n - c), rel=1e-9, abs=1e-9)


def test_one_right_rollout_of_sixteen_at_k_8() -> None:
    found = make_step([[1] + [0] * 15]).advantages(PassAtK(k=8))
    assert float(found[0]) == pytest.approx(1, abs=1e-4)
    assert found[1:].tolist() == pytest.approx([-0.0667] * 15, abs=1e-4)


@pytest.mark.parametrize("verdicts", [[0] * 16, [1] * 9 + [0] * 7, [1] * 16])
def test_a_group_that_is_surely_solved_or_unsolved_gives_no_signal(verdicts: list[int]) -> None:
    assert not make_step([verdicts]).advantages(PassAtK(k=8)).any()


def test_groups_of_different_sizes_stand_side_by_side() -> None:
    groups = [[1, 0, 0, 0, 0], [1, 0], [0, 1, 0, 0]]
    together = make_step(groups).advantages(PassAtK(k=3)).tolist()
    assert together == [value for group in groups for value in make_step([group]).advantages(PassAtK(k=3)).tolist()]
    assert together[5:7] == [0, 0]  # fewer rollouts than k
