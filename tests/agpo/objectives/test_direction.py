"""On-policy, every objective has the same expected gradient per problem up to a positive weight w(p).

Σ over groups is exact: with y_i the answers of a group, E[A_i ∇log π(y_i)] = w ∇p for any advantage that depends on the
verdicts alone, because E[∇log π; right] = ∇p and E[∇log π; wrong] = −∇p. Methods differ in w and in their noise.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch

from agpo.objectives import AdvantageEstimator, Agpo, Grpo
from agpo.objectives.dr_grpo import DrGrpo
from agpo.objectives.nsr import Nsr
from agpo.objectives.psr import Psr
from agpo.objectives.w_reinforce import WReinforce
from tests.agpo.objectives.steps import every_estimator, make_step


def expected_gradient(estimator: AdvantageEstimator, policy: torch.Tensor, right: int, size: int) -> torch.Tensor:
    """E[mean over a group of A ∇log π] for a softmax policy over answers, of which the first ``right`` are right."""
    answers = len(policy)
    groups = list(product(range(answers), repeat=size))
    chances = torch.stack([policy[list(group)].prod() for group in groups])
    steps = [make_step([[int(answer < right) for answer in group]]) for group in groups]
    advantages = [step.advantages(estimator) for step in steps]
    scores = torch.eye(answers, dtype=torch.float64) - policy  # ∇log π(answer) for the logits, a row an answer
    gradients = torch.stack([a @ scores[list(group)] / size for a, group in zip(advantages, groups, strict=True)])
    return chances @ gradients


@pytest.mark.parametrize("estimator", every_estimator(), ids=lambda each: each.kind)
def test_the_expected_gradient_points_to_a_higher_success_rate(estimator: AdvantageEstimator) -> None:
    policy = torch.softmax(torch.tensor([0.3, -1.0, 0.9, 0.0], dtype=torch.float64), 0)
    p = policy[:2].sum()
    towards = policy * ((torch.arange(4) < 2).double() - p)  # ∇p
    found = expected_gradient(estimator, policy, right=2, size=3)
    weight = found @ towards / (towards @ towards)
    assert weight > 0
    torch.testing.assert_close(found, weight * towards, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("estimator", "ratio"),
    [
        (Grpo(), 2.07),
        (Agpo(delta=0.1, negative=-0.5), 1.83),
        (Agpo(delta=1, negative=-0.5), 1.20),
        (Agpo(delta=1, negative=-1), 1.16),
        (DrGrpo(), 1),
        (Psr(), 1),
        (Nsr(), 1),
        (WReinforce(), 1),
    ],
    ids=str,
)
def test_how_much_more_a_hard_problem_weighs_than_one_solved_half_the_time(
    estimator: AdvantageEstimator, ratio: float
) -> None:
    """w = A⁺ − A⁻ in a large group. δ governs it; a larger |R| makes it flatter."""

    def weight(right: int) -> float:
        found = make_step([[1] * right + [0] * (1024 - right)]).advantages(estimator)
        return float(found[0] - found[-1])

    assert weight(64) / weight(512) == pytest.approx(ratio, abs=0.01)
