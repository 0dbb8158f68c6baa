"""A table that is written in batches, so that it is never in memory as a whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import dataframely as dy
import polars as pl

from agpo.artifacts.table import write_table

_ROW_GROUP = 8192  # rows: what a reader that streams the table holds at a time


class BatchedTable:
    """Collects checked batches and joins them in ``folder/name`` when the block ends without an error.

    Batches lie beside the target until then. Equal batches give equal bytes.
    """

    def __init__(self, folder: Path, name: str, schema: type[dy.Schema]) -> None:
        self.path, self.schema, self.rows = folder / name, schema, 0
        self._batches: list[Path] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="batches-", dir=self.path.parent)
        self.append(self.schema.create_empty())
        return self

    def append(self, frame: pl.DataFrame) -> None:
        name = f"{len(self._batches):06d}.parquet"
        write_table(Path(self._folder.name), name, frame, self.schema)
        self._batches.append(Path(self._folder.name, name))
        self.rows += frame.height

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            joined = pl.scan_parquet(self._batches, glob=False)
            joined.sink_parquet(self.path, compression="zstd", row_group_size=_ROW_GROUP)
        self._folder.cleanup()
