from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from agpo.relevance import Interval, Labelled, compare_macro_f1, find_scheme, score_labels

ESCI = find_scheme("esci4")
LETTERS = "ICSE"
judgements = st.lists(st.tuples(st.sampled_from(LETTERS), st.sampled_from([*LETTERS, None])), min_size=1, max_size=40)


def labelled(gold: str, labels: str, queries: list[str] | None = None) -> Labelled:
    """``-`` is no label; every pair is of a query of its own unless they are given."""
    found = [None if letter == "-" else letter for letter in labels]
    return Labelled(ESCI, list(gold), found, queries or [str(at) for at in range(len(gold))])


@given(judgements)
def test_as_scikit_learn_has_it(rows: list[tuple[str, str | None]]) -> None:
    gold, labels = [row[0] for row in rows], [row[1] for row in rows]
    scores = score_labels(Labelled(ESCI, gold, labels, ["q"] * len(rows)), resamples=2)
    read = [label or "none" for label in labels]
    assert scores.accuracy.value == pytest.approx(accuracy_score(gold, read))
    present = [letter for letter in LETTERS if letter in gold or letter in labels]
    assert scores.macro_f1.value == pytest.approx(f1_score(gold, read, labels=present, average="macro"))
    each = f1_score(gold, read, labels=list(LETTERS), average=None, zero_division=0)
    assert list(scores.f1.values()) == pytest.approx(each)
    assert list(scores.f1) == list(LETTERS)
    assert scores.pairs == len(rows)
    assert scores.unread == labels.count(None)


def test_the_direction_of_errors() -> None:
    scores = score_labels(labelled("SSSEIC", "SEC-CC"))
    assert scores.accuracy.value == pytest.approx(2 / 6)
    assert scores.over_graded == pytest.approx(2 / 4)  # E for S, C for I; a missing label is wrong, yet not above
    assert scores.unread == 1
    assert score_labels(labelled("SE", "SE")).over_graded is None


def test_by_case() -> None:
    scores = score_labels(labelled("SSEE", "SEEE"), ["near_miss", "near_miss", None, "clean"])
    assert scores.by_case == {"clean": 1.0, "near_miss": 0.5}
    assert score_labels(labelled("S", "S")).by_case == {}


def test_an_interval_made_by_hand() -> None:
    """Two queries, one all right, one all wrong: a resample has both right (1/4), one (1/2) or none (1/4)."""
    queries = ["a", "a", "b", "b"]
    scores = score_labels(labelled("SSEE", "SSSS", queries))
    assert scores.queries == 2
    assert (scores.accuracy.value, scores.accuracy.lower, scores.accuracy.upper) == (0.5, 0.0, 1.0)


def test_pairs_of_a_query_are_drawn_together() -> None:
    gold, labels = "SE" * 100, "SS" * 100
    alone = score_labels(labelled(gold, labels)).accuracy
    together = score_labels(labelled(gold, labels, [str(at % 2 + at // 100 * 2) for at in range(200)])).accuracy
    assert alone.value == together.value == 0.5
    assert together.upper - together.lower > 3 * (alone.upper - alone.lower)


def test_the_interval_covers_what_it_estimates() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        right = random.random(200) < 0.7
        labels = "".join("S" if hit else "E" for hit in right)
        found = score_labels(labelled("S" * 200, labels), resamples=400).accuracy
        hits += found.lower <= 0.7 <= found.upper
    assert hits >= 51  # 85 %; expected are 95 %


def test_a_paired_comparison() -> None:
    gold = "SSEEIICC" * 10
    same = compare_macro_f1(labelled(gold, gold), labelled(gold, gold))
    assert same == Interval(value=0, lower=0, upper=0)
    worse = labelled(gold, "".join("E" if at % 4 == 0 else letter for at, letter in enumerate(gold)))
    found = compare_macro_f1(worse, labelled(gold, gold))
    assert found.upper < 0
    own = score_labels(worse).macro_f1.value - 1
    assert found.value == pytest.approx(own)
    with pytest.raises(ValueError, match="label different pairs"):
        compare_macro_f1(labelled("SE", "SE"), labelled("ES", "SE"))


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(ValueError, match="no judged pair"):
        labelled("", "")
    with pytest.raises(ValueError, match="2 golds, 1 labels and 2 queries"):
        labelled("SE", "S")
