from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.verify.quantity import (
    EXACT_BITS,
    HUGE_BITS,
    PI,
    Huge,
    Tiny,
    Transcendental,
    Undecided,
    Value,
    add,
    divide,
    multiply,
    power,
    subtract,
    transcend,
)

HUGE, TINY, SINE = Huge(True, HUGE_BITS, whole=True), Tiny(), Transcendental(beyond=True)
Operation = Callable[[Value, Value], Value]


@pytest.mark.parametrize(
    ("operation", "left", "right"),
    [
        (subtract, HUGE, HUGE),
        (divide, HUGE, HUGE),
        (add, HUGE, Huge(None)),
        (add, TINY, 1),
        (multiply, HUGE, TINY),
        (divide, 1, TINY),
        (subtract, SINE, SINE),
        (multiply, SINE, SINE),
        (multiply, SINE, 0),
        (add, SINE, PI),
        (add, SINE, Huge(True)),
        (power, SINE, 0),
        (power, SINE, Fraction(1, 2)),
        (power, -1, HUGE),
        (power, 0, HUGE),
        (power, Decimal("1.0000000000000000000000000001"), HUGE),
        (power, 2, Huge(None)),
        (power, -2, Fraction(1, 2)),
        (divide, HUGE, 2),
        (multiply, HUGE, Fraction(1, 2)),
    ],
)
def test_what_could_cancel_or_fall_below_its_bound_is_undecided(
    operation: Operation, left: Value, right: Value
) -> None:
    with pytest.raises(Undecided):
        operation(left, right)


@pytest.mark.parametrize("value", [0, 30, Fraction(1, 2), PI, TINY, SINE, Huge(True)])
def test_functions_of_other_numbers_than_enormous_integers_are_undecided(value: Value) -> None:
    with pytest.raises(Undecided):
        transcend(value)


NUMBERS = st.one_of(
    st.integers(-(2**EXACT_BITS) + 1, 2**EXACT_BITS - 1),
    st.fractions(min_value=-1000, max_value=1000, max_denominator=9),
)


@given(st.sampled_from([add, subtract, multiply, divide]), NUMBERS, st.integers(1, 60), st.booleans())
def test_the_bound_of_an_enormous_result_holds(operation: Operation, right: Value, more: int, swap: bool) -> None:
    bits = HUGE_BITS + more
    exact = Fraction(2) ** bits
    try:
        found = operation(right, Huge(True, bits)) if swap else operation(Huge(True, bits), right)
    except (Undecided, ZeroDivisionError):
        return
    python = {
        add: lambda a, b: a + b,
        subtract: lambda a, b: a - b,
        multiply: lambda a, b: a * b,
        divide: lambda a, b: a / b,
    }
    assert isinstance(right, int | Fraction)
    value = python[operation](right, exact) if swap else python[operation](exact, right)
    if isinstance(found, Huge):
        assert abs(value) >= 2**found.bits >= 2**HUGE_BITS
        assert (value > 0) is found.positive
    elif isinstance(found, Tiny):
        assert 0 < abs(value) <= Fraction(1, 2**HUGE_BITS)
    else:
        assert found == value == 0
