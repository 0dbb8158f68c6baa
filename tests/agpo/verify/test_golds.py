r"""Golds as competitions and data sets write them, against the answers that people would accept or not.

Every line says what math-verify alone decides too, so that a difference is on purpose and argued beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from math_verify import parse, verify

from agpo.verify import Item, VerifierPool


class Case(NamedTuple):
    gold: str
    answer: str  # in \boxed{…}
    correct: bool
    alone: bool | None = None  # what math-verify decides, where that differs


CASES = [
    # Integers as the AIME asks for them: three digits, with leading zeros.
    Case("033", "33", True),
    Case("33", "033", True),
    Case("000", "0", True),
    Case("007", r"\boxed{7}", True),
    Case("025", "25.0", True),
    Case("025", "0.25", False),
    Case("-033", "-33", True),
    Case("n=033", "33", True),
    Case("33", "n = 033", True),
    Case("204", "204.", True, False),  # a full stop within the box ends the sentence: the number is the gold
    # Units: a gold with one is met by the bare number and the other way round, as in MATH.
    Case(r"10\text{ cm}", "10", True),
    Case("10", r"10\text{ cm}", True),
    Case(r"10\text{ cm}", "100", False),
    Case(r"10\,\mathrm{cm}", "10", True),
    Case(r"12\text{ m}^2", "12", True),
    Case(r"36\pi\text{ cm}^3", r"36\pi", True),
    Case(r"36\pi\text{ cm}^3", "36", False),
    Case(r"60^\circ", "60", True),
    Case(r"\$18.90", "18.9", True),
    Case("18.90", r"\$18.90", True),
    Case("18", "18 dollars", True, False),  # GSM8K golds are bare numbers, and models name what they counted
    Case("18", "18 dozen", False),  # but a word that is part of the number counts
    Case(r"50\%", "50", True),  # whether the sign is written depends on the question, which asks for per cent
    Case(r"50\%", "0.5", True),
    Case(r"50\%", "5", False),
    # A gold column that holds a box, or a whole equation.
    Case(r"\boxed{42}", "42", True),
    Case(r"$\boxed{42}$", "42", True),
    Case(r"\boxed{\frac{3}{4}}", "0.75", True),
    Case(r"\boxed{x=5}", "5", True),
    Case("5", "x = 5", True),
    Case(r"\dfrac{033}{2}", "16.5", True),
    # Several values: all of them are asked for, in any order and with any joining word. One of them is wrong: the gold
    # cannot tell "either is accepted" from "both are solutions", and the latter is what data sets mean by it.
    Case("2 or 3", "2", False),
    Case("2 or 3", "3 or 2", True),
    Case("2 or 3", "2, 3", True),
    Case("2 or 3", r"\{2,3\}", True),
    Case("2 or 3", "2 or 4", False),
    Case(r"2\text{ or }3", "2 or 3", True),
    Case("x=2 or x=3", "2, 3", True),
    Case(r"2\text{ and }3", "2,3", True),
    Case("2, 3", "2", False),
    Case("2, 3", "23", False),
    Case(r"\pm 2", "2, -2", True),
    Case(r"2,-2", r"\pm 2", True),
    Case(r"\pm 2", "2", False),
    # Spellings of one number, and numbers that only look alike.
    Case("1,000", "1000", True),
    Case("1000", "1{,}000", True),
    Case(r"1\frac{1}{2}", "1.5", True),
    Case("1/3", "0.3333333", True),
    Case("1/3", "0.333", False),
    Case(r"\pi", "3.14", False),
    Case("101_2", "5", False),  # the base was asked for
    Case("101_2", "101_{2}", True),
    Case("(2,3)", "(2, 3)", True),
    Case("[2,3]", "(2,3)", False),
    Case(r"\text{(D)}", "D", True),
    Case(r"\text{no solution}", "no solution", True),
]


@pytest.fixture(scope="module")
def verdicts(pool: VerifierPool) -> dict[Case, bool]:
    items = [Item("math", f"\\boxed{{{case.answer}}}", case.gold) for case in CASES]
    return {case: verdict.correct for case, verdict in zip(CASES, pool.verify(items), strict=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.gold} by {case.answer}")
def test_gold(case: Case, verdicts: dict[Case, bool]) -> None:
    assert verdicts[case] is case.correct
    gold, answer = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (case.gold, case.answer))
    assert verify(gold, answer, timeout_seconds=None) is (case.correct if case.alone is None else case.alone)
