r"""A second, plain reading of math answers, to audit the verifier with.

It shares no code with the verifier: another search for the final answer, a rewriting of LaTeX by replacement in the
manner of Minerva (arXiv 2206.14858, Appendix D.1), and a comparison of texts or numbers. It knows no algebra, is
lenient with units, words around a number, percent and currency signs, and never runs long.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 300  # characters of an answer that are rewritten; longer ones are compared as they are
TOLERANCE = Fraction(1, 10**6)

_BOX = re.compile(r"\\f?boxe?d?\s*\{")
_MARK = re.compile(r"####|answer(?:\s+is|\s*:)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?", re.ASCII)
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|mathrm|mathbf|mathit|operatorname|big|Big|quad|qquad)(?![a-zA-Z])"
    r"|\\[,;:! ]|\$|\\\(|\\\)|\\\[|\\\]|\*\*|~"
)
_SIGNS = {"−": "-", "–": "-", "π": r"\pi", "×": r"\cdot", "·": r"\cdot", r"\times": r"\cdot", r"\%": "", "%": ""}
_DEGREES = re.compile(r"\^\{?\\circ\}?|°|\\degree")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")
_ROOT = re.compile(r"\\sqrt\s*(\w)")
_WORDS = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?:\\!)?(?=\d{3}(?!\d))|(?<=\d)\{,\}(?=\d{3}(?!\d))")
_NAME = re.compile(r"[a-zA-Z](?:_\w)?(?:\([a-zA-Z]\))?=(?=[^=]+$)")
_UNIT = re.compile(r"(?<=\d)[a-z]{2,}(?:\^[23])?\.?$|(?<=[\d)}])\\text.*$")
_QUOTIENT = re.compile(r"([-+]?)\(?([-+]?(?:\d+\.?\d*|\.\d+))\)?(?:/\(?(\d+)\)?)?", re.ASCII)


def agree_plainly(response: str, gold: str) -> bool:
    """Whether the response's final answer, plainly read, is the gold."""
    answer = find_final(response)
    return answer is not None and same_plainly(answer, gold)


def find_final(response: str) -> str | None:
    r"""The last ``\boxed{…}``, else the line after the last ``####`` or "answer is", else the last number."""
    boxes = list(_BOX.finditer(response))
    if boxes:
        return _until_closed(response[boxes[-1].end() :])
    marks = list(_MARK.finditer(response))
    if marks:
        line = response[marks[-1].end() :].strip().partition("\n")[0].partition(". ")[0].strip(" :.")
        return line or None
    numbers = _NUMBER.findall(response)
    return numbers[-1].rstrip(",") if numbers else None


def same_plainly(answer: str, gold: str) -> bool:
    ours, theirs = _rewrite(answer), _rewrite(gold)
    if ours == theirs:
        return ours != ""
    numbers = _read_number(ours), _read_number(theirs)
    if numbers[0] is None or numbers[1] is None:
        return False
    return abs(numbers[0] - numbers[1]) <= TOLERANCE


def _until_closed(text: str) -> str:
    """What precedes the brace that closes the one before the text; all of it if none does."""
    depth = 1
    for place, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:place].strip()
    return text.strip()


def _rewrite(text: str) -> str:
    if len(text) > LONGEST:
        return "".join(text.split())
    box = _BOX.search(text)
    text = _until_closed(text[box.end() :]) if box else text
    text = _LAYOUT.sub("", text.replace(r"\$", ""))
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    text = _DEGREES.sub("", text)
    for _ in range(3):  # fractions in fractions
        text = _FRACTION.sub(lambda found: f"{_enclose(found[1] or found[2])}/{_enclose(found[3] or found[4])}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    only = _WORDS.fullmatch(text.strip())
    text = only[1] if only else _WORDS.sub(r"\\text\1", text)
    text = "".join(text.split()).rstrip(".,;:").casefold()
    text = _NAME.sub("", _THOUSANDS.sub("", text), count=1)
    bare = _UNIT.sub("", text)
    return bare or text


def _enclose(part: str | None) -> str:
    part = (part or "").strip()
    return part if re.fullmatch(r"-?\w+|\\sqrt(?:\d|\{\w+\})|", part) else f"({part})"


def _read_number(text: str) -> Fraction | None:
    found = _QUOTIENT.fullmatch(text)
    if found is None or len(text) > 60 or (found[3] and not int(found[3])):
        return None
    value = Fraction(found[2]) / int(found[3] or 1)
    return -value if found[1] == "-" else value
