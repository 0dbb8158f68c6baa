from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.gold import GoldFormat, extract_gold


@pytest.mark.parametrize(
    ("form", "text", "gold"),
    [
        ("plain", "  42\n", "42"),
        ("plain", "#### 7", "#### 7"),
        ("gsm8k", "2 + 2 = 4\n#### 1,234 ", "1,234"),
        ("gsm8k", "#### 1\n#### 2", "2"),
        ("gsm8k", "no mark", ""),
        ("gsm8k", "empty ####  ", ""),
        ("boxed", r"so \boxed{1}, thus $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("boxed", r"\boxed{\left\{x\right.}", r"\left\{x\right."),
        ("boxed", r"\boxed{7} and then \boxed{8", "7"),
        ("boxed", r"\boxed{}", ""),
        ("boxed", "no box", ""),
    ],
)
def test_final_answer(form: GoldFormat, text: str, gold: str) -> None:
    assert extract_gold(text, form) == gold


balanced = st.recursive(
    st.text("ab1+ ", max_size=4), lambda inner: st.lists(inner.map("{{{}}}".format), max_size=3).map("x".join)
)


@given(answer=balanced, before=st.text("ab{$", max_size=6), after=st.text("ab$. ", max_size=6))
def test_any_balanced_box_is_found(answer: str, before: str, after: str) -> None:
    assert extract_gold(f"{before}\\boxed{{{answer}}}{after}", "boxed") == answer.strip()
