from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.artifacts.table import read_table
from agpo.problems.prepare import prepare
from agpo.problems.table import TooManyBadRows
from agpo.records import Demonstrations, Problems, Quarantine
from agpo.settings import CountdownProblems, FieldMap, TableProblems
from agpo.stages import PREPARE, Work
from tests.jsonl import write_jsonl

COUNTDOWN = CountdownProblems(train=20, selection=4, confirmation=6, demonstrations=30)


def receipt(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.out / "receipt.json").read_text(encoding="utf-8"))
    return found


def write_rows(path: Path, count: int, bad: int = 0) -> str:
    good = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(count - bad)]
    rows = good + [{"question": f"bad {number}?", "answer": ""} for number in range(bad)]
    return str(write_jsonl(path, rows))


def test_the_stage_names_this_function() -> None:
    assert PREPARE.load() is prepare


def test_countdown(work: Work) -> None:
    made = prepare(COUNTDOWN, work)
    assert made == {
        "rows": 40,
        "metrics": {
            "problems/read": 40,
            "problems/kept": 40,
            "problems/quarantined": 0,
            "problems/unused": 0,
            "problems/train_in_distribution": 20,
            "problems/selection_in_distribution": 4,
            "problems/selection_hard": 4,
            "problems/confirmation_in_distribution": 6,
            "problems/confirmation_hard": 6,
            "problems/demonstrations": 30,
        },
    }
    assert read_table(work.out, "problems.parquet", Problems).height == 40
    assert read_table(work.out, "demonstrations.parquet", Demonstrations).height == 30
    assert read_table(work.out, "quarantine.parquet", Quarantine).is_empty()
    assert receipt(work)["digests"] == {}


def test_the_same_source_gives_the_same_bytes(work: Work, tmp_path: Path) -> None:
    prepare(COUNTDOWN, work)
    again = replace(work, out=tmp_path / "again")
    again.out.mkdir()
    prepare(COUNTDOWN, again)
    names = {path.name for path in work.out.iterdir()}
    assert names == {"problems.parquet", "demonstrations.parquet", "quarantine.parquet", "receipt.json"}
    assert all((work.out / name).read_bytes() == (again.out / name).read_bytes() for name in names)


def test_a_table(work: Work, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 300, bad=3)
    made = prepare(TableProblems(path=path, selection=10, confirmation=15, prompt="plain-v1"), work)
    problems = read_table(work.out, "problems.parquet", Problems)
    sets = {(split, name) for split, name in problems.select("split", "set").iter_rows()}
    assert sets == {("train", "train"), ("selection", "held_out"), ("confirmation", "held_out")}
    assert made["rows"] == problems.height
    assert made["metrics"]["problems/quarantined"] == 3
    assert made["metrics"]["problems/selection_held_out"] == 10
    assert made["metrics"]["problems/confirmation_held_out"] == 15
    assert made["metrics"]["problems/unused"] == 297 - problems.height
    assert receipt(work)["quarantined"] == {"empty gold": 3}
    assert receipt(work)["digests"].keys() == {"rows.jsonl", "prompt plain-v1"}
    assert not (work.out / "demonstrations.parquet").exists()
    assert problems.filter(pl.col("prompt") == "7 + 1?")["gold"].item() == "8"


