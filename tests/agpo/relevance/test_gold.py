from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.artifacts.table import read_table, write_table
from agpo.problems.shop import generate_shop
from agpo.records import Labels, Pairs
from agpo.relevance.gold import label_by_gold
from agpo.settings import Labelling, ShopProblems
from agpo.stages import Work

SHOP = ShopProblems(train=4, selection=4, confirmation=4, unlabelled=10, demonstrations=1)
SETTINGS = Labelling(
    split="unlabelled", scheme="esci4", samples=8, temperature=1, shard=4, audit=5, tokens=23, chat_template="none"
)


def open_work(folder: Path, pairs: pl.DataFrame) -> Work:
    for name in ("pairs", "out"):
        (folder / name).mkdir()
    write_table(folder / "pairs", "pairs.parquet", pairs, Pairs)
    inputs = {"pairs": folder / "pairs"}
    return Work(inputs=inputs, keys={}, out=folder / "out", partial=Files(folder / "partial"), seed=0, device="cpu")


def test_labels_are_the_gold(tmp_path: Path) -> None:
    pairs = generate_shop(SHOP, 0).pairs
    work = open_work(tmp_path, pairs)
    assert label_by_gold(SETTINGS, work)["rows"] == 10
    labels = pl.concat([read_table(work.out, f"labels-0000{index}.parquet", Labels) for index in range(3)])
    wanted = pairs.filter(pl.col("split") == "unlabelled")
    assert labels["pair_id"].equals(wanted["id"], check_names=False)
    assert [f"esci4:{letter}" for letter in labels["label"]] == wanted["gold"].to_list()
    assert set(labels["agreement"]) == {1.0}
    assert set(labels["teacher"]) == {"gold"}


def test_pairs_without_gold_are_left_out(tmp_path: Path) -> None:
    pairs = generate_shop(SHOP, 0).pairs
    known = pairs.with_columns(gold=pl.when(pl.int_range(pl.len()) % 2 == 0).then("gold"))
    made = label_by_gold(SETTINGS, open_work(tmp_path, known))
    assert made["rows"] == 5


def test_no_gold_is_an_error(tmp_path: Path) -> None:
    pairs = generate_shop(SHOP, 0).pairs.with_columns(gold=pl.lit(None, dtype=pl.String))
    with pytest.raises(ValueError, match="no pair of the unlabelled split has gold"):
        label_by_gold(SETTINGS, open_work(tmp_path, pairs))
