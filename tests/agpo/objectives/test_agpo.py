"""AGPO against its published values, against the formula in plain Python, and what must hold for any group."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from statistics import mean, pvariance, variance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from agpo.objectives import Agpo

# δ = 1, R = −1, population variance, groups of 8; by the number of right rollouts.
POSITIVE = {1: 1.460, 2: 1.134, 3: 0.898, 4: 0.707, 5: 0.539, 6: 0.378, 7: 0.209, 8: 0}
NEGATIVE = {0: -1, 1: -1.209, 2: -1.378, 3: -1.539, 4: -1.707, 5: -1.898, 6: -2.134, 7: -2.460}


def advantages_of(
    objective: Agpo, groups: list[list[tuple[float, bool]]], dtype: torch.dtype = torch.float64
) -> Tensor:
    """Each group's rollouts are (reward, right)."""
    rows = [(reward, index, right) for index, group in enumerate(groups) for reward, right in group]
    rewards, numbers, correct = zip(*rows, strict=True)
    return objective.advantages(torch.tensor(rewards, dtype=dtype), torch.tensor(numbers), torch.tensor(correct))


def solved(right: int, size: int = 8) -> list[tuple[float, bool]]:
    return [(1.0, True)] * right + [(-1.0, False)] * (size - right)


shaped_groups = st.lists(
    st.lists(st.tuples(st.floats(-2, 2).map(lambda value: round(value, 3)), st.booleans()), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("right", range(9))
def test_defaults_give_the_known_values(right: int) -> None:
    found = advantages_of(Agpo(), [solved(right)]).tolist()
    assert found[:right] == pytest.approx([POSITIVE.get(right)] * right, abs=5e-4)
    assert found[right:] == pytest.approx([NEGATIVE.get(right)] * (8 - right), abs=5e-4)


@given(
    shaped_groups, st.sampled_from([0.1, 0.5, 1.0, 2.0]), st.sampled_from([0.0, -0.5, -1.0]), st.sampled_from([0, 1])
)
def test_any_rewards_follow_the_formula(
    groups: list[list[tuple[float, bool]]], delta: float, negative: float, ddof: int
) -> None:
    found = advantages_of(Agpo.model_validate({"delta": delta, "negative": negative, "ddof": ddof}), groups)
    expected = []
    for group in groups:
        rewards = [reward for reward, _ in group]
        spread = (variance if ddof else pvariance)(rewards) if len(group) > ddof else 0.0
        scale = sqrt(spread + delta**2)
        expected += [(reward - mean(rewards)) / scale + (0 if right else negative) for reward, right in group]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


@given(shaped_groups, st.sampled_from([0.0, 1.0]))
def test_without_the_negative_term_a_group_sums_to_0(groups: list[list[tuple[float, bool]]], delta: float) -> None:
    found = advantages_of(Agpo(delta=delta, negative=0), groups)
    numbers = torch.tensor([index for index, group in enumerate(groups) for _ in group])
    sums = torch.zeros(len(groups), dtype=found.dtype).index_add(0, numbers, found)
    assert sums.tolist() == pytest.approx([0] * len(groups), abs=1e-8)


@given(shaped_groups, st.floats(-5, 5))
def test_a_constant_on_the_rewards_changes_nothing(groups: list[list[tuple[float, bool]]], shift: float) -> None:
    shifted = [[(reward + shift, right) for reward, right in group] for group in groups]
    torch.testing.assert_close(advantages_of(Agpo(), shifted), advantages_of(Agpo(), groups), rtol=0, atol=1e-9)


@pytest.mark.parametrize("delta", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("ddof", [0, 1])
def test_all_right_gives_0_and_all_wrong_the_negative_term_alone(delta: float, ddof: int) -> None:
    options = {"delta": delta, "negative": -0.5, "ddof": ddof}
    found = advantages_of(Agpo.model_validate(options), [solved(5, 5), solved(0, 5)])
    assert found.tolist() == [0.0] * 5 + [-0.5] * 5
    masked = advantages_of(Agpo.model_validate({**options, "all_wrong": "mask"}), [solved(5, 5), solved(0, 5)])
    assert masked.tolist() == [0.0] * 10


@pytest.mark.parametrize("reward", [0.1, 0.3, 1 / 3, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_shaped_rewards_give_no_relative_term_without_delta(reward: float, dtype: torch.dtype) -> None:
    """The mean of equal rewards differs from them by rounding, which a scale of nearly 0 would make ±1."""
    for size in (3, 5, 6, 7):
        found = advantages_of(Agpo(delta=0, negative=-1), [[(reward, True)] * size, [(reward, False)] * size], dtype)
        assert found.tolist() == [0.0] * size + [-1.0] * size


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_a_group_of_one_has_no_relative_term(delta: float, ddof: int) -> None:
    objective = Agpo.model_validate({"delta": delta, "ddof": ddof})
    assert advantages_of(objective, [[(1.0, True)], [(-1.0, False)], solved(1, 2)]).tolist()[:2] == [0.0, -1.0]


@pytest.mark.parametrize("objective", [Agpo(), Agpo(delta=0), Agpo(delta=2, negative=-0.1, ddof=1)])
def test_both_advantages_fall_as_the_problem_gets_easier(objective: Agpo) -> None:
    size = 16
    positive = [float(advantages_of(objective, [solved(right, size)])[0]) for right in range(1, size + 1)]
    negative = [float(advantages_of(objective, [solved(right, size)])[-1]) for right in range(size)]
    for curve in (positive, negative):
        assert all(easier < harder for harder, easier in pairwise(curve))


@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_rarest_right_answer_has_the_largest_advantage(size: int) -> None:
    bound = 2 * (size - 1) / size / sqrt(4 * (size - 1) / size**2 + 1)
    found = [advantages_of(Agpo(), [solved(right, size)]) for right in range(size + 1)]
    assert max(float(each.max()) for each in found) == pytest.approx(bound)
    assert min(float(each.min()) for each in found) == pytest.approx(-1 - bound)


def test_a_wrong_rollout_with_the_best_shaped_reward_is_still_held_back() -> None:
    """The gate asks the verdict: a penalty can make a right answer's reward negative, and a bonus the reverse."""
    found = advantages_of(Agpo(), [[(-0.2, True), (0.2, False)]])
    relative = 0.2 / sqrt(0.04 + 1)
    assert found.tolist() == pytest.approx([-relative, relative - 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.int64])
def test_coarse_rewards_are_computed_in_fp32(dtype: torch.dtype) -> None:
    found = advantages_of(Agpo(), [solved(1), solved(5)], dtype)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), advantages_of(Agpo(), [solved(1), solved(5)]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"delta": -0.1}, "delta"),
        ({"delta": float("inf")}, "delta"),
        ({"delta": float("nan")}, "delta"),
        ({"negative": 0.5}, "negative"),
        ({"negative": float("-inf")}, "negative"),
        ({"ddof": 2}, "ddof"),
        ({"all_wrong": "drop"}, "all_wrong"),
        ({"R": -1.0}, "R"),
    ],
)
def test_impossible_settings_are_refused_by_name(options: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Agpo.model_validate(options)
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


def test_options_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Agpo().delta = 2.0  # type: ignore[misc]
