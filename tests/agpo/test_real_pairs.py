"""Real ESCI rows all the way: prepare → label → distil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from agpo.artifacts import Store
from agpo.artifacts.table import read_table
from agpo.recipe import Recipe
from agpo.records import Labels, Pairs, Predictions
from agpo.settings import (
    DistilSettings,
    FolderBase,
    LabelSettings,
    NightlyRun,
    PairFields,
    RolloutSettings,
    TableProblems,
)
from agpo.settings.distil import AlignedEncoder, StudentTraining
from tests.agpo.relevance.voter import write_voter
from tests.jsonl import write_jsonl

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "esci"
SMALL = AlignedEncoder(
    width=16, layers=1, heads=2, feed_forward=32, training=StudentTraining(epochs=1, batch=64, rate=2e-3)
)


def read_judgments() -> list[dict[str, Any]]:
    """Judged pairs with ratings 100, 10, 1 and 0; there is no product text, so the ad is its number."""
    content = json.loads((DATA / "esci_us_judgments_half.json").read_text(encoding="utf-8"))
    return [
        {"query": entry["query"], "title": rating["docId"], "label": rating["rating"]}
        for entry in content["judgmentRatings"]
        for rating in entry["ratings"]
    ]


def read_sample() -> list[dict[str, Any]]:
    """The sixteen pairs with titles and brands, their labels as letters."""
    with fsspec.open(DATA / "esci_sample-products.jsonl.zstd", compression="zstd") as file:
        products = {row["fields"]["id"]: row["fields"] for row in map(json.loads, file)}
    return [
        {
            "query": row["query"],
            "title": products[row["product_id"]]["title"],
            "brand": products[row["product_id"]]["brand"],
            "label": row["esci_label"],
        }
        for row in pl.read_parquet(DATA / "esci_test-sample.parquet").iter_rows(named=True)
    ]


@pytest.mark.slow
def test_real_pairs_are_labelled_and_distilled(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("shared/data is not beside the checkout")
    judged = write_jsonl(tmp_path / "judged.jsonl", read_judgments())
    sample = write_jsonl(tmp_path / "sample.jsonl", read_sample())
    run = NightlyRun(
        family="esci",
        problems=TableProblems(
            path=str(judged),
            verifier="label",
            prompt="plain-v1",
            pair=PairFields(attributes=("brand",)),
            selection=60,
            confirmation=60,
        ),
        base=FolderBase(path=str(write_voter(tmp_path / "voter"))),
        rollout=RolloutSettings(tokens=2),
        label=LabelSettings(samples=5, shard=8, audit=4, path=str(sample)),
        distil=DistilSettings(encoders=(SMALL,)),
        device="cpu",
    )
    store, recipe = Store(tmp_path / "store"), Recipe(run)
    problems = recipe.prepare().run(store, {}).ref
    splits = read_table(store.fetch(problems), "pairs.parquet", Pairs).group_by("split").len().rows()
    assert {name: count for name, count in splits if name != "train"} == {"selection": 60, "confirmation": 60}
    base = recipe.warm_start(problems.key).run(store, {"problems": problems}).ref
    unlabelled = recipe.prepare_pairs()
    assert unlabelled is not None
    pairs = unlabelled.run(store, {}).ref
    labels = recipe.label(base.key, pairs.key, "unlabelled").run(store, {"policy": base, "pairs": pairs})
    rows = pl.concat(
        [
            read_table(store.fetch(labels.ref), file.name, Labels)
            for file in sorted(store.fetch(labels.ref).glob("l*.parquet"))
        ]
    )
    assert rows["gold"].to_list() == [row["label"] for row in read_sample()]
    assert rows["attributes"].str.starts_with("brand: ").sum() > 8
    assert set(rows["label"]) <= {"E", "S", "C", "I", None}
    assert (rows["votes"].list.sum() + rows["unread"] == 5).all()

    student = recipe.distil(problems.key, labels.ref.key, None)
    made = student.run(store, {"problems": problems, "labels": labels.ref})
    scores = json.loads((store.fetch(made.ref) / "scores.json").read_text())
    assert scores["labelled_pairs"] == rows["label"].is_not_null().sum()
    predictions = read_table(store.fetch(made.ref), "predictions.parquet", Predictions)
    assert predictions.filter(pl.col("model") == "student").height == 60
    decision = recipe.judge_student(made.ref.key, problems.key, None)
    judged = decision.run(store, {"student": made.ref, "problems": problems})
    assert (store.fetch(judged.ref) / "card.md").is_file()
