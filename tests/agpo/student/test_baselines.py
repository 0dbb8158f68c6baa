"""What each baseline can learn and what it cannot."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from agpo.student.baselines import predict_baselines
from agpo.student.examples import Examples

WORDS = ["mug", "lamp", "sofa", "rug", "phone", "case"]
PAIRS = [(wanted, offered) for wanted in WORDS for offered in WORDS]


def make_examples(levels: list[int], pairs: list[tuple[str, str]] = PAIRS) -> Examples:
    count = range(len(pairs))
    table = pl.DataFrame(
        {
            "id": [f"pair-{at}" for at in count],
            "query_id": [f"query-{at}" for at in count],
            "query": [query for query, _ in pairs],
            "title": [f"new {title}" for _, title in pairs],
            "attributes": "",
            "case": None,
        },
        strict=False,
    )
    return Examples(table, np.eye(3)[levels], np.ones(len(pairs), bool))


def accuracy(levels: list[int]) -> dict[str, float]:
    examples = make_examples(levels)
    found = predict_baselines(examples, examples)
    return {name: float((shares.argmax(1) == examples.levels).mean()) for name, shares in found.items()}


def test_every_baseline_gives_probabilities() -> None:
    train = make_examples([at % 2 for at in range(len(PAIRS))])
    found = predict_baselines(train, make_examples([0, 0], [("mug", "lamp"), ("never", "seen")]))
    assert list(found) == ["majority", "tfidf", "overlap", "crosses"]
    for shares in found.values():
        assert shares.shape == (2, 3)
        np.testing.assert_allclose(shares.sum(1), 1)


def test_words_alone_show_a_label_that_a_word_decides() -> None:
    found = accuracy([int(offered == "case") for _, offered in PAIRS])
    assert found["tfidf"] == 1
    assert found["majority"] == pytest.approx(5 / 6)


def test_only_shared_words_show_whether_both_name_the_same() -> None:
    levels = [int(wanted == offered) for wanted, offered in PAIRS]
    found = accuracy(levels)
    assert found["tfidf"] == pytest.approx(5 / 6)  # the majority
    assert found["overlap"] == found["crosses"] == 1


def test_only_crosses_show_which_words_go_together() -> None:
    found = accuracy([(WORDS.index(wanted) + WORDS.index(offered)) % 2 for wanted, offered in PAIRS])
    assert found["crosses"] == 1
    assert found["overlap"] < 0.8


def test_a_label_that_was_never_seen_has_no_probability() -> None:
    train = make_examples([2 * (at % 2) for at in range(len(PAIRS))])
    assert all((shares[:, 1] == 0).all() for shares in predict_baselines(train, train).values())


def test_one_label_alone_leaves_the_majority() -> None:
    train = make_examples([1] * len(PAIRS))
    assert list(predict_baselines(train, train)) == ["majority"]
