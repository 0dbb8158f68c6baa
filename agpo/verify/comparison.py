"""Whether two answers are the same, as far as spelling, arithmetic and structure decide it.

Right takes equal spellings or equal values. Wrong takes a proof: different values, a choice of the variables at which
two expressions differ, or an element of one list that no element of the other equals.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise

from agpo.verify.arithmetic import LONGEST, evaluate
from agpo.verify.equation import stated_value
from agpo.verify.quantity import EXACT, Huge, Tiny, Transcendental, Value, to_decimal
from agpo.verify.reading import NUMERAL, THOUSANDS, Reading, read_answer

LONGEST_LIST = 12  # elements
LONGEST_SAMPLED = 2000  # characters of an expression whose variables are replaced by numbers

_CONTEXT = Context(prec=40)
_CLOSE = Fraction(2, 10**6)  # six places
_LETTERS = [letter for letter in string.ascii_lowercase if letter not in "ei"]  # those can be numbers
_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107)
_SAMPLE = dict(zip(_LETTERS, _PRIMES, strict=False))
_SAMPLE |= {letter.upper(): value for letter, value in _SAMPLE.items()}  # some write X for x
_OTHER_SAMPLE = {letter: value + 1 for letter, value in _SAMPLE.items()}
_WORD = re.compile(r"[A-Za-z]{3,}")
_INFINITE = re.compile(r"inf(?:inity|ty)?", re.IGNORECASE)
_INFINITY = re.compile(r"[-+]?\\infty(?:[-+]\\infty)*")
_ASSIGNMENT = re.compile(r"[A-Za-z](?:_\w|_\{\w+\})?(?:\([A-Za-z]\))?=([^=]+)")
_SEVERAL = re.compile(r"[,;<>:!]|\\text|\\[lg]eq?|\\neq?|and|or")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_UNIT = re.compile(r"[^A-Za-z]*[A-Za-z]+(?:\^?[23])?(?:[/*^][A-Za-z23]+)*")
_SCALAR = re.compile(  # one number, whatever it is
    r"(?!.*\+/?-)(?:[-+*/^!()\[\]{}_\d]|\.(?=\d)|[A-Za-z](?![A-Za-z])|\\(?:frac|sqrt|pi|sin|cos|tan|cot|sec|csc|log|ln|exp|binom"
    r"|lfloor|rfloor|sum|prod|int|zeta)(?![a-zA-Z]))+",
    re.ASCII,
)
_LETTER = re.compile(r"[A-Za-z]")
_NO_RING = re.compile(r"[.!]|\^(?:\{[^{}]*i|i)|\\(?!frac)")
_STRUCTURE = re.compile(r"\\[{}]|[(){}\[\],]")


def compare(answer: Reading, gold: Reading) -> bool | None:
    """Whether the answers are the same; ``None`` when that takes more. Time is linear in the length of the texts.

    As in math-verify, decimals are compared to six places, 50 % equals 50 as well as 0.5, words that are the same
    product of letters are equal, and ``x = 5`` equals ``5`` (`agpo.verify.equation` says which equations do).
    """
    left, right = answer.normal, gold.normal
    if left == right:
        return True
    if max(len(left), len(right)) > LONGEST:
        return _compare_numbers(answer, gold) if answer.value is not None and gold.value is not None else None
    if answer.value is not None and gold.value is not None:
        return _compare_numbers(answer, gold)
    if _WORD.fullmatch(left) and _WORD.fullmatch(right) and not _INFINITE.fullmatch(left + right):
        return None if sorted(left.lower()) == sorted(right.lower()) else False
    if "=" in left and "=" not in right:
        if _SEVERAL.search(left):
            return None
        value = stated_value(left)
        return False if value is None else compare(read_answer(value), gold)
    if "=" in right:
        assignment = None if "=" in left else _ASSIGNMENT.fullmatch(right)
        return compare(answer, read_answer(assignment.group(1))) if assignment else None
    if gold.value is not None and _WORD.fullmatch(left) and not NUMERAL.search(left) and not _INFINITE.fullmatch(left):
        return False
    if (answer.value is not None and _is_no_number(right)) or (gold.value is not None and _is_no_number(left)):
        return False
    if _lacks_letters(left, gold):
        return False
    ours, theirs = _elements(answer), _elements(gold)
    if max(len(ours), len(theirs)) > LONGEST_LIST:
        return None
    if len(ours) == 1 and len(theirs) > 1 and _SCALAR.fullmatch(left):
        return False if any(_differ(one, other) for one, other in pairwise(theirs)) else None
    lonely = any(all(_differ(one, other) for other in theirs) for one in ours) or any(
        all(_differ(one, other) for one in ours) for other in theirs
    )
    return False if lonely else None


def _compare_numbers(answer: Reading, gold: Reading) -> bool | None:
    assert answer.value is not None and gold.value is not None
    if answer.unit and gold.unit and answer.unit.lower().rstrip("s") != gold.unit.lower().rstrip("s"):
        return None
    decimal = answer.decimal or gold.decimal
    raw = _compare_values(answer.value, gold.value, decimal)
    if answer.percent == gold.percent:
        return raw
    percentage, other = (answer.value, gold.value) if answer.percent else (gold.value, answer.value)
    if not isinstance(percentage, EXACT):
        return None
    scaled = _compare_values(Fraction(percentage) / 100, other, decimal)
    if scaled is False and raw is False:
        return False
    whole = isinstance(other, EXACT) and percentage.denominator == other.denominator == 1
    return True if scaled or (raw and whole) else None


def _compare_values(left: Value, right: Value, decimal: bool) -> bool | None:
    if isinstance(left, EXACT) and isinstance(right, EXACT):
        if left == right:
            return True
        return None if decimal and -_CLOSE <= left - right <= _CLOSE else False
    if isinstance(left, Transcendental) or isinstance(right, Transcendental):
        return None
    if isinstance(left, Huge) or isinstance(right, Huge):
        both = (
            isinstance(left, Huge)
            and isinstance(right, Huge)
            and (left == right or None in (left.positive, right.positive))
        )
        return None if both else False
    if isinstance(left, Tiny) or isinstance(right, Tiny):
        other = right if isinstance(left, Tiny) else left
        return None if isinstance(other, Tiny) or abs(to_decimal(other)) <= Decimal("2e-6") else False
    gap = _CONTEXT.subtract(to_decimal(left), to_decimal(right)).copy_abs()
    return None if gap <= Decimal("2e-6" if decimal else "1e-15") else False


def _lacks_letters(left: str, gold: Reading) -> bool:
    """Proof by the letters: the gold is a word that the answer's letters do not spell, or changes with a variable."""
    if _WORD.fullmatch(gold.normal) and not _INFINITE.fullmatch(gold.normal):
        return not set(gold.normal.lower()) <= set(left.lower())
    if gold.value is not None or any(map(str.isalpha, _COMMAND.sub("", left))):
        return False
    one, other = _sample(gold), _sample(gold, _OTHER_SAMPLE)
    return one is not None and other is not None and _compare_values(one, other, gold.decimal) is False


