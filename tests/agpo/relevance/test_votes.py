from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.relevance import find_scheme, scheme_names
from agpo.relevance.votes import NO_VOTE, count_votes, decide_labels

ESCI = find_scheme("esci4")
LETTERS = "ICSE"


def decide(*answers: str) -> tuple[str | None, float, float | None]:
    """Label, agreement and expected gain of one pair's answers; any other sign than a letter is no vote."""
    levels = np.array([[LETTERS.find(answer) for answer in answers]])
    level, agreement, gain = (column.item() for column in decide_labels(count_votes(levels, ESCI), len(answers), ESCI))
    return None if level == NO_VOTE else LETTERS[level], agreement, None if np.isnan(gain) else gain


@pytest.mark.parametrize(
    ("answers", "label", "agreement", "gain"),
    [
        ("EEEE", "E", 1.0, 1.0),
        ("EEES", "E", 0.75, 0.775),
        ("ESSE", "S", 0.5, 0.55),  # a tie: the less relevant
        ("ICSE", "I", 0.25, 0.2775),
        ("EECC", "C", 0.5, 0.505),
        ("E---", "E", 0.25, 1.0),  # agreement counts the answers that do not vote
        ("SS--", "S", 0.5, 0.1),
        ("----", None, 0.0, None),
    ],
)
def test_votes_of_a_pair(answers: str, label: str | None, agreement: float, gain: float | None) -> None:
    assert decide(*answers) == (label, agreement, pytest.approx(gain) if gain else gain)


@given(st.sampled_from(scheme_names()).map(find_scheme), st.integers(1, 9), st.data())
def test_any_votes(scheme: object, answers: int, data: st.DataObject) -> None:
    scheme = find_scheme(scheme.name)  # type: ignore[attr-defined]
    level = st.integers(NO_VOTE, len(scheme.labels) - 1)
    rows = data.draw(st.lists(st.lists(level, min_size=answers, max_size=answers), min_size=1, max_size=5))
    votes = count_votes(np.array(rows), scheme)
    outcome = decide_labels(votes, answers, scheme)
    assert votes.dtype == np.int32
    for at, row in enumerate(rows):
        counts = Counter(level for level in row if level != NO_VOTE)
        assert votes[at].tolist() == [counts[level] for level in range(len(scheme.labels))]
        if not counts:
            assert outcome.level[at] == NO_VOTE
            assert outcome.agreement[at] == 0
            assert np.isnan(outcome.expected_gain[at])
            continue
        most = max(counts.values())
        assert outcome.level[at] == min(level for level, count in counts.items() if count == most)
        assert outcome.agreement[at] == most / answers
        gain = sum(scheme.labels[level].gain * count for level, count in counts.items()) / counts.total()
        assert outcome.expected_gain[at] == pytest.approx(gain)


@given(st.permutations(list("EESSCI--")))
def test_the_order_of_answers_does_not_matter(answers: list[str]) -> None:
    assert decide(*answers) == decide(*"EESSCI--")
