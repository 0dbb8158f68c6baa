"""Numbers as far as they are known: exactly, to many digits, or only that they are enormous, tiny or transcendental.

Every operation is bounded in time and memory. What it cannot know it refuses with `Undecided`.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

EXACT_BITS = 2048  # numerator and denominator of an exact value stay below two to this
HUGE_BITS = EXACT_BITS + 1  # so no exact value is as large, nor the sum of two
DIGITS = 60  # after the point: no comparison is finer

_BITS_CAP = 2**64  # a lower bound may be lowered
_FINEST_EXPONENT = 10**6  # of e: beyond, its digits are no matter of arithmetic
_CONTEXT = decimal.Context(prec=60, Emax=999_999, Emin=-999_999)
_SMALLEST, _LARGEST = Decimal("1e-12"), Decimal("1e12")

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


@dataclass(frozen=True, slots=True)
class Huge:
    """A number of absolute value at least two to the ``bits``, themselves at least `HUGE_BITS`."""

    positive: bool | None  # None: of unknown sign
    bits: int = field(default=HUGE_BITS, compare=False)
    whole: bool = field(default=False, compare=False)  # known to be an integer


@dataclass(frozen=True, slots=True)
class Tiny:
    """A number other than zero, of absolute value at most one by two to the `HUGE_BITS`."""


@dataclass(frozen=True, slots=True)
class Transcendental:
    """No root of a polynomial with rational coefficients, so neither a fraction nor a surd.

    By Lindemann and Weierstrass that holds for the sine of every algebraic number but zero, and the like.
    """

    beyond: bool  # made of something enormous


Exact = int | Fraction
EXACT, FINITE = (int, Fraction), (int, Fraction, Decimal)  # tuples: many times faster than a union
Value = int | Fraction | Decimal | Huge | Tiny | Transcendental

EULER = Transcendental(beyond=False)


class Undecided(Exception):
    """The value is not known, or there is none."""


def read_number(text: str) -> Value:
    """Digits with or without a decimal point."""
    if len(text) < 16 and text.isdigit():
        return int(text)
    whole, _, part = text.partition(".")
    whole, part = whole.lstrip("0"), part[:DIGITS]
    if len(whole) * 3 > HUGE_BITS:  # a digit is worth 3.3 bits
        return Huge(True, len(whole) * 3, whole=not part.strip("0"))
    return _bounded(Fraction(int((whole + part) or "0"), 10 ** len(part)))


def negate(value: Value) -> Value:
    if isinstance(value, EXACT):
        return -value
    if isinstance(value, Decimal):
        return value.copy_negate()
    if isinstance(value, Huge):
        return Huge(None if value.positive is None else not value.positive, value.bits, value.whole)
    return value


def add(left: Value, right: Value) -> Value:
    if isinstance(left, EXACT) and isinstance(right, EXACT):
        return _bounded(left + right)
    if isinstance(left, Huge) and isinstance(right, Huge):
        if left.positive is None or left != right:
            raise Undecided
        return Huge(left.positive, min(left.bits, right.bits), left.whole and right.whole)
    if isinstance(right, Huge):
        left, right = right, left
    if isinstance(left, Huge):
        if isinstance(right, Transcendental):
            return _transcendental(right, left)
        if isinstance(right, Tiny):
            raise Undecided
        whole = left.whole and isinstance(right, EXACT) and right.denominator == 1
        return _huge(left.positive, left.bits - 1, whole)
    if isinstance(left, Transcendental) or isinstance(right, Transcendental):
        return _transcendental(left, right)
    return _guarded(_CONTEXT.add(to_decimal(left), to_decimal(right)))


def subtract(left: Value, right: Value) -> Value:
    if isinstance(left, EXACT) and isinstance(right, EXACT):
        return _bounded(left - right)
    return add(left, negate(right))


def multiply(left: Value, right: Value) -> Value:
    if isinstance(left, EXACT) and isinstance(right, EXACT):
        return _bounded(left * right)
    if isinstance(left, Huge) and isinstance(right, Huge):
        return Huge(_same_sign(left, right), left.bits, left.whole and right.whole)
    if isinstance(right, Huge):
        left, right = right, left
    if isinstance(left, Huge) and isinstance(right, FINITE):
        if right == 0:
            return 0
        whole = left.whole and isinstance(right, EXACT) and right.denominator == 1
        return _huge(_same_sign(left, right), left.bits + _floor_log2(right), whole)
    if isinstance(left, Transcendental) or isinstance(right, Transcendental):
        return _transcendental(left, right)
    return _guarded(_CONTEXT.multiply(to_decimal(left), to_decimal(right)))


def divide(left: Value, right: Value) -> Value:
    if isinstance(left, EXACT) and isinstance(right, EXACT):
        top, bottom = left.numerator * right.denominator, left.denominator * right.numerator
        return _bounded(Fraction(top, bottom))  # twice as fast as the quotient
    if isinstance(left, Huge) and isinstance(right, FINITE) and right:
        return _huge(_same_sign(left, right), left.bits - _floor_log2(right) - 2)
    if isinstance(right, Huge) and isinstance(left, FINITE):
        return _tiny(right.bits - _floor_log2(left) - 2) if left else 0
    if isinstance(left, Transcendental) or isinstance(right, Transcendental):
        return _transcendental(left, right)
    return _guarded(_CONTEXT.divide(to_decimal(left), to_decimal(right)))


def power(base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Huge):
        return _power_of_huge_exponent(base, exponent)
    if not isinstance(exponent, EXACT):
        raise Undecided
    if exponent.denominator != 1:
        if isinstance(base, Huge) and base.positive and exponent > 0:
            return _huge(True, math.floor(base.bits * exponent))
        if isinstance(base, EXACT) and base > 0:
            return _enormous(base, int(exponent), whole=False)
        raise Undecided
    times = exponent.numerator
    if isinstance(base, Huge):
        if times < 1:
            raise Undecided
        return Huge(True if times % 2 == 0 else base.positive, base.bits, base.whole)
    if isinstance(base, Transcendental):
        if times == 0:
            raise Undecided
        return Transcendental(base.beyond or abs(times) > _FINEST_EXPONENT)
    if isinstance(base, Tiny):
        raise Undecided
    if isinstance(base, Decimal):
        if abs(times) > 64:
            return _enormous(base, times)
        return _guarded(_CONTEXT.power(base, times))
    if base == 0:
        if times < 1:
            raise Undecided
        return base
    if base in (1, -1):
        return base if times % 2 else 1
    if abs(times) * max(base.numerator.bit_length(), base.denominator.bit_length()) <= EXACT_BITS:
        return base**times if times > 0 else Fraction(base) ** times
    return _enormous(base, times)


def factorial(value: Value) -> Value:
    if isinstance(value, Huge) and value.positive and value.whole:
        return value
    if not isinstance(value, EXACT) or value.denominator != 1 or value < 0:
        raise Undecided
    if value <= 300:  # 300! has 2,042 bits
        return math.factorial(value.numerator)
    return Huge(True, _capped(8 * value.numerator - 359), whole=True)  # 301! has 2,050 bits, and each later factor 8


def square_root(value: Value) -> Value:
    if isinstance(value, Huge):
        if not value.positive:
            raise Undecided
        return _huge(True, value.bits // 2)
    if isinstance(value, Transcendental):
        return value
    if isinstance(value, Tiny) or value < 0:
        raise Undecided
    if isinstance(value, EXACT):
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return top if bottom == 1 else Fraction(top, bottom)
    return _guarded(_CONTEXT.sqrt(to_decimal(value)))


def floor(value: Value) -> Value:
    if isinstance(value, EXACT):
        return math.floor(value)
    if isinstance(value, Huge):
        return _huge(value.positive, value.bits - 1, whole=True)
    raise Undecided


def transcend(value: Value) -> Value:
    """Sine, logarithm, exponential and the like of an enormous integer; of other numbers undecided."""
    if isinstance(value, Huge) and value.whole:
        return Transcendental(beyond=True)
    raise Undecided


def to_decimal(value: Value) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, Fraction):
        return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))
    raise Undecided


def choose(count: Value, chosen: Value) -> Value:
    """The binomial coefficient."""
    if not isinstance(count, EXACT) or not isinstance(chosen, EXACT) or count.denominator * chosen.denominator != 1:
        raise Undecided
    fewer = min(chosen.numerator, count.numerator - chosen.numerator)
    if fewer < 0:
        raise Undecided
    if fewer < HUGE_BITS:
        if fewer * count.numerator.bit_length() > 2 * EXACT_BITS:
            raise Undecided
        return _bounded(math.comb(count.numerator, fewer))
    return _huge(True, fewer, whole=True)  # it is at least (count / fewer) to the fewer


BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "^": power,
    "mixed": add,
}


def _power_of_huge_exponent(base: Value, exponent: Huge) -> Value:
    if base == 1:
        return base
    if isinstance(base, int) and base > 1 and exponent.positive:
        return Huge(True, _BITS_CAP, exponent.whole)
    if isinstance(base, Transcendental) and exponent.whole:
        return Transcendental(beyond=True)
    if isinstance(base, Huge) and exponent.positive and (base.positive or exponent.whole):
        return Huge(base.positive or None, _BITS_CAP, base.whole and exponent.whole)
    if not isinstance(base, FINITE) or base in (0, -1) or exponent.positive is None:
        raise Undecided
    if base < 0 and not exponent.whole:
        raise Undecided
    # ||b| - 1| is above 2 to the -EXACT_BITS, so the logarithm of the power is at least 2 to the (bits - EXACT_BITS).
    growth = _growth(base, 1 << min(exponent.bits, 2 * HUGE_BITS))
    if (abs(Fraction(base)) > 1) != exponent.positive:
        return _tiny(growth)
    whole = exponent.whole and isinstance(base, EXACT) and base.denominator == 1
    return _huge(True if base > 0 else None, growth, whole)


def _enormous(base: Exact | Decimal, times: int, whole: bool = True) -> Value:
    """A power that is too large, or too small, to be written out; ``times`` may be a little nearer to zero."""
    growth = _growth(base, abs(times))
    if (abs(Fraction(base)) > 1) != (times > 0):
        return _tiny(growth)
    whole &= isinstance(base, EXACT) and base.denominator == 1
    return _huge(base > 0 or times % 2 == 0, growth, whole)


def _growth(base: Exact | Decimal, times: int) -> int:
    """A lower bound of ``times`` · |log2 |base||."""
    size = abs(Fraction(base))
    if isinstance(base, Decimal) and abs(size - 1) < Fraction(_SMALLEST):
        raise Undecided  # it may be 1
    size = 1 / size if size < 1 else size
    if size >= 2:
        return times * (int(size).bit_length() - 1)
    return math.floor(times * (size - 1))  # log2(1 + x) is at least x between zero and one


def _huge(positive: bool | None, bits: int, whole: bool = False) -> Huge:
    if bits < HUGE_BITS:
        raise Undecided
    return Huge(positive, _capped(bits), whole)


def _tiny(bits: int) -> Tiny:
    if bits < HUGE_BITS:
        raise Undecided
    return Tiny()


def _transcendental(*values: Value) -> Transcendental:
    """A transcendental number plus, times or by an algebraic one but zero; of two the sum may be any number."""
    beyond, count = False, 0
    for value in values:
        if isinstance(value, Transcendental):
            beyond |= value.beyond
            count += 1
        elif isinstance(value, Huge):
            if not value.whole:
                raise Undecided
            beyond = True
        elif not isinstance(value, EXACT) or value == 0:
            raise Undecided
    if count != 1:
        raise Undecided
    return Transcendental(beyond)


def _same_sign(left: Huge, right: Huge | Exact | Decimal) -> bool | None:
    positive = right.positive if isinstance(right, Huge) else right > 0
    return None if left.positive is None or positive is None else left.positive == positive


def _floor_log2(value: Exact | Decimal) -> int:
    """A lower bound of log2 |value|, by less than two."""
    exact = Fraction(value)
    return abs(exact.numerator).bit_length() - exact.denominator.bit_length() - 1


def _capped(bits: int) -> int:
    return min(bits, _BITS_CAP)


def _bounded(value: Exact) -> Exact:
    if isinstance(value, int):
        if value.bit_length() > EXACT_BITS:
            raise Undecided
        return value
    if value.numerator.bit_length() > EXACT_BITS or value.denominator.bit_length() > EXACT_BITS:
        raise Undecided
    return value


def _guarded(value: Decimal) -> Decimal:
    """Outside this range the digits that cancel could be all digits that are known."""
    if not _SMALLEST < value.copy_abs() < _LARGEST:
        raise Undecided
    return value
