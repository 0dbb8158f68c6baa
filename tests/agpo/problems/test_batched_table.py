from __future__ import annotations

from pathlib import Path

import dataframely as dy
import polars as pl
import pytest

from agpo.problems.batched_table import BatchedTable


class Numbers(dy.Schema):
    number = dy.Int64(nullable=False, min=0)


def rows(*numbers: int) -> pl.DataFrame:
    return pl.DataFrame({"number": numbers}, schema={"number": pl.Int64})


def test_batches_become_one_table_in_order(tmp_path: Path) -> None:
    with BatchedTable(tmp_path, "numbers.parquet", Numbers) as table:
        for start in range(0, 30_000, 10_000):
            table.append(rows(*range(start, start + 10_000)))
        table.append(rows())
    assert table.rows == 30_000
    assert pl.read_parquet(table.path)["number"].to_list() == list(range(30_000))
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.parquet"]


def test_without_a_batch_the_table_is_empty(tmp_path: Path) -> None:
    with BatchedTable(tmp_path, "numbers.parquet", Numbers) as table:
        pass
    assert pl.read_parquet(table.path).equals(rows())


def test_a_row_that_breaks_a_rule_leaves_no_table(tmp_path: Path) -> None:
    with (
        pytest.raises(dy.exc.ValidationError),
        BatchedTable(tmp_path, "numbers.parquet", Numbers) as table,
    ):
        table.append(rows(1, -1))
    assert list(tmp_path.iterdir()) == []
