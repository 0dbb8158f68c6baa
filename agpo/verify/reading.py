r"""How an answer is read: one normal form for spellings that mean the same, and its value where it has one.

The normal form unites spacing, ``\dfrac`` and ``\frac``, ``\cdot`` and ``\times``, ``\left(`` and ``(``, currency and
degree signs, Unicode minus and the like. It never unites answers that differ in meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from agpo.verify.arithmetic import LONGEST, evaluate
from agpo.verify.extraction import clean_answer, plain_characters
from agpo.verify.quantity import DIGITS, Transcendental, Value, negate, read_number

CACHED = 500  # longer texts are read again each time, so that the cache stays small

_INTEGER = re.compile(r"-?\d{1,15}", re.ASCII)
THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?", re.ASCII)
_LIST = re.compile(r",\s")
_SPELLED = {
    r"\\": r"\\",
    **dict.fromkeys(
        [r"\left", r"\right", r"\displaystyle", r"\big", r"\Big", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr"], ""
    ),
    **dict.fromkeys([r"\!", r"\,", r"\;", r"\:", r"\ "], " "),
    **dict.fromkeys([r"\$", "$", r"^\circ", r"^{\circ}", "°"], ""),
    **dict.fromkeys([r"\dfrac", r"\tfrac", r"\cfrac"], r"\frac"),
    **dict.fromkeys([r"\cdot", r"\times", "×", "·", "⋅"], "*"),
    **dict.fromkeys([r"\div", "÷"], "/"),
    **dict.fromkeys("−–‐‑", "-"),
    **dict.fromkeys([r"\textbf", r"\textit", r"\textrm", r"\textnormal", r"\mathrm", r"\mathbf", r"\mbox"], r"\text"),
    "{,}": ",",
    r"\%": "%",
    "π": r"\pi",
}
# Each alternative begins with a certain character, so that the search skips the others fast.
_SPELLING = re.compile(
    "|".join(
        re.escape(spelling) + r"(?![a-zA-Z])" * spelling[-1].isalpha() for spelling in sorted(_SPELLED, reverse=True)
    )
)
_SPACE = re.compile(r" +(?=\D|$)|(?<=\D) +|^ +", re.ASCII)
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)(?!\d)", re.ASCII)
_SHORT_ROOT = re.compile(r"\\sqrt(\d|[a-zA-Z])(?![\da-zA-Z])", re.ASCII)
_SHORT_GROUP = re.compile(r"([\^_])\{(\w)\}(?!\d)")
_ONLY_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d)}!])\\text\{([^{}]*)\}(?:\^\d)?$")
_INTEGER_OR_DECIMAL = re.compile(r"[-+]?\d++(?:\.\d++)?", re.ASCII)  # possessive: nothing is tried twice
_SURPLUS_DIGITS = re.compile(rf"(\.\d{{{DIGITS}}})\d+", re.ASCII)
_REPEATING = re.compile(r"(-?)(\d{1,15})\.(\d{0,15})(?:\\overline\{(\d{1,30})\}|(?<=\.)\((\d{1,30})\))", re.ASCII)
_WRAPPED = re.compile(r"([({]+)([^(){}\[\],\\]*)([)}]+)")
_CLOSING = str.maketrans("({", ")}")
_DEGREES = re.compile(r"\\circ|°|deg")
_WORDS_AFTER = re.compile(r"(?<=[\d)}!])(?: |~|\\[ ,;:])+([A-Za-z]{3,}(?: [A-Za-z]{2,}){0,3})$")
NUMERAL = re.compile(  # words of numbers, of arithmetic and of several answers
    r"\b(?:hundred|thousand|[mbtr]+illion|dozen|score|half|halves|thirds?|quarters?|\w+(?<!mon)ths|pairs?|per ?cent"
    r"|plus|minus|times|over|divided|squared|cubed|to the|mod|base|pi|sqrt|root|sin|cos|tan|log|exp|inf|infinity"
    r"|factorial|choose|less|more|than|not|and|or|zero|one|two|three|four|five|six|seven|eight|nine|ten)\b",
    re.IGNORECASE,
)
_MULTIPLE = re.compile(r"hundred|thousand|million|billion|trillion|dozen|half|pair|percent|and|or", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    normal: str
    value: Value | None  # of the part before the percent sign
    percent: bool = False
    decimal: bool = False  # written with a decimal point, so compared to six places
    unit: str = ""  # words after the number that have no part in the value


def read_answer(text: str) -> Reading:
    """Read an answer: LaTeX or plain, bare or within ``$…$`` or ``\\boxed{…}``. Time grows linearly with its length.

    A text of more than `LONGEST` characters, surplus digits, spaces and brackets not counted, has no value and stays.
    """
    if len(text) <= CACHED:
        return _read_cached(text)
    if len(text) > LONGEST:
        text = shorten(text)
        if _INTEGER_OR_DECIMAL.fullmatch(text):
            size = read_number(text.lstrip("+-"))
            return Reading(text, negate(size) if text[0] == "-" else size, decimal="." in text)
        if len(text) > LONGEST:
            return Reading(text, None)
    return _read(text)


def _read(text: str) -> Reading:
    if _INTEGER.fullmatch(text):
        return Reading(text, int(text))
    clean = clean_answer(text)
    normal = _respell(clean)
    unit = _find_unit(clean)
    plain = _without_unit(_respell(clean.removesuffix(unit)) if unit else normal)
    percent = plain.endswith("%")
    if percent:
        plain = plain[:-1]
    if THOUSANDS.fullmatch(plain) and not _LIST.search(text):
        plain = plain.replace(",", "").replace(" ", "")
    repeating = _read_repeating(plain)
    value = evaluate(plain.removeprefix("+")) if repeating is None else repeating
    if isinstance(value, Transcendental) and _DEGREES.search(text):
        value = None  # the sine of whole degrees is algebraic
    return Reading(normal, value, percent, "." in plain and value is not None and repeating is None, unit)


_read_cached = lru_cache(maxsize=8192)(_read)


def _read_repeating(plain: str) -> Fraction | None:
    r"""``0.1\overline{6}`` and ``0.(3)``; ``0.1(6)`` could be a product."""
    found = _REPEATING.fullmatch(plain)
    if found is None:
        return None
    sign, whole, once, again = found[1], found[2], found[3], found[4] or found[5]
    size = Fraction(int(whole + once + again) - int(whole + once), 10 ** len(once) * (10 ** len(again) - 1))
    return -size if sign else size


def shorten(text: str) -> str:
    """The same answer; where that has more than `LONGEST` characters, without surplus spaces, decimals and brackets."""
    if len(text) <= LONGEST:
        return text
    text = " ".join(plain_characters(text, every=16).split())  # most must go for the text to become short
    text = _SURPLUS_DIGITS.sub(r"\1", text)
    wrapped = _WRAPPED.fullmatch(text) if text.endswith((")", "}")) else None
    if wrapped and wrapped[3] == wrapped[1].translate(_CLOSING)[::-1]:
        text = wrapped[2]
    return text


def normalise(text: str) -> str:
    return _respell(clean_answer(text))


def _respell(text: str) -> str:
    text = " ".join(text.replace("~", " ").split())
    text = _SPELLING.sub(lambda match: _SPELLED[match.group()], text)
    if " " in text:
        text = _SPACE.sub("", text)
    words = _ONLY_TEXT.fullmatch(text)
    text = words.group(1) if words else text
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    return _SHORT_GROUP.sub(r"\1\2", text)


def _find_unit(clean: str) -> str:
    """The one to four words that follow a number: "dollars", "square feet"; none of them may be part of a number."""
    words = _WORDS_AFTER.search(clean) if clean[-1:].isalpha() else None
    return words[1] if words and not NUMERAL.search(words[1]) else ""


def _without_unit(normal: str) -> str:
    match = _UNIT.search(normal) if "\\text" in normal else None
    return normal if match is None or _MULTIPLE.search(match.group(1)) else normal[: match.start()]
