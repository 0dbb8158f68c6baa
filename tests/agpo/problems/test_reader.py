from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.reader import SourceRow, read_rows
from agpo.problems.source import find_files

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def read(path: Path | str) -> list[SourceRow]:
    (file,) = find_files(str(path))
    return list(read_rows(file))


def summary(rows: list[SourceRow]) -> list[tuple[int, Any, str]]:
    return [(row.number, row.value, row.reason) for row in rows]


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    deep = b"[" * 100_000
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xff"}\n{"a": }\n' + deep + b'\n{"a": "\xc3\xa9"}')
    rows = read(path)
    assert summary(rows) == [
        (1, {"a": 1}, ""),
        (3, None, "non-UTF-8 line"),
        (4, None, "invalid JSON"),
        (5, None, "invalid JSON"),
        (6, {"a": "é"}, ""),
    ]
    assert rows[1].content == '{"a": "\\xff"}'
    assert "Expecting value" in rows[2].detail
    assert rows[2].content == '{"a": }'


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbfa,b\r\n1,"x, ""y""\nsecond line"\r\n\r\n2,\xff\r\n3\r\n4,5,6\r\n"'
        + b"z" * 200_000
        + b'",1\r\n7,8\r\n'
    )
    rows = read(path)
    assert summary(rows) == [
        (2, {"a": "1", "b": 'x, "y"\nsecond line'}, ""),
        (5, None, "non-UTF-8 line"),
        (6, None, "invalid CSV"),
        (7, None, "invalid CSV"),
        (8, None, "invalid CSV"),
        (9, {"a": "7", "b": "8"}, ""),
    ]
    assert rows[1].detail == "field b; accepted: UTF-8"
    assert rows[1].content == "2,\\udcff"
    assert rows[2].detail == "1 cells, the header has 2"
    assert json.loads(rows[0].content) == rows[0].value


def test_parquet(tmp_path: Path) -> None:
    values = [{"a": [{"b": "x", "c": None}], "n": 1}, {"a": [], "n": 2}]
    pl.DataFrame(values).write_parquet(tmp_path / "rows.parquet")
    rows = read(tmp_path / "rows.parquet")
    assert summary(rows) == [(1, values[0], ""), (2, values[1], "")]
    assert json.loads(rows[0].content) == values[0]


def test_many_batches_of_a_parquet_file_stay_in_order(tmp_path: Path) -> None:
    pl.DataFrame({"n": range(1, 30_001)}).write_parquet(tmp_path / "rows.parquet", row_group_size=7000)
    assert [(row.number, row.value["n"]) for row in read(tmp_path / "rows.parquet")] == [
        (number, number) for number in range(1, 30_001)
    ]


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_an_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert read(tmp_path / name) == []


def parquet(frame: pl.DataFrame) -> bytes:
    frame.write_parquet(buffer := io.BytesIO())
    return buffer.getvalue()


CONTENT = {
    "jsonl": b'{"a": 1}\n{"a": 2}\n',
    "csv": b"a\n1\n2\n",
    "parquet": parquet(pl.DataFrame({"a": [1, 2]})),
}


@pytest.mark.parametrize("form", CONTENT)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("remote", [False, True])
def test_every_format_compression_and_place(tmp_path: Path, form: str, suffix: str, remote: bool) -> None:
    data = CONTENT[form]
    half = len(data) // 2  # two members, two frames: as when compressed files are appended to each other
    compressed = {
        "": data,
        ".gz": gzip.compress(data[:half]) + gzip.compress(data[half:]),
        ".zst": zstd.compress(data[:half]) + zstd.compress(data[half:]),
    }[suffix]
    address = f"{'memory://reader-test' if remote else tmp_path}/rows.{form}{suffix}"
    with fsspec.open(address, "wb") as file:
        file.write(compressed)
    assert [int(row.value["a"]) for row in read(address)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl.gz", gzip.compress(CONTENT["jsonl"] * 100)[:-20]),
        ("rows.jsonl.zst", zstd.compress(CONTENT["jsonl"] * 100)[:-4]),
        ("rows.csv.gz", b"a\n1\n"),
        ("rows.parquet", CONTENT["parquet"][:50]),
    ],
    ids=["gzip", "zstandard", "no gzip", "parquet"],  # a gzip stream holds its time, and ids must not change
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"problems.path: cannot read {name}: "):
        read(tmp_path / name)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)


@given(rows=st.lists(st.tuples(cells.filter(bool), cells), max_size=5))
def test_what_csv_wrote_is_read(rows: list[tuple[str, str]]) -> None:
    with fsspec.open("memory://reader-test/any.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *rows])
    assert [(row.value["a"], row.value["b"]) for row in read("memory://reader-test/any.csv")] == rows
