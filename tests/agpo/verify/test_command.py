from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.verify import command
from agpo.verify.command import verify_file

ROWS: list[dict[str, Any]] = [
    {"id": "a", "response": r"\boxed{5}", "gold": "5"},
    {"id": "b", "response": r"\boxed{6}", "gold": "5"},
    {"id": "c", "response": "", "gold": "5"},
    {"id": "d", "response": r"\boxed{5}", "gold": ""},
    {"id": "e", "response": r"\boxed{1+x}", "gold": "x+1"},
]
DECIDED = [
    ("a", "correct", "none", "5", ""),
    ("b", "wrong", "none", "6", "mismatch"),
    ("c", "wrong", "none", None, "missing"),
    ("d", "unverifiable", "gold", None, "unparsable"),
    ("e", "correct", "none", "1+x", ""),
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).to_dicts()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("source", "target"), [("in.jsonl", "out.parquet"), ("in.parquet", "out.jsonl")])
def test_one_line_a_row_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, target: str) -> None:
    monkeypatch.setattr(command, "BATCH", 2)  # several batches
    steps: list[int] = []
    counts = verify_file("math", write(tmp_path / source, ROWS), tmp_path / target, 5.0, 1, steps.append)
    rows = read(tmp_path / target)
    assert list(rows[0]) == ["id", "verdict", "cause", "extracted", "reason", "seconds"]
    assert [tuple(row.values())[:5] for row in rows] == DECIDED
    assert all(row["seconds"] >= 0 for row in rows)
    assert counts == {"correct": 2, "wrong": 2, "unverifiable": 1}
    assert sum(steps) == len(ROWS)
    assert {path.name for path in tmp_path.iterdir()} == {source, target}


def test_broken_rows_still_get_their_line(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        b"not json",
        b"[1, 2]",
        b'{"id": 1, "gold": "5"}',
        b'{"id": 2, "response": "5"}',
        b'{"id": 3, "response": ["5"], "gold": "5"}',
        b'{"id": 4, "response": "5", "gold": {"answer": 5}}',
        b'{"id": 5, "response": null, "gold": true}',
        b'{"id": 6, "response": 5, "gold": 5.0}',
        b'{"id": "\xff", "response": "\\ud800", "gold": "5"}',
        b"[" * 100_000,
        b'{"response": "5", "gold": "5"}',
    ]
    source.write_bytes(b"\n".join(lines))
    verify_file("math", source, tmp_path / "out.jsonl", 5.0, 1)
    rows = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in rows] == [None, None, 1, 2, 3, 4, 5, 6, "�", None, None]
    gold, missing = ("unverifiable", "unparsable"), ("wrong", "missing")
    assert [(row["verdict"], row["reason"]) for row in rows] == [
        gold, gold, missing, gold, missing, gold, gold, ("correct", ""), ("wrong", "missing"), gold, ("correct", "")
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["out.jsonl", "out.parquet"])
def test_a_file_without_rows_gives_one_without_rows(tmp_path: Path, target: str) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    assert verify_file("math", tmp_path / "in.jsonl", tmp_path / target, 5.0, 1) == {
        "correct": 0, "wrong": 0, "unverifiable": 0
    }  # fmt: skip
    assert read(tmp_path / target) == []


def test_parquet_without_the_fields(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", [{"other": 1}, {"other": 2}])
    assert verify_file("math", source, tmp_path / "out.jsonl", 5.0, 1)["unverifiable"] == 2


def test_countdown_files(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"id": 1, "response": "1 + 2 = 3", "gold": "1 2 : 3"}])
    assert verify_file("countdown", source, tmp_path / "out.jsonl", 5.0, 1)["correct"] == 1


@pytest.mark.parametrize(
    ("kind", "source", "target", "message"),
    [
        ("maths", "in.jsonl", "out.jsonl", "verifier 'maths' is unknown; accepted: countdown"),
        ("math", "in.csv", "out.jsonl", r"IN is 'in.csv'; accepted suffixes: .jsonl, .parquet"),
        ("math", "in.jsonl", "out.txt", r"OUT is 'out.txt'; accepted suffixes: .jsonl, .parquet"),
        ("math", "in.parquet", "out.jsonl", "in.parquet' is no Parquet file"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, kind: str, source: str, target: str, message: str) -> None:
    (tmp_path / source).write_text("{}")
    with pytest.raises(ValueError, match=message):
        verify_file(kind, tmp_path / source, tmp_path / target, 5.0, 1)
    assert [path.name for path in tmp_path.iterdir()] == [source]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.jsonl' is not a file"):
        verify_file("math", tmp_path / "absent.jsonl", tmp_path / "out.jsonl", 5.0, 1)


def test_a_run_that_fails_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("former")

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_file("math", source, tmp_path / "out.jsonl", 5.0, 1, stop)
    assert (tmp_path / "out.jsonl").read_text() == "former"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}
