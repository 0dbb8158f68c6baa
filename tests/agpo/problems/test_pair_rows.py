from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from agpo.artifacts.table import read_table
from agpo.problems.prepare import prepare
from agpo.records import Demonstrations, Pairs, Problems, Quarantine
from agpo.relevance import read_gold, scheme_names
from agpo.settings import PairFields, ProblemSource, TableProblems
from agpo.stages import Work
from agpo.verify.label import verify_label
from tests.jsonl import write_jsonl


def source(path: Path, **settings: Any) -> TableProblems:
    defaults = {"verifier": "label", "prompt": "relevance-esci4-v1", "selection": 0, "confirmation": 0}
    return TableProblems(path=str(path), **{**defaults, **settings})


def test_pairs_become_problems_with_their_parts_kept(work: Work, tmp_path: Path) -> None:
    rows = [
        {"query": "red mug", "title": " Mug,\n12 oz ", "label": "S", "product": {"brand": "Aroma", "color": None}},
        {"query": "red mug", "title": "Mug, red", "label": "exact", "product": {"brand": "Solano"}},
        {"query": "sofa", "title": "Sofa bed", "label": 2, "product": {"color": "red"}},
        {"query": "sofa", "title": "Mug", "label": 0.0},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    prepare(source(path, pair=PairFields(attributes=("product.brand", "product.color"))), work)
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    assert pairs.select("query", "title", "attributes", "gold").rows() == [
        ("red mug", "Mug, 12 oz", "brand: Aroma", "esci4:S"),
        ("red mug", "Mug, red", "brand: Solano", "esci4:E"),
        ("sofa", "Sofa bed", "color: red", "esci4:S"),
        ("sofa", "Mug", "", "esci4:I"),
    ]
    assert pairs["case"].is_null().all()
    problems = read_table(work.out, "problems.parquet", Problems)
    assert problems["id"].to_list() == pairs["id"].to_list()
    assert problems["prompt"].to_list() == pairs["prompt"].to_list()
    prompt = problems["prompt"][0]
    assert "Query: red mug\nAd: Mug, 12 oz\nbrand: Aroma\n" in prompt
    assert 'End with one line "Label: X", where X is E, S, C or I.' in prompt
    shown = read_table(work.out, "demonstrations.parquet", Demonstrations)
    assert shown["response"].to_list() == ["Label: S", "Label: E", "Label: S", "Label: I"]


def test_demonstrations_satisfy_the_verifier(work: Work, tmp_path: Path) -> None:
    rows = [{"query": "mug", "title": f"Mug {label}", "label": label} for label in "ESCI"]
    prepare(source(write_jsonl(tmp_path / "rows.jsonl", rows)), work)
    shown = read_table(work.out, "demonstrations.parquet", Demonstrations)
    problems = read_table(work.out, "problems.parquet", Problems)
    golds = zip(shown["response"], problems["gold"], strict=True)
    assert all(verify_label(response, gold).correct for response, gold in golds)


def test_no_pair_is_guessed(work: Work, tmp_path: Path) -> None:
    good = [{"query": "mug", "title": f"Mug {number}", "label": "E"} for number in range(10)]
    bad: list[Any] = [
        {"query": " ", "title": "Mug", "label": "E"},
        {"query": "mug", "title": "", "label": "E"},
        {"title": "Mug", "label": "E"},
        {"query": "mug", "title": None, "label": "E"},
        {"query": "mug", "title": "Mug", "label": "great"},
        {"query": "mug", "title": "Mug", "label": ""},
        {"query": "mug", "title": ["Mug"], "label": "E"},
        {"query": "mug", "title": "Mug 1", "label": "S"},
        ["mug", "Mug", "E"],
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", good + bad)
    prepare(source(path, largest_bad_share=0.5), work)
    quarantine = read_table(work.out, "quarantine.parquet", Quarantine).sort("row")
    assert quarantine.select("row", "reason").rows() == [
        (11, "empty query"),
        (12, "empty title"),
        (13, "missing field"),
        (14, "missing field"),
        (15, "unknown label"),
        (16, "empty label"),
        (17, "wrong type"),
        (18, "duplicate id"),
        (19, "missing field"),
    ]
    details = dict(quarantine.select("row", "detail").iter_rows())
    assert details[15] == (
        "field label is 'great'; accepted: E (exact, 3), S (substitute, 2), C (complement, 1), I (irrelevant, 0)"
    )
    assert details[12] == "field title is blank"
    contents = dict(quarantine.select("row", "content").iter_rows())
    assert json.loads(contents[15]) == bad[4]


def test_all_pairs_of_a_query_are_in_one_split(work: Work, tmp_path: Path) -> None:
    rows = [
        {"q": f"query {number % 100}", "t": f"ad {number}", "l": "ESCI"[number % 4], "n": f"row-{number}"}
        for number in range(600)
    ]
    fields = PairFields(query="q", title="t", label="l", id="n")
    prepare(source(write_jsonl(tmp_path / "rows.jsonl", rows), pair=fields, selection=15, confirmation=15), work)
    problems = read_table(work.out, "problems.parquet", Problems)
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    assert pairs.group_by("query_id").agg(pl.col("split").n_unique())["split"].max() == 1
    sizes = dict(problems["split"].cast(pl.String).value_counts().iter_rows())
    assert (sizes["selection"], sizes["confirmation"]) == (15, 15)
    assert sizes["train"] > 350
    assert problems["id"].str.starts_with("row-").all()
    sets = {(split, name) for split, name in problems.select("split", "set").iter_rows()}
    assert sets == {("train", "train"), ("selection", "held_out"), ("confirmation", "held_out")}


def test_the_esci_sample(work: Work, tmp_path: Path, shared_data: Path) -> None:
    examples = pl.read_parquet(shared_data / "esci/esci_test-sample.parquet")
    with fsspec.open(shared_data / "esci/esci_sample-products.jsonl.zstd", compression="zstd") as file:
        products = {row["fields"]["id"]: row["fields"] for row in map(json.loads, file)}
    rows = [{**row, "product": products[row["product_id"]]} for row in examples.iter_rows(named=True)]
    fields = PairFields(
        title="product.title", attributes=("product.brand", "product.color"), label="esci_label", id="example_id"
    )
    path = write_jsonl(tmp_path / "esci.jsonl", rows)
    made = prepare(source(path, pair=fields), work)
    assert made["metrics"]["problems/kept"] == 16
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    assert pairs["title"].to_list() == [" ".join(row["product"]["title"].split()) for row in rows]
    assert pairs["attributes"].str.starts_with("brand: ").any()
    letters = dict(zip(examples["example_id"].cast(pl.String), examples["esci_label"], strict=True))
    assert {row["id"]: row["gold"] for row in pairs.iter_rows(named=True)} == {
        name: f"esci4:{letter}" for name, letter in letters.items()
    }


def test_integer_ratings_are_read(work: Work, tmp_path: Path, shared_data: Path) -> None:
    judged = json.loads((shared_data / "esci/esci_us_judgments_half.json").read_text(encoding="utf-8"))
    rows = [
        {"query": query["query"], "title": rating["docId"], "label": rating["rating"]}
        for query in judged["judgmentRatings"]
        for rating in query["ratings"]
    ]
    made = prepare(source(write_jsonl(tmp_path / "rows.jsonl", rows)), work)
    assert made["metrics"]["problems/read"] == len(rows) == 3054
    reasons = set(read_table(work.out, "quarantine.parquet", Quarantine)["reason"])
    assert reasons <= {"duplicate id"}
    golds = read_table(work.out, "problems.parquet", Problems)["gold"]
    assert set(golds) == {"esci4:E", "esci4:S", "esci4:C", "esci4:I"}


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_has_a_prompt_that_names_its_labels(name: str, work: Work, tmp_path: Path) -> None:
    letter = {"binary": "R", "ads3": "P", "esci4": "C", "lref5": "M"}[name]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"query": "mug", "title": "Mug", "label": letter}])
    prepare(source(path, scheme=name, prompt=f"relevance-{name}-v1"), work)
    row = read_table(work.out, "problems.parquet", Problems).row(0, named=True)
    found = read_gold(row["gold"])
    assert found is not None
    scheme, label = found
    assert (scheme.name, label.letter) == (name, letter)
    assert all(f"{each.letter} ({each.name}):" in row["prompt"] for each in scheme)


def test_the_prompt_must_fit_the_scheme() -> None:
    adapter: TypeAdapter[ProblemSource] = TypeAdapter(ProblemSource)
    wrong = {"source": "table", "path": "rows.csv", "verifier": "label"}
    with pytest.raises(ValidationError, match=r"prompt math-boxed-v1 .* accepted: relevance-esci4-v1, plain-v1"):
        adapter.validate_python(wrong)
    with pytest.raises(ValidationError, match=r"scheme lref5; accepted: relevance-lref5-v1"):
        adapter.validate_python({**wrong, "scheme": "lref5", "prompt": "relevance-esci4-v1"})
    with pytest.raises(ValidationError, match="'esci' is not a label scheme; accepted: binary, ads3, esci4, lref5"):
        adapter.validate_python({**wrong, "scheme": "esci", "prompt": "plain-v1"})
