"""AGPO's closed form over the success rate, its limits, and every option beside δ and R."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agpo.objectives import Agpo, Grpo, StepContext
from agpo.objectives.dr_grpo import DrGrpo
from agpo.objectives.nsr import Nsr
from agpo.objectives.schedule import LinearDecay, UnsolvedTrigger
from agpo.objectives.w_reinforce import WReinforce
from tests.agpo.objectives.steps import Step, drawn_steps, make_step


def right_and_wrong(estimator: Agpo | Grpo, right: int, size: int) -> tuple[float, float]:
    """A⁺ and A⁻ of a group; a side without rollouts is whatever the other one is."""
    found = make_step([[1] * right + [0] * (size - right)]).advantages(estimator).tolist()
    return found[0], found[-1]


@pytest.mark.parametrize("delta", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("size", [8, 64])
def test_advantages_follow_the_closed_form_of_the_success_rate(delta: float, size: int) -> None:
    for right in range(1, size):
        p = right / size
        scale = sqrt(4 * p * (1 - p) + delta**2)
        expected = (2 * (1 - p) / scale, -2 * p / scale - 0.5)
        found = right_and_wrong(Agpo(delta=delta, negative=-0.5), right, size)
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("size", "fits"), [(8, [0.92, 0.96, 0.987, 0.998]), (64, [0.65, 0.88, 0.97, 0.996])])
def test_the_advantage_gets_nearly_linear_in_the_success_rate_as_delta_grows(size: int, fits: list[float]) -> None:
    positive, negative = range(1, size + 1), range(size)  # numbers of right rollouts where the side has any
    for delta, fit in zip([0.0, 0.5, 1.0, 2.0], fits, strict=True):
        for side, counts in enumerate([positive, negative]):
            curve = [right_and_wrong(Agpo(delta=delta), right, size)[side] for right in counts]
            assert np.corrcoef(counts, curve)[0, 1] ** 2 == pytest.approx(fit, abs=0.005)


@pytest.mark.parametrize(("right", "ratio"), [(1, 5.8), (4, 2.4), (7, 1.7)])
def test_the_negative_mass_exceeds_the_positive_one_by_the_share_of_wrong_answers(right: int, ratio: float) -> None:
    positive, negative = right_and_wrong(Agpo(), right, 8)
    m_s, m_f = right / 8 * positive, (1 - right / 8) * -negative
    assert m_f - m_s == pytest.approx(1 - right / 8, abs=1e-12)
    assert m_f / m_s == pytest.approx(ratio, abs=0.06)


@settings(max_examples=30)
@given(drawn_steps())
def test_without_delta_and_negative_term_it_is_grpo(step: Step) -> None:
    grpo = step.advantages(Grpo(ddof=0, epsilon=1e-12))
    torch.testing.assert_close(step.advantages(Agpo(delta=0, negative=0)), grpo)


@settings(max_examples=30)
@given(drawn_steps())
def test_a_large_delta_times_delta_is_dr_grpo(step: Step) -> None:
    found = step.advantages(Agpo(delta=1e6, negative=0)) * 1e6
    torch.testing.assert_close(found, step.advantages(DrGrpo()), atol=1e-9, rtol=1e-9)


@settings(max_examples=30)
@given(drawn_steps())
def test_with_the_negative_term_alone_it_is_nsr(step: Step) -> None:
    alone = Agpo(delta=1e9, positive_weight=0)
    torch.testing.assert_close(step.advantages(alone), step.advantages(Nsr()), atol=1e-8, rtol=0)


@settings(max_examples=30)
@given(drawn_steps(), st.floats(0, 2))
def test_the_positive_weight_acts_on_right_rollouts_only(step: Step, weight: float) -> None:
    plain, weighted = step.advantages(Agpo()), step.advantages(Agpo(positive_weight=weight))
    torch.testing.assert_close(weighted, plain.where(~step.correct, plain * weight))


def test_the_gate_follows_the_verdict_not_a_shaped_reward() -> None:
    step = make_step([[1, 1, 0, 0]])
    shaped = Step(step.rewards + torch.tensor([0.0, -1.5, 1.5, 0.0]), step.groups, step.correct, step.context)
    lifted = shaped.advantages(Agpo(negative=-1)) - shaped.advantages(Agpo(negative=0))
    assert lifted.tolist() == pytest.approx([0, 0, -1, -1])


@settings(max_examples=30)
@given(drawn_steps(), st.floats(0.1, 6))
def test_the_focus_weighs_a_group_by_how_hard_it_is(step: Step, power: float) -> None:
    plain, focused = step.advantages(Agpo()), step.advantages(Agpo(focus=power))
    for group in step.groups.unique():
        rows = step.groups == group
        rate = float(step.correct[rows].double().mean())
        torch.testing.assert_close(focused[rows], plain[rows] * (1 - rate) ** power)


def test_masked_groups_are_the_all_wrong_ones() -> None:
    found = make_step([[0, 0, 0], [1, 0, 0], [1, 1, 1]]).by_group(
        make_step([[0, 0, 0], [1, 0, 0], [1, 1, 1]]).advantages(Agpo(all_wrong="mask"))
    )
    assert found[0] == [0, 0, 0]
    assert found[1] == make_step([[1, 0, 0]]).advantages(Agpo()).tolist()
    assert found[2] == [0, 0, 0]


@settings(max_examples=30)
@given(drawn_steps(), st.sampled_from([0, 1]))
def test_scaled_to_grpo_only_the_scale_changes(step: Step, ddof: int) -> None:
    plain = step.advantages(Agpo(ddof=ddof))
    scaled = step.advantages(Agpo(ddof=ddof, scale_to_grpo=True))
    other = step.advantages(Grpo(ddof=ddof))
    assert float(scaled.abs().mean()) == pytest.approx(float(other.abs().mean()) if plain.any() else 0.0)
    torch.testing.assert_close(scaled * plain.abs().sum(), plain * scaled.abs().sum())


def test_a_linear_schedule_withdraws_the_negative_term() -> None:
    estimator = Agpo(schedule=LinearDecay(decay_steps=10))
    for step, factor in [(0, 1.0), (3, 0.7), (10, 0.0), (500, 0.0)]:
        drawn = make_step([[1, 0], [0, 0]], step=step)
        expected = drawn.advantages(Agpo(negative=-factor))
        torch.testing.assert_close(drawn.advantages(estimator), expected)


def test_a_linear_schedule_without_a_step_is_an_error() -> None:
    step = make_step([[1, 0]])
    with pytest.raises(ValueError, match="a linear schedule depends on the step of the run"):
        Agpo(schedule=LinearDecay(decay_steps=10)).advantages(step.rewards, step.groups, step.correct, StepContext())


def test_a_trigger_withdraws_it_when_too_many_groups_are_unsolved() -> None:
    estimator = Agpo(schedule=UnsolvedTrigger(largest_share=0.5))
    half = make_step([[0, 0, 0, 0, 0], [1, 0]])  # by groups, not by rows
    most = make_step([[0, 0], [0, 0], [1, 0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(half.advantages(estimator), half.advantages(Agpo()))
    torch.testing.assert_close(most.advantages(estimator), most.advantages(Agpo(negative=0)))


def test_plain_use_needs_no_context() -> None:
    step = make_step([[1, 0, 0, 0]])
    assert Agpo().advantages(step.rewards, step.groups, step.correct).tolist() == pytest.approx(
        [1.5 / sqrt(1.75), *[-0.5 / sqrt(1.75) - 1] * 3]
    )


@pytest.mark.parametrize(
    "options",
    [
        {"delta": -0.1},
        {"negative": 0.5},
        {"delta": float("nan")},
        {"positive_weight": -1},
        {"focus": -1},
        {"schedule": {"kind": "linear"}},
        {"schedule": {"kind": "linear", "decay_steps": 0}},
        {"schedule": {"kind": "constant", "decay_steps": 5}},
        {"whiten": True},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Agpo.model_validate(options)


@pytest.mark.parametrize("option", [each for each in Agpo.model_fields])
def test_no_option_whitens(option: str) -> None:
    """Whitening would centre the advantages of the step, and so remove R: an all-wrong step would be 0."""
    changed = {
        "schedule": {"kind": "linear", "decay_steps": 2},
        "scale_to_grpo": False,  # an all-wrong step has GRPO's scale of 0
        "all_wrong": "nsr",
        "kind": "agpo",
        "ddof": 1,
    }.get(option, 0.5 if option != "negative" else -0.5)
    found = make_step([[0, 0, 0], [0, 0]], step=1).advantages(Agpo.model_validate({option: changed}))
    assert (found <= -0.5).all()


def test_w_reinforce_with_weight_1_is_reinforce() -> None:
    step = make_step([[1, 0, 0], [1, 1, 0]])
    assert step.advantages(WReinforce(positive_weight=1.0)).tolist() == step.rewards.tolist()
