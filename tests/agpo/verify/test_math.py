from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.verify import Item, VerifierPool, verify_math
from agpo.verify.math import decide_math
from tests.agpo.verify.hazards import absurd_answers

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"so \boxed{72}", "72"),
        ("bla\n#### 1,024", r"\boxed{1024}"),
        ("The answer is 42.", "$42$"),
        ("72", "72"),
        ("**72**", "72"),
    ],
)
def test_easy_answers_are_decided_at_once(response: str, gold: str) -> None:
    verdict = decide_math(response, gold)
    assert verdict is not None
    assert verdict.correct
    assert (verdict.verifier, verdict.version) == ("math", 3)


@pytest.mark.parametrize(
    ("response", "gold", "reason"),
    [
        ("", "5", "missing"),
        (" \n", "5", "missing"),
        (r"5, so \boxed{}", "5", "missing"),
        (r"\boxed{$$}", "5", "missing"),
        (r"\boxed{5", "5", "malformed"),
        (r"\boxed{6}", "5", "mismatch"),
        (r"I get 5, thus \boxed{6}", "5", "mismatch"),
        ("#### 6 apples, as 5 + 1 = 6\n#### 6", "5", "mismatch"),
        (r"\boxed{9^{9^{9^{9}}}}", "5", "unreadable"),
        (r"\boxed{9^{9^{9^{9}}}}", "x + 1", "unreadable"),
        (r"\boxed{((9!)!)!}", r"\frac{1}{2}", "unreadable"),
        (r"\boxed{" + "9" * 100_000 + "}", "5", "unreadable"),
        (r"\boxed{" + "x+" * 50_000 + "1}", "x", "unreadable"),
        (r"\boxed{" + r"\sin(" * 1000 + "1" + ")" * 1000 + "}", "5", "unreadable"),
        (r"\boxed{" + r"1+\frac{1}{" * 1000 + "1" + "}" * 1000 + "}", "5", "unreadable"),
        (r"\boxed{" + r"\frac{1}{" * 1000 + "2" + "}" * 1000 + "}", "5", "mismatch"),
        (r"\boxed{\sin(9^{9^9})}", "5", "unreadable"),
        (r"\boxed{\frac{1}{10^{10^{10}}}}", "5", "unreadable"),
        (r"\boxed{(5}", "x+1", "mismatch"),
        (r"\boxed{(7}", "5", "malformed"),
        (r"\boxed{7^}", "5", "malformed"),
        (r"\boxed{==}", "5", "malformed"),
        (r"\boxed{11 dollars}", "12", "mismatch"),
        (r"\boxed{2x - y + 2z - 18 = 0}", "0", "mismatch"),
        (r"\boxed{\infty}", "5", "mismatch"),
        (r"\boxed{5}", r"-\infty", "mismatch"),
        (r"\boxed{七}", "5", "malformed"),
        (r"\boxed{" + "|" * 1000 + "7" + "|" * 1000 + "}", "5", "unreadable"),
        (r"\boxed{" + r"\sqrt{" * 1000 + "7" + "}" * 1000 + "}", "5", "unreadable"),
        (r"\boxed{" + r"1+\frac{1}{" * 1000 + r"\sin x" + "}" * 1000 + "}", "5", "unreadable"),
    ],
)
def test_a_wrong_answer_has_its_reason(response: str, gold: str, reason: str) -> None:
    verdict = decide_math(response, gold)
    assert verdict is not None
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("wrong", "none", reason)
    assert verdict.seconds < 0.5
    assert len(verdict.extracted or "") <= 300


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"\boxed{" + r"\frac{" * 1000 + "5" + "}{1}" * 1000 + "}", "5"),
        (r"\boxed{" + "(" * 1000 + "5" + ")" * 1000 + "}", "5"),
        (r"\boxed{" + "{" * 10_000 + "5" + "}" * 10_000 + "}", "5"),
        ("\\boxed{5" + "\u200b" * 100_000 + "}", "5"),
        ("\\boxed{5\x00}", "5"),
        (r"\boxed{1^{9^{9^9}}}", "1"),
        (r"\boxed{0." + "3" * 100_000 + "}", "0." + "3" * 90_000),
    ],
)
def test_an_absurd_answer_that_is_right_is_correct(response: str, gold: str) -> None:
    verdict = decide_math(response, gold)
    assert verdict is not None
    assert verdict.correct


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\frac{9^{9^9}}{9^{9^9}}", "1"),
        (r"(-1)^{9^{9^9}}", "-1"),
        (r"9^{9^9}", r"3^{2 \cdot 9^9}"),
        (r"\cos(2\pi \cdot 10^{10^{10}})", "1"),
        (r"\cos(360 \cdot 9^{9^9})^\circ", "1"),
        (r"\log(10^{10^{10}})", "10000000000"),
        (r"\sin^2(9^{9^9}) + \cos^2(9^{9^9})", "1"),
    ],
)
def test_an_absurd_answer_that_might_be_right_is_not_called_wrong(answer: str, gold: str) -> None:
    assert decide_math(f"\\boxed{{{answer}}}", gold) is None


