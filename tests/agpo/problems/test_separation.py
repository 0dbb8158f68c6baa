"""What `prepare` does about training rows that overlap evaluation questions or repeat others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.artifacts.table import read_table
from agpo.problems import source_digests
from agpo.problems.prepare import prepare
from agpo.records import Demonstrations, Pairs, Problems, Quarantine
from agpo.settings import FieldMap, HubProblems, PairFields, TableProblems
from agpo.stages import Work
from tests.agpo.problems.test_duplicates import write_text
from tests.jsonl import write_jsonl


def write_rows(path: Path, questions: Iterable[str], field: str = "question") -> str:
    rows = [{field: question, "answer": f"it is\n#### {number}"} for number, question in enumerate(questions)]
    return str(write_jsonl(path, rows))


def read_receipt(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work.out / "receipt.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return write_rows(tmp_path / "train.jsonl", [write_text(number) for number in range(100)])


def make_settings(path: str, **changes: Any) -> TableProblems:
    return TableProblems(path=path, gold_format="gsm8k", prompt="plain-v1", selection=2, confirmation=3, **changes)


def train_questions(work: Work) -> list[str]:
    problems = read_table(work.out, "problems.parquet", Problems)
    return problems.filter(pl.col("split") == "train")["prompt"].to_list()


def test_training_rows_of_an_evaluation_set_leave_training(work: Work, rows: str, tmp_path: Path) -> None:
    prepare(make_settings(rows), work)
    first, second, third, *_ = train_questions(work)
    inside = " ".join(second.split()[20:33])
    test = write_rows(tmp_path / "test.jsonl", ["Not there.", first.upper(), f"It begins. {inside} It ends.", third])
    settings = make_settings(rows, evaluation_sets=(test,))
    made = prepare(settings, work)
    assert made["metrics"]["problems/contaminated"] == 3
    assert made["metrics"]["problems/near_duplicate"] == 0
    assert not {first, second, third} & set(train_questions(work))
    quarantine = read_table(work.out, "quarantine.parquet", Quarantine)
    assert quarantine["reason"].to_list() == ["contaminated"] * 3
    assert quarantine["source"].to_list() == ["train.jsonl"] * 3
    name = "evaluation set 1: test.jsonl#question"
    assert quarantine["detail"][1] == f"{name}, row 3: {inside}"
    assert json.loads(quarantine["content"][0])["question"] == first
    shown = read_table(work.out, "demonstrations.parquet", Demonstrations)
    assert not {first, second, third} & set(shown["prompt"])
    receipt = read_receipt(work)
    assert receipt["rows"] == {"read": 100, "kept": 97, "quarantined": 3, "unused": 97 - made["rows"]}
    assert receipt["separation"] == {
        "overlap": 13,
        "near_duplicates": 0.9,
        "sets": [
            {
                "name": name,
                "sha256": source_digests(settings)[name],
                "questions": 4,
                "found": 3,
                "found_share": 0.75,
                "training_rows": 3,
            },
            {"name": "held out", "sha256": None, "questions": 5, "found": 0, "found_share": 0, "training_rows": 0},
        ],
        "training_rows": len(train_questions(work)) + 3,
        "contaminated": 3,
        "near_duplicate": 0,
    }


def test_a_file_that_contains_an_evaluation_set_says_so(
    work: Work, rows: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = write_rows(tmp_path / "test.jsonl", [write_text(number) for number in range(1000, 1030)], field="problem")
    both = write_rows(tmp_path / "both.jsonl", [write_text(number) for number in (*range(100), *range(1000, 1030))])
    prepare(make_settings(both, evaluation_sets=(f"{test}#problem",), near_duplicates=0), work)
    (found, _) = read_receipt(work)["separation"]["sets"]
    assert found["name"] == "evaluation set 1: test.jsonl#problem"
    assert found["questions"] < 40
    held_out = read_table(work.out, "problems.parquet", Problems).filter(pl.col("split") != "train")
    test_questions = {write_text(number) for number in range(1000, 1030)}
    unused = 30 - len(test_questions & set(held_out["prompt"])) - found["training_rows"]
    assert found["found"] == found["training_rows"] == 30 - unused - len(test_questions & set(held_out["prompt"]))
    assert found["found_share"] > 0.7  # the others were held out or set aside
    assert not test_questions & set(train_questions(work))
    (message,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    share = f"{found['found']} of the 30 questions ({100 * found['found_share']:.0f} %)"
    rows_found = f"{found['training_rows']} training rows go to quarantine"
    assert message.startswith(f"contamination: {share} of evaluation set 1: test.jsonl#problem are among the ")
    assert message.endswith(rows_found)


def test_held_out_rows_stay_and_their_likes_leave_training(work: Work, rows: str, tmp_path: Path) -> None:
    prepare(make_settings(rows), work)
    held_out = read_table(work.out, "problems.parquet", Problems).filter(pl.col("split") != "train")
    copies = [f"{question} (again)" for question in held_out["prompt"]]
    path = write_rows(tmp_path / "train.jsonl", [*(write_text(number) for number in range(100)), *copies])
    prepare(make_settings(path), work)
    assert not set(copies) & set(train_questions(work))
    after = read_table(work.out, "problems.parquet", Problems)
    assert after.filter(pl.col("split") != "train").height == 5
    receipt = read_receipt(work)
    assert receipt["separation"]["contaminated"] == receipt["quarantined"]["contaminated"] > 0


def test_near_duplicates_in_training_and_of_held_out_rows(work: Work, tmp_path: Path) -> None:
    questions = [write_text(number) for number in range(100)]
    copies = [f"{question} indeed" for question in questions]
    path = write_rows(tmp_path / "train.jsonl", [*questions, *copies])
    prepare(make_settings(path, overlap=1000), work)
    quarantine = read_table(work.out, "quarantine.parquet", Quarantine)
    problems = read_table(work.out, "problems.parquet", Problems)
    split = dict(problems.select("id", pl.col("split").cast(pl.String)).iter_rows())
    near = quarantine.filter(pl.col("reason") == "near duplicate")
    assert near.height > 60
    named = near["detail"].str.extract(r"^(?:train|held out), (?:\w+ )?(\w+): similarity 0.9\d$")
    assert set(named) <= set(split)  # each names a row that stays
    of_held_out = near["detail"].str.starts_with("held out, ")
    assert of_held_out.any()
    assert {split[name] for name in named.filter(of_held_out)} == {"selection", "confirmation"}
    kept = [question.removesuffix(" indeed") for question in train_questions(work)]
    assert len(kept) == len(set(kept))
    made = prepare(make_settings(path, overlap=1000, near_duplicates=0), work)
    assert made["metrics"]["problems/near_duplicate"] == 0


def test_an_unrelated_set_drops_nothing(work: Work, rows: str, tmp_path: Path) -> None:
    prepare(make_settings(rows), work)
    before = (work.out / "problems.parquet").read_bytes()
    test = write_rows(tmp_path / "test.jsonl", [write_text(number) for number in range(500, 600)])
    made = prepare(make_settings(rows, evaluation_sets=(test,)), work)
    assert (work.out / "problems.parquet").read_bytes() == before
    assert made["metrics"]["problems/quarantined"] == 0
    assert read_receipt(work)["separation"]["sets"][0]["found_share"] == 0


def test_training_on_an_evaluation_set_alone_is_refused(work: Work, rows: str) -> None:
    with pytest.raises(ValueError, match=r"no training question would be left: of \d\d, \d\d overlap evaluation") as it:
        prepare(make_settings(rows, evaluation_sets=(rows,)), work)
    assert "first: evaluation set 1: train.jsonl#question, row " in str(it.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"problem": "2 + 2?"}', "row 2: field question is not in the row, which has problem; accepted: a question"),
        ('{"question": " "}', "row 2: field question is blank"),
        ("{", "row 2: Expecting property name"),
    ],
    ids=["field", "blank", "json"],
)
def test_every_row_of_an_evaluation_set_has_a_question(
    work: Work, rows: str, tmp_path: Path, row: str, message: str
) -> None:
    (tmp_path / "test.jsonl").write_text(f'{{"question": "1 + 1?"}}\n{row}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"^problems\.evaluation_sets: test\.jsonl") as caught:
        prepare(make_settings(rows, evaluation_sets=(str(tmp_path / "test.jsonl"),)), work)
    assert message in str(caught.value)


def test_an_evaluation_set_is_there_and_not_empty(work: Work, rows: str, tmp_path: Path) -> None:
    missing = f"{tmp_path}/missing.jsonl"
    with pytest.raises(FileNotFoundError, match=r"^problems\.evaluation_sets = '.*missing\.jsonl': no file is there"):
        prepare(make_settings(rows, evaluation_sets=(f"{missing}#problem",)), work)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"problems\.evaluation_sets: empty\.jsonl has no row"):
        prepare(make_settings(rows, evaluation_sets=(str(tmp_path / "empty.jsonl"),)), work)


def test_evaluation_sets_enter_by_content_and_field(rows: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_rows(tmp_path / folder / "test.jsonl", ["2 + 2?"])
    found = [
        source_digests(make_settings(rows, evaluation_sets=(f"{tmp_path}/{folder}/test.jsonl",))) for folder in "ab"
    ]
    assert found[0] == found[1]
    both = make_settings(rows, evaluation_sets=(f"{tmp_path}/a/test.jsonl", f"{tmp_path}/?/test.jsonl#answer"))
    assert [name for name in source_digests(both) if name.startswith("evaluation")] == [
        "evaluation set 1: test.jsonl#question",
        "evaluation set 2: a/test.jsonl#answer",
        "evaluation set 2: b/test.jsonl#answer",
    ]
    hub = HubProblems(dataset="a/b", revision="0" * 40, evaluation_sets=(f"{tmp_path}/a/test.jsonl",))
    assert "evaluation set 1: test.jsonl#question" in source_digests(hub)


def test_pairs_are_kept_apart_by_their_queries(work: Work, tmp_path: Path) -> None:
    queries = [f"red shoe size {number}" for number in range(60)]
    pairs = [
        {"query": query, "title": f"a title of more than thirteen words that is the same every time but for {ad}"}
        for query in queries
        for ad in range(3)
    ]
    path = write_jsonl(tmp_path / "pairs.jsonl", ({**pair, "label": "E"} for pair in pairs))
    settings = TableProblems(path=str(path), verifier="label", prompt="plain-v1", selection=0, confirmation=0)
    test = write_rows(tmp_path / "test.jsonl", ["Red  shoe size 7", "blue shoe size 8"], field="search.term")
    made = prepare(settings.model_copy(update={"evaluation_sets": (f"{test}#search.term",)}), work)
    assert made["metrics"]["problems/contaminated"] == 3
    assert made["metrics"]["problems/near_duplicate"] == 0
    kept = read_table(work.out, "pairs.parquet", Pairs)
    assert set(queries) - set(kept["query"]) == {"red shoe size 7"}
    separation = read_receipt(work)["separation"]
    assert (separation["overlap"], separation["near_duplicates"]) == (None, None)
    named = settings.model_copy(update={"pair": PairFields(query="search.term"), "evaluation_sets": (test,)})
    assert "evaluation set 1: test.jsonl#search.term" in source_digests(named)


def test_the_same_rows_stay_in_every_process(rows: str, tmp_path: Path) -> None:
    test = write_rows(tmp_path / "test.jsonl", [write_text(number) for number in range(0, 100, 9)])
    program = f"""
