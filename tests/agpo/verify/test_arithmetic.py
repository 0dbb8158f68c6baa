from __future__ import annotations

import math
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.verify.arithmetic import evaluate
from agpo.verify.quantity import EXACT_BITS, Huge, Tiny, Transcendental, Value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("007", 7),
        (".5", Fraction(1, 2)),
        ("-2^2", -4),
        ("2^3^2", 512),
        ("2^10", 1024),
        ("2^{-2}", Fraction(1, 4)),
        ("2^-2", Fraction(1, 4)),
        ("8/4/2", 1),
        ("2-3-4", -5),
        ("--5", 5),
        ("2*-3", -6),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("\\frac{\\frac{1}{2}}{3}", Fraction(1, 6)),
        ("-1\\frac{1}{2}", Fraction(-3, 2)),
        ("2(3)", 6),
        ("(2)(3)", 6),
        ("\\sqrt{\\frac{4}{9}}", Fraction(2, 3)),
        ("\\sqrt{4}!", 2),
        ("-3!", -6),
        ("((((5))))", 5),
        ("0^{3}", 0),
        ("(-1)^{1001}", -1),
        ("1^{9^{9^9}}", 1),
        ("0*9^{9^9}", 0),
    ],
)
def test_exact_values(text: str, value: Fraction | int) -> None:
    assert evaluate(text) == Fraction(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2\\pi", 2 * math.pi),
        ("\\frac{\\sqrt{3}}{2}", math.sqrt(3) / 2),
        ("3\\sqrt{2}+1", 3 * math.sqrt(2) + 1),
        ("\\pi^2", math.pi**2),
        ("\\frac{1}{\\pi}", 1 / math.pi),
    ],
)
def test_surds_and_pi(text: str, value: float) -> None:
    found = evaluate(text)
    assert isinstance(found, Decimal)
    assert float(found) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("9^{9^{9^{9}}}", True),
        ("10^{10^10}", True),
        ("((5!)!)!", True),
        ("-9^{9^9}", False),
        ("(-9)^{9^9}", False),
        ("(-9)^{10^{9}}", True),
        ("9^{9^9}-10^{100}", True),
        ("\\frac{9^{9^9}}{\\frac{1}{2}}", True),
        ("9" * 5000, True),
        ("2^{2049}", True),
        ("301!", True),
        ("1.5^{9^{9^9}}", True),
        ("0.5^{-9^{9}}", True),
        ("2^{0.5*9^{99}}", True),
        ("\\frac{-9^{9^9}}{7}", False),
        ("9^{9^9}\\pi", True),
        ("\\pi^{9^{9^9}}", True),
        ("\\sqrt{9^{9^9}}", True),
        ("\\binom{10^9}{5*10^8}", True),
        ("\\lfloor9^{9^9}\\rfloor", True),
        ("10**10**10", True),
        ("(-3)^{9^{9^9}}", None),
    ],
)
def test_enormous_values_are_known_to_be(text: str, positive: bool | None) -> None:
    assert evaluate(text) == Huge(positive)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "2x", "e", "i", "2 3", "(2)3", "1/2\\pi", "5!!", "1,2", "(1", "1)", "(1}", "{1)", "()", "+", "2+",
        "*2", "\\frac{1}", "\\frac12", "\\sqrt", "\\sqrt[3]{8}", "\\sin{1}", "\\pie", "1/0", "0^0", "0^{-1}",
        "\\sqrt{-1}", "2^{0.5}", "9^{9^9}-9^{9^9}", "\\frac{9^{9^9}}{9^{9^9}}", "\\sin(2)", "\\sin(\\frac{9^{9^9}}{7})",
        "\\sin(9^{9^9}\\pi)", "\\sin(9^{9^9})-\\sin(9^{9^9})", "\\log(10^{10^{10}})", "\\binom{2}{3}", "(\\lfloor2)",
        "(-1)^{9^{9^9}}", "1.2.3", "١",
    ],
)  # fmt: skip
def test_what_is_no_closed_number_or_has_two_readings_is_undecided(text: str) -> None:
    assert evaluate(text) is None


