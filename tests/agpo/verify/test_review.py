from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.artifacts.table import TableMismatch, read_table, write_table
from agpo.records import Annotations, Disagreements, Verdicts
from agpo.verify import Verdict
from agpo.verify.review import apply_annotations, export_disagreements, import_decisions
from tests.agpo.verify.test_audit import write_verdicts

ROWS = [  # id, problem, tail, gold, extracted, first, second
    ("0/a/0", "a", "so\n\\boxed{5 eggs}", "5", "5 eggs", "wrong", "correct"),
    ("0/a/3", "a", "hence \\boxed{5 eggs}", "5", "5 eggs", "wrong", "correct"),
    ("0/b/0", "b", "=HYPERLINK(1)", "-3", "-3 ", "wrong", "correct"),
    ("1/c/0", "c", "nothing, 7", "7", None, "wrong", "correct"),
    ("1/d/0", "d", "\\boxed{1+x}", "x+1", "1+x", "correct", "wrong"),
]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    schema = Disagreements.create_empty().schema
    for step in (0, 1):
        rows = [row for row in ROWS if row[0].startswith(f"{step}/")]
        write_table(tmp_path, f"{step}.parquet", pl.DataFrame(rows, schema=schema, orient="row"), Disagreements)
    return [tmp_path / "0.parquet", tmp_path / "1.parquet"]


def fill_in(path: Path, decisions: dict[str, str]) -> Path:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["decision"] = decisions.get(row["id"], "")
    filled = path.with_name("filled.csv")
    with filled.open("w", encoding="utf-8-sig", newline="") as file:  # as a spreadsheet writes it
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return filled


@pytest.fixture
def exported(sources: list[Path], tmp_path: Path) -> Path:
    target = tmp_path / "review.csv"
    assert export_disagreements(sources, target) == 4
    return target


def read_annotations(path: Path) -> list[tuple[Any, ...]]:
    return read_table(path.parent, path.name, Annotations).rows()


def test_the_file_for_people_has_one_row_an_answer(exported: Path) -> None:
    with exported.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "problem_id", "tail", "gold", "extracted", "first", "second", "decision"]
    assert [row[0] for row in rows] == ["0/a/0", "0/b/0", "1/c/0", "1/d/0"]
    assert rows[0][2] == "so\n\\boxed{5 eggs}"
    assert rows[1][2:5] == ["'=HYPERLINK(1)", "'-3", "'-3 "]  # no formula in a spreadsheet
    assert {row[-1] for row in rows} == {""}
    assert [path.name for path in exported.parent.glob("review*")] == ["review.csv"]


def test_decisions_are_never_overwritten(exported: Path, sources: list[Path]) -> None:
    with pytest.raises(FileExistsError, match="may hold decisions"):
        export_disagreements(sources, exported)


def test_without_disagreements_nothing_is_written(tmp_path: Path) -> None:
    assert export_disagreements([], tmp_path / "review.csv") == 0
    assert list(tmp_path.iterdir()) == []


def test_decisions_become_annotations(exported: Path, sources: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "annotations.parquet"
    filled = fill_in(exported, {"0/a/0": "correct", "0/b/0": " Wrong ", "1/c/0": "correct"})
    version, counts = import_decisions(filled, sources, target)
    # Without an extracted answer there is nothing to know the answer by.
    assert counts == {"decided": 3, "undecided": 1, "general": 2}
    assert read_annotations(target) == [("a", "5", "5 eggs", "correct"), ("b", "-3", "-3 ", "wrong")]
    assert import_decisions(filled, sources, target)[0] == version
    changed = fill_in(exported, {"0/a/0": "wrong", "1/d/0": "correct"})
    assert import_decisions(changed, sources, target)[0] != version
    assert read_annotations(target) == [
        ("a", "5", "5 eggs", "wrong"),
        ("b", "-3", "-3 ", "wrong"),
        ("d", "x+1", "1+x", "correct"),
    ]


def test_equal_annotations_have_one_version(exported: Path, sources: list[Path], tmp_path: Path) -> None:
    once, twice = tmp_path / "once.parquet", tmp_path / "twice.parquet"
    version, _ = import_decisions(fill_in(exported, {"0/a/0": "correct", "1/d/0": "wrong"}), sources, once)
    import_decisions(fill_in(exported, {"1/d/0": "wrong"}), sources, twice)
    assert import_decisions(fill_in(exported, {"0/a/0": "correct"}), sources, twice)[0] == version
    assert once.read_bytes() == twice.read_bytes()


def test_an_answer_that_was_cut_is_not_general(tmp_path: Path) -> None:
    row = ("0/a/0", "a", "tail", "5", "x" * 300, "wrong", "correct")
    table = pl.DataFrame([row], schema=Disagreements.create_empty().schema, orient="row")
    write_table(tmp_path, "0.parquet", table, Disagreements)
    export_disagreements([tmp_path / "0.parquet"], tmp_path / "review.csv")
    filled = fill_in(tmp_path / "review.csv", {"0/a/0": "correct"})
    _, counts = import_decisions(filled, [tmp_path / "0.parquet"], tmp_path / "annotations.parquet")
    assert counts == {"decided": 1, "undecided": 0, "general": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "id,decision\n0/a/0,correct\n0/b/0,maybe\n",
            "row 3: decision is 'maybe'; accepted: correct, wrong, or nothing",
        ),
        ("id,decision\n9/z/9,correct\n", "row 2: id '9/z/9' is not among the disagreements"),
        ("id,decision\n0/a/0,correct\n0/a/3,wrong\n", "row 3: decision is wrong, but an earlier row decides the same"),
        ("id;decision\n0/a/0;correct\n", "column decision, id is missing"),
        ("", "column decision, id is missing"),
    ],
    ids=["value", "id", "conflict", "separator", "empty"],
)
def test_a_wrong_row_is_named(sources: list[Path], tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "filled.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^filled\.csv") as caught:
        import_decisions(tmp_path / "filled.csv", sources, tmp_path / "annotations.parquet")
    assert message in str(caught.value)
    assert not (tmp_path / "annotations.parquet").exists()


