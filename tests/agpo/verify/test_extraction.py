from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.verify.extraction import FinalAnswer, clean_answer, extract_answer, last_box


@pytest.mark.parametrize(
    ("response", "text", "kind"),
    [
        (r"so \boxed{5}.", "5", "exact"),
        (r"first \boxed{4}, no: $\boxed{ \frac{1}{2} }$", r"\frac{1}{2}", "exact"),
        (r"\boxed {17}", "17", "exact"),
        (r"\fbox{17}", "17", "exact"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right.", "exact"),
        (r"\boxed{5} is what I put in \boxed{}", "5", "exact"),
        (r"\boxed{5}, or \boxed{6", "5", "exact"),
        (r"\boxed{7} and the answer is 8 #### 9", "7", "exact"),
        ("is $\\boxed 2$.", "2", "exact"),
        ("bla\n#### 72", "72", "exact"),
        ("#### 1\nno\n#### 72\nbye", "72", "exact"),
        ("The answer is 7 #### 72", "72", "exact"),
        ("The final answer is: $42$. I hope it is correct.", "$42$", "phrase"),
        ("The ANSWER  is 4.5 metres.\nThe end.", "4.5 metres", "phrase"),
        ("answer is 1. No, the answer is 2", "2", "phrase"),
        ("The answer is:\n\n$$\n42\n$$", "$$\n42\n$$", "phrase"),
        ("answer is \\[\na \\\\ b\n\\] as", "\\[\na \\\\ b\n\\] as", "phrase"),
        ("we get 7 then 42", "we get 7 then 42", "prose"),
        (r"so \boxed{42", "42", "unclosed"),
        (r"\boxed{{42}", "{42}", "unclosed"),
    ],
)
def test_the_final_answer(response: str, text: str, kind: str) -> None:
    assert extract_answer(response) == FinalAnswer(text, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("response", ["", " \n\t", r"\boxed{}", r"\boxed{ } \boxed{}", "####", "#### \n", "answer is"])
def test_a_blank_answer_is_none(response: str) -> None:
    assert extract_answer(response) is None


balanced = st.recursive(
    st.text("ab1 +", min_size=1, max_size=5),
    lambda inner: st.tuples(inner, inner).map(lambda pair: f"{pair[0]}{{{pair[1]}}}"),
    max_leaves=6,
)


@given(st.lists(balanced, min_size=1, max_size=4), st.text("xyz {", max_size=8))
def test_the_last_box_is_found_whole(contents: list[str], between: str) -> None:
    text = between.join(f"\\boxed{{x{content}}}" for content in contents)
    assert last_box(text) == f"x{contents[-1]}".strip()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("$5$", "5"),
        ("$$5$$", "5"),
        (r"\(5\)", "5"),
        (r"\[ 5 \]", "5"),
        (r"$\boxed{5}$", "5"),
        ("**5**", "5"),
        ("$5.$,", "5"),
        ("1, 2, ...", "1, 2, ..."),
        (r"5\,", r"5\,"),
        ("$1$ or $2$", "$1$ or $2$"),
        (r"\(1\) or \(2\)", r"\(1\) or \(2\)"),
        (r"\boxed{1}+\boxed{2}", r"\boxed{1}+\boxed{2}"),
        ("４２", "42"),
        ("\u202e42\u200b", "42"),
    ],
)
def test_what_encloses_an_answer_is_taken_off(text: str, clean: str) -> None:
    assert clean_answer(text) == clean


@pytest.mark.parametrize("text", [r"\boxed{" * 15_000, r"\boxed{}" * 12_000, "{" * 100_000, "answer is " * 10_000])
def test_long_responses_take_little_time(text: str) -> None:
    started = time.thread_time()
    extract_answer(text)
    clean_answer(text)
    assert time.thread_time() - started < 0.5
