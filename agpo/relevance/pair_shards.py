"""A split's pairs in shards, read as they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

_BATCH = 8192  # pairs read at a time


class PairShards:
    """The pairs (`records.Pairs`) of one split in table order, ``size`` at a time; the last shard may have fewer.

    The table is streamed: memory holds a shard and some batches of the file, however many pairs there are.
    """

    def __init__(self, path: Path, split: str, size: int) -> None:
        self.size = size
        self._rows = pl.scan_parquet(path, glob=False).filter(pl.col("split") == split).drop("split")
        self.pairs = int(self._rows.select(pl.len()).collect(engine="streaming").item())

    def __len__(self) -> int:
        return -(-self.pairs // self.size)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        waiting = pl.DataFrame()
        for batch in self._rows.collect_batches(chunk_size=_BATCH):
            waiting = pl.concat([waiting, batch]) if waiting.height else batch
            whole = waiting.height - waiting.height % self.size
            yield from waiting.head(whole).iter_slices(self.size)
            waiting = waiting.tail(waiting.height - whole)
        if waiting.height:
            yield waiting

    def count(self, index: int) -> int:
        """Pairs of a shard."""
        return min(self.size, self.pairs - index * self.size)


def has_gold(folder: Path, split: str) -> bool:
    """Whether the gold of any pair of a split is known. ``folder``: with ``pairs.parquet``."""
    rows = pl.scan_parquet(folder / "pairs.parquet", glob=False).filter(pl.col("split") == split)
    return bool(rows.select(pl.col("gold").is_not_null().any()).collect(engine="streaming").item())
