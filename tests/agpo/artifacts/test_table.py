from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import uuid
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from agpo.artifacts import Files
from agpo.artifacts.table import TableMismatch, read_table, write_table

REPOSITORY = Path(__file__).resolve().parents[3]


class Answers(dy.Schema):
    id = dy.String(primary_key=True, min_length=1)
    ids = dy.List(dy.Int32(nullable=False), nullable=False)
    score = dy.Float32(nullable=True)
    verdict = dy.Enum(["correct", "wrong"], nullable=False)


def make_answers(rows: int, first: int = 0) -> pl.DataFrame:
    number = pl.col("number")
    return pl.DataFrame({"number": range(first, first + rows)}, schema={"number": pl.Int32}).select(
        id=pl.format("row-{}", number),
        ids=pl.int_ranges(0, number % 5, dtype=pl.Int32),
        score=pl.when(number % 7 > 0).then((number / 3).cast(pl.Float32)),
        verdict=pl.when(number % 2 == 0).then(pl.lit("correct")).otherwise(pl.lit("wrong")).cast(Answers.verdict.dtype),
    )


def test_what_was_written_is_read(root: str) -> None:
    files, frame = Files(root), make_answers(100)
    sha256 = write_table(files, "tables/answers.parquet", frame, Answers)
    assert sha256 == hashlib.sha256(files.read("tables/answers.parquet")).hexdigest()
    assert_frame_equal(read_table(files, "tables/answers.parquet", Answers), frame)


def test_a_local_path_serves_as_folder(tmp_path: Path) -> None:
    sha256 = write_table(tmp_path, "answers.parquet", make_answers(3), Answers)
    assert sha256 == write_table(Files(tmp_path), "other.parquet", make_answers(3), Answers)
    assert_frame_equal(read_table(tmp_path, "answers.parquet", Answers), make_answers(3))


def test_a_table_may_be_empty(tmp_path: Path) -> None:
    write_table(tmp_path, "answers.parquet", make_answers(0), Answers)
    assert_frame_equal(read_table(tmp_path, "answers.parquet", Answers), make_answers(0))


@settings(max_examples=40)
@given(rows=st.integers(1, 40), cuts=st.lists(st.integers(0, 40)), data=st.data())
def test_equal_frames_have_equal_bytes_however_they_came_about(rows: int, cuts: list[int], data: st.DataObject) -> None:
    files, frame = Files(f"memory://{uuid.uuid4().hex}"), make_answers(rows)
    bounds = sorted({0, rows, *(cut for cut in cuts if cut < rows)})
    pieces = [frame.slice(low, high - low) for low, high in itertools.pairwise(bounds)]
    columns = data.draw(st.permutations(frame.columns))
    others = [
        pl.concat(pieces, rechunk=False),
        make_answers(rows + 9).slice(0, rows),
        pl.concat([make_answers(3, first=1000), frame, make_answers(2, first=2000)]).slice(3, rows),
        pl.concat([make_answers(3, first=1000), frame]).filter(pl.col("id").is_in(frame["id"].to_list())),
        frame.select(columns),
    ]
    sha256 = write_table(files, "answers.parquet", frame, Answers)
    assert [write_table(files, "other.parquet", other, Answers) for other in others] == [sha256] * len(others)


def test_equal_frames_have_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agpo.artifacts.table import write_table;"
        "from tests.agpo.artifacts.test_table import Answers, make_answers;"
        "print(write_table(Path(sys.argv[1]), sys.argv[2], make_answers(100_000), Answers))"
    )
    digests = {write_table(tmp_path, "here.parquet", make_answers(100_000), Answers)}
    for threads in ("1", "8"):
        environment = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", code, str(tmp_path), f"{threads}.parquet"]
        found = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        digests.add(found.stdout.strip())
    assert len(digests) == 1


def test_a_row_that_breaks_a_rule_is_not_written(tmp_path: Path) -> None:
    frame = pl.concat([make_answers(3), make_answers(1)])
    with pytest.raises(dy.exc.ValidationError, match="primary_key"):
        write_table(tmp_path, "answers.parquet", frame, Answers)
    assert Files(tmp_path).names() == []


def test_wrong_columns_are_all_named(tmp_path: Path) -> None:
    frame = make_answers(3).with_columns(pl.col("ids").cast(pl.List(pl.Int64)), extra=1).drop("score")
    with pytest.raises(TableMismatch) as raised:
        write_table(tmp_path, "answers.parquet", frame, Answers)
    assert str(raised.value) == (
        f"table to be written to {tmp_path}/answers.parquet is not Answers: column score is missing; "
        "column extra is unexpected; column ids is List(Int64), expected List(Int32)"
    )
    frame.write_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(TableMismatch, match=r"foreign\.parquet is not Answers: column score is missing"):
        read_table(tmp_path, "foreign.parquet", Answers)
