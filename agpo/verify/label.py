"""Relevance labels: the label that a response ends with, read by the gold's scheme. The reasoning is not judged."""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from agpo.relevance.scheme import Label, Scheme, read_gold
from agpo.verify.verdict import Verdict

NAME, VERSION = "label", 1
TAIL = 400  # characters at a response's end that are searched, so that a long one takes no longer
SHOWN = 100  # characters of an unreadable label that the verdict keeps

# Greedy, so that the search begins at the end and the last mark is found first.
_LAST_MARK = re.compile(
    r".*(?:=>|####|\\boxed\s*\{(?:\\text\{)?|\b(?:label|relevance|answer)\W{0,3}(?:[:=]|\bis\b))",
    re.IGNORECASE | re.DOTALL,
)
_WRAPPING = " \t\r\n*_`\"'.$(){}[]\\"
_REMARK = re.compile(r"\s*[(,;:–—]|\s-")  # "E (exact)", "S, because …", "S - the brand differs"


class FoundLabel(NamedTuple):
    label: Label | None  # None: missing or malformed
    text: str | None  # what stands where the label should; None: nothing does, the label is missing


def find_label(response: str, scheme: Scheme) -> FoundLabel:
    r"""The label after the last ``=>``, ``####``, ``\boxed{``, "label:", "relevance:" or "answer is" of the response.

    A response that is nothing but a label needs no mark. Time does not grow with the response's length.
    """
    mark = _LAST_MARK.match(response[-TAIL:])
    if mark is None:
        label = _read(response, scheme) if len(response) <= TAIL else None
        return FoundLabel(label, label.letter if label else None)
    text = mark.string[mark.end() :].lstrip().partition("\n")[0].strip(_WRAPPING)
    if not text:
        return FoundLabel(None, None)
    label = _read(text, scheme)
    return FoundLabel(label, label.letter if label else text[:SHOWN])


def _read(text: str, scheme: Scheme) -> Label | None:
    return scheme.read(text.strip(_WRAPPING)) or scheme.read(_REMARK.split(text, maxsplit=1)[0].strip(_WRAPPING))


def verify_label(response: str, gold: str) -> Verdict:
    """Compare the response's label (see `find_label`) with ``gold``, a scheme and a label such as ``esci4:S``.

    Wrong for a reason: ``missing`` (no label where one should be), ``malformed`` (what is there is no label of the
    scheme), ``mismatch``. Unverifiable by cause ``gold`` where the gold's scheme or label is unknown.
    """
    started = time.thread_time()
    reference = read_gold(gold)
    if reference is None:
        return Verdict("unverifiable", "gold", "unparsable", None, time.thread_time() - started, NAME, VERSION)
    scheme, wanted = reference
    label, text = find_label(response, scheme)
    if label is wanted:
        return Verdict("correct", "none", "", text, time.thread_time() - started, NAME, VERSION)
    reason = "mismatch" if label else "missing" if text is None else "malformed"
    return Verdict("wrong", "none", reason, text, time.thread_time() - started, NAME, VERSION)
