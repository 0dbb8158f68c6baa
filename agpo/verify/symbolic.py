"""Math answers by computer algebra (math-verify, sympy). It can hang, crash or eat memory: for workers only."""

from __future__ import annotations

import logging
from typing import Any

from math_verify import parse, verify

from agpo.verify.equation import stated_value
from agpo.verify.extraction import clean_answer, extract_answer
from agpo.verify.math import NAME, SHOWN, VERSION
from agpo.verify.reading import normalise, shorten
from agpo.verify.verdict import Verdict

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit, SIGALRM, is off


def warm_up() -> None:
    """Compile the patterns, load the parser's tables and the simplifier."""
    for response in (r"\boxed{\frac{x}{2}}", r"\boxed{3 - 2x^2}", r"\boxed{(1, \infty)}", r"so $x$ is 3"):
        judge(response, read_gold(r"\sqrt{x} + 1"))
    judge(r"\boxed{x + 3}", read_gold("2 + x"))


def read_gold(gold: str) -> list[Any]:
    """What math-verify reads in a gold: sympy expressions, then the text it took them from."""
    return _parse(_boxed(clean_answer(gold)))


def judge(response: str, gold: list[Any]) -> Verdict:
    answer = extract_answer(response)
    if answer is None:
        return Verdict("wrong", "none", "missing", verifier=NAME, version=VERSION)
    if answer.kind == "exact":
        text = _boxed(clean_answer(shorten(answer.text)))
    else:
        text = f"The answer is {answer.text}" if answer.kind == "phrase" else answer.text
    found = _parse(text)
    extracted = answer.text[:SHOWN] if answer.kind == "exact" else str(found[-1])[:SHOWN] if found else None
    if not found:
        reason = "malformed" if answer.kind == "exact" else "missing"
        return Verdict("wrong", "none", reason, extracted, 0.0, NAME, VERSION)
    if _is_equal(gold, found) and not _is_relation(str(found[-1]), gold):
        return Verdict("correct", "none", "", extracted, 0.0, NAME, VERSION)
    if not _is_parsed(gold):
        return Verdict("unverifiable", "gold", "unparsable", extracted, 0.0, NAME, VERSION)
    return Verdict("wrong", "none", "mismatch" if _is_parsed(found) else "malformed", extracted, 0.0, NAME, VERSION)


def _boxed(text: str) -> str:
    return "\\boxed{" + text + "}"


def _parse(text: str) -> list[Any]:
    found: list[Any] = parse(text, parsing_timeout=None, raise_on_error=True)
    return found


def _is_relation(text: str, gold: list[Any]) -> bool:
    """Whether the answer is an equation that says no value, which math-verify takes for its last side."""
    return "=" in text and "=" not in str(gold[-1]) and stated_value(normalise(text)) is None


def _is_parsed(expressions: list[Any]) -> bool:
    return any(not isinstance(expression, str) for expression in expressions)


def _is_equal(gold: list[Any], found: list[Any]) -> bool:
    try:
        return bool(verify(gold, found, timeout_seconds=None, raise_on_error=True))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy refuses to compare such kinds, or to evaluate 1/0
        return False