from pathlib import Path
from agpo.artifacts import Files
from agpo.problems.prepare import prepare
from agpo.settings import TableProblems
from agpo.stages import Work
out = Path({str(tmp_path)!r}, "out-SEED")
out.mkdir()
work = Work(inputs={{}}, keys={{}}, out=out, partial=Files(out / "partial"), seed=0, device="cpu")
prepare(TableProblems(path={rows!r}, selection=2, confirmation=3, evaluation_sets=({test!r},)), work)
"""
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program.replace("SEED", seed)], env=environment, check=True)
    for name in ("problems.parquet", "quarantine.parquet", "receipt.json"):
        assert (tmp_path / "out-1" / name).read_bytes() == (tmp_path / "out-2" / name).read_bytes()


def test_gsm8k_and_math_have_nothing_of_each_other(work: Work, shared_data: Path) -> None:
    math, gsm8k = str(shared_data / "math/train.parquet"), str(shared_data / "gsm8k/train.jsonl.gz")
    settings = TableProblems(path=gsm8k, gold_format="gsm8k", evaluation_sets=(f"{math}#prompt.0.content",))
    prepare(settings, work)
    foreign, held_out = read_receipt(work)["separation"]["sets"]
    assert (foreign["questions"], foreign["found"], foreign["training_rows"]) == (7500, 0, 0)
    assert (held_out["found"], held_out["training_rows"]) == (5, 5)
    fields = FieldMap(question="prompt.0.content", gold="reward_model.ground_truth.solution")
    settings = TableProblems(path=math, gold_format="boxed", fields=fields, evaluation_sets=(f"{gsm8k}#question",))
    prepare(settings, work)
    assert read_receipt(work)["separation"]["sets"][0]["found"] == 0