def test_worked_answers_of_training_rows_are_demonstrations(work: Work, tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": f"that is {n}\n#### {n}"} for n in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare(TableProblems(path=f"{tmp_path}/*.jsonl", gold_format="gsm8k", selection=2, confirmation=2), work)
    problems = read_table(work.out, "problems.parquet", Problems)
    shown = read_table(work.out, "demonstrations.parquet", Demonstrations)
    assert set(shown["id"]) == set(problems.filter(pl.col("split") == "train")["id"])
    assert shown["response"].str.starts_with("that is").all()
    assert set(shown["prompt"]) <= set(problems["prompt"])


def test_a_table_on_any_file_system_in_several_files(work: Work) -> None:
    files = Files("memory://prepare-test")
    files.write("a.jsonl", b'{"question": "a", "answer": 1}\n{"question": "b", "answer": 1}\n')
    files.write("b.csv", b"question,answer\nb,2\nc,3\n")
    settings = TableProblems(path="memory://prepare-test/*", selection=0, confirmation=0, largest_bad_share=0.5)
    prepare(settings, work)
    assert read_table(work.out, "problems.parquet", Problems)["gold"].to_list() == ["1", "1", "3"]
    assert read_table(work.out, "quarantine.parquet", Quarantine).select("source", "row", "reason").rows() == [
        ("b.csv", 2, "duplicate question")
    ]


def test_too_many_bad_rows_stop_the_run(work: Work, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 40, bad=4)
    settings = TableProblems(path=path, selection=0, confirmation=0)
    with pytest.raises(TooManyBadRows) as caught:
        prepare(settings, work)
    message = str(caught.value)
    assert message.startswith("4 of 40 rows are bad (4 empty gold), accepted: at least one good row and a share of ")
    assert "problems.largest_bad_share = 0.05; first: rows.jsonl row 37: field answer: no text in it" in message
    assert f"{work.partial.uri}/quarantine.parquet" in message
    assert read_table(work.partial, "quarantine.parquet", Quarantine)["row"].to_list() == [37, 38, 39, 40]
    assert list(work.out.iterdir()) == []
    prepare(settings.model_copy(update={"largest_bad_share": 0.1}), work)


@pytest.mark.parametrize("content", ["", '{"question": "a", "answer": ""}\n'])
def test_a_source_without_a_good_row_stops_the_run(work: Work, tmp_path: Path, content: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(TooManyBadRows, match="rows are bad"):
        prepare(TableProblems(path=str(tmp_path / "rows.jsonl"), largest_bad_share=1.0), work)


def test_gsm8k(work: Work, shared_data: Path) -> None:
    made = prepare(TableProblems(path=str(shared_data / "gsm8k/train.jsonl.gz"), gold_format="gsm8k"), work)
    assert made["metrics"] == {
        "problems/read": 7473,
        "problems/kept": 7467,
        "problems/quarantined": 6,
        "problems/unused": 917,
        "problems/train_train": 5950,
        "problems/selection_held_out": 200,
        "problems/confirmation_held_out": 400,
        "problems/contaminated": 5,
        "problems/near_duplicate": 1,
        "problems/demonstrations": 5950,
    }
    problems = read_table(work.out, "problems.parquet", Problems)
    clips = problems.filter(pl.col("prompt").str.starts_with("Natalia sold clips")).row(0, named=True)
    assert clips["gold"] == "72"
    assert problems["gold"].str.contains(r"^-?[\d.,]+$").all()


def test_math(work: Work, shared_data: Path) -> None:
    fields = FieldMap(question="prompt.0.content", gold="reward_model.ground_truth.solution")
    path = str(shared_data / "math/train.parquet")
    made = prepare(TableProblems(path=path, fields=fields, gold_format="boxed"), work)
    assert made["metrics"] == {
        "problems/read": 7500,
        "problems/kept": 7339,
        "problems/quarantined": 161,
        "problems/unused": 878,
        "problems/train_train": 5861,
        "problems/selection_held_out": 200,
        "problems/confirmation_held_out": 400,
        "problems/contaminated": 153,
        "problems/near_duplicate": 4,
        "problems/demonstrations": 5861,
    }
    assert receipt(work)["quarantined"] == {
        "contaminated": 153,
        "empty gold": 4,  # \boxed{} without content, or \boxed without braces
        "near duplicate": 4,
    }
    source = pl.read_parquet(path).select(
        question=pl.col("prompt").list.first().struct.field("content").str.strip_chars(),
        target=pl.col("reward_model").struct.field("ground_truth").struct.field("target"),
    )
    problems = read_table(work.out, "problems.parquet", Problems)
    questions = problems.with_columns(question=pl.col("prompt").str.split("\nPlease reason").list.first())
    both = questions.join(source, on="question").filter(pl.col("gold").str.contains(r"^-?\d+$"))
    assert both.height > 3900
    assert both["gold"].to_list() == both["target"].to_list()  # targets of other forms are rewritten or damaged


@pytest.mark.parametrize("module", ["agpo.settings", "agpo.problems", "agpo.problems.prepare"])
def test_a_plan_loads_no_heavy_package(module: str) -> None:
    heavy = ["torch", "transformers", "datasets", "polars", "dataframely"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
