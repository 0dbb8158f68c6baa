from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from agpo.artifacts.table import read_table
from agpo.problems import source_digests
from agpo.problems.pair import Pair
from agpo.problems.prepare import prepare
from agpo.records import Demonstrations, Pairs, Problems, Quarantine
from agpo.settings import ShopProblems, TableProblems
from agpo.stages import Work
from tests.jsonl import write_jsonl

AUDIT = ("label_id", "pair_id", "query", "title", "attributes", "votes", "label", "agreement", "decision")
SHOP = ShopProblems(train=20, selection=8, confirmation=8, unlabelled=12, demonstrations=5)


def audit_row(pair: dict[str, Any] | Pair, decision: str, **other: str) -> dict[str, str]:
    known = pair._asdict() if isinstance(pair, Pair) else {**pair, "pair_id": pair["id"]}
    row = dict.fromkeys(AUDIT, "") | {name: known[name] for name in AUDIT if name in known}
    return {**row, "decision": decision, **other}


def write_audit(path: Path, rows: list[dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, AUDIT)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def write_source(folder: Path) -> TableProblems:
    """300 pairs of 100 queries with own ids, all exact."""
    rows = [
        {"n": f"row-{n}", "query": f"mug {n % 100}", "title": f"Mug {n}", "brand": "Acme", "label": "E"}
        for n in range(300)
    ]
    path = write_jsonl(folder / "rows.jsonl", rows)
    return TableProblems(
        path=str(path),
        verifier="label",
        prompt="relevance-esci4-v1",
        selection=6,
        confirmation=6,
        pair={"id": "n", "attributes": ("brand",)},
    )


def prepare_again(settings: Any, work: Work) -> tuple[dict[str, float], pl.DataFrame]:
    """Metrics and pairs of another preparation."""
    again = replace(work, out=work.out.with_name("again"))
    again.out.mkdir()
    made = prepare(settings, again)
    return made["metrics"], read_table(again.out, "pairs.parquet", Pairs)


def test_decisions_about_rows_of_a_table(work: Work, tmp_path: Path) -> None:
    settings = write_source(tmp_path)
    before = prepare(settings, work)["metrics"]
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    train = pairs.filter(pl.col("split") == "train").rows(named=True)
    held_out = pairs.filter(pl.col("split") == "confirmation").row(0, named=True)
    new = Pair("sofa", "Sofa bed", "brand: Acme")
    rows = [
        audit_row(train[0], "S"),
        audit_row(train[1], " complement "),
        audit_row(train[2], ""),
        audit_row(new, "1"),
        audit_row(held_out, "S"),
        audit_row(Pair(held_out["query"].upper(), "A title not seen before"), "S"),
        audit_row(train[3], "great"),
        audit_row(train[4], "S", query=" "),
        audit_row(train[5], "S", title=""),
        audit_row(train[0], "E"),
        audit_row(train[6], "S", title="Another title"),
        audit_row(train[7], "S", pair_id="of-another-table"),
    ]
    decided = settings.model_copy(update={"decisions": write_audit(tmp_path / "audit.csv", rows)})
    metrics, after = prepare_again(decided, work)
    out = work.out.with_name("again")

    changed = {train[0]["id"]: "esci4:S", train[1]["id"]: "esci4:C", train[7]["id"]: "esci4:S"}
    wanted = pairs.with_columns(gold=pl.col("id").replace_strict(changed, default=pl.col("gold")))
    assert after.head(len(pairs)).equals(wanted)
    assert after.tail(1).select("id", "query_id", *Pair._fields, "gold", "split", "case").row(0) == (
        new.id,
        new.query_id,
        *new,
        "esci4:C",
        "train",
        None,
    )
    problems = read_table(out, "problems.parquet", Problems)
    posed = after.select("id", "prompt", "gold", pl.col("split").cast(problems["split"].dtype))
    assert problems.select(posed.columns).equals(posed)
    shown = dict(read_table(out, "demonstrations.parquet", Demonstrations).select("id", "response").iter_rows())
    assert (shown[train[0]["id"]], shown[train[2]["id"]], shown[new.id]) == ("Label: S", "Label: E", "Label: C")
    quarantine = read_table(out, "quarantine.parquet", Quarantine).filter(pl.col("source") == "audit.csv").sort("row")
    assert quarantine["reason"].to_list() == [
        "held out",
        "held out",
        "unknown label",
        "empty query",
        "empty title",
        "duplicate decision",
        "other pair",
    ]
    assert quarantine["detail"][0] == (
        f"pair {held_out['id']} is evaluated on, whose gold does not change; accepted: other queries"
    )
    assert quarantine["detail"][2].startswith("field decision is 'great'; accepted: E (exact, 3)")
    counts = {"read": 12, "empty": 1, "changed": 3, "moved": 0, "added": 1, "quarantined": 7}
    assert metrics == {
        **before,
        "problems/train_train": before["problems/train_train"] + 1,
        "problems/demonstrations": before["problems/demonstrations"] + 1,
        **{f"problems/decisions_{name}": count for name, count in counts.items()},
    }
    assert json.loads((out / "receipt.json").read_bytes())["decisions"] == counts


def test_no_decided_pair_of_an_evaluation_set_is_trained_on(work: Work, tmp_path: Path) -> None:
    evaluated = write_jsonl(tmp_path / "test.jsonl", ({"query": query} for query in ("mug 3", "Sofa")))
    settings = write_source(tmp_path).model_copy(update={"evaluation_sets": (str(evaluated),)})
    prepare(settings, work)
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    held_out = pairs.filter(pl.col("split") == "selection").row(0, named=True)
    rows = [
        audit_row(Pair("mug 3", "Mug 3", "brand: Acme"), "S"),  # a row of the source, which left training too
        audit_row(Pair("sofa.", "Sofa bed"), "E"),
        audit_row(Pair(f"{held_out['query']} ?", "Mug"), "E"),  # for `Pair.query_id` another query
        audit_row(Pair("sofa bed", "Sofa bed"), "E"),
    ]
    decided = settings.model_copy(update={"decisions": write_audit(tmp_path / "audit.csv", rows)})
    metrics, after = prepare_again(decided, work)
    assert after.tail(1)["query"].item() == "sofa bed"
    assert len(after) == len(pairs) + 1
    quarantine = read_table(work.out.with_name("again"), "quarantine.parquet", Quarantine)
    refused = quarantine.filter(pl.col("source") == "audit.csv").sort("row")
    name = "evaluation set 1: test.jsonl#query"
    assert refused.select("reason", "detail").rows() == [
        ("contaminated", f"{name}, row 1: mug3"),
        ("contaminated", f"{name}, row 2: sofa"),
        ("contaminated", f"held out, selection {held_out['id']}: {held_out['query'].replace(' ', '')}"),
    ]
    assert (metrics["problems/decisions_added"], metrics["problems/decisions_quarantined"]) == (1, 3)
    receipt = json.loads((work.out.with_name("again") / "receipt.json").read_bytes())
    assert receipt["quarantined"]["contaminated"] == receipt["separation"]["contaminated"] + 3


def test_decisions_about_pairs_of_the_shop(work: Work, tmp_path: Path) -> None:
    prepare(SHOP, work)
    pairs = read_table(work.out, "pairs.parquet", Pairs)
    unlabelled = pairs.filter(pl.col("split") == "unlabelled").rows(named=True)
    train = pairs.filter(pl.col("split") == "train").row(0, named=True)
    evaluated = pairs.filter(pl.col("split") == "selection").row(0, named=True)
    new = Pair("red mug", "steel mug")
    rows = [
        audit_row(unlabelled[0], "C"),
        audit_row(unlabelled[1], ""),
        audit_row(train, "I"),
        audit_row(evaluated, "I"),
        audit_row(new, "E"),
    ]
    metrics, after = prepare_again(
        SHOP.model_copy(update={"decisions": write_audit(tmp_path / "audit.csv", rows)}), work
    )
    golds = {name: (gold, split) for name, gold, split in after.select("id", "gold", "split").iter_rows()}
    assert golds[unlabelled[0]["id"]] == ("esci4:C", "train")
    assert golds[unlabelled[1]["id"]] == (unlabelled[1]["gold"], "unlabelled")
    assert golds[train["id"]] == ("esci4:I", "train")
    assert golds[evaluated["id"]] == (evaluated["gold"], "selection")
    assert golds[new.id] == ("esci4:E", "train")
    problems = read_table(work.out.with_name("again"), "problems.parquet", Problems)
    assert problems.filter(pl.col("split") == "train").height == 22
    assert problems.filter(pl.col("id") == new.id)["prompt"].item() == new.render()
    assert metrics["problems/unused"] == 0
    assert (metrics["problems/decisions_moved"], metrics["problems/decisions_quarantined"]) == (1, 1)


def test_several_files_and_a_null(work: Work, tmp_path: Path) -> None:
    pl.DataFrame(
        {"query": ["mug", "mug", None], "title": ["a", "b", "c"], "decision": ["E", None, "E"]},
    ).write_parquet(tmp_path / "audit-1.parquet")
    (tmp_path / "audit-2.jsonl").write_text('{"query": "mug", "title": "d", "decision": "S"}\n{"query": "mug"}\n')
    metrics, _ = prepare_again(SHOP.model_copy(update={"decisions": f"{tmp_path}/audit-*"}), work)
    found = {name: metrics[f"problems/decisions_{name}"] for name in ("read", "empty", "added", "quarantined")}
    assert found == {"read": 5, "empty": 1, "added": 2, "quarantined": 2}
    quarantine = read_table(work.out.with_name("again"), "quarantine.parquet", Quarantine)
    assert quarantine.select("source", "row", "reason").rows() == [
        ("audit-1.parquet", 3, "missing field"),
        ("audit-2.jsonl", 2, "missing field"),
    ]


def test_the_file_enters_by_its_content(tmp_path: Path) -> None:
    digests = []
    for folder, decision in (("a", "E"), ("b", "E"), ("c", "S")):
        (tmp_path / folder).mkdir()
        path = write_audit(tmp_path / folder / "audit.csv", [audit_row(Pair("mug", "Mug"), decision)])
        digests.append(source_digests(SHOP.model_copy(update={"decisions": path})))
    assert digests[0] == digests[1] != digests[2]
    assert digests[0].keys() == {"decisions audit.csv"}
    assert source_digests(SHOP) == {}


def test_a_missing_file_names_the_setting(work: Work, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^problems\.decisions = .*: no file is there"):
        prepare(SHOP.model_copy(update={"decisions": f"{tmp_path}/missing.csv"}), work)


def test_only_pairs_have_decisions() -> None:
    with pytest.raises(ValidationError, match="decisions are labels of pairs; verifier is math, accepted: label"):
        TableProblems(path="rows.jsonl", decisions="audit.csv")