def test_another_file_is_no_table_of_disagreements(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.parquet' is no Parquet file"):
        export_disagreements([tmp_path / "a.parquet"], tmp_path / "review.csv")
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(TableMismatch, match="is not Disagreements"):
        export_disagreements([tmp_path / "b.parquet"], tmp_path / "review.csv")
    assert not (tmp_path / "review.csv").exists()


def test_annotations_override_later_verdicts_of_the_same_answer() -> None:
    annotations = pl.DataFrame(
        [("a", "5", "5 eggs", "correct"), ("b", "7", "8", "wrong"), ("c", "1", "2", "correct")],
        schema=Annotations.create_empty().schema,
        orient="row",
    )
    decided = [  # problem, gold, verdict
        ("a", "5", Verdict("wrong", "none", "mismatch", "5 eggs", 0.5, "math", 1)),
        ("a", "6", Verdict("wrong", "none", "mismatch", "5 eggs", 0.5, "math", 1)),  # the gold was changed
        ("x", "5", Verdict("wrong", "none", "mismatch", "5 eggs", 0.5, "math", 1)),
        ("a", "5", Verdict("wrong", "none", "missing", None, 0.5, "math", 1)),
        ("b", "7", Verdict("correct", "none", "", "8", 0.5, "math", 1)),
        ("c", "1", Verdict("unverifiable", "response", "timeout", "2", 5.0, "math", 1)),
    ]
    verdicts = write_verdicts([verdict for _, _, verdict in decided])
    found = apply_annotations(verdicts, [row[0] for row in decided], [row[1] for row in decided], annotations)
    Verdicts.validate(found)
    assert found["id"].to_list() == verdicts["id"].to_list()
    assert found.schema == verdicts.schema
    assert found["verdict"].to_list() == ["correct", "wrong", "wrong", "wrong", "wrong", "correct"]
    assert found["reason"].to_list() == ["", "mismatch", "mismatch", "missing", "annotated", ""]
    assert found["cause"].to_list() == ["none"] * 6
    assert found["verifier"].to_list() == ["annotation", "math", "math", "math", "annotation", "annotation"]
    assert found["extracted"].to_list() == verdicts["extracted"].to_list()
    empty = Annotations.create_empty()
    assert apply_annotations(verdicts, [row[0] for row in decided], [row[1] for row in decided], empty).equals(verdicts)


def test_a_missing_file_or_folder_is_named(sources: list[Path], exported: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "out"
    with pytest.raises(FileNotFoundError, match=r"IN '.*missing\.csv' is not a file; accepted: what the export wrote"):
        import_decisions(tmp_path / "missing.csv", sources, tmp_path / "annotations.parquet")
    with pytest.raises(FileNotFoundError, match=r"OUT '.*out': no folder '.*nowhere' is there"):
        import_decisions(exported, sources, nowhere)
    with pytest.raises(FileNotFoundError, match=r"OUT '.*out': no folder '.*nowhere' is there"):
        export_disagreements(sources, nowhere)
