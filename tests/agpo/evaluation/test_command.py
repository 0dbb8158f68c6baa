"""`agpo passk`: files in, a curve out, bad rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agpo.evaluation.command import passk_file

ROWS: list[dict[str, Any]] = [
    {"problem": "a", "n": 8, "c": 0},
    {"problem": 7, "n": 16, "c": 4},
    {"problem": "c", "n": 8, "c": 8},
]


def write_lines(folder: Path, rows: list[Any]) -> Path:
    path = folder / "counts.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_curve_of_json_lines(tmp_path: Path) -> None:
    table = passk_file(write_lines(tmp_path, ROWS), [1, 8])
    assert table.columns == ["k", "pass_at_k", "lower", "upper", "problems"]
    assert table["k"].to_list() == [1, 8]
    assert table["pass_at_k"][0] == pytest.approx((0 + 0.25 + 1) / 3)
    assert table["problems"].to_list() == [3, 3]
    assert ((table["lower"] <= table["pass_at_k"]) & (table["pass_at_k"] <= table["upper"])).all()


def test_parquet_gives_the_same_curve(tmp_path: Path) -> None:
    rows = [{**row, "problem": str(row["problem"])} for row in ROWS]
    pl.DataFrame(rows).write_parquet(tmp_path / "counts.parquet")
    assert passk_file(tmp_path / "counts.parquet", [1, 8]).equals(passk_file(write_lines(tmp_path, ROWS), [1, 8]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "x", "n": 4, "c": 1}, r"row 4: n = 4; accepted is an integer of at least 8 \(the largest k\)"),
        ({"problem": "x", "n": 8, "c": 9}, "row 4: c = 9; accepted is an integer of at least 0 and at most n = 8"),
        ({"problem": "x", "n": 8, "c": -1}, "row 4: c = -1"),
        ({"problem": "x", "n": 8, "c": True}, "row 4: c = True"),
        ({"problem": "x", "n": 8, "c": 1.5}, r"row 4: c = 1\.5"),
        ({"problem": "x", "n": "8", "c": 1}, "row 4: n = '8'"),
        ({"problem": "x", "n": 8}, "row 4: c = None"),
        ({"n": 8, "c": 1}, "row 4: problem = None; accepted is a non-empty text or an integer"),
        ({"problem": "", "n": 8, "c": 1}, "row 4: problem = ''"),
        ({"problem": "7", "n": 8, "c": 1}, r"row 4: problem = '7'; accepted is one row a problem \(row 2 has it too\)"),
        ("{broken", r"row 4: '\{broken' is not a JSON object in UTF-8"),
        ("[1]", r"row 4: '\[1\]' is not a JSON object"),
    ],
)
def test_a_bad_row_is_named_with_field_value_and_what_is_accepted(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        passk_file(write_lines(tmp_path, [*ROWS, row]), [1, 8])


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "counts.jsonl"
    path.write_bytes(b'{"problem": "a", "n": 8, "c": 1}\n{"problem": "\xff", "n": 8, "c": 1}\n')
    with pytest.raises(ValueError, match=r"row 2: .* is not a JSON object in UTF-8"):
        passk_file(path, [1])


def test_a_missing_value_in_parquet_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"problem": ["a", "b"], "n": [8, 8], "c": [1, None]}).write_parquet(tmp_path / "counts.parquet")
    with pytest.raises(ValueError, match="row 2: c = None"):
        passk_file(tmp_path / "counts.parquet", [1])


def test_files_and_budgets_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl: no such file"):
        passk_file(tmp_path / "absent.jsonl", [1])
    (tmp_path / "counts.txt").write_text("")
    with pytest.raises(ValueError, match=r"accepted are files that end in \.parquet, \.jsonl or \.ndjson"):
        passk_file(tmp_path / "counts.txt", [1])
    with pytest.raises(ValueError, match="--k 1,0: accepted are integers of at least 1"):
        passk_file(write_lines(tmp_path, ROWS), [1, 0])
    with pytest.raises(ValueError, match="has 1 problems; intervals over problems need at least 2"):
        passk_file(write_lines(tmp_path, ROWS[:1]), [1])
