"""Which pairs a student learns from and is measured on, with which targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agpo.relevance import find_scheme
from agpo.student.examples import TEMPLATES, Examples, Rendering, read_judged, read_voted, split_queries
from tests.agpo.student.labelled_shop import LETTERS, SCHEME, write_labels


@pytest.fixture(scope="module")
def judged(problems: Path) -> dict[str, Examples]:
    return read_judged(problems, SCHEME)


def test_judged_pairs_have_their_gold_by_split(problems: Path, judged: dict[str, Examples]) -> None:
    assert {split: len(found) for split, found in judged.items()} == {"train": 60, "selection": 40, "confirmation": 50}
    golds = pl.read_parquet(problems / "pairs.parquet").filter(pl.col("split") == "train")["gold"]
    assert [f"esci4:{LETTERS[level]}" for level in judged["train"].levels] == golds.to_list()
    assert judged["train"].judged.all()
    np.testing.assert_array_equal(judged["train"].targets.sum(1), 1)


def test_gold_of_another_scheme_names_the_pair(problems: Path) -> None:
    first = pl.read_parquet(problems / "pairs.parquet").filter(pl.col("split") == "train")["id"][0]
    with pytest.raises(ValueError, match=f"{first} has gold 'esci4:.'; accepted: lref5: and one of E"):
        read_judged(problems, find_scheme("lref5"))


def test_votes_become_shares_over_all_shards(labels: Path, judged: dict[str, Examples]) -> None:
    voted = read_voted(labels, SCHEME, judged)
    assert len(voted) == 70
    assert not voted.judged.any()
    np.testing.assert_allclose(np.sort(voted.targets, axis=1), [[0, 0, 0.25, 0.75]] * 70)


def test_judged_and_unread_pairs_are_not_learnt_by_votes(
    problems: Path, judged: dict[str, Examples], tmp_path: Path
) -> None:
    """Whatever their ids say: row 0 has the texts of a judged pair, row 1 the query of a held-out one."""
    trained, held_out = judged["train"].pairs.row(0, named=True), judged["confirmation"].pairs.row(0, named=True)
    row = pl.int_range(pl.len())
    texts = {
        name: pl.when(row == 0).then(pl.lit(trained[name])).otherwise(name) for name in ("query", "title", "attributes")
    }
    folder = write_labels(
        tmp_path / "labels",
        problems,
        **texts,
        query_id=pl.when(row == 1).then(pl.lit(held_out["query_id"])).otherwise("query_id"),
        label=pl.when(row == 2).then(None).otherwise("label"),
        votes=pl.when(row == 2).then(pl.lit([0, 0, 0, 0])).otherwise("votes"),
    )
    voted = read_voted(folder, SCHEME, judged)
    assert len(voted) == 67
    assert held_out["query_id"] not in voted.pairs["query_id"].to_list()


def test_labels_of_another_scheme_are_refused(problems: Path, judged: dict[str, Examples], tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "labels", problems, scheme=pl.lit("lref5"))
    with pytest.raises(ValueError, match=r"label-pair-\w+ is of scheme lref5; accepted: esci4"):
        read_voted(folder, SCHEME, judged)


def test_a_folder_without_labels_is_refused(judged: dict[str, Examples], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no labels-\*\.parquet"):
        read_voted(tmp_path, SCHEME, judged)


def test_halves_share_no_query_and_lose_no_pair(judged: dict[str, Examples]) -> None:
    selection = judged["selection"]
    first, second = split_queries(selection)
    assert set(first.pairs["query_id"]).isdisjoint(second.pairs["query_id"])
    assert sorted([*first.pairs["id"], *second.pairs["id"]]) == sorted(selection.pairs["id"])
    assert abs(first.pairs["query_id"].n_unique() - second.pairs["query_id"].n_unique()) <= 1


def test_halves_do_not_depend_on_the_order_of_pairs(judged: dict[str, Examples]) -> None:
    selection = judged["selection"]
    turned = Examples(selection.pairs.reverse(), selection.targets[::-1], selection.judged[::-1])
    assert set(split_queries(turned)[0].pairs["id"]) == set(split_queries(selection)[0].pairs["id"])


@pytest.mark.parametrize("rendering", ["pair", "text"])
def test_texts_are_what_the_templates_say(rendering: Rendering, judged: dict[str, Examples]) -> None:
    examples = judged["train"]
    assert "" in examples.pairs["attributes"]
    assert examples.pairs["attributes"].n_unique() > 1
    expected = []
    for query, title, attributes in examples.pairs.select("query", "title", "attributes").iter_rows():
        lines = f"\n{attributes}" if attributes else ""
        parts = {"query": query, "title": title, "attributes": lines}
        expected.append(tuple(template.format(**parts) for template in TEMPLATES[rendering]))
    assert examples.render(rendering) == expected
