from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from agpo.verify import plain
from agpo.verify.plain import agree_plainly, find_final, same_plainly


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{1} or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\boxed{12", "12"),
        ("4 + 3 = 7\n#### 7", "7"),
        ("The answer is **42**. I am sure.", "**42**"),
        ("Answer: 5\nDone.", "5"),
        ("She has 3 apples, then 1,250 apples.", "1,250"),
        ("I do not know.", None),
        ("", None),
    ],
)
def test_the_final_answer(response: str, answer: str | None) -> None:
    assert find_final(response) == answer


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("72", "72"),
        ("$72$", "72"),
        (r"\$72.00", "72"),
        ("1,250", "1250"),
        ("1250", "1{,}250"),
        ("12 dollars", "12"),
        (r"12\text{ miles}", "12"),
        (r"x = 12", "12"),
        (r"\dfrac{1}{2}", r"\frac12"),
        ("1/2", r"\frac{1}{2}"),
        ("-0.5", r"-\frac{1}{2}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"90^\circ", "90"),
        (r"50\%", "50"),
        (r"\text{Even}", "even"),
        (r"\frac{\sqrt2}{2}", r"\sqrt{2}/2"),
        (r"2\times 3", r"2 \cdot 3"),
        ("−5", "-5"),
    ],
)
def test_the_same_answer_in_another_spelling(answer: str, gold: str) -> None:
    assert same_plainly(answer, gold)
    assert same_plainly(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("72", "73"),
        ("72", "-72"),
        ("12", "120"),
        ("1, 2", "12"),
        ("(1,2)", "(2,1)"),
        (r"\frac{1}{2}", r"\frac{2}{1}"),
        ("1/0", "0"),
        ("0.50001", "0.5"),
        ("x", "y"),
        ("", "0"),
        ("", ""),
    ],
)
def test_another_answer(answer: str, gold: str) -> None:
    assert not same_plainly(answer, gold)
    assert not same_plainly(gold, answer)


@pytest.mark.parametrize(
    "response",
    [
        r"\boxed{" + "9" * 200_000 + "}",
        "{" * 200_000,
        r"\frac" * 50_000,
        "1," * 100_000,
        r"\boxed{" * 30_000,
        "#" * 99_999,
    ],
    ids=["digits", "braces", "fractions", "commas", "boxes", "marks"],
)
def test_no_answer_takes_long(response: str) -> None:
    started = time.process_time()
    assert not agree_plainly(response, "10")
    assert time.process_time() - started < 1.0


def test_it_shares_no_code_with_the_verifier() -> None:
    tree = ast.parse(Path(plain.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"__future__", "fractions", "re"}
