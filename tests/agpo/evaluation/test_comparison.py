"""The family of differences: which policies each row compares."""

from __future__ import annotations

import pytest

from agpo.evaluation.comparison import ALL_SETS, compare_policies, points
from agpo.evaluation.passk import pass_tables
from tests.agpo.evaluation.simulation import make_counts

SETS = ["a"] * 3 + ["b"] * 2


def test_boundary_rows_compare_with_the_base_and_quality_rows_with_the_champion() -> None:
    policies = {
        "base": make_counts(SETS, [4] * 5, [0, 1, 2, 1, 3]),
        "candidate": make_counts(SETS, [4] * 5, [1, 2, 3, 4, 4]),
        "champion": make_counts(SETS, [4] * 5, [4, 4, 4, 0, 2]),
    }
    evidence = compare_policies(
        pass_tables(policies, [1, 2]), [1, 2], champion="champion", confidence=0.9, resamples=200, seed=0
    )
    rows = [entry for entries in evidence.boundary.values() for entry in entries]
    assert [(entry.set, entry.k, entry.problems) for entry in rows] == [
        ("a", 1, 3),
        ("a", 2, 3),
        ("b", 1, 2),
        ("b", 2, 2),
    ]
    assert [entry.difference for entry in rows[::2]] == pytest.approx([1 / 4, 1 / 2])
    assert rows[0].reference == pytest.approx(1 / 4)
    assert rows[0].candidate == pytest.approx(1 / 2)
    assert [entry.difference for entry in evidence.quality] == pytest.approx([-1 / 2, 3 / 4])
    assert (evidence.quality_mean.set, evidence.quality_mean.problems) == (ALL_SETS, 5)
    assert evidence.quality_mean.difference == pytest.approx(1 / 8)  # each set counts the same
    assert all(entry.lower <= entry.difference <= entry.upper for entry in [*rows, *evidence.quality])


def test_points_are_signed_percentage_points() -> None:
    assert (points(0.1234), points(-0.05)) == ("+12.3", "-5.0")
