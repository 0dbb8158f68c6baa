"""Temperature and how true confidences are, against hand-made cases and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from agpo.student.calibration import bin_confidences, cool, fit_temperature, measure_calibration

RANDOM = np.random.default_rng(0)
LOGITS = 3 * RANDOM.normal(size=(4000, 4))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.4])
def test_the_temperature_of_the_data_is_found(temperature: float) -> None:
    noise = RANDOM.gumbel(size=LOGITS.shape)
    gold = (LOGITS / temperature + noise).argmax(axis=1)  # a draw from softmax(logits / T)
    assert fit_temperature(PROBABILITIES, gold) == pytest.approx(temperature, rel=0.08)


def test_a_student_that_is_always_right_has_a_bounded_temperature() -> None:
    assert fit_temperature(PROBABILITIES, PROBABILITIES.argmax(axis=1)) == pytest.approx(1 / 20, rel=0.01)


def test_cooling_changes_no_label_and_can_be_undone() -> None:
    cooled = cool(PROBABILITIES, 2.0)
    np.testing.assert_array_equal(cooled.argmax(1), PROBABILITIES.argmax(1))
    assert (cooled.max(1) < PROBABILITIES.max(1)).all()
    np.testing.assert_allclose(cool(cooled, 0.5), PROBABILITIES, atol=1e-9)


def test_a_probability_of_nothing_stays_finite() -> None:
    assert np.isfinite(cool(np.array([[1.0, 0.0]]), 0.1)).all()


def test_calibration_of_a_hand_made_case() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.3, 0.7]])
    gold = np.array([0, 0, 1, 0])
    found = measure_calibration(probabilities, gold)
    # Three bins: (0.9 | 1 of 1), (0.8 | 1 of 2), (0.7 | 0 of 1).
    assert found.ece == pytest.approx((0.1 + 2 * 0.3 + 0.7) / 4)
    assert found.brier == pytest.approx((2 * 0.01 + 2 * 0.04 + 2 * 0.64 + 2 * 0.49) / 4)
    # Most confident first: right, right, wrong, wrong.
    assert found.aurc == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)


def test_the_brier_score_is_scikit_learns() -> None:
    gold = RANDOM.integers(4, size=len(PROBABILITIES))
    expected = brier_score_loss(gold, PROBABILITIES, labels=[0, 1, 2, 3], scale_by_half=False)
    assert measure_calibration(PROBABILITIES, gold).brier == pytest.approx(expected)


def test_certain_and_right_is_perfect() -> None:
    found = measure_calibration(np.eye(4), np.arange(4))
    assert (found.ece, found.brier, found.aurc) == (0, 0, 0)


def test_only_bins_with_pairs_are_given() -> None:
    held, confidence, accuracy, share = bin_confidences(np.array([[1.0, 0.0], [0.45, 0.55]]), np.array([0, 0]))
    assert held.tolist() == [8, 14]
    assert confidence.tolist() == [0.55, 1.0]
    assert accuracy.tolist() == [0.0, 1.0]
    assert share.tolist() == [0.5, 0.5]
