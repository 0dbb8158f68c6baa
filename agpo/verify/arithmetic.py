"""Exact value of a closed numeric expression in LaTeX or plain notation: bounded in time, never run as code.

It decides most answers without a computer algebra system, and proves that absurd ones (power towers, factorials of
factorials) lie far beyond any number that can be written out. What it cannot read or bound it leaves undecided.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

EXACT_BITS = 2048  # numerator and denominator of an exact value stay below two to this
HUGE_BITS = 8192  # a huge value is at least two to this, so that adding exact values leaves it huge
LONGEST = 20_000  # characters

_CONTEXT = decimal.Context(prec=60, Emax=999_999, Emin=-999_999)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
_SMALLEST, _LARGEST = Decimal("1e-12"), Decimal("1e12")
_TOKEN = re.compile(
    r"(\d+(?:\.\d+)?|\.\d+)|(\\(?:frac|sqrt|pi)(?![a-zA-Z])|[-+*/^!(){}a-zA-Z])|\\[a-zA-Z]+|.", re.ASCII | re.DOTALL
)
_SURPLUS_DIGITS = re.compile(r"(\.\d{60})\d+", re.ASCII)  # no comparison is finer
_SIMPLE_FRACTION = re.compile(r"\\frac\{\d+\}\{\d+\}", re.ASCII)
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4, "mixed": 5}


@dataclass(frozen=True, slots=True)
class Huge:
    """A number of absolute value at least two to the `HUGE_BITS`."""

    positive: bool


Value = Fraction | Decimal | Huge  # exact; good to more than 30 digits (surds, pi); provably enormous


class _Undecided(Exception):
    """The text is no closed numeric expression, or its value cannot be bounded."""


def evaluate(text: str, variables: Mapping[str, Fraction] | None = None) -> Value | None:
    """The value of ``text``, or ``None`` when it is undecided; division by zero is undecided too.

    ``variables`` gives single letters a value.

    Reads decimal numbers, ``+ - * / ^ !``, ``\\frac{}{}``, ``\\sqrt{}``, ``\\pi``, brackets, mixed numbers such as
    ``1\\frac{1}{2}`` and products without a sign such as ``2\\pi``. Time grows linearly with the length of the text.
    """
    text = _SURPLUS_DIGITS.sub(r"\1", text)
    if len(text) > LONGEST:
        return None
    try:
        return _reduce(_postfix(_tokens(text, variables or {})), variables or {})
    except (_Undecided, ZeroDivisionError, decimal.DecimalException):
        return None


def _tokens(text: str, variables: Mapping[str, Fraction]) -> list[str]:
    """Infix tokens with the structure made explicit: ``\\frac{a}{b}`` becomes ``((a)/(b))``, hidden products show."""
    tokens: list[str] = []
    closers: list[str] = []  # how each open bracket ends: ")", "}", "top" or "bottom" of a fraction, "root"
    group = ""  # the next token must be "{", and opens this
    slash = False
    for match in _TOKEN.finditer(text):
        number, symbol = match.groups()
        if group:
            if symbol != "{":
                raise _Undecided
            tokens.append("(")
            closers.append(group)
            group = ""
            continue
        after_value = bool(tokens) and (tokens[-1] in (")", "!", "root") or _is_operand(tokens[-1]))
        if number:
            if after_value:
                raise _Undecided  # 2 3 and (2)3 have more than one reading
            tokens.append(number if number[0] != "." else "0" + number)
        elif symbol in ("\\frac", "\\sqrt", "\\pi", "(", "{") or (symbol and symbol in variables):
            if after_value:
                if slash:
                    raise _Undecided  # so has 1/2\pi
                tokens.append(_hidden_operator(tokens, symbol, text, match.start()))
            if symbol == "\\pi":
                tokens.append("pi")
            elif symbol == "\\sqrt":
                group = "root"
            elif symbol in variables:
                tokens.append(symbol)
            else:
                tokens.append("(")
                if symbol == "\\frac":
                    group = "top"
                else:
                    closers.append(")" if symbol == "(" else "}")
        elif symbol in (")", "}"):
            closer = closers.pop() if closers else ""
            if not closer or (symbol == ")") != (closer == ")"):
                raise _Undecided
            tokens.append(")")
            if closer == "top":
                tokens.append("/")
                group = "bottom"
            elif closer == "bottom":
                tokens.append(")")
            elif closer == "root":
                tokens.append("root")
        elif symbol and not symbol.isalpha():
            if symbol == "!" and tokens and tokens[-1] == "!":
                raise _Undecided  # a double factorial, or a factorial twice
            slash |= symbol == "/"
            tokens.append("neg" if symbol == "-" and not after_value else symbol)
        else:
            raise _Undecided
    if group or closers:
        raise _Undecided
    return tokens


def _hidden_operator(tokens: list[str], symbol: str, text: str, position: int) -> str:
    """The operator between two neighbours without one: a mixed number's plus, or a product."""
    if symbol != "\\frac":
        return "*"
    mixed = tokens[-1].isdigit() and (len(tokens) == 1 or tokens[-2] in ("neg", "("))
    if mixed and _SIMPLE_FRACTION.match(text, position):
        return "mixed"
    raise _Undecided


def _is_operand(token: str) -> bool:
    return token[0].isdigit() or token == "pi" or (token.isalpha() and len(token) == 1)


