from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from agpo.objectives import Grpo
from tests.agpo.objectives.steps import make_step

# Sample variance, groups of 8; by the number of right rollouts.
POSITIVE = {1: 2.475, 2: 1.620, 3: 1.208, 4: 0.935, 5: 0.725, 6: 0.540, 7: 0.354, 8: 0}
NEGATIVE = {0: 0, 1: -0.354, 2: -0.540, 3: -0.725, 4: -0.935, 5: -1.208, 6: -1.620, 7: -2.475}


@pytest.mark.parametrize("right", range(9))
def test_defaults_give_the_known_values(right: int) -> None:
    found = make_step([[1] * right + [0] * (8 - right)]).advantages(Grpo()).tolist()
    assert found[:right] == pytest.approx([POSITIVE.get(right)] * right, abs=5e-4)
    assert found[right:] == pytest.approx([NEGATIVE.get(right)] * (8 - right), abs=5e-4)


def test_equal_shaped_rewards_give_exactly_0() -> None:
    rewards, groups = torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long)
    assert Grpo(epsilon=1e-12).advantages(rewards, groups, rewards > 0).tolist() == [0.0] * 7


@pytest.mark.parametrize("options", [{"epsilon": 0}, {"epsilon": -1e-6}, {"epsilon": float("inf")}, {"delta": 1.0}])
def test_impossible_settings_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(ValidationError) as refused:
        Grpo.model_validate(options)
    assert [error["loc"] for error in refused.value.errors()] == [tuple(options)]