def _is_no_number(text: str) -> bool:
    """A matrix, infinity, or a set of numbers with an infinite end or several parts."""
    if _INFINITY.fullmatch(text):
        return True
    if "\\begin{" in text:
        return "&" in text or "\\\\" in text
    return text.startswith(("(", "[")) and text.endswith((")", "]")) and ("\\infty" in text or "\\cup" in text)


def _elements(reading: Reading) -> list[Reading]:
    """The elements of a tuple, interval, set or bare list; any other answer is its own only element."""
    normal = reading.normal
    if reading.value is not None or not ("," in normal or normal.startswith("\\{")):
        return [reading]
    if THOUSANDS.fullmatch(normal):  # 10, 000 has two readings
        return [reading]
    cuts: list[int] = []
    depth = 0
    start, end = 0, len(reading.normal)
    for match in _STRUCTURE.finditer(reading.normal):
        mark = match.group()[-1]
        if mark in "([{":
            depth += 1
            if match.start() == 0:
                start = match.end()
        elif mark == ",":
            if depth == (start > 0):
                cuts.append(match.start())
        else:
            depth -= 1
            if depth == 0 and start:
                end = match.start()
                if match.end() < len(reading.normal):
                    return [reading]  # more follows the bracket that opened first
    if depth or not (cuts or start):
        return [reading]
    bounds = [start, *(cut + 1 for cut in cuts)], [*cuts, end]
    return [read_answer(reading.normal[begin:stop]) for begin, stop in zip(*bounds, strict=True)]


def _differ(left: Reading, right: Reading) -> bool:
    """Proof that two elements differ."""
    if left.value is not None and right.value is not None:
        return _compare_numbers(left, right) is False
    if left.percent or right.percent:
        return False
    letters = {letter for reading in (left, right) for letter in _LETTER.findall(_COMMAND.sub("", reading.normal))}
    if letters == {"i"}:
        return _differ_as_complex(left, right)
    ours, theirs = _sample(left), _sample(right)
    if ours is None or theirs is None:
        return False
    return _compare_values(ours, theirs, left.decimal or right.decimal) is False


def _differ_as_complex(left: Reading, right: Reading) -> bool:
    """Proof that two numbers made of integers, i and ``+ - * /`` with integer powers differ.

    1000² is −1 modulo 9901, so with 1000 for i equal numbers have equal remainders.
    """
    if left.decimal or right.decimal or any(_NO_RING.search(reading.normal) for reading in (left, right)):
        return False
    ours, theirs = (evaluate(reading.normal, {"i": 1000}) for reading in (left, right))
    if not isinstance(ours, EXACT) or not isinstance(theirs, EXACT):
        return False
    difference = Fraction(ours) - theirs
    return all(number % 9901 for number in (ours.denominator, theirs.denominator, difference.numerator))


def _sample(reading: Reading, variables: Mapping[str, int] = _SAMPLE) -> Value | None:
    """The value with every variable replaced by a number; ``None`` where it is too long or letters may be words."""
    if reading.value is not None:
        return reading.value
    if len(reading.normal) > LONGEST_SAMPLED:
        return None
    bare = _COMMAND.sub("", reading.normal)
    if _WORD.search(bare) or _UNIT.fullmatch(bare):
        return None
    return evaluate(reading.normal, variables)
