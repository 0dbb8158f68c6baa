"""Metrics, audit queue and quality of labels made by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest

from agpo.artifacts.table import write_table
from agpo.problems.pair import Pair
from agpo.records import Labels, Pairs
from agpo.relevance import LabelScores, find_scheme
from agpo.relevance.answers import Answers, make_labels
from agpo.relevance.summary import summarise_labels

ESCI = find_scheme("esci4")
# Votes, gold and case of each pair; a dash does not vote.
BY_HAND = [
    ("EEEE", "E", "clean"),
    ("EEES", "S", "near_miss"),
    ("SSEE", "S", "near_miss"),
    ("S---", "S", None),
    ("----", "I", None),
    ("CCCI", None, None),
]


def write_labels(folder: Path, rows: list[tuple[str, str | None, str | None]], shard: int = 4) -> pl.DataFrame:
    pairs = []
    for number, (_, gold, case) in enumerate(rows):
        pair = Pair(f"mug {number}", f"Mug {number}")
        known = gold and f"esci4:{gold}"
        pairs.append((pair.id, pair.query_id, *pair, pair.render(), known, "unlabelled", case))
    table = pl.DataFrame(pairs, schema=Pairs.create_empty().schema, orient="row")
    tokens = ([5], [7, 8], [-0.1, -0.2])
    answers = [
        (f"-2/{pair}/{sample}", pair, sample, *tokens, vote == "-", "teacher", 0, vote.strip("-") or None)
        for pair, (votes, _, _) in zip(table["id"], rows, strict=True)
        for sample, vote in enumerate(votes)
    ]
    frame = pl.DataFrame(answers, schema=Answers.create_empty().schema, orient="row")
    samples = len(rows[0][0])
    for index, start in enumerate(range(0, len(rows), shard)):
        part = table.slice(start, shard)
        own = frame.slice(start * samples, len(part) * samples)
        name = f"rollouts-{index:05d}.parquet"
        write_table(folder, name, own, Answers)
        labels = make_labels(part, own, {pair: [5] for pair in part["id"]}, ESCI, 1.0, name)
        write_table(folder, f"labels-{index:05d}.parquet", labels, Labels)
    return table


def test_metrics(tmp_path: Path) -> None:
    write_labels(tmp_path, BY_HAND)
    assert summarise_labels(tmp_path, ESCI, audit=3) == pytest.approx(
        {
            "label/pairs": 6,
            "label/agreement": (1 + 0.75 + 0.5 + 0.25 + 0 + 0.75) / 6,
            "label/unanimous_share": 1 / 6,
            "label/parse_failure_share": 7 / 24,
            "label/unlabelled": 1,
            "label/I_share": 0,
            "label/C_share": 1 / 6,
            "label/S_share": 2 / 6,  # a tie goes to the less relevant
            "label/E_share": 2 / 6,
            "label/tokens": 48,
            "label/accuracy": 3 / 5,
            "label/macro_f1": (2 / 3 + 4 / 5 + 0) / 3,
            "label/over_graded_share": 1 / 2,
            "label/p_at_1": (1 + 0.25 + 0.5 + 0.25 + 0) / 5,
            "label/p_at_1_clean": 1,
            "label/p_at_1_near_miss": (0.25 + 0.5) / 2,
        }
    )
    scores = LabelScores.model_validate_json((tmp_path / "quality.json").read_bytes())
    assert (scores.pairs, scores.unread) == (5, 1)
    assert scores.by_case == {"clean": 1.0, "near_miss": 0.5}


def test_the_audit_queue(tmp_path: Path) -> None:
    pairs = write_labels(tmp_path, BY_HAND)
    summarise_labels(tmp_path, ESCI, audit=3)
    with (tmp_path / "audit.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["pair_id"] for row in rows] == [pairs["id"][at] for at in (4, 3, 2)]
    assert [(row["votes"], row["label"], row["agreement"]) for row in rows] == [
        ("", "", "0.0"),
        ("S 1", "S", "0.25"),
        ("E 2, S 2", "S", "0.5"),
    ]
    assert list(rows[0])[-1] == "decision"


def test_equal_agreement_is_in_the_order_of_ids_and_the_queue_may_be_longer_than_the_table(tmp_path: Path) -> None:
    write_labels(tmp_path, [("EEEE", None, None)] * 6)
    metrics = summarise_labels(tmp_path, ESCI, audit=100)
    assert "label/accuracy" not in metrics
    ids = pl.read_csv(tmp_path / "audit.csv")["label_id"].to_list()
    assert ids == sorted(ids)
    assert len(ids) == 6


def test_an_empty_queue(tmp_path: Path) -> None:
    write_labels(tmp_path, BY_HAND)
    summarise_labels(tmp_path, ESCI, audit=0)
    assert (tmp_path / "audit.csv").read_text().count("\n") == 1


def test_all_right_labels_have_no_direction(tmp_path: Path) -> None:
    write_labels(tmp_path, [("EEEE", "E", None), ("SSSS", "S", None)])
    metrics = summarise_labels(tmp_path, ESCI, audit=1)
    assert metrics["label/accuracy"] == 1
    assert "label/over_graded_share" not in metrics


def test_the_same_rows_give_the_same_files_whatever_the_shards(tmp_path: Path) -> None:
    for name, shard in (("a", 1), ("b", 4)):
        (tmp_path / name).mkdir()
        write_labels(tmp_path / name, BY_HAND, shard)
        summarise_labels(tmp_path / name, ESCI, audit=3)
    for file in ("audit.csv", "quality.json", "agreement.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
