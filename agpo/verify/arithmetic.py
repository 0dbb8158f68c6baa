"""Value of a closed numeric expression in LaTeX or plain notation: bounded in time, never run as code.

It decides most answers without a computer algebra system, and proves that absurd ones (power towers, factorials of
factorials) lie far beyond any number that can be written out. What it cannot read or bound it leaves undecided.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Mapping

from agpo.verify.quantity import (
    BINARY,
    EULER,
    PI,
    Transcendental,
    Undecided,
    Value,
    choose,
    divide,
    factorial,
    floor,
    negate,
    read_number,
    square_root,
    transcend,
)

LONGEST = 12_000  # characters
HARDEST = 100  # roots, factorials and binomial coefficients; each can take as long as fifty sums

_TOKEN = re.compile(r"\d+(?:\.\d+)?|\.\d+|\\[a-zA-Z]+|\*\*|.", re.ASCII | re.DOTALL)
_FUNCTIONS = frozenset(
    [
        r"\sin",
        r"\cos",
        r"\tan",
        r"\cot",
        r"\sec",
        r"\csc",
        r"\arcsin",
        r"\arccos",
        r"\arctan",
        r"\sinh",
        r"\cosh",
        r"\tanh",
        r"\coth",
        r"\exp",
        r"\ln",
    ]
)
_OPEN = frozenset(["(", "{", "\\lfloor", "top", "bottom", "upper", "lower", "root"])  # groups; some have two parts
_CLOSERS = {")": {"("}, "\\rfloor": {"\\lfloor"}, "}": _OPEN - {"(", "\\lfloor"}}  # what each may close
_GROUPS = {"\\frac": "top", "\\binom": "upper", "\\sqrt": "root"}
_RANKS = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4, "mixed": 5}
_RANKS |= dict.fromkeys(_FUNCTIONS, 3) | dict.fromkeys(_OPEN, 0)
_DIGITS = frozenset("0123456789.")
_FOLLOWING = {"top": "bottom", "upper": "lower"}
_HARD = ("\\sqrt", "!", "\\binom")
_SIGNS = {"+": "+", "-": "-", "*": "*", "/": "/", "^": "^", "**": "^"}
_BEFORE_MIXED = _OPEN | {"neg"}


def evaluate(text: str, variables: Mapping[str, int] | None = None) -> Value | None:
    r"""The value of ``text``, or ``None`` when it is undecided; division by zero is undecided too.

    ``variables`` gives single letters a whole value.

    Reads decimal numbers, ``+ - * / ^ !``, ``\frac{}{}``, ``\binom{}{}``, ``\sqrt{}``, ``\pi``, brackets, mixed
    numbers such as ``1\frac{1}{2}``, products without a sign such as ``2\pi``, and functions of enormous numbers. Time
    grows linearly with the length of the text; what has more than `LONGEST` characters or `HARDEST` roots and the like
    is undecided.
    """
    if len(text) > LONGEST:
        return None
    tokens = _TOKEN.findall(text)
    if sum(map(tokens.count, _HARD)) > HARDEST:
        return None
    try:
        value = _calculate(tokens, variables or {})
    except (Undecided, ZeroDivisionError, decimal.DecimalException):
        return None
    return None if isinstance(value, Transcendental) and not value.beyond else value


def _calculate(tokens: list[str], variables: Mapping[str, int]) -> Value:
    """Two stacks instead of recursion, so that depth costs nothing."""
    values: list[Value] = []
    operators: list[str] = []  # those that wait for their right side, and open groups
    group = ""  # the next token must be "{", and opens this
    after_value = mixable = slash = False
    for place, token in enumerate(tokens):
        if group:
            if token != "{":
                raise Undecided
            operators.append(group)
            group = ""
            after_value = False
        elif token[0] in _DIGITS and token != ".":
            if after_value:
                raise Undecided  # 2 3 and (2)3 have more than one reading
            values.append(read_number(token))
            after_value = True
            mixable = token.isdigit() and (not operators or operators[-1] in _BEFORE_MIXED)
        elif token in _SIGNS:
            if after_value:
                slash |= token == "/"
                _push(_SIGNS[token], operators, values)
                after_value = False
            elif token == "-":
                operators.append("neg")
            else:
                raise Undecided
        elif token in _CLOSERS:
            if not after_value:
                raise Undecided
            group = _close(token, operators, values)
            mixable = False
        elif token == "!":
            if not after_value or tokens[place - 1] == "!":
                raise Undecided  # nothing, a double factorial, or a factorial twice
            values[-1] = factorial(values[-1])
            mixable = False
        else:
            if after_value:
                if slash:
                    raise Undecided  # so has 1/2\\pi
                if token == "\\frac" and not (mixable and _is_simple_fraction(tokens[place + 1 : place + 7])):
                    raise Undecided
                _push("mixed" if token == "\\frac" else "*", operators, values)
            after_value = mixable = False
            if token in ("(", "{", "\\lfloor"):
                operators.append(token)
            elif token in _GROUPS:
                group = _GROUPS[token]
            elif token in _FUNCTIONS:
                operators.append(token)
            else:
                values.append(_name(token, variables))
                after_value = True
    if group or not after_value:
        raise Undecided
    while operators:
        _apply(operators.pop(), values)
    return values[0]


def _push(operator: str, operators: list[str], values: list[Value]) -> None:
    """What binds as tightly as ``operator``, or more, comes first; powers group to the right."""
    rank = _RANKS[operator] + (operator == "^")
    while operators and _RANKS[operators[-1]] >= rank:
        _apply(operators.pop(), values)
    operators.append(operator)


def _close(token: str, operators: list[str], values: list[Value]) -> str:
    """End the group that opened last; the group that must follow."""
    while operators and operators[-1] not in _OPEN:
        _apply(operators.pop(), values)
    opened = operators.pop() if operators else ""
    if opened not in _CLOSERS[token]:
        raise Undecided
    if opened == "\\lfloor":
        values[-1] = floor(values[-1])
    elif opened == "root":
        values[-1] = square_root(values[-1])
    elif opened in ("bottom", "lower"):
        second = values.pop()
        values[-1] = (divide if opened == "bottom" else choose)(values[-1], second)
    return _FOLLOWING.get(opened, "")


def _apply(operator: str, values: list[Value]) -> None:
    if operator == "neg":
        values[-1] = negate(values[-1])
    elif operator in _FUNCTIONS:
        values[-1] = transcend(values[-1])
    elif operator in _OPEN:
        raise Undecided
    else:
        right = values.pop()
        values[-1] = BINARY[operator](values[-1], right)


def _name(token: str, variables: Mapping[str, int]) -> Value:
    if token == "\\pi":
        return PI
    if token in variables:
        return variables[token]
    if token == "e":
        return EULER
    raise Undecided


def _is_simple_fraction(tokens: list[str]) -> bool:
    """Whether these follow the ``\\frac`` of a mixed number: whole numbers in braces."""
    return [token for token in tokens if not token.isdigit()] == ["{", "}", "{", "}"] and len(tokens) == 6
