"""pass@k: the estimator against the hypergeometric law and enumeration, and the curve of a set of problems."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from agpo.evaluation.passk import pass_at_k, pass_curve, pass_tables
from tests.agpo.evaluation.simulation import make_counts


@st.composite
def budgets(draw: st.DrawFn, largest: int) -> tuple[int, int, int]:
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(budgets(12))
def test_equals_the_share_of_all_draws_with_a_right_sample(case: tuple[int, int, int]) -> None:
    n, c, k = case
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-14)


@given(budgets(2048))
def test_equals_the_hypergeometric_law(case: tuple[int, int, int]) -> None:
    n, c, k = case
    exact = 1 - comb(n - c, k) / comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)
    assert pass_at_k(n, c, k) == pytest.approx(hypergeom(n, c, k).sf(0), abs=1e-9)  # scipy's own error is larger


@given(budgets(300))
def test_grows_with_k_and_with_right_samples(case: tuple[int, int, int]) -> None:
    n, c, _ = case
    curve = pass_at_k(n, c, np.arange(1, n + 1))
    assert np.all(np.diff(curve) >= -1e-15)
    assert curve[0] == pytest.approx(c / n, abs=1e-15)
    assert curve[-1] == (1.0 if c else 0.0)
    assert np.all(pass_at_k(n, min(c + 1, n), np.arange(1, n + 1)) >= curve)


def test_is_unbiased_for_independent_samples() -> None:
    n, k, p = 20, 8, 0.13
    c = np.arange(n + 1)
    law = np.array([comb(n, right) * p**right * (1 - p) ** (n - right) for right in c])
    assert law @ pass_at_k(n, c, k) == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_arrays_broadcast_and_integers_give_a_float() -> None:
    table = pass_at_k(np.array([[4], [8]]), np.array([[1], [8]]), np.array([1, 2, 4]))
    np.testing.assert_allclose(table, [[0.25, 0.5, 1.0], [1.0, 1.0, 1.0]], rtol=0, atol=1e-15)
    assert type(pass_at_k(4, 1, 2)) is float
    assert pass_at_k(np.array([], dtype=int), np.array([], dtype=int), 1).shape == (0,)


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 2, 5, "n = 4, c = 2, k = 5: accepted is 1 ≤ k ≤ n"),
        (4, 2, 0, "k = 0: accepted is 1 ≤ k ≤ n"),
        (4, 5, 1, "n = 4, c = 5, k = 1: accepted is 0 ≤ c ≤ n"),
        (4, -1, 1, "c = -1"),
        (0, 0, 1, "n = 0, c = 0, k = 1: accepted is 1 ≤ n"),
        (-3, 0, 1, "n = -3"),
        ([8, 8], [1, 9], 4, "n = 8, c = 9, k = 4"),
        (4, 0.5, 1, "c = .*0.5.* has type float64; accepted are integers"),
    ],
)
def test_impossible_values_are_named(n: int, c: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


def test_curve_is_the_mean_over_the_problems_of_each_set() -> None:
    counts = make_counts(["b", "b", "a"], [4, 4, 8], [1, 3, 2])
    curve = pass_curve(counts, [1, 2])
    assert curve["set"].to_list() == ["b", "b", "a", "a"]  # sets keep their order
    assert curve["problems"].to_list() == [2, 2, 1, 1]
    expected = [(1 / 4 + 3 / 4) / 2, (1 / 2 + 1) / 2, 1 / 4, 1 - comb(6, 2) / comb(8, 2)]
    np.testing.assert_allclose(curve["pass_at_k"], expected, atol=1e-15)


def test_unverifiable_samples_leave_the_estimate() -> None:
    counts = make_counts(["a"], [8], [2], unverifiable=[4])
    assert pass_curve(counts, [1])["pass_at_k"].item() == pytest.approx(2 / 4)


def test_a_problem_without_enough_verified_samples_leaves_for_every_policy_and_every_k() -> None:
    full = make_counts(["a", "a", "a"], [8, 8, 8], [0, 4, 8])
    partial = make_counts(["a", "a", "a"], [8, 8, 8], [0, 4, 1], unverifiable=[0, 0, 7])
    tables = pass_tables({"base": full, "candidate": partial}, [1, 4])["a"]
    np.testing.assert_allclose(tables["base"][:, 0], [0, 0.5])
    np.testing.assert_allclose(tables["candidate"][:, 0], [0, 0.5])


def test_rows_are_the_same_problems_whatever_the_order_of_the_counts() -> None:
    counts = make_counts(["a"] * 6, [8] * 6, [0, 1, 2, 3, 4, 5])
    tables = pass_tables({"base": counts, "candidate": counts.sample(fraction=1, shuffle=True, seed=1)}, [1, 2])["a"]
    np.testing.assert_array_equal(tables["base"], tables["candidate"])


def test_policies_must_share_their_problems() -> None:
    base = make_counts(["a"] * 5, [8] * 5, [1] * 5)
    with pytest.raises(ValueError, match=r"candidate lacks 2 of the 5 problems of base and has 0 others, e\.g\. 'a-3'"):
        pass_tables({"base": base, "candidate": base.head(3)}, [1])
    with pytest.raises(ValueError, match="candidate lacks 0 of the 3 problems of base and has 2 others"):
        pass_tables({"base": base.head(3), "candidate": base}, [1])
    with pytest.raises(ValueError, match="lacks 5 of the 5"):
        pass_tables({"base": base, "candidate": base.with_columns(set=pl.lit("b"))}, [1])


def test_a_budget_beyond_the_samples_is_refused() -> None:
    counts = make_counts(["a", "a"], [64, 16], [1, 1])
    with pytest.raises(ValueError, match=r"k = 32 needs at least 32 samples per problem: policy has n = 16 .* 'a-1'"):
        pass_curve(counts, [1, 32])
    with pytest.raises(ValueError, match=r"k = \[0\]"):
        pass_curve(counts, [0])
    with pytest.raises(ValueError, match=r"k = \[\]"):
        pass_curve(counts, [])


def test_a_set_without_a_single_usable_problem_is_refused() -> None:
    counts = make_counts(["a", "b"], [8, 8], [1, 0], unverifiable=[0, 8])
    with pytest.raises(ValueError, match="set 'b' has no problem with at least 4 verified samples"):
        pass_curve(counts, [4])
