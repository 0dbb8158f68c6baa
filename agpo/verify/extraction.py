r"""A response's final answer: the last ``\boxed{…}``, else after the last ``####``, else after "answer is"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

TAIL = 4000  # characters of prose that are searched for an answer

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([^\s${}][^\n${}]*)")
_ANSWER_IS = re.compile(r"answer\s+is\b[\s:]*", re.IGNORECASE)
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
    bare = _last_match(_BARE_BOX, response)
    if bare is not None:
        return FinalAnswer(bare.group(1).strip(), "exact")
    _, mark, tail = response.rpartition("####")
    if mark:
        line = tail.strip().partition("\n")[0].strip()
        return FinalAnswer(line, "exact") if line else None
    phrase = _last_match(_ANSWER_IS, response)
    if phrase is not None:
        display = _DISPLAY.match(response, phrase.end())
        end = _SENTENCE_END.search(response, display.end() if display else phrase.end())
        sentence = response[phrase.end() : end.start() if end else len(response)][:TAIL].strip()
        return FinalAnswer(sentence, "phrase") if sentence else None
    opened = _last_match(_BOX, response)
    if opened is not None:
        return FinalAnswer(response[opened.end() :].strip(), "unclosed")
    tail = response[-TAIL:].strip()
    return FinalAnswer(tail, "prose") if tail else None


def last_box(text: str) -> str | None:
    r"""Content of the last balanced ``\boxed{…}`` that is not blank; "" if all are, ``None`` if there is none."""
    starts = {match.end() - 1 for match in _BOX.finditer(text)}
    if not starts:
        return None
    last = max(starts)
    end = _group_end(text, last)
    if end is not None and (content := text[last + 1 : end].strip()):
        return content
    boxes: list[tuple[int, str]] = []
    opened: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened and (start := opened.pop()) in starts:
            boxes.append((start, text[start + 1 : match.start()].strip()))
    return max(((start, content) for start, content in boxes if content), default=(0, "" if boxes else None))[1]


def clean_answer(text: str) -> str:
    r"""An answer or gold with ASCII digits, without invisible marks, final punctuation and what encloses all of it.

    That is up to four of ``$…$``, ``\(…\)``, ``\[…\]``, ``**…**`` and ``\boxed{…}``.
    """
    if not text.isascii():
        text = "".join(
            str(unicodedata.decimal(character, character))
            for character in text
            if unicodedata.category(character) != "Cf"
        )
    text = _without_punctuation(text)
    for _ in range(4):
        match = _DELIMITED.fullmatch(text)
        box = _BOX.match(text)
        if match is not None:
            text = next(group for group in match.groups() if group is not None)
        elif box is not None and _group_end(text, box.end() - 1) == len(text) - 1:
            text = text[box.end() : -1]
        else:
            break
        text = _without_punctuation(text)
    return text


def _without_punctuation(text: str) -> str:
    bare = text.strip().rstrip(",; \t\n")
    if bare.endswith(".") and not bare.endswith(".."):
        bare = bare[:-1].rstrip()
    return text.strip() if bare.endswith("\\") else bare  # \, and \; are spaces


def _group_end(text: str, start: int) -> int | None:
    """Where the group that opens at ``start`` closes."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    last = None
    for match in pattern.finditer(text):
        last = match
    return last
