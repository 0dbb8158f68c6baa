"""Intervals: coverage in simulation, pairing, determinism."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from agpo.evaluation import bootstrap
from agpo.evaluation.bootstrap import curve_intervals, difference_intervals, resample_means, simultaneous_bounds
from agpo.evaluation.passk import pass_at_k
from tests.agpo.evaluation.simulation import draw_rates, make_counts, sample_counts, shift_rates

KS = np.array([1, 2, 4, 8, 16, 32, 64])


def simulated_values(rates: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Per-problem pass@k [problems, ks] of n samples at the given success rates."""
    return pass_at_k(n, random.binomial(n, rates)[:, None], KS)


def test_resampled_means_have_the_mean_and_the_spread_of_the_mean() -> None:
    random = np.random.default_rng(0)
    values = random.random((300, 2))
    means = resample_means(values, 4000, seed=0, stream="a")
    errors = values.std(0) / np.sqrt(300)
    np.testing.assert_allclose(means.mean(0), values.mean(0), atol=4 * errors.max() / np.sqrt(4000))
    np.testing.assert_allclose(means.std(0), errors, rtol=0.05)


def test_resamples_do_not_depend_on_the_order_of_problems_or_the_size_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).integers(0, 5, (50, 3)) / 4
    means = resample_means(values, 200, seed=3, stream="a")
    np.testing.assert_array_equal(resample_means(values[::-1], 200, seed=3, stream="a"), means)
    monkeypatch.setattr(bootstrap, "_CHUNK", 100)
    np.testing.assert_allclose(resample_means(values, 200, seed=3, stream="a"), means, atol=1e-15)
    assert not np.array_equal(resample_means(values, 200, seed=4, stream="a"), means)
    assert not np.array_equal(resample_means(values, 200, seed=3, stream="b"), means)


def test_one_problem_has_no_interval() -> None:
    with pytest.raises(ValueError, match="set 'a' has 1 problem; intervals over problems need at least 2"):
        curve_intervals(make_counts(["a"], [8], [1]), [1])


def test_curve_intervals_cover_the_true_curve() -> None:
    random = np.random.default_rng(0)
    truth = 1 - (1 - draw_rates(300_000, random)[:, None]) ** KS
    expected, trials, covered = truth.mean(0), 200, np.zeros(len(KS))
    for trial in range(trials):
        counts = sample_counts({"a": draw_rates(150, random)}, 128, random)
        frame = curve_intervals(counts, KS.tolist(), resamples=500, seed=trial)
        covered += (frame["lower"].to_numpy() <= expected) & (expected <= frame["upper"].to_numpy())
    # Over 200 trials the standard error of the coverage is 1.5 points.
    assert 0.93 <= (covered / trials).mean() <= 0.97
    assert np.all(covered / trials >= 0.91)


def test_simultaneous_bounds_hold_together() -> None:
    random = np.random.default_rng(1)
    many = draw_rates(300_000, random)[:, None]
    expected = ((1 - many) ** KS - (1 - shift_rates(many, 0.0, 0.5, random)) ** KS).mean(0)
    trials, below, above = 200, 0, 0
    for trial in range(trials):
        rates = draw_rates(150, random)
        other = shift_rates(rates, 0.0, 0.5, random)
        values = simulated_values(other, 128, random) - simulated_values(rates, 128, random)
        bounds = simultaneous_bounds(values.mean(0), resample_means(values, 500, trial, "a"), 0.95)
        below += bool(np.all(bounds.lower <= expected))
        above += bool(np.all(expected <= bounds.upper))
        assert np.all(bounds.lower <= values.mean(0))
        assert np.all(values.mean(0) <= bounds.upper)
    assert 0.91 <= below / trials <= 0.99
    assert 0.91 <= above / trials <= 0.99


def test_a_column_without_spread_does_not_widen_the_others() -> None:
    random = np.random.default_rng(0)
    values = random.random((200, 1))
    constant = np.full((200, 1), 0.1)
    alone = simultaneous_bounds(values.mean(0), resample_means(values, 500, 0, "a"), 0.95)
    both = np.concatenate([values, constant], axis=1)
    joined = simultaneous_bounds(both.mean(0), resample_means(both, 500, 0, "a"), 0.95)
    assert joined.critical_lower == pytest.approx(alone.critical_lower, abs=1e-6)
    assert joined.lower[1] == pytest.approx(0.1)
    assert joined.upper[1] == pytest.approx(0.1)


def test_pairing_removes_the_spread_between_problems() -> None:
    random = np.random.default_rng(0)
    rates = draw_rates(300, random)
    base = sample_counts({"a": rates}, 256, random)
    same = sample_counts({"a": rates}, 256, random)
    frame = difference_intervals(base, same, [1, 64])
    single = curve_intervals(base, [1, 64])
    assert ((frame["upper"] - frame["lower"]) < 0.5 * (single["upper"] - single["lower"])).all()
    assert ((frame["lower"] <= frame["difference"]) & (frame["difference"] <= frame["upper"])).all()
    np.testing.assert_allclose(frame["difference"], frame["candidate"] - frame["base"], atol=1e-15)


def test_difference_of_a_policy_to_itself_is_zero() -> None:
    counts = make_counts(["a"] * 4 + ["b"] * 4, [8] * 8, [0, 1, 2, 3, 4, 5, 6, 7])
    for interval in ("pointwise", "simultaneous"):
        frame = difference_intervals(counts, counts, [1, 4], interval=interval)
        assert frame.select("difference", "lower", "upper").to_numpy().tolist() == [[0.0, 0.0, 0.0]] * 4


def test_simultaneous_intervals_of_a_family_are_wider_than_those_of_one_member() -> None:
    random = np.random.default_rng(0)
    rates = {"a": draw_rates(200, random), "b": draw_rates(200, random)}
    base = sample_counts(rates, 128, random)
    candidate = sample_counts(
        {name: shift_rates(chances, 0.2, 0.5, random) for name, chances in rates.items()}, 128, random
    )
    family = difference_intervals(base, candidate, [1, 4, 16, 64], interval="simultaneous")
    member = difference_intervals(base, candidate, [1], interval="simultaneous").filter(pl.col("set") == "a")
    assert family.filter((pl.col("set") == "a") & (pl.col("k") == 1))["lower"].item() < member["lower"].item()


def test_differences_need_the_same_problems() -> None:
    counts = make_counts(["a"] * 5, [8] * 5, [1] * 5)
    with pytest.raises(ValueError, match="candidate lacks 3 of the 5 problems of base"):
        difference_intervals(counts, counts.head(2), [1])


def test_two_thousand_resamples_of_eight_hundred_problems_take_well_under_a_second() -> None:
    random = np.random.default_rng(0)
    rates = draw_rates(800, random)
    values = simulated_values(rates, 256, random) - simulated_values(rates, 256, random)
    start = time.process_time()
    resample_means(values, 2000, 0, "a")
    assert time.process_time() - start < 0.8
