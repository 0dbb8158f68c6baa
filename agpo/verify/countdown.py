"""Number puzzles: every number once, to the target, in steps that are replayed."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Literal

from agpo.verify.verdict import Verdict

NAME, VERSION = "countdown", 1

_STEP = re.compile(r"\s*([0-9]{1,9})\s*([-+*/])\s*([0-9]{1,9})\s*=\s*([0-9]{1,9})\s*")
_GOLD = re.compile(r"\s*([0-9]{1,9}(?:\s+[0-9]{1,9})+)\s*:\s*([0-9]{1,9})\s*")


def verify_countdown(response: str, gold: str) -> Verdict:
    """Replay ``response`` ("3 + 5 = 8 ; 8 * 2 = 16 ; …") against ``gold`` ("3 5 2 : 16": numbers, colon, target).

    Right is: one step less than numbers; each operand is a number not yet used or an earlier result; every result is
    stated right, whole and not negative; the last is the target. Wrong for a reason: ``missing`` (no step found),
    ``malformed`` (something between semicolons is no step), ``mismatch`` (the replay fails).
    """
    started = time.thread_time()
    problem = _read_gold(gold)
    if problem is None:
        return Verdict("unverifiable", "gold", "unparsable", None, time.thread_time() - started, NAME, VERSION)
    numbers, target = problem
    parts = response.split(";")
    if len(parts) > 1 and not parts[-1].strip():
        parts.pop()
    steps = []
    for part in parts:
        match = _STEP.fullmatch(part)
        if match is None:
            reason = "malformed" if _STEP.search(response) else "missing"
            return Verdict("wrong", "none", reason, None, time.thread_time() - started, NAME, VERSION)
        steps.append(match.groups())
    extracted = steps[-1][3]
    verdict: Literal["correct", "wrong"] = "correct" if _replay(steps, list(numbers), target) else "wrong"
    reason = "" if verdict == "correct" else "mismatch"
    return Verdict(verdict, "none", reason, extracted, time.thread_time() - started, NAME, VERSION)


@lru_cache(maxsize=4096)
def _read_gold(gold: str) -> tuple[tuple[int, ...], int] | None:
    match = _GOLD.fullmatch(gold)
    if match is None:
        return None
    return tuple(int(number) for number in match.group(1).split()), int(match.group(2))


def _replay(steps: list[tuple[str, ...]], available: list[int], target: int) -> bool:
    if len(steps) != len(available) - 1:
        return False
    for left_text, operator, right_text, stated_text in steps:
        left, right, stated = int(left_text), int(right_text), int(stated_text)
        if left not in available:
            return False
        available.remove(left)
        if right not in available:
            return False
        available.remove(right)
        if operator == "+":
            right_result = left + right == stated
        elif operator == "-":
            right_result = left - right == stated  # never negative, as no step states a sign
        elif operator == "*":
            right_result = left * right == stated
        else:
            right_result = right != 0 and stated * right == left
        if not right_result:
            return False
        available.append(stated)
    return available[0] == target
