from __future__ import annotations

import pytest

from agpo.verify.equation import stated_value


@pytest.mark.parametrize(
    ("equation", "value"),
    [
        ("x=5", "5"),
        ("x_1=0", "0"),
        ("f(x)=0", "0"),
        ("AB=0", "0"),
        (r"\theta=0", "0"),
        (r"\cos\theta=0", "0"),
        (r"\text{area}=0", "0"),
        ("m+n=5", "5"),
        ("2a+3b=5", "5"),
        (r"\frac{x}{y}=5", "5"),
        ("3+4=7", "7"),
        ("3-3=0", "0"),
        ("y=3x=6", "6"),
        (r"2x=10\impliesx=5", "5"),
        ("=5", "5"),
    ],
)
def test_an_equation_states_the_value_of_what_was_asked_for(equation: str, value: str) -> None:
    assert stated_value(equation) == value


@pytest.mark.parametrize("equation", ["2x-y+2z-18=0", "xy=0", "x^2+y^2-1=0.0", "2x=10", "-3.5y=7", r"x=5\implies2x=10"])
def test_a_curve_or_an_unsolved_equation_states_none(equation: str) -> None:
    assert stated_value(equation) is None
