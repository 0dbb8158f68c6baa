"""Math answers: what spelling and arithmetic decide is decided in the caller's process, the rest by math-verify."""

from __future__ import annotations

import re
import time
from typing import Literal

from agpo.verify.comparison import compare
from agpo.verify.extraction import extract_answer
from agpo.verify.quantity import Huge, Tiny, Transcendental
from agpo.verify.reading import Reading, read_answer
from agpo.verify.verdict import Verdict

NAME, VERSION = "math", 3
LONGEST = 4000  # characters of an answer
DEEPEST = 40  # open brackets of an answer
SHOWN = 300  # characters of an answer that the verdict keeps

_GROWING = re.compile(r"[\^!]|\*\*|\\?(?:binom|choose|inf|oo|exp|uparrow|prod|Gamma)")
_ALGEBRAIC = re.compile(r"(?:[-+*/(){}\[\],=\d]|\\frac|\\sqrt|(?!e|i)[a-zA-Z](?![a-zA-Z]))+|[a-zA-Z]{3,}", re.ASCII)
_READABLE = re.compile(r"[^\W_\u2160-\u2188\u3040-\ud7a3]|[√∞∅]")  # not Roman numerals, nor East Asian scripts
_DANGLING = re.compile(r"^[*/^_]|[-+*/^_]$|[/^_%]{2}|\\frac\{[^{}]*\}(?![{\w\\])")
_BRACKETS = re.compile(r"(?:\\[^{}])+|([{(\[]+|\\\{)|([})\]]+|\\\})", re.DOTALL)


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
        return _verdict("wrong", "unreadable" if len(answer.text) > LONGEST else "malformed", answer.text, started)
    reading = read_answer(answer.text)
    if not reading.normal:
        return _verdict("wrong", "missing", None, started)
    same = compare(reading, reference)
    if same:
        return _verdict("correct", "", answer.text, started)
    absurd = isinstance(reading.value, Huge | Tiny)
    if (same is False and absurd) or (same is None and _is_unreadable(reading, reference)):
        return _verdict("wrong", "unreadable", answer.text, started)
    if same is None and answer.kind == "exact" and _is_broken(reading.normal) and not _is_broken(reference.normal):
        return _verdict("wrong", "malformed", answer.text, started)
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

    A number enormous, tiny or made of enormous ones against a short gold that is neither; or a text far longer or far
    deeper than the gold that is no number either.
    """
    gold = reference.normal
    if isinstance(answer.value, Huge | Tiny):
        return reference.value is None and len(gold) <= 100 and not _GROWING.search(gold)
    if isinstance(answer.value, Transcendental):
        return not reference.decimal and len(gold) <= 100 and _ALGEBRAIC.fullmatch(gold) is not None
    if answer.value is not None:
        return False
    long = len(answer.normal) > LONGEST > 4 * len(gold)
    return long or _depth(answer.normal) > DEEPEST > 2 * _depth(gold)


def _is_broken(text: str) -> bool:
    """Whether brackets have no partner or signs no operand, so that math-verify cannot read it either."""
    if "\\text" in text or "\\begin" in text:
        return False
    if not _READABLE.search(text):
        return True
    opened = text.count("(") + text.count("["), text.count(")") + text.count("]")
    return opened[0] != opened[1] or _DANGLING.search(text) is not None


def _depth(text: str) -> int:
    """How many brackets are open at most; bars, which open and close alike, may all be nested."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        length = match.end() - match.start()
        if match.lastindex == 1:
            depth += length
            deepest = max(deepest, depth)
        elif match.lastindex == 2:
            depth -= length
    return max(deepest, text.count("|") // 2)