def _postfix(tokens: list[str]) -> list[str]:
    """Shunting-yard: a stack instead of recursion, so that depth costs nothing."""
    output: list[str] = []
    operators: list[str] = []
    operand_next = True
    for token in tokens:
        starts_operand = token in ("(", "neg") or _is_operand(token)
        if starts_operand != operand_next:
            raise _Undecided
        if token in ("(", "neg"):
            operators.append(token)
        elif starts_operand:
            output.append(token)
            operand_next = False
        elif token in ("!", "root"):  # postfix already
            output.append(token)
        elif token == ")":
            while operators[-1] != "(":
                output.append(operators.pop())
            operators.pop()
        else:
            rank = _PRECEDENCE[token] + (token == "^")  # powers group to the right
            while operators and operators[-1] != "(" and _PRECEDENCE[operators[-1]] >= rank:
                output.append(operators.pop())
            operators.append(token)
            operand_next = True
    if operand_next:
        raise _Undecided
    return output + operators[::-1]


def _reduce(postfix: list[str], variables: Mapping[str, Fraction]) -> Value:
    stack: list[Value] = []
    for token in postfix:
        if token[0].isdigit():
            stack.append(_number(token))
        elif token == "pi":
            stack.append(_PI)
        elif token in variables:
            stack.append(variables[token])
        elif token == "neg":
            stack.append(_negated(stack.pop()))
        elif token == "root":
            stack.append(_root(stack.pop()))
        elif token == "!":
            stack.append(_factorial(stack.pop()))
        else:
            right, left = stack.pop(), stack.pop()
            if token == "-":
                stack.append(_sum(left, _negated(right)))
            elif token == "*":
                stack.append(_product(left, right))
            elif token == "/":
                stack.append(_quotient(left, right))
            elif token == "^":
                stack.append(_power(left, right))
            else:
                stack.append(_sum(left, right))
    return stack[0]


def _number(token: str) -> Value:
    whole, _, part = token.partition(".")
    whole = whole.lstrip("0")
    if len(whole) * 3 > HUGE_BITS:  # a digit is worth 3.3 bits
        return Huge(positive=True)
    return _bounded(Fraction(int((whole + part) or "0"), 10 ** len(part)))


def _negated(value: Value) -> Value:
    if isinstance(value, Huge):
        return Huge(not value.positive)
    return -value if isinstance(value, Fraction) else value.copy_negate()


def _sum(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(left + right)
    if isinstance(left, Huge) and (isinstance(right, Fraction) or left == right):
        return left
    if isinstance(right, Huge) and isinstance(left, Fraction):
        return right
    return _guarded(_CONTEXT.add(_decimal(left), _decimal(right)))


def _product(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(left * right)
    if isinstance(left, Huge) and isinstance(right, Huge):
        return Huge(left.positive == right.positive)
    if isinstance(right, Huge):
        left, right = right, left
    if isinstance(left, Huge) and isinstance(right, Fraction):
        if right == 0:
            return right
        if abs(right) >= 1:
            return Huge(left.positive == (right > 0))
    return _guarded(_CONTEXT.multiply(_decimal(left), _decimal(right)))


def _quotient(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(left / right)
    if isinstance(left, Huge) and isinstance(right, Fraction) and 0 < abs(right) <= 1:
        return Huge(left.positive == (right > 0))
    return _guarded(_CONTEXT.divide(_decimal(left), _decimal(right)))


def _power(base: Value, exponent: Value) -> Value:
    if base == 1 and not isinstance(exponent, Decimal):
        return base
    if isinstance(exponent, Huge):
        grows = base == Huge(True) or (isinstance(base, Fraction) and base >= 2)
        if grows and exponent.positive:
            return Huge(positive=True)
        raise _Undecided
    if isinstance(exponent, Decimal) or exponent.denominator != 1:
        raise _Undecided
    times = exponent.numerator
    if isinstance(base, Huge):
        if times < 1:
            raise _Undecided
        return Huge(base.positive or times % 2 == 0)
    if isinstance(base, Decimal):
        if abs(times) > 64:
            raise _Undecided
        return _guarded(_CONTEXT.power(base, times))
    if base == 0:
        if times < 1:
            raise _Undecided
        return base
    if base == -1:
        return base if times % 2 else -base
    if abs(times) * max(base.numerator.bit_length(), base.denominator.bit_length()) <= EXACT_BITS:
        return base**times
    if abs(base) >= 2 and times * (int(abs(base)).bit_length() - 1) >= HUGE_BITS:
        return Huge(base > 0 or times % 2 == 0)
    raise _Undecided


def _factorial(value: Value) -> Value:
    if value == Huge(True):
        return value
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        raise _Undecided
    if value <= 300:  # 300! has 2,042 bits
        return Fraction(math.factorial(value.numerator))
    if value >= 1000:  # 1000! has 8,530 bits
        return Huge(positive=True)
    raise _Undecided


def _root(value: Value) -> Value:
    if isinstance(value, Huge) or value < 0:
        raise _Undecided
    if isinstance(value, Fraction):
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return _guarded(_CONTEXT.sqrt(_decimal(value)))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > EXACT_BITS:
        raise _Undecided
    return value


def _decimal(value: Value) -> Decimal:
    if isinstance(value, Huge):
        raise _Undecided
    if isinstance(value, Decimal):
        return value
    return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))


def _guarded(value: Decimal) -> Decimal:
    """Outside this range the digits that cancel could be all digits that are known."""
    if not _SMALLEST < value.copy_abs() < _LARGEST:
        raise _Undecided
    return value
