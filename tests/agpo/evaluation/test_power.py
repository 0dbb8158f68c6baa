"""Figures about what an evaluation can decide."""

from __future__ import annotations

import pytest

from agpo.evaluation.comparison import Comparison
from agpo.evaluation.power import fewest_problems, problems_to_decide, set_power


def comparison(difference: float, error: float, critical: float = 2.0, k: int = 1, problems: int = 400) -> Comparison:
    return Comparison(
        set="a",
        k=k,
        problems=problems,
        reference=0.5,
        candidate=0.5 + difference,
        difference=difference,
        lower=difference - critical * error,
        upper=difference + critical * error,
        standard_error=error,
    )


def test_fewest_problems_is_the_least_that_would_show_a_loss() -> None:
    fewest = fewest_problems(0.05, 0.95)
    assert 0.95**fewest <= 0.05 < 0.95 ** (fewest - 1)
    assert fewest_problems(0.02, 0.95) > fewest


def test_the_least_certain_k_limits_the_power() -> None:
    power = set_power([comparison(0.0, 0.005, k=1), comparison(0.02, 0.01, k=64)], margin=0.05, confidence=0.95)
    assert (power.k, power.standard_error, power.problems) == (64, 0.01, 400)
    assert power.equal_passes == pytest.approx(0.99865, abs=1e-4)  # Φ((5 − 2) / 1)
    assert power.problems_wanted == 173  # 400 · ((2 + 1.2816) / 5)² in points


def test_power_does_not_exceed_what_the_number_of_problems_allows() -> None:
    assert set_power([comparison(0.0, 0.0, problems=400)], 0.05, 0.95).equal_passes == 1.0
    few = set_power([comparison(0.0, 0.0, problems=20)], 0.05, 0.95)
    assert (few.equal_passes, few.problems_wanted) == (0.0, 59)


@pytest.mark.parametrize(("difference", "expected"), [(-0.01, 400), (-0.09, 400), (-0.03, 1600), (0.15, 16)])
def test_problems_to_decide_scale_with_the_square_of_the_distance(difference: float, expected: int) -> None:
    needed = problems_to_decide(comparison(difference, 0.02), threshold=-0.05)
    assert needed == pytest.approx(expected, abs=1)


def test_nothing_decides_a_difference_on_the_threshold() -> None:
    assert problems_to_decide(comparison(0.0, 0.02), threshold=0.0) is None
