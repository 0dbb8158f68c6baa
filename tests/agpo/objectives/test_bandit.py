"""A tabular softmax bandit: what the objectives differ in when the direction of their gradients is the same.

Problems have 64 answers, 8 of them right (a Dirichlet draw of the mass p0), and are trained by plain gradient steps on
groups of 8. Coverage is pass@256 if only one of the right answers were right: what is left of the rarer ones. The
figures are those of the project's first prototype, seed for seed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from agpo.objectives import AdvantageEstimator, Agpo, Grpo
from agpo.objectives.dr_grpo import DrGrpo
from agpo.objectives.nsr import Nsr
from agpo.objectives.psr import Psr

ANSWERS, RIGHT, GROUP = 64, 8, 8
SMALL, LARGE = (0.5, (5, 10, 15, 20, 30, 40, 60, 90, 130, 180)), (4.0, (1, 2, 3, 4, 6, 8, 12, 16, 24, 40))
GRPO = Grpo(ddof=0)


@cache
def train(
    estimator: AdvantageEstimator, rate: float, steps: tuple[int, ...], p0: float = 0.25, problems: int = 250
) -> list[tuple[float, float]]:
    """Mean success rate and coverage after each number of steps."""
    random = np.random.default_rng(0)
    right = random.dirichlet(np.ones(RIGHT), problems) * p0
    wrong = random.dirichlet(np.ones(ANSWERS - RIGHT), problems) * (1 - p0)
    logits = np.log(np.concatenate([right, wrong], 1) + 1e-6)
    groups = torch.arange(problems).repeat_interleave(GROUP)
    rows = np.arange(problems)[:, None]
    found = []
    for step in range(1, max(steps) + 1):
        policy = _softmax(logits)
        answers = (random.random((problems, GROUP, 1)) > policy.cumsum(1)[:, None]).sum(2).clip(max=ANSWERS - 1)
        correct = torch.from_numpy(answers < RIGHT).flatten()
        advantages = estimator.advantages(correct.double() * 2 - 1, groups, correct).reshape(problems, GROUP).numpy()
        gradient = -policy * advantages.sum(1, keepdims=True)
        np.add.at(gradient, (rows, answers), advantages)
        logits += rate * gradient / GROUP
        if step in steps:
            chances = _softmax(logits)[:, :RIGHT]
            found.append((float(chances.sum(1).mean()), float((1 - (1 - chances) ** 256).mean())))
    return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def coverage(estimator: AdvantageEstimator, setting: tuple[float, tuple[int, ...]], success: float) -> float:
    """Coverage where the mean success rate is ``success``, interpolated between checkpoints."""
    rates, coverages = zip(*sorted(train(estimator, *setting)), strict=True)
    assert rates[0] <= success <= rates[-1]
    return float(np.interp(success, rates, coverages))


METHODS = (Psr(), GRPO, DrGrpo(), Agpo(negative=-0.5), Agpo(), Nsr())


@pytest.mark.parametrize(("success", "figures"), [(0.5, (0.865, 0.868)), (0.7, (0.78, 0.79)), (0.9, (0.605, 0.614))])
def test_with_small_steps_all_objectives_share_one_frontier(success: float, figures: tuple[float, float]) -> None:
    found = [coverage(method, SMALL, success) for method in METHODS]
    assert max(found) - min(found) < 0.015
    assert figures[0] - 0.005 < min(found) <= max(found) < figures[1] + 0.005


def test_with_large_steps_negative_dominance_keeps_more() -> None:
    found = [coverage(method, LARGE, 0.97) for method in METHODS]
    assert found == pytest.approx([0.406, 0.393, 0.398, 0.405, 0.414, 0.429], abs=0.002)
    psr, grpo, _, _, agpo, nsr = found
    assert grpo < psr < agpo < nsr


@pytest.mark.parametrize("success", [0.5, 0.7, 0.9, 0.97])
def test_a_smaller_step_keeps_more_whatever_the_objective(success: float) -> None:
    for method in METHODS:
        assert coverage(method, SMALL, success) > coverage(method, LARGE, success)


def test_where_right_answers_are_rare_pushing_down_all_wrong_groups_hurts() -> None:
    """Mass flows to the next most likely wrong answer; the variance scaling of rare right ones is what helps."""

    def success(method: AdvantageEstimator) -> float:
        return train(method, 2.0, (100,), p0=0.003, problems=300)[0][0]

    grpo, dr_grpo, agpo, psr, nsr = (success(each) for each in (GRPO, DrGrpo(), Agpo(), Psr(), Nsr()))
    assert [grpo, dr_grpo, agpo, psr, nsr] == pytest.approx([0.124, 0.041, 0.009, 0.004, 0.001], abs=0.001)
    assert nsr < agpo < dr_grpo < grpo
    assert success(Agpo(all_wrong="mask")) > success(Agpo())
