"""The gate: what it promotes, rejects and leaves open, in simulation and at its edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from agpo.evaluation.gate import Decision, decide
from tests.agpo.evaluation.simulation import (
    Rates,
    draw_rates,
    exchange_problems,
    lose_problems,
    make_counts,
    sample_counts,
    shift_rates,
)

KS = [1, 2, 4, 8, 16, 32, 64]


def judge(
    base: pl.DataFrame, candidate: pl.DataFrame, champion: pl.DataFrame | None = None, *, seed: int = 0
) -> Decision:
    return decide(base, candidate, champion, KS, margin=0.05, confidence=0.95, resamples=500, seed=seed)


def two_sets(problems: int, random: np.random.Generator) -> dict[str, Rates]:
    return {"in_distribution": draw_rates(problems, random), "hard": draw_rates(problems, random, 0.4, 3.0)}


def moved(rates: dict[str, Rates], shift: float, noise: float, random: np.random.Generator) -> dict[str, Rates]:
    return {name: shift_rates(chances, shift, noise, random) for name, chances in rates.items()}


def test_an_equally_good_candidate_keeps_the_boundary() -> None:
    random, trials, kept = np.random.default_rng(0), 40, 0
    for trial in range(trials):
        rates = two_sets(400, random)
        decision = judge(
            sample_counts(rates, 256, random), sample_counts(moved(rates, 0.0, 0.5, random), 256, random), seed=trial
        )
        kept += decision.boundary == "kept"
        assert decision.boundary != "lost"
    assert kept >= 0.9 * trials


def test_the_stated_power_is_what_equally_good_candidates_meet() -> None:
    random, trials, kept, stated = np.random.default_rng(3), 80, 0, 0.0
    for trial in range(trials):
        rates = draw_rates(90, random)
        one, other = exchange_problems(rates, shift_rates(rates, 0.0, 0.8, random), random)
        decision = judge(sample_counts({"a": one}, 256, random), sample_counts({"a": other}, 256, random), seed=trial)
        kept += decision.boundary == "kept"
        stated += decision.power[0].equal_passes
    assert kept / trials == pytest.approx(stated / trials, abs=0.12)  # standard error of the measured share: .05
    assert 0.4 < kept / trials < 0.95  # not trivially certain


@pytest.mark.parametrize("k", [1, 64])
def test_a_candidate_eight_points_worse_at_one_k_is_never_promoted(k: int) -> None:
    random, rejected, trials = np.random.default_rng(k), 0, 40
    for trial in range(trials):
        rates = two_sets(400, random)
        # Better everywhere but at one k of one set: there a share of the problems is lost, or every rate is lower.
        worse = moved(rates, 1.0, 0.3, random)
        chances = rates["hard"]
        if k == 1:
            worse["hard"] = (chances - 0.08 * chances / chances.mean()).clip(0)
        else:
            covered = (1 - (1 - worse["hard"]) ** k).mean()
            gained = covered - (1 - (1 - chances) ** k).mean()
            worse["hard"] = lose_problems(worse["hard"], (0.08 + gained) / covered, random)
        decision = judge(sample_counts(rates, 256, random), sample_counts(worse, 256, random), seed=trial)
        assert decision.outcome != "promote"
        rejected += decision.outcome == "reject"
    assert rejected > 0


def test_a_clear_gain_at_a_kept_boundary_is_promoted() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(400, random)
    base = sample_counts(rates, 256, random)
    decision = judge(base, sample_counts(moved(rates, 0.7, 0.3, random), 256, random))
    assert (decision.outcome, decision.boundary, decision.quality) == ("promote", "kept", "better")
    assert decision.quality_mean.lower > 0
    assert all(entry.lower > -0.05 for entry in decision.boundary_evidence)
    assert decision.reasons[0].startswith("boundary kept")


def test_a_lost_boundary_is_rejected_and_the_reason_names_set_k_and_margin() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(400, random)
    narrowed = {**moved(rates, 1.0, 0.2, random), "hard": lose_problems(rates["hard"], 0.4, random)}
    decision = judge(sample_counts(rates, 256, random), sample_counts(narrowed, 256, random))
    assert (decision.outcome, decision.boundary) == ("reject", "lost")
    assert any("64: hard, pass@64: -" in reason and "-5.0" in reason for reason in decision.reasons)
    lost = next(entry for entry in decision.boundary_evidence if (entry.set, entry.k) == ("hard", 64))
    assert lost.upper < -0.05


def test_the_boundary_is_judged_against_the_base_and_quality_against_the_champion() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(400, random)
    base = sample_counts(rates, 256, random)
    candidate = sample_counts(moved(rates, 0.5, 0.2, random), 256, random)
    champion = sample_counts(moved(rates, 1.2, 0.2, random), 256, random)
    assert judge(base, candidate).outcome == "promote"
    decision = judge(base, candidate, champion)
    assert (decision.outcome, decision.boundary, decision.quality) == ("reject", "kept", "worse")
    assert decision.reasons[0].startswith("quality worse than the champion: mean over sets, pass@1")


def test_a_champion_with_less_coverage_than_the_base_does_not_lower_the_bar() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(400, random)
    narrow = {name: lose_problems(chances, 0.4, random) for name, chances in rates.items()}
    champion, better = sample_counts(narrow, 256, random), sample_counts(moved(narrow, 0.5, 0.1, random), 256, random)
    assert judge(sample_counts(rates, 256, random), better, champion).boundary == "lost"


def test_a_set_that_falls_behind_the_champion_stops_a_better_mean() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(400, random)
    base = sample_counts(rates, 256, random)
    champion = {**rates, "hard": shift_rates(rates["hard"], 1.5, 0.1, random)}
    candidate = {**rates, "in_distribution": shift_rates(rates["in_distribution"], 2.5, 0.1, random)}
    decision = judge(base, sample_counts(candidate, 256, random), sample_counts(champion, 256, random))
    assert decision.quality_mean.lower > 0
    assert (decision.outcome, decision.quality) == ("reject", "worse")
    assert any(reason.startswith("quality worse than the champion: hard") for reason in decision.reasons)


def test_no_difference_leaves_the_champion() -> None:
    random = np.random.default_rng(0)
    counts = sample_counts(two_sets(100, random), 256, random)
    decision = judge(counts, counts, counts)
    assert (decision.outcome, decision.boundary, decision.quality) == ("inconclusive", "kept", "undecided")
    assert decision.reasons[0].startswith("quality not shown to be better")


def test_an_open_boundary_says_how_many_problems_would_decide() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(80, random)
    decision = judge(sample_counts(rates, 256, random), sample_counts(moved(rates, 0.3, 1.2, random), 256, random))
    assert (decision.outcome, decision.boundary) == ("inconclusive", "undecided")
    assert any("problems (here 80) would decide" in reason for reason in decision.reasons)
    power = {entry.set: entry for entry in decision.power}["hard"]
    assert power.equal_passes < 0.9
    assert power.problems_wanted > 80


def test_a_handful_of_problems_cannot_keep_a_boundary_even_without_any_loss() -> None:
    base = make_counts(["a"] * 20, [256] * 20, [128] * 20)
    better = make_counts(["a"] * 20, [256] * 20, [200] * 20)
    decision = judge(base, better)
    assert (decision.outcome, decision.boundary, decision.quality) == ("inconclusive", "undecided", "better")
    assert "a has 20 problems; below 59 a loss of 5 points cannot be excluded" in decision.reasons[0]


def test_pass_at_1_belongs_to_the_boundary_even_if_not_asked_for() -> None:
    random = np.random.default_rng(0)
    counts = sample_counts({"a": draw_rates(100, random)}, 64, random)
    decision = decide(counts, counts, None, [16], 0.05, 0.95, 200, 0)
    assert [entry.k for entry in decision.boundary_evidence] == [1, 16]


def test_unverifiable_samples_and_problems_that_left_are_counted() -> None:
    sets, n = ["a"] * 60, [256] * 60
    base = make_counts(sets, n, [10] * 60)
    candidate = make_counts(sets, n, [10] * 60, unverifiable=[200, *[2] * 59])
    decision = judge(base, candidate)
    assert (decision.totals["base"].unverifiable, decision.totals["candidate"].unverifiable) == (0, 318)
    assert decision.totals["candidate"].samples == 60 * 256
    assert decision.notes == ["1 problems left: some policy has fewer than 64 verified samples of them"]
    assert decision.boundary_evidence[0].problems == 59


def test_few_samples_for_the_largest_k_are_noted() -> None:
    counts = make_counts(["a"] * 60, [128] * 60, [10] * 60)
    assert judge(counts, counts).notes == [
        f"{name} has 128 samples a problem; pass@64 is steady from 256 on" for name in ("base", "candidate")
    ]


def test_decisions_repeat_with_their_seed_whatever_the_order_of_rows_and_survive_json() -> None:
    random = np.random.default_rng(0)
    rates = two_sets(100, random)
    base, candidate = sample_counts(rates, 128, random), sample_counts(moved(rates, 0.5, 0.5, random), 128, random)
    decision = judge(base, candidate)
    again = judge(base, candidate.sample(fraction=1, shuffle=True, seed=1))
    assert again == decision
    assert judge(base, candidate, seed=1) != decision
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    with pytest.raises(ValidationError, match="frozen"):
        decision.outcome = "promote"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("margin", 0.06, r"margin = 0\.06: accepted is above 0 and at most 0\.05"),
        ("margin", 0.0, r"margin = 0\.0"),
        ("confidence", 1.0, r"confidence = 1\.0"),
        ("resamples", 10, "resamples = 10: accepted is at least 100"),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: float, message: str) -> None:
    counts = make_counts(["a"] * 60, [256] * 60, [10] * 60)
    settings: dict[str, Any] = {"margin": 0.05, "confidence": 0.95, "resamples": 200, "seed": 0, setting: value}
    with pytest.raises(ValueError, match=message):
        decide(counts, counts, None, KS, **settings)
