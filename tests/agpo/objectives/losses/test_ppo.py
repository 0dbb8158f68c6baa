"""The clipped loss on both sides of each of its kinks."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agpo.objectives.losses import ppo_clip_loss

LOW, HIGH, DUAL = 0.2, 0.28, 3.0
OLD = -1.5
STEP = 1e-6  # less than the distance of every ratio below from a kink


def loss_of(ratio: float, advantage: float) -> float:
    """The formula for one token, in plain Python."""
    clipped = min(max(ratio, 1 - LOW), 1 + HIGH)
    surrogate = min(ratio * advantage, clipped * advantage)
    return -max(surrogate, DUAL * advantage) if advantage < 0 else -surrogate


def value_and_gradient(ratio: float, advantage: float) -> tuple[float, float]:
    logprob = torch.tensor([OLD + log(ratio)], dtype=torch.float64, requires_grad=True)
    old, factor = torch.tensor([[OLD], [advantage]], dtype=torch.float64)
    loss = ppo_clip_loss(logprob, old, factor, LOW, HIGH, DUAL)
    (gradient,) = torch.autograd.grad(loss.sum(), logprob)
    return float(loss.detach()), float(gradient)


@pytest.mark.parametrize("side", [-1e-4, 1e-4], ids=["below", "above"])
@pytest.mark.parametrize("kink", [1 - LOW, 1.0, 1 + HIGH, DUAL])
@pytest.mark.parametrize("advantage", [-2.46, -1.0, 1.0, 1.46])
def test_value_and_gradient_beside_every_kink(kink: float, side: float, advantage: float) -> None:
    ratio = kink + side
    value, gradient = value_and_gradient(ratio, advantage)
    assert value == pytest.approx(loss_of(ratio, advantage), abs=1e-12)
    difference = loss_of(ratio * exp(STEP), advantage) - loss_of(ratio * exp(-STEP), advantage)
    assert gradient == pytest.approx(difference / (2 * STEP), abs=1e-8)


@pytest.mark.parametrize(
    ("ratio", "advantage", "has_gradient"),
    [
        (0.7, 1.0, True),  # a right token that became unlikely is brought back
        (1.2, 1.0, True),
        (1.3, 1.0, False),
        (0.7, -1.0, False),
        (0.9, -1.0, True),
        (2.9, -1.0, True),  # a wrong token that became likely is pushed down
        (3.1, -1.0, False),
        (1.1, 0.0, False),
    ],
)
def test_where_a_token_still_moves_the_policy(ratio: float, advantage: float, has_gradient: bool) -> None:
    assert (value_and_gradient(ratio, advantage)[1] != 0) == has_gradient


@given(st.floats(0.01, 50), st.floats(-3, 3))
def test_any_token_follows_the_formula_and_its_loss_is_bounded(ratio: float, advantage: float) -> None:
    value, _ = value_and_gradient(ratio, advantage)
    assert value == pytest.approx(loss_of(ratio, advantage), rel=1e-9, abs=1e-12)
    if advantage >= 0:
        assert value >= -advantage * (1 + HIGH) - 1e-9
    else:
        assert value <= -advantage * DUAL + 1e-9


@pytest.mark.parametrize("advantage", [-1.0, 0.5])
def test_on_policy_the_loss_is_minus_the_advantage_and_so_is_the_gradient(advantage: float) -> None:
    assert value_and_gradient(1.0, advantage) == pytest.approx((-advantage, -advantage))
