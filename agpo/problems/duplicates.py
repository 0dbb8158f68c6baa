"""Texts that nearly repeat an earlier one, by the Jaccard similarity of their runs of five tokens.

Candidates come from MinHash (datasketch), the decision from the exact similarity. A source may be written from a
template, whose rows share most of their text and are different problems all the same; so runs of tokens that many
texts have (our choice: more than 10 and more than 1 %) are left aside, and two texts must be similar both with and
without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

TOKENS = 5  # in a run, as in arXiv 2107.06499
PERMUTATIONS = 128
FEW, SHARE = 10, 0.01  # runs of more texts than both are a template's

_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")  # signs count: 3 + 4 is not 3 - 4


class NearDuplicate(NamedTuple):
    of: int  # place of the text that is repeated
    similarity: float


def find_near_duplicates(texts: Sequence[str], kept: int, threshold: float) -> dict[int, NearDuplicate]:
    """The texts, by place, whose similarity to an earlier one that stays is at least ``threshold``.

    The first ``kept`` texts stay whatever they are; of the others, the first of similar ones stays. A pair at the
    threshold itself is found with the probability of MinHash, a nearly equal pair almost surely.
    Raises ImportError without datasketch.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise ImportError(
            f"problems.near_duplicates = {threshold} needs the package datasketch: pip install 'agpo[pipeline]'; "
            "0 does without"
        ) from error
    runs = [_number_runs(text) for text in texts]
    template = _template_runs(runs[kept:])
    seen = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    sketches = MinHash.generator(_specific(runs, template), num_perm=PERMUTATIONS, hashfunc=int)
    found: dict[int, NearDuplicate] = {}
    for place, sketch in enumerate(sketches):
        if place >= kept:
            candidates = sorted(seen.query(sketch))
            most_similar = _most_similar(texts, place, candidates, template)
            if most_similar is not None and most_similar.similarity >= threshold:
                found[place] = most_similar
                continue
        seen.insert(place, sketch)
    return found


def _split_runs(text: str) -> set[str]:
    """All runs of tokens; a shorter text is one run."""
    tokens = _TOKEN.findall(text.casefold())
    return {" ".join(tokens[start : start + TOKENS]) for start in range(max(1, len(tokens) - TOKENS + 1))}


def _number_runs(text: str) -> NDArray[np.uint32]:
    return np.fromiter((crc32(run.encode()) for run in _split_runs(text)), np.uint32)


def _template_runs(runs: Sequence[NDArray[np.uint32]]) -> frozenset[int]:
    numbers, counts = np.unique(np.concatenate(runs), return_counts=True) if runs else (np.empty(0), np.empty(0))
    return frozenset(numbers[counts > max(FEW, SHARE * len(runs))].tolist())


def _specific(runs: Sequence[NDArray[np.uint32]], template: frozenset[int]) -> Iterator[list[int]]:
    for numbers in runs:
        every = numbers.tolist()
        yield [number for number in every if number not in template] or every


def _most_similar(
    texts: Sequence[str], place: int, candidates: Sequence[int], template: frozenset[int]
) -> NearDuplicate | None:
    if not candidates:
        return None
    ours = _split_runs(texts[place])
    pairs = [(_similarity(ours, _split_runs(texts[candidate]), template), -candidate) for candidate in candidates]
    similarity, negated = max(pairs)
    return NearDuplicate(-negated, similarity)


def _similarity(ours: set[str], theirs: set[str], template: frozenset[int]) -> float:
    """Jaccard similarity of two texts' runs: the smaller of that of all and that of those outside the template."""

    def outside(runs: set[str]) -> set[str]:
        return {run for run in runs if crc32(run.encode()) not in template} or runs

    return min(_jaccard(ours, theirs), _jaccard(outside(ours), outside(theirs)))


def _jaccard(ours: set[str], theirs: set[str]) -> float:
    return len(ours & theirs) / len(ours | theirs)