def test_absurd_answers_are_decided_at_once() -> None:
    answers = absurd_answers()
    assert len(set(answers)) == len(answers) >= 200
    verdicts = []
    for answer, gold in answers:
        started = time.thread_time()
        verdicts.append(decide_math(answer, gold))
        assert time.thread_time() - started < 0.1  # 5 ms on an idle machine, which the benchmark measures
    assert {verdict.verdict for verdict in verdicts if verdict is not None} == {"wrong"}
    assert sum(verdict is None for verdict in verdicts) <= 0.1 * len(answers)


@pytest.mark.parametrize("gold", ["", "  ", "$$", r"\boxed{}"])
@pytest.mark.parametrize("response", [r"\boxed{5}", ""])
def test_a_blank_gold_is_unverifiable(gold: str, response: str) -> None:
    verdict = decide_math(response, gold)
    assert verdict is not None
    assert (verdict.verdict, verdict.cause, verdict.reason) == ("unverifiable", "gold", "unparsable")


@pytest.mark.parametrize(
    ("response", "gold", "verdict", "reason"),
    [
        (r"\boxed{1 + x^2}", "x^2+1", "correct", ""),
        (r"\boxed{(x+1)^2}", "x^2+2x+1", "correct", ""),
        (r"\boxed{(x+1)^2}", "x^2+2x+2", "wrong", "mismatch"),
        (r"\boxed{\{2, 1\}}", "1, 2", "correct", ""),
        (r"\boxed{0.3333333}", r"\frac{1}{3}", "correct", ""),
        (r"\boxed{5 apples}", "5", "correct", ""),
        (r"\boxed{monday}", r"\text{Monday}", "correct", ""),
        (r"\boxed{\frac{1}{0}}", "5", "wrong", "mismatch"),
        ("first 7, then 42", "42", "correct", ""),
        ("first 42, then 7", "42", "wrong", "mismatch"),
        ("The answer is 42 because 7 is odd", "42", "correct", ""),
        ("I do not know.", "42", "wrong", "missing"),
        ("The answer is $2x - y + 2z - 18 = 0$", "0", "wrong", "mismatch"),
        ("The answer is $m + n = 5$", "5", "correct", ""),
        (r"\boxed{0." + "142857" * 16_000 + "}", r"\frac{1}{7}", "correct", ""),
        (r"\boxed{\left(42\right.}", "42", "wrong", "malformed"),
        (r"\boxed{x}", r"\frac{1", "unverifiable", "unparsable"),
    ],
)
def test_the_rest_goes_to_math_verify(pool: VerifierPool, response: str, gold: str, verdict: str, reason: str) -> None:
    found = pool.verify([Item("math", response, gold)])[0]
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.cause == ("gold" if verdict == "unverifiable" else "none")
    assert found.verifier == "math"


def test_an_answer_that_hangs_is_unverifiable_by_response(pool: VerifierPool) -> None:
    found = pool.verify([Item("math", r"\boxed{\sin(9^{9^{9}}\pi)}", "5")], timeout=0.3)[0]
    assert found.verdict == "unverifiable"
    assert found.cause in ("response", "infrastructure")  # the latter where the machine is busy
    assert found.seconds <= 1.2 * 0.3


def test_one_answer_by_itself_from_a_script_without_a_main_guard() -> None:
    script = "from agpo.verify import verify_math\nprint(verify_math(r'\\boxed{1+x}', 'x+1', timeout=4).verdict)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("correct\n", "")


def test_an_easy_answer_by_itself_starts_no_process() -> None:
    assert verify_math(r"\boxed{5}", "5").correct


def test_importing_the_verifiers_loads_nothing_heavy() -> None:
    script = "import agpo.verify, sys; print(*{'sympy', 'math_verify', 'torch', 'polars', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout == "\n"


@given(
    st.text("\\boxed{}#answer is$0123456789.,xyi=()[]^_+-*/!% \n", max_size=80),
    st.text("\\frac{}$0123456789.,xy=()[]^+-*/!% ", max_size=30),
)
def test_arbitrary_text_never_breaks_the_fast_path(response: str, gold: str) -> None:
    decide_math(response, gold)
    verdict = decide_math(f"\\boxed{{{gold}}}", gold)
    if verdict is not None and gold.count("{") == gold.count("}") and "\\" not in gold and "}" not in gold:
        assert verdict.verdict != "wrong" or verdict.reason == "missing"
