"""From a teacher's votes to labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agpo.relevance.scheme import Scheme

NO_VOTE = -1  # level of an answer without a readable label, or cut off before it ended


class Outcome(NamedTuple):
    """What the votes of some pairs say, an entry a pair."""

    level: NDArray[np.int64]  # of the label; NO_VOTE where no answer voted
    agreement: NDArray[np.float64]  # share of all answers, voting or not, that vote for the label
    expected_gain: NDArray[np.float64]  # mean gain of the votes; not a number where no answer voted


def count_votes(levels: NDArray[np.int64], scheme: Scheme) -> NDArray[np.int32]:
    """Votes for each label, [pairs, labels], of answers with a level or `NO_VOTE` each, [pairs, answers]."""
    every = np.arange(len(scheme.labels))
    counted: NDArray[np.int32] = np.equal(levels[..., None], every).sum(axis=1, dtype=np.int32)
    return counted


def decide_labels(votes: NDArray[np.int32], answers: int, scheme: Scheme) -> Outcome:
    """The label with most of a pair's votes, [pairs, labels]; of equal ones the less relevant.

    The rule for ties is our choice: teachers err towards too relevant.
    """
    cast = votes.sum(axis=1)
    level = np.where(cast > 0, votes.argmax(axis=1), NO_VOTE)
    gains = np.array([label.gain for label in scheme])
    expected = np.divide(votes @ gains, cast, out=np.full(len(votes), np.nan), where=cast > 0)
    return Outcome(level, votes.max(axis=1) / answers, expected)
