from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.artifacts.table import read_table
from agpo.problems.prepare_pairs import prepare_pairs
from agpo.problems.table import TooManyBadRows
from agpo.records import Pairs, Quarantine
from agpo.settings import PairFields, UnlabelledPairs
from agpo.stages import PREPARE_PAIRS, Work
from tests.jsonl import write_jsonl


def source(path: Path | str, **settings: Any) -> UnlabelledPairs:
    defaults = {"pair": PairFields(), "scheme": "esci4", "prompt": "relevance-esci4-v1", "largest_bad_share": 0.05}
    return UnlabelledPairs(path=str(path), **{**defaults, **settings})


def test_the_stage_names_this_function() -> None:
    assert PREPARE_PAIRS.load() is prepare_pairs


def test_pairs_and_their_gold_where_a_row_has_one(work: Work, tmp_path: Path) -> None:
    rows = [
        {"query": " red  mug ", "title": "Mug,\n12 oz", "product": {"brand": "Aroma", "color": None}},
        {"query": "Red mug", "title": "Mug", "label": "S", "product": {"brand": "Solano"}},
        {"query": "sofa", "title": "Sofa", "label": ""},
        {"query": "sofa", "title": "Bed", "label": None},
        {"query": "sofa", "title": "Mug", "label": 0},
    ]
    fields = PairFields(attributes=("product.brand", "product.color"))
    made = prepare_pairs(source(write_jsonl(tmp_path / "rows.jsonl", rows), pair=fields), work)
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    assert pairs.select("query", "title", "attributes", "gold").rows() == [
        ("red mug", "Mug, 12 oz", "brand: Aroma", None),
        ("Red mug", "Mug", "brand: Solano", "esci4:S"),
        ("sofa", "Sofa", "", None),
        ("sofa", "Bed", "", None),
        ("sofa", "Mug", "", "esci4:I"),
    ]
    assert set(pairs["split"]) == {"unlabelled"}
    assert pairs["query_id"][0] == pairs["query_id"][1]
    assert pairs["id"].str.starts_with("pair-").all()
    assert "Query: red mug\nAd: Mug, 12 oz\nbrand: Aroma\n" in pairs["prompt"][0]
    assert made == {
        "rows": 5,
        "metrics": {"pairs/read": 5, "pairs/kept": 5, "pairs/quarantined": 0, "pairs/judged": 2},
    }
    receipt = json.loads((work.out / "receipt.json").read_bytes())
    assert receipt["rows"] == {"read": 5, "kept": 5, "quarantined": 0, "judged": 2}
    assert receipt["digests"].keys() == {"rows.jsonl", "prompt relevance-esci4-v1"}
    assert {path.name for path in work.out.iterdir()} == {"pairs.parquet", "quarantine.parquet", "receipt.json"}


def test_no_pair_is_guessed(work: Work, tmp_path: Path) -> None:
    good = [{"n": f"row-{number}", "query": "mug", "title": f"Mug {number}"} for number in range(10)]
    bad: list[Any] = [
        {"n": "a", "query": " ", "title": "Mug"},
        {"n": "b", "query": "mug"},
        {"n": "c", "query": "mug", "title": "Mug", "label": "great"},
        {"n": "d", "query": "mug", "title": ["Mug"]},
        {"n": "", "query": "mug", "title": "Mug"},
        {"query": "mug", "title": "Mug"},
        {"n": "row-3", "query": "mug", "title": "Another"},
        {"n": "e", "query": "mug", "title": "Mug 4"},
        {"n": "row-3", "query": "mug", "title": "Mug 4"},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", good + bad)
    with path.open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    prepare_pairs(source(path, pair=PairFields(id="n"), largest_bad_share=0.5), work)
    assert read_table(work.out, "pairs.parquet", Pairs)["id"].to_list() == [row["n"] for row in good]
    quarantine = read_table(work.out, "quarantine.parquet", Quarantine).sort("row")
    assert quarantine.select("row", "reason").rows() == [
        (11, "empty query"),
        (12, "missing field"),
        (13, "unknown label"),
        (14, "wrong type"),
        (15, "empty id"),
        (16, "missing field"),
        (17, "duplicate id"),
        (18, "duplicate pair"),
        (19, "duplicate id"),
        (20, "invalid JSON"),
    ]
    assert quarantine["detail"][2].startswith("field label is 'great'; accepted: E (exact, 3)")
    assert [json.loads(line) for line in quarantine["content"][:9]] == bad
    receipt = json.loads((work.out / "receipt.json").read_bytes())
    assert receipt["quarantined"]["missing field"] == 2


def test_repeats_across_files_and_batches(work: Work, tmp_path: Path) -> None:
    rows = [{"query": f"mug {number}", "title": "Mug"} for number in range(9000)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    pl.DataFrame(rows[:3]).write_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"query,title\nmug 8999,Mug\nsofa,Sofa\n"))
    made = prepare_pairs(source(f"{tmp_path}/*.[jpc]*"), work)
    assert made["metrics"]["pairs/read"] == 9005
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    assert pairs["query"].to_list() == [*(row["query"] for row in rows), "sofa"]
    quarantine = read_table(work.out, "quarantine.parquet", Quarantine)
    assert quarantine.select("source", "row", "reason").rows() == [
        ("b.parquet", 1, "duplicate id"),
        ("b.parquet", 2, "duplicate id"),
        ("b.parquet", 3, "duplicate id"),
        ("c.csv.gz", 2, "duplicate id"),
    ]


