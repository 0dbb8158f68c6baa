r"""A response's final answer: the last ``\boxed{…}``, else after the last ``####``, else after "answer is"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

FEW = 8  # characters to replace one by one
TAIL = 4000  # characters of prose that are searched for an answer
BOXES = 1000  # boxes that are tried
RUNS = 5000  # runs of braces that are read to find where boxes end

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([^\s${}][^\n${}]*)")
_ANSWER_IS = re.compile(r".*answer\s+is\b[\s:]*", re.IGNORECASE | re.DOTALL)  # greedy: begins at the end
_BRACES = re.compile(r"[\\{}](?:(?<=\{)\{*|(?<=\})\}*|(?<=\\)[\\{}](?:\\.)*)", re.DOTALL)  # a set first: found faster
_DISPLAY = re.compile(r"\$\$[^$]+\$\$|\\\[.+?\\\]", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!]\s|\n")
_DELIMITED = re.compile(
    r"\$\$([^$]+)\$\$|\$([^$]+)\$|\\\(((?:(?!\\\)).)+)\\\)|\\\[((?:(?!\\\]).)+)\\\]|\*\*([^*]+)\*\*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    r"""``exact``: ``text`` is the answer and nothing else. ``phrase``: it begins with it. ``prose``: it contains it.

    ``unclosed``: it follows a ``\boxed{`` that never ends.
    """

    text: str
    kind: Literal["exact", "phrase", "prose", "unclosed"]


def extract_answer(response: str) -> FinalAnswer | None:
    """The final answer, or ``None`` when the response is blank, or marks an answer and leaves it blank."""
    box = last_box(response)
    if box is not None:
        return FinalAnswer(box, "exact") if box else None
    starts = list(islice(_box_starts(response), BOXES))
    for start in starts:
        bare = _BARE_BOX.match(response, start)
        if bare is not None:
            return FinalAnswer(bare.group(1).strip(), "exact")
    _, mark, tail = response.rpartition("####")
    if mark:
        line = tail.strip().partition("\n")[0].strip()
        return FinalAnswer(line, "exact") if line else None
    phrase = _ANSWER_IS.match(response) if "answer" in response.casefold() else None
    if phrase is not None:
        display = _DISPLAY.match(response, phrase.end())
        end = _SENTENCE_END.search(response, display.end() if display else phrase.end())
        sentence = response[phrase.end() : end.start() if end else len(response)][:TAIL].strip()
        return FinalAnswer(sentence, "phrase") if sentence else None
    for start in starts:
        opened = _BOX.match(response, start)
        if opened is not None:
            return FinalAnswer(response[opened.end() :].strip(), "unclosed")
    tail = response[-TAIL:].strip()
    return FinalAnswer(tail, "prose") if tail else None


def last_box(text: str) -> str | None:
    r"""Content of the last balanced ``\boxed{…}`` that is not blank; "" if all are, ``None`` if there is none.

    Of a text made to take long, only the last `BOXES` boxes and `RUNS` runs of braces are read.
    """
    blank = None
    runs = RUNS
    for start in islice(_box_starts(text), BOXES):
        box = _BOX.match(text, start)
        if box is None:
            continue
        if runs <= 0:
            break
        end, read = _group_end(text, box.end() - 1, runs)
        runs -= read
        if end is not None:
            content = text[box.end() : end].strip()
            if content:
                return content
            blank = ""
    return blank


def _box_starts(text: str) -> Iterator[int]:
    r"""Where ``\boxed`` and ``\fbox`` stand, from the last to the first."""
    boxed, fbox = text.rfind("\\boxed"), text.rfind("\\fbox")
    while (start := max(boxed, fbox)) >= 0:
        yield start
        if start == boxed:
            boxed = text.rfind("\\boxed", 0, start)
        else:
            fbox = text.rfind("\\fbox", 0, start)


def clean_answer(text: str) -> str:
    r"""An answer or gold with ASCII digits, without invisible marks, final punctuation and what encloses all of it.

    That is up to four of ``$…$``, ``\(…\)``, ``\[…\]``, ``**…**`` and ``\boxed{…}``.
    """
    text = _without_punctuation(plain_characters(text))
    for _ in range(4):
        match = _DELIMITED.fullmatch(text)
        box = _BOX.match(text)
        if match is not None:
            text = next(group for group in match.groups() if group is not None)
        elif box is not None and _group_end(text, box.end() - 1, RUNS)[0] == len(text) - 1:
            text = text[box.end() : -1]
        else:
            break
        text = _without_punctuation(text)
    return text


def plain_characters(text: str, every: int = 1) -> str:
    """The text with ASCII digits for those of other scripts, without invisible marks and control characters.

    Only what is found by looking at one in ``every`` so many characters is replaced.
    """
    if text.isascii() and text.isprintable():
        return text
    plain = {character: _plain_character(character) for character in set(text[::every])}
    changed = {ord(character): other for character, other in plain.items() if character != other}
    if len(changed) > FEW:
        return text.translate(changed)
    for code, other in changed.items():  # many times faster
        text = text.replace(chr(code), other)
    return text


def _plain_character(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf") and not character.isspace():
        return ""
    return str(unicodedata.decimal(character, character))


def _without_punctuation(text: str) -> str:
    bare = text.strip().rstrip(",; \t\n")
    if bare.endswith(".") and not bare.endswith(".."):
        bare = bare[:-1].rstrip()
    return text.strip() if bare.endswith("\\") else bare  # \, and \; are spaces


def _group_end(text: str, start: int, runs: int) -> tuple[int | None, int]:
    """Where the group that opens at ``start`` closes, and how many runs of braces, at most ``runs``, that took."""
    depth = read = 0
    for match in islice(_BRACES.finditer(text, start), runs):
        read += 1
        run = match[0]
        if run[0] == "{":
            depth += len(run)
        elif run[0] == "}":
            depth -= len(run)
            if depth <= 0:
                return match.end() - 1 + depth, read
    return None, read
