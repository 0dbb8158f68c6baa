"""Which training questions share a long phrase with an evaluation question.

As in GPT-3 (arXiv 2005.14165, Appendix C), two questions overlap where they share a run of n words, by default 13,
whatever their case and punctuation. A question of fewer words is compared as a whole.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# A phrase of more training questions than this may be a figure of speech or a template. NeMo Curator's bound
# (max_ngram_freq); that it must also stand in several evaluation questions is our choice, because an evaluation
# question that was rephrased many times into training is no template. Nor is a whole question, as often as it returns:
# of query–ad pairs the same query has many ads.
COMMON = 10
WHOLE = sys.maxsize  # words of a phrase for which every question is compared as a whole

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class EvaluationSet:
    """Questions that must not be trained on."""

    name: str
    rows: Sequence[str]  # what each question is called: its id, or its row
    questions: Sequence[str]
    digest: str | None = None  # SHA-256 of the file; None for a split of the source itself


class Overlap(NamedTuple):
    """The first evaluation question that a training question shares a phrase with."""

    set: str
    row: str
    phrase: str


@dataclass(frozen=True)
class SetOverlaps:
    overlaps: dict[int, Overlap]  # by the training question's place
    found: int  # questions of the set that are in training


@dataclass
class _Index:
    """Phrases of one set, and what was met of them."""

    first: dict[str, int] = field(default_factory=dict)  # the first question with the phrase
    repeated: Counter[str] = field(default_factory=Counter)  # of several questions: how many training questions have it
    met: set[str] = field(default_factory=set)
    hits: dict[int, list[str]] = field(default_factory=dict)  # phrases of a training question until one is not repeated


def find_overlaps(questions: Sequence[str], sets: Sequence[EvaluationSet], length: int) -> list[SetOverlaps]:
    """For every set, the training questions that overlap it. Time is linear in the length of all texts."""
    indexes = [_index(evaluation.questions, length) for evaluation in sets]
    for place, question in enumerate(questions):
        phrases = list(dict.fromkeys(split_phrases(question, length)))
        for index in indexes:
            _meet(index, place, phrases)
    return [_judge(index, evaluation, length) for index, evaluation in zip(indexes, sets, strict=True)]


def split_phrases(question: str, length: int) -> list[str]:
    """All runs of ``length`` words; of a shorter question the whole text without spaces, so that signs count."""
    words = _WORD.findall(question.casefold())
    if len(words) < length:
        return ["".join(question.casefold().split()).rstrip(".:?!")]
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]


def _is_whole(phrase: str) -> bool:
    """Whether it is a whole question, which alone has no spaces."""
    return " " not in phrase


def _index(questions: Sequence[str], length: int) -> _Index:
    index = _Index()
    for place, question in enumerate(questions):
        for phrase in split_phrases(question, length):
            if index.first.setdefault(phrase, place) != place and not _is_whole(phrase):
                index.repeated[phrase] = 0
    return index


def _meet(index: _Index, place: int, phrases: list[str]) -> None:
    shared = [phrase for phrase in phrases if phrase in index.first]
    if not shared:
        return
    index.met.update(shared)
    repeated = [phrase for phrase in shared if phrase in index.repeated]
    index.repeated.update(repeated)
    certain = next((phrase for phrase in shared if phrase not in index.repeated), None)
    index.hits[place] = repeated if certain is None else [certain]


def _judge(index: _Index, evaluation: EvaluationSet, length: int) -> SetOverlaps:
    common = {phrase for phrase, frequency in index.repeated.items() if frequency > COMMON}
    overlaps = {}
    for place, phrases in index.hits.items():
        phrase = next((phrase for phrase in phrases if phrase not in common), None)
        if phrase is not None:
            overlaps[place] = Overlap(evaluation.name, evaluation.rows[index.first[phrase]], phrase)
    met = index.met - common
    found = sum(not met.isdisjoint(split_phrases(question, length)) for question in evaluation.questions)
    return SetOverlaps(overlaps, found)
