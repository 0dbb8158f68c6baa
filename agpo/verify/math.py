"""Math answers: what spelling and arithmetic decide is decided in the caller's process, the rest by math-verify."""

from __future__ import annotations

import re
import time
from typing import Literal

from agpo.verify.arithmetic import Huge
from agpo.verify.comparison import compare
from agpo.verify.extraction import extract_answer
from agpo.verify.reading import Reading, read_answer
from agpo.verify.verdict import Verdict

NAME, VERSION = "math", 1
LONGEST = 4000  # characters of an answer
DEEPEST = 40  # open brackets of an answer
SHOWN = 300  # characters of an answer that the verdict keeps

_GROWING = re.compile(r"[\^!]|\*\*|\\?(?:binom|choose|inf|oo|exp|uparrow|prod|Gamma)")
_BRACKET = re.compile(r"\\.|([{(\[])|([})\]])", re.DOTALL)


def verify_math(response: str, gold: str, timeout: float = 5.0) -> Verdict:
    r"""Whether the response's final answer equals ``gold``.

    The final answer is the last ``\boxed{…}``, else what follows the last ``####``, else what follows the last
    "answer is", else what math-verify extracts. ``gold`` is bare LaTeX, a number, text, ``$…$`` or ``\boxed{…}``.
    Answers that arithmetic cannot decide go to math-verify in a worker process that is killed after ``timeout``
    seconds of CPU time. Safe to call from threads; for many answers use `VerifierPool`.
    """
    from agpo.verify.pool import Item, shared_pool  # here, as the pool imports the registry, and that this module

    return shared_pool().verify([Item(NAME, response, gold)], timeout=timeout)[0]


def decide_math(response: str, gold: str) -> Verdict | None:
    """The verdict, where that takes no computer algebra; else ``None``. Time is linear in the length of the texts."""
    started = time.thread_time()
    reference = read_answer(gold)
    if not reference.normal:
        return _verdict("unverifiable", "unparsable", None, started)
    answer = extract_answer(response)
    if answer is None:
        return _verdict("wrong", "missing", None, started)
    if answer.kind == "unclosed":
        return _verdict("wrong", "malformed", answer.text, started)
    reading = read_answer(answer.text)
    if not reading.normal:
        return _verdict("wrong", "missing", None, started)
    same = compare(reading, reference)
    if same:
        return _verdict("correct", "", answer.text, started)
    if (same is False and isinstance(reading.value, Huge)) or (same is None and _is_unreadable(reading, reference)):
        return _verdict("wrong", "unreadable", answer.text, started)
    if same is None or (answer.kind != "exact" and reading.value is None):
        return None
    return _verdict("wrong", "mismatch", answer.text, started)


def _verdict(
    verdict: Literal["correct", "wrong", "unverifiable"], reason: str, extracted: str | None, started: float
) -> Verdict:
    cause: Literal["none", "gold"] = "gold" if verdict == "unverifiable" else "none"
    shown = None if extracted is None else extracted[:SHOWN]
    return Verdict(verdict, cause, reason, shown, time.thread_time() - started, NAME, VERSION)


def _is_unreadable(answer: Reading, reference: Reading) -> bool:
    """Beyond static bounds that the gold clearly cannot reach.

    An enormous number against a short gold without powers, factorials or the like; or a text far longer or far deeper
    than the gold that is no number either.
    """
    if isinstance(answer.value, Huge):
        return len(reference.normal) <= 100 and not _GROWING.search(reference.normal)
    if answer.value is not None:
        return False
    long = len(answer.normal) > LONGEST > 4 * len(reference.normal)
    return long or _depth(answer.normal) > DEEPEST > 2 * _depth(reference.normal)


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKET.finditer(text):
        if match.lastindex == 1:
            depth += 1
            deepest = max(deepest, depth)
        elif match.lastindex == 2:
            depth -= 1
    return deepest