def test_the_same_source_gives_the_same_bytes(work: Work, tmp_path: Path) -> None:
    rows = [{"query": f"mug {number % 50}", "title": f"Mug {number % 8500}"} for number in range(9000)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    again = replace(work, out=tmp_path / "again")
    again.out.mkdir()
    for each in (work, again):
        prepare_pairs(source(path, largest_bad_share=1), each)
    for name in ("pairs.parquet", "quarantine.parquet", "receipt.json"):
        assert (work.out / name).read_bytes() == (again.out / name).read_bytes()


def test_too_many_bad_rows_stop_the_run(work: Work, tmp_path: Path) -> None:
    rows = [{"query": "mug", "title": f"Mug {number}" if number else ""} for number in range(10)]
    settings = source(write_jsonl(tmp_path / "rows.jsonl", rows))
    with pytest.raises(TooManyBadRows) as caught:
        prepare_pairs(settings, work)
    assert str(caught.value).startswith("1 of 10 rows are bad (1 empty title), accepted: at least one good row and ")
    assert "first: rows.jsonl row 1: field title is blank" in str(caught.value)
    assert read_table(work.partial, "quarantine.parquet", Quarantine)["row"].to_list() == [1]
    prepare_pairs(settings.model_copy(update={"largest_bad_share": 0.1}), work)


def test_errors_name_the_setting(work: Work, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^label\.path = .*missing\.csv': no file is there"):
        prepare_pairs(source(tmp_path / "missing.csv"), work)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"^label\.path: cannot read broken\.parquet"):
        prepare_pairs(source(tmp_path / "broken.parquet"), work)
    Files(tmp_path).write("empty.jsonl", b"")
    with pytest.raises(TooManyBadRows, match="the source is empty"):
        prepare_pairs(source(tmp_path / "empty.jsonl"), work)


def test_the_esci_sample(work: Work, tmp_path: Path, shared_data: Path) -> None:
    examples = pl.read_parquet(shared_data / "esci/esci_test-sample.parquet")
    with fsspec.open(shared_data / "esci/esci_sample-products.jsonl.zstd", compression="zstd") as file:
        products = {row["fields"]["id"]: row["fields"] for row in map(json.loads, file)}
    rows = [{**row, "product": products[row["product_id"]]} for row in examples.iter_rows(named=True)]
    fields = PairFields(title="product.title", attributes=("product.brand",), label="esci_label", id="example_id")
    made = prepare_pairs(source(write_jsonl(tmp_path / "esci.jsonl", rows), pair=fields), work)
    assert made["metrics"] == {"pairs/read": 16, "pairs/kept": 16, "pairs/quarantined": 0, "pairs/judged": 16}
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    assert pairs["gold"].to_list() == [f"esci4:{letter}" for letter in examples["esci_label"]]