@pytest.mark.parametrize("text", ["10^{-10^{10}}", "\\frac{7}{9^{9^9}}", "0.999^{9^{9^9}}", "(-0.5)^{9^{9}}"])
def test_tiny_values_are_known_to_be(text: str) -> None:
    assert evaluate(text) == Tiny()


@pytest.mark.parametrize(
    "text", ["\\sin(9^{9^9})", "2\\cos9^{9^9}+1", "\\sqrt{\\ln(100000!)}", "e^{9^{9^9}}", "\\frac{1}{\\tan{((9!)!)!}}"]
)
def test_functions_of_enormous_integers_are_transcendental(text: str) -> None:
    assert evaluate(text) == Transcendental(beyond=True)


@given(st.integers(2, 40), st.integers(1, 400))
def test_a_power_is_exact_or_its_bound_holds(base: int, exponent: int) -> None:
    found = evaluate(f"{base}^{{{exponent}}}")
    value = base**exponent
    assert found in (value, None) or (isinstance(found, Huge) and value >= 2**found.bits > 2**EXACT_BITS)
    assert found is not None or value.bit_length() < 2 * EXACT_BITS


@given(st.integers(0, 700), st.integers(0, 700))
def test_binomials_and_factorials_are_exact_or_their_bound_holds(count: int, chosen: int) -> None:
    for text, value in (
        (f"{count}!", math.factorial(count)),
        (f"\\binom{{{count}}}{{{chosen}}}", math.comb(count, chosen)),
    ):
        found = evaluate(text)
        assert found == value or found is None or (isinstance(found, Huge) and value >= 2**found.bits)


def test_variables_take_their_values() -> None:
    values = {"x": 3, "y": 5}
    assert evaluate("2xy^2 - \\frac{x}{y}".replace(" ", ""), values) == 150 - Fraction(3, 5)
    assert evaluate("x(y+1)", values) == 18
    assert evaluate("2^{x}", values) == 8
    assert evaluate("xz", values) is None


Expression = tuple[str, Fraction]


@st.composite
def combined(draw: st.DrawFn, parts: st.SearchStrategy[Expression]) -> Expression:
    (left, a), (right, b) = draw(parts), draw(parts)
    choices = [
        (f"({left}) + ({right})", a + b),
        (f"({left})-({right})", a - b),
        (f"({left})*({right})", a * b),
        (f"({left})({right})", a * b),
        (f"-({left})", -a),
        (f"({left})^{{2}}", a**2),
    ]
    if b:
        choices += [(f"\\frac{{{left}}}{{{right}}}", a / b), (f"({left})/({right})", a / b)]
    text, value = draw(st.sampled_from(choices))
    return text.replace(" ", ""), value


numbers = st.one_of(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    st.decimals(0, 99, places=2).map(lambda d: (str(d), Fraction(d))),
)


@given(st.recursive(numbers, combined, max_leaves=12))
def test_the_value_of_any_expression_is_exact(expression: Expression) -> None:
    text, value = expression
    found = evaluate(text)
    assert found == value or (found is None and max(abs(value.numerator), value.denominator) >= 2**200)


@given(st.text("0123456789.+-*/^!(){}\\fracsqtpix ", max_size=60))
def test_arbitrary_text_is_evaluated_or_undecided(text: str) -> None:
    found: Value | None = evaluate(text, {"x": 2})
    assert found is None or isinstance(found, Value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 9000 + "5" + ")" * 9000,
        "\\frac{" * 1000 + "5" + "}{1}" * 1000,
        "1+\\frac{1}{" * 1000 + "1" + "}" * 1000,
        "3" + "^3" * 9000,
        "1/3" + "+1/3" * 4900,
        "7" * 100_000,
        "0." + "3" * 100_000,
        "!" * 20_000,
        "\\sqrt{2+" * 900 + "2" + "}" * 900,
    ],
)
def test_long_and_deep_texts_take_little_time(text: str) -> None:
    started = time.thread_time()
    evaluate(text)
    assert time.thread_time() - started < 0.5
