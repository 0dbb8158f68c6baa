from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from agpo.objectives.group import success_rates, unsolved_share
from agpo.objectives.schedule import Constant, LinearDecay, UnsolvedTrigger
from tests.agpo.objectives.steps import Step, drawn_steps, make_step


@settings(max_examples=50)
@given(drawn_steps())
def test_the_unsolved_share_counts_groups(step: Step) -> None:
    groups = step.by_group(step.correct.double())
    assert unsolved_share(step.correct, step.groups) == sum(not any(group) for group in groups) / len(groups)
    rates = step.by_group(success_rates(step.correct, step.groups, step.rewards))
    assert rates == [[sum(group) / len(group)] * len(group) for group in groups]


def test_gaps_in_the_group_numbers_are_no_groups() -> None:
    assert unsolved_share(torch.tensor([True, False]), torch.tensor([2, 5])) == 0.5
    assert unsolved_share(torch.tensor([], dtype=torch.bool), torch.tensor([], dtype=torch.long)) == 0


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (5, 0.5), (10, 0.0), (11, 0.0)])
def test_a_linear_decay_ends_at_its_own_length(step: int, factor: float) -> None:
    drawn = make_step([[1, 0]], step=step)
    assert LinearDecay(decay_steps=10).factor(drawn.groups, drawn.correct, drawn.context) == factor
    assert Constant().factor(drawn.groups, drawn.correct, drawn.context) == 1


@pytest.mark.parametrize("groups", range(1, 12))
def test_a_trigger_holds_up_to_its_share_exactly(groups: int) -> None:
    for unsolved in range(groups):
        step = make_step([[0, 0]] * unsolved + [[1, 0]] * (groups - unsolved))
        at = UnsolvedTrigger(largest_share=unsolved / groups)
        assert at.factor(step.groups, step.correct, step.context) == 1
        if unsolved:
            below = UnsolvedTrigger(largest_share=(unsolved - 0.5) / groups)
            assert below.factor(step.groups, step.correct, step.context) == 0
