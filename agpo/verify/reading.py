r"""How an answer is read: one normal form for spellings that mean the same, and its value where it has one.

The normal form unites spacing, ``\dfrac`` and ``\frac``, ``\cdot`` and ``\times``, ``\left(`` and ``(``, currency and
degree signs, Unicode minus and the like. It never unites answers that differ in meaning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from agpo.verify.arithmetic import Value, evaluate
from agpo.verify.extraction import clean_answer

CACHED = 500  # longer texts are read again each time, so that the cache stays small

_INTEGER = re.compile(r"-?\d{1,15}", re.ASCII)
THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?", re.ASCII)
_LIST = re.compile(r",\s")
_SPELLINGS = {
    r"\\\\": r"\\\\",
    r"\\(?:left|right|displaystyle|bigl?|bigr|Bigl?|Bigr)(?![a-zA-Z])": "",
    r"\\[!,;: ]|[~\s]+": " ",
    r"\\\$|\$": "",
    r"\\[dtc]frac(?![a-zA-Z])": r"\\frac",
    r"\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|[×·⋅]": "*",
    r"\\div(?![a-zA-Z])|÷": "/",
    r"[−–‐‑]": "-",
    r"\{,\}": ",",
    r"\^\{?\\circ\}?|°": "",
    r"\\%": "%",
    r"\\(?:textbf|textit|textrm|textnormal|mathrm|mathbf|mbox)(?=\s*\{)": r"\\text",
    r"π": r"\\pi",
}
_SPELLING = re.compile("|".join(f"({pattern})" for pattern in _SPELLINGS))
_SPELLED = [spelled.replace("\\\\", "\\") for spelled in _SPELLINGS.values()]
_SPACE = re.compile(r" +(?=\D|$)|(?<=\D) +|^ +", re.ASCII)
_SHORT_FRACTION = re.compile(r"\\frac(\d)(\d)(?!\d)", re.ASCII)
_SHORT_ROOT = re.compile(r"\\sqrt(\d|[a-zA-Z])(?![\da-zA-Z])", re.ASCII)
_SHORT_GROUP = re.compile(r"([\^_])\{(\w)\}(?!\d)")
_ONLY_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d)}!])\\text\{([^{}]*)\}(?:\^\d)?$")
_MULTIPLE = re.compile(r"hundred|thousand|million|billion|trillion|dozen|half|pair|percent|and|or", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    normal: str
    value: Value | None  # of the part before the percent sign
    percent: bool = False
    decimal: bool = False  # written with a decimal point, so compared to six places


def read_answer(text: str) -> Reading:
    """Read an answer: LaTeX or plain, bare or within ``$…$`` or ``\\boxed{…}``. Time grows linearly with its length."""
    return _read_cached(text) if len(text) <= CACHED else _read(text)


def _read(text: str) -> Reading:
    if _INTEGER.fullmatch(text):
        return Reading(text, Fraction(int(text)))
    normal = normalise(text)
    plain = _without_unit(normal)
    percent = plain.endswith("%")
    if percent:
        plain = plain[:-1]
    if THOUSANDS.fullmatch(plain) and not _LIST.search(text):
        plain = plain.replace(",", "").replace(" ", "")
    value = evaluate(plain.removeprefix("+"))
    return Reading(normal, value, percent, value is not None and "." in plain)


_read_cached = lru_cache(maxsize=8192)(_read)


def normalise(text: str) -> str:
    text = clean_answer(text)
    text = _SPELLING.sub(lambda match: _SPELLED[(match.lastindex or 1) - 1], text)
    text = _SPACE.sub("", text)
    words = _ONLY_TEXT.fullmatch(text)
    text = words.group(1) if words else text
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    return _SHORT_GROUP.sub(r"\1\2", text)


def _without_unit(normal: str) -> str:
    match = _UNIT.search(normal)
    return normal if match is None or _MULTIPLE.search(match.group(1)) else normal[: match.start()]
