"""What holds for every estimator, and each method against its formula written out for one group."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import mean, pstdev, stdev

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agpo.objectives import AdvantageEstimator, Agpo, Grpo, StepContext
from agpo.objectives.a_grae import AGrae
from agpo.objectives.dapo import Dapo, Overlong
from agpo.objectives.dr_grpo import DrGrpo
from agpo.objectives.nsr import Nsr
from agpo.objectives.opo import Opo
from agpo.objectives.pass_at_k import PassAtK
from agpo.objectives.psr import Psr
from agpo.objectives.reinforce_plus_plus import ReinforcePlusPlus
from agpo.objectives.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline
from agpo.objectives.rloo import Rloo
from agpo.objectives.schedule import UnsolvedTrigger
from agpo.objectives.w_reinforce import WReinforce
from tests.agpo.objectives.steps import Step, drawn_steps, every_estimator, make_step

ESTIMATORS = every_estimator()
BY_VERDICT = (Psr, Nsr, WReinforce)
RELATIVE = [each for each in ESTIMATORS if not isinstance(each, (*BY_VERDICT, Agpo))]

every = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda each: each.kind)


BATCH_WIDE = [ReinforcePlusPlus(), Agpo(scale_to_grpo=True), Agpo(schedule=UnsolvedTrigger(largest_share=0.4))]


@pytest.mark.parametrize("estimator", [*(each for each in ESTIMATORS if each.by_group), *BATCH_WIDE], ids=str)
def test_it_says_whether_a_group_alone_decides_if_it_teaches(estimator: AdvantageEstimator) -> None:
    """All subsets of a mixed, an unsolved and a solved group."""
    groups = [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]
    alone = [bool(make_step([group]).advantages(estimator).any()) for group in groups]
    agree = True
    for chosen in ([0, 1], [0, 2], [1, 2], [0, 1, 2]):
        step = make_step([groups[index] for index in chosen])
        found = step.by_group(step.advantages(estimator))
        agree &= [any(group) for group in found] == [alone[index] for index in chosen]
    assert agree == estimator.by_group


def test_centring_by_the_batch_leaves_rounding_where_there_was_none() -> None:
    assert not ReinforcePlusPlusBaseline().by_group


@every
@settings(max_examples=15)
@given(step=drawn_steps(), seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(estimator: AdvantageEstimator, step: Step, seed: int) -> None:
    order = torch.randperm(len(step.rewards), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(step.reordered(order).advantages(estimator), step.advantages(estimator)[order])


@every
@settings(max_examples=15)
@given(step=drawn_steps())
def test_group_numbers_are_only_names(estimator: AdvantageEstimator, step: Step) -> None:
    renamed = Step(step.rewards, step.groups.max() - step.groups, step.correct, step.context)
    torch.testing.assert_close(renamed.advantages(estimator), step.advantages(estimator))


@every
@settings(max_examples=15)
@given(step=drawn_steps())
def test_a_right_rollout_never_gets_less_than_a_wrong_one_of_its_group(
    estimator: AdvantageEstimator, step: Step
) -> None:
    advantages = step.advantages(estimator)
    assert advantages.isfinite().all()
    for group in step.groups.unique():
        right = advantages[(step.groups == group) & step.correct]
        wrong = advantages[(step.groups == group) & ~step.correct]
        if len(right) and len(wrong):
            assert right.min() >= wrong.max()


@every
def test_no_rows_give_no_advantages(estimator: AdvantageEstimator) -> None:
    nothing = torch.zeros(0)
    context = StepContext(0, nothing.long())
    assert estimator.advantages(nothing, nothing.long(), nothing.bool(), context).shape == (0,)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_coarse_rewards_are_raised_to_fp32(estimator: AdvantageEstimator, dtype: torch.dtype) -> None:
    step = make_step([[1, 0, 0, 0], [1, 1, 0, 1]])
    coarse = Step(step.rewards.to(dtype), step.groups, step.correct, step.context).advantages(estimator)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse.double(), step.advantages(estimator), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("estimator", RELATIVE, ids=lambda each: each.kind)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=15)
@given(value=st.floats(-3, 3), size=st.integers(1, 30), verdict=st.booleans())
def test_equal_rewards_give_exactly_0(
    estimator: AdvantageEstimator, dtype: torch.dtype, value: float, size: int, verdict: bool
) -> None:
    rewards = torch.full((size,), value, dtype=dtype)
    context = StepContext(lengths=torch.arange(1, size + 1))
    correct = torch.full((size,), verdict)
    assert not estimator.advantages(rewards, torch.zeros(size, dtype=torch.long), correct, context).any()


@pytest.mark.parametrize(
    "estimator", [each for each in RELATIVE if not isinstance(each, PassAtK | AGrae)], ids=lambda each: each.kind
)
@settings(max_examples=15)
@given(step=drawn_steps(), shift=st.floats(-5, 5))
def test_a_constant_on_all_rewards_changes_nothing(estimator: AdvantageEstimator, step: Step, shift: float) -> None:
    shifted = Step(step.rewards + shift, step.groups, step.correct, step.context)
    torch.testing.assert_close(shifted.advantages(estimator), step.advantages(estimator), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("estimator", [Grpo(), DrGrpo(), Rloo(), Dapo(), PassAtK(k=2), Agpo(negative=0.0)])
@settings(max_examples=15)
@given(step=drawn_steps())
def test_a_group_sums_to_0(estimator: AdvantageEstimator, step: Step) -> None:
    for group in step.by_group(step.advantages(estimator)):
        assert sum(group) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "estimator", [Opo(), ReinforcePlusPlus(), ReinforcePlusPlusBaseline(), Dapo(overlong=Overlong(longest=9, buffer=3))]
)
def test_missing_lengths_are_an_error_that_names_the_method(estimator: AdvantageEstimator) -> None:
    step = make_step([[1, 0]])
    with pytest.raises(
        ValueError, match=rf"objective {estimator.kind} depends on the response lengths: give StepContext"
    ):
        estimator.advantages(step.rewards, step.groups, step.correct)


# Each method for one group of rewards ±1, in plain Python.


def _grpo(r: list[float], lengths: list[float]) -> list[float]:
    spread = stdev(r) if len(r) > 1 else 0.0
    return [(x - mean(r)) / (spread + 1e-6) for x in r]


def _agpo(r: list[float], lengths: list[float]) -> list[float]:
    return [(x - mean(r)) / sqrt(pstdev(r) ** 2 + 1) - (x < 0) for x in r]


def _rloo(r: list[float], lengths: list[float]) -> list[float]:
    return [x - (sum(r) - x) / (len(r) - 1) for x in r] if len(r) > 1 else [0.0]


def _opo(r: list[float], lengths: list[float]) -> list[float]:
    baseline = sum(x * length for x, length in zip(r, lengths, strict=True)) / sum(lengths)
    return [x - baseline for x in r]


def _overlong(r: list[float], lengths: list[float]) -> list[float]:
    """L_max 16, L_buf 8, f 0.5: nothing up to 8 tokens, half a point from 16."""
    punished = [x - 0.5 * min(max((length - 8) / 8, 0), 1) for x, length in zip(r, lengths, strict=True)]
    return _grpo(punished, lengths)


@pytest.mark.parametrize(
    ("estimator", "formula"),
    [
        (Grpo(), _grpo),
        (Agpo(), _agpo),
        (Dapo(), _grpo),
        (Dapo(overlong=Overlong(longest=16, buffer=8, penalty=0.5)), _overlong),
        (DrGrpo(), lambda r, lengths: [x - mean(r) for x in r]),
        (Rloo(), _rloo),
        (Opo(), _opo),
        (Psr(), lambda r, lengths: [float(x > 0) for x in r]),
        (Nsr(), lambda r, lengths: [-float(x < 0) for x in r]),
        (WReinforce(), lambda r, lengths: [0.1 if x > 0 else -1.0 for x in r]),
        (WReinforce(positive_weight=0.0), lambda r, lengths: [-float(x < 0) for x in r]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
@settings(max_examples=25)
@given(step=drawn_steps())
def test_a_group_follows_the_formula(
    estimator: AdvantageEstimator, formula: Callable[[list[float], list[float]], list[float]], step: Step
) -> None:
    found = step.by_group(step.advantages(estimator))
    for group, rewards, lengths in zip(found, step.by_group(), step.by_group(step.context.lengths), strict=True):
        assert group == pytest.approx(formula(rewards, lengths), abs=1e-12)


def test_two_groups_have_the_values_that_verl_gives() -> None:
    step = make_step([[1, 1, 1, 0], [1, 0, 0, 0]])
    zero_one = Step(step.correct.double(), step.groups, step.correct, step.context)
    for estimator, expected in {
        Grpo(): [0.5, 0.5, 0.5, -1.5, 1.5, -0.5, -0.5, -0.5],
        Rloo(): [1 / 3, 1 / 3, 1 / 3, -1, 1, -1 / 3, -1 / 3, -1 / 3],
        Opo(): [0.25, 0.25, 0.25, -0.75, 0.75, -0.25, -0.25, -0.25],
    }.items():
        assert zero_one.advantages(estimator).tolist() == pytest.approx(expected, abs=1e-5), estimator.kind


@given(step=drawn_steps())
def test_whitening_counts_a_row_as_often_as_it_has_tokens(step: Step) -> None:
    assert step.context.lengths is not None
    rows = torch.arange(len(step.rewards)).repeat_interleave(step.context.lengths)
    by_token = step.rewards[rows]
    variance = by_token.var() if len(rows) > 1 else torch.zeros(())
    expected = (step.rewards - by_token.mean()) / (variance + 1e-8).sqrt()
    torch.testing.assert_close(step.advantages(ReinforcePlusPlus()), expected.double(), rtol=1e-9, atol=1e-7)
    centred = torch.tensor([x - mean(group) for group in step.by_group() for x in group]).double()
    by_token = centred[rows]
    variance = by_token.var() if len(rows) > 1 else torch.zeros(())
    expected = (centred - by_token.mean()) / (variance + 1e-8).sqrt()
    torch.testing.assert_close(step.advantages(ReinforcePlusPlusBaseline()), expected.double(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@settings(max_examples=50)
@given(step=drawn_steps())
def test_a_grae_follows_equations_12_and_13(alpha: float, step: Step) -> None:
    omega = float(step.correct.double().mean())
    for found, rewards in zip(step.by_group(step.advantages(AGrae(alpha=alpha))), step.by_group(), strict=True):
        p = mean(x > 0 for x in rewards)
        for advantage, relative in zip(found, _grpo(rewards, []), strict=True):
            expected = relative
            if 0 < p < 1:
                expected = omega * relative / (2 * sqrt(p)) + (1 - omega) * relative / (2 * sqrt(1 - p))
            assert advantage == pytest.approx(expected * (min(1, omega / alpha) if expected > 0 else 1), abs=1e-12)


def test_a_grae_moves_from_easy_to_hard_problems_as_the_policy_gets_better() -> None:
    hard, easy = [1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0]

    def emphasis(rest: list[int]) -> float:
        """Advantage of the rare right rollout over that of a right rollout in the easy group."""
        found = make_step([hard, easy, *[rest] * 20]).advantages(AGrae())
        return float(found[0] / found[8])

    plain = make_step([hard, easy]).advantages(Grpo())
    assert emphasis([0] * 8) < float(plain[0] / plain[8]) < emphasis([1] * 8)
