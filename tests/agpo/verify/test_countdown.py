from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.verify import verify_countdown

GOLD = "3 5 7 2 : 24"
RIGHT = "5 + 7 = 12 ; 3 - 2 = 1 ; 12 * 1 = 12"


@pytest.mark.parametrize(
    "response",
    [
        "3 + 5 = 8 ; 8 + 7 = 15 ; 15 * 2 = 30",
        "3+5=8;8+7=15;15*2=30",
        "\n3 + 5 = 8 ;\n8 + 7 = 15 ;\n15 * 2 = 30 ;\n",
    ],
)
def test_a_replay_that_reaches_the_target_is_correct(response: str) -> None:
    verdict = verify_countdown(response, "3 5 7 2 : 30")
    assert verdict.correct
    assert (verdict.cause, verdict.reason, verdict.extracted) == ("none", "", "30")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "missing"),
        ("   ", "missing"),
        ("I give up", "missing"),
        (";;", "missing"),
        ("3 + 5 = 8 ; 8 +", "malformed"),
        ("3 + 5 = 8 ; ; 8 * 2 = 16", "malformed"),
        ("3 + 5 = 8 ; 8 % 2 = 0 ; 0 + 7 = 7", "malformed"),
        ("3 + 5 = 8.0 ; 8 * 2 = 16 ; 16 + 7 = 23", "malformed"),
        ("3 - 5 = -2 ; 7 * 2 = 14 ; 14 - -2 = 16", "malformed"),
        ("__import__('os') ; 3 + 5 = 8", "malformed"),
        ("3 + 5 = 8", "mismatch"),  # a step too few
        ("3 + 5 = 8 ; 8 * 2 = 16 ; 16 + 7 = 23 ; 23 + 1 = 24", "mismatch"),
        ("3 + 5 = 8 ; 8 * 2 = 16 ; 16 + 7 = 24", "mismatch"),  # a result stated wrong
        ("3 * 3 = 9 ; 9 * 2 = 18 ; 18 + 7 = 25", "mismatch"),  # 3 used twice
        ("7 / 2 = 3 ; 3 + 3 = 6 ; 6 * 5 = 30", "mismatch"),  # no exact division
        ("5 + 7 = 12 ; 12 * 2 = 24 ; 24 * 3 = 72", "mismatch"),  # not the target
        ("3 + 5 = ٨ ; 8 * 2 = 16 ; 16 + 7 = 23", "malformed"),  # digits of another script
        ("3 + 5 = 99999999999999999999", "malformed"),
        ("5 + 3 = 8 ; 2 * 7 = 14 ; 14 + 10 = 24", "mismatch"),  # 10 is not available
    ],
)
def test_a_wrong_answer_has_its_reason(response: str, reason: str) -> None:
    verdict = verify_countdown(response, GOLD)
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("wrong", "none", reason)


def test_division_by_zero_is_a_mismatch() -> None:
    assert verify_countdown("4 - 4 = 0 ; 3 / 0 = 0", "4 4 3 : 0").reason == "mismatch"
    assert verify_countdown("4 - 4 = 0 ; 0 / 3 = 0", "4 4 3 : 0").correct


@pytest.mark.parametrize("gold", ["", "24", "3 5 7 2", "3 5 : x", ": 24", "3 : 3", "3 5 7 2 : 24 : 1", "-3 5 : 2"])
def test_a_gold_that_is_no_puzzle_is_unverifiable(gold: str) -> None:
    verdict = verify_countdown(RIGHT, gold)
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("unverifiable", "gold", "unparsable")


def play(numbers: list[int], draw: random.Random) -> tuple[list[str], int]:
    """Legal random play over all numbers; returns the steps and what they reach."""
    available, steps = list(numbers), []
    while len(available) > 1:
        draw.shuffle(available)
        left, right = available.pop(), available.pop()
        choices = {"+": left + right, "*": left * right, "-": left - right}
        if right and left % right == 0:
            choices["/"] = left // right
        operator = draw.choice([operator for operator, result in choices.items() if 0 <= result < 10**8])
        available.append(choices[operator])
        steps.append(f"{left} {operator} {right} = {choices[operator]}")
    return steps, available[0]


@given(st.lists(st.integers(0, 12), min_size=2, max_size=6), st.randoms(use_true_random=False), st.integers(1, 9))
def test_any_legal_play_is_correct_and_any_misstated_result_wrong(
    numbers: list[int], draw: random.Random, error: int
) -> None:
    steps, target = play(numbers, draw)
    gold = f"{' '.join(map(str, numbers))} : {target}"
    assert verify_countdown(" ; ".join(steps), gold).correct
    position = draw.randrange(len(steps))
    equation, _, result = steps[position].rpartition("=")
    steps[position] = f"{equation}= {int(result) + error}"
    assert verify_countdown(" ; ".join(steps), gold).verdict == "wrong"
    assert verify_countdown(" ; ".join(steps), f"{gold[: gold.index(':')]}: {target + error}").verdict == "wrong"


@given(st.text("0123456789+-*/=; ", max_size=60))
def test_arbitrary_text_gets_a_verdict(response: str) -> None:
    assert verify_countdown(response, GOLD).verdict in ("correct", "wrong")


@pytest.mark.bench
def test_a_right_answer_takes_ten_microseconds() -> None:
    started = time.thread_time()
    for _ in range(20_000):
        verify_countdown("3 + 5 = 8 ; 8 + 7 = 15 ; 15 * 2 = 30", "3 5 7 2 : 30")
    spent = (time.thread_time() - started) / 20_000
    print(f"{spent * 1e6:.1f} µs an answer")
    assert spent <= 10e-6
