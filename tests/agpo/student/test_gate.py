"""The student's gate: what it promotes, rejects and leaves open, in simulation and at its edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from agpo.relevance import Labelled, find_scheme
from agpo.settings import StudentJudging
from agpo.student.gate import StudentDecision, compare_cases, decide

SCHEME = find_scheme("esci4")
LETTERS = np.array([label.letter for label in SCHEME])
CASES = ("accessory", "near_miss", "other_size", "plain", "units")
SETTINGS = StudentJudging(resamples=300)


@dataclass
class Pairs:
    """Pairs of a confirmation split: five of a query, one of each case."""

    gold: NDArray[np.str_]
    query_ids: list[str]
    cases: list[str | None]

    @classmethod
    def draw(cls, queries: int, random: np.random.Generator) -> Pairs:
        size = queries * len(CASES)
        return cls(
            random.choice(LETTERS, size), [f"q{row // len(CASES)}" for row in range(size)], list(CASES) * queries
        )

    def label(self, wrong: NDArray[np.bool_]) -> Labelled:
        """Labels of a model that takes the next label where it is wrong."""
        level = np.searchsorted(np.sort(LETTERS), self.gold)
        other = np.sort(LETTERS)[(level + 1) % len(LETTERS)]
        return Labelled(SCHEME, self.gold.tolist(), np.where(wrong, other, self.gold).tolist(), self.query_ids)

    def of(self, case: str) -> NDArray[np.bool_]:
        return np.array([name == case for name in self.cases])


def err(pairs: Pairs, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which pairs a model has wrong: a share of them, some queries being harder than others."""
    hardness = np.repeat(random.beta(2, 2, len(pairs.gold) // len(CASES)), len(CASES))
    return random.random(len(pairs.gold)) < 2 * share * hardness


def judge(pairs: Pairs, seed: int = 0, **wrong: NDArray[np.bool_]) -> StudentDecision:
    return decide({name: pairs.label(which) for name, which in wrong.items()}, pairs.cases, SETTINGS, seed)


def test_a_better_student_is_promoted() -> None:
    random = np.random.default_rng(0)
    for trial in range(10):
        pairs = Pairs.draw(300, random)
        champion = err(pairs, 0.25, random)
        decision = judge(pairs, trial, student=champion & (random.random(champion.shape) < 0.7), champion=champion)
        assert (decision.outcome, decision.quality, decision.reference) == ("promote", "better", "champion")
        assert decision.reasons[0].startswith("macro-F1 above the champion's: +")
        assert decision.macro_f1.lower > 0
        assert all(entry.student >= entry.reference for entry in decision.cases)


def test_a_worse_student_is_rejected() -> None:
    random = np.random.default_rng(1)
    for trial in range(10):
        pairs = Pairs.draw(300, random)
        student = err(pairs, 0.25, random)
        decision = judge(pairs, trial, student=student, champion=student & (random.random(student.shape) < 0.7))
        assert (decision.outcome, decision.quality) == ("reject", "worse")
        assert decision.reasons[0].startswith("macro-F1 below the champion's: -")


def test_an_equal_student_is_mostly_left_open_and_seldom_promoted() -> None:
    random, outcomes = np.random.default_rng(2), []
    for trial in range(100):
        pairs = Pairs.draw(150, random)
        outcomes.append(judge(pairs, trial, student=err(pairs, 0.2, random), champion=err(pairs, 0.2, random)).outcome)
    assert outcomes.count("promote") <= 7  # 2.5 expected
    assert outcomes.count("inconclusive") >= 85


def test_an_open_decision_says_how_many_queries_would_decide() -> None:
    random = np.random.default_rng(3)
    pairs = Pairs.draw(60, random)
    champion = err(pairs, 0.25, random)
    student = champion.copy()
    student[np.flatnonzero(champion)[0]] = False
    decision = judge(pairs, student=student, champion=champion)
    assert decision.outcome == "inconclusive"
    assert "macro-F1 not shown to be above the champion's: +0." in decision.reasons[0]
    assert "queries (here 60) would decide if the difference stands" in decision.reasons[0]
    assert "no practical number of queries" in judge(pairs, student=champion, champion=champion).reasons[0]


def test_a_lost_case_stands_against_a_better_student() -> None:
    random = np.random.default_rng(4)
    pairs = Pairs.draw(300, random)
    champion = err(pairs, 0.25, random)
    student = champion & (random.random(champion.shape) < 0.3)
    units = pairs.of("units")
    student[units] = champion[units] | (random.random(units.sum()) < 0.2)
    decision = judge(pairs, student=student, champion=champion)
    assert (decision.outcome, decision.quality) == ("reject", "better")
    (reason,) = decision.reasons
    assert reason.startswith("case lost: units: -")
    assert "beyond the margin of -5.0" in reason


def test_a_case_may_fall_within_the_margin() -> None:
    random = np.random.default_rng(5)
    pairs = Pairs.draw(300, random)
    champion = err(pairs, 0.25, random)
    student = champion & (random.random(champion.shape) < 0.3)
    units = pairs.of("units")
    student[units] = champion[units] | (random.random(units.sum()) < 0.03)
    decision = judge(pairs, student=student, champion=champion)
    assert decision.outcome == "promote"
    assert "the lowest is units: -" in decision.reasons[1]


def test_a_case_of_a_few_queries_is_shown_and_not_judged() -> None:
    random = np.random.default_rng(6)
    pairs = Pairs.draw(300, random)
    pairs.cases[:20] = [None] * 20
    pairs.cases[:9] = ["rare"] * 9
    champion = err(pairs, 0.25, random)
    champion[:9] = False
    student = champion & (random.random(champion.shape) < 0.3)
    student[:9] = True
    decision = judge(pairs, student=student, champion=champion)
    assert decision.outcome == "promote"
    rare = next(entry for entry in decision.cases if entry.case == "rare")
    assert (rare.pairs, rare.reference, rare.student, rare.lower, rare.upper) == (9, 1.0, 0.0, None, None)
    assert decision.notes == ["not judged, having fewer than 10 queries: rare"]


def test_the_bounds_of_all_cases_hold_together() -> None:
    random, lost = np.random.default_rng(7), 0
    for trial in range(200):
        pairs = Pairs.draw(100, random)
        student, champion = (pairs.label(err(pairs, 0.25, random)) for _ in range(2))
        compared = compare_cases(student, champion, pairs.cases, SETTINGS, trial)
        lost += any(entry.upper is not None and entry.upper < 0 for entry in compared)
    assert 1 <= lost <= 20  # 10 expected; five bounds that hold alone would give 45


def test_the_first_student_must_beat_the_stronger_baseline() -> None:
    random = np.random.default_rng(8)
    pairs = Pairs.draw(200, random)
    majority = pairs.gold != "E"
    overlap, better = err(pairs, 0.4, random), err(pairs, 0.1, random)
    decision = judge(pairs, student=better, majority=majority, overlap=overlap, crosses=err(pairs, 0.05, random))
    assert (decision.outcome, decision.reference) == ("promote", "overlap")
    assert decision.reasons == [decision.reasons[0]]
    assert decision.reasons[0].startswith("macro-F1 above that of the baseline overlap: +")
    assert decision.notes == ["there is no champion yet; the baseline overlap stands for one"]
    assert decision.cases == []
    assert judge(pairs, student=overlap, majority=majority, overlap=overlap).outcome == "inconclusive"
    assert judge(pairs, student=overlap, majority=better, overlap=majority).outcome == "reject"


def test_a_champion_stands_before_every_baseline() -> None:
    random = np.random.default_rng(9)
    pairs = Pairs.draw(200, random)
    strong, weak = err(pairs, 0.1, random), err(pairs, 0.4, random)
    assert judge(pairs, student=strong, champion=weak, overlap=strong).outcome == "promote"
    assert judge(pairs, student=weak, champion=strong, overlap=weak).outcome == "reject"


def test_the_same_evidence_gives_the_same_decision() -> None:
    pairs = Pairs.draw(50, np.random.default_rng(10))
    wrong = {name: err(pairs, 0.3, np.random.default_rng(11 + row)) for row, name in enumerate(("student", "champion"))}
    assert judge(pairs, **wrong).model_dump_json() == judge(pairs, **wrong).model_dump_json()
    assert StudentDecision.model_validate_json(judge(pairs, **wrong).model_dump_json()) == judge(pairs, **wrong)


def test_without_champion_and_baseline_nothing_is_decided() -> None:
    pairs = Pairs.draw(20, np.random.default_rng(12))
    right = np.zeros(len(pairs.gold), dtype=bool)
    with pytest.raises(ValueError, match=r"found crosses, student; accepted: at least one of majority, overlap"):
        judge(pairs, student=right, crosses=right)
