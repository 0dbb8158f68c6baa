from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from agpo.relevance.pair_shards import PairShards
from tests.agpo.relevance.voter import make_pairs


def write_pairs(path: Path, count: int) -> pl.DataFrame:
    """In row groups that fit no shard; returns those of the unlabelled split."""
    pairs = make_pairs(count)
    pairs.write_parquet(path, row_group_size=1000)
    return pairs.filter(pl.col("split") == "unlabelled").drop("split")


@pytest.mark.parametrize(("count", "size"), [(1, 4), (2, 1), (9, 4), (10, 4), (20_000, 512), (20_000, 9000)])
def test_all_pairs_of_the_split_in_table_order(tmp_path: Path, count: int, size: int) -> None:
    wanted = write_pairs(tmp_path / "pairs.parquet", count)
    shards = PairShards(tmp_path / "pairs.parquet", "unlabelled", size)
    found = list(shards)
    assert shards.pairs == len(wanted)
    assert len(shards) == len(found)
    assert [shards.count(index) for index in range(len(shards))] == [len(shard) for shard in found]
    assert {len(shard) for shard in found[:-1]} <= {size}
    assert pl.concat(found).equals(wanted)


def test_a_split_without_a_pair(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.parquet", 4)
    shards = PairShards(tmp_path / "pairs.parquet", "selection", 4)
    assert (shards.pairs, len(shards), list(shards)) == (0, 0, [])
