r"""What an equation says of a quantity: ``x = 5`` and ``m + n = 5`` say 5, ``2x - y = 0`` and ``2x = 10`` nothing."""

from __future__ import annotations

import re

from agpo.verify.arithmetic import evaluate

_ARROW = re.compile(r"\\(?:[lL]ongr|R|r)ightarrow|\\implies|\\iff|\\to(?![a-zA-Z])")
_NAME = re.compile(
    r"(?:m?\\angle)?(?:[A-Za-z]|[A-Z]+|[A-Za-z]{3,}|\\[a-zA-Z]+(?:\^\d)?(?:[A-Za-z]|\\[a-zA-Z]+)?)"
    r"(?:_\w|_\{\w+\})?'*(?:\([^()]*\))?"
    r"|\\text\{[^{}]*\}|\|[^|]*\|",
    re.ASCII,
)  # x, AB, area, \theta, \sin A, x_1, f', f(x), \angle ABC, \text{area}, |z|
_MULTIPLE = re.compile(r"-?[\d.]+\*?[A-Za-z](?:_\w)?", re.ASCII)


def stated_value(equation: str) -> str | None:
    """The last side of an equation in normal form, or ``None`` where that is no value of what was asked for.

    Our choice: the first side is what was asked for, unless the last is zero (the equation of a curve or a plane) or
    the first a multiple of a symbol (not solved yet). What has a name, or is a number, is what was asked for in any
    case.
    """
    sides = _ARROW.split(equation)[-1].split("=")
    first, last = sides[0], sides[-1]
    named = not first or _NAME.fullmatch(first) or evaluate(first) is not None
    return last if named or not (_MULTIPLE.fullmatch(first) or evaluate(last) == 0) else None
