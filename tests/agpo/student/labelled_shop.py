"""A few judged pairs of the shop and votes on others, as the folders that a distillation reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from agpo.artifacts import Files
from agpo.artifacts.table import write_table
from agpo.problems.shop import generate_shop
from agpo.records import Labels, Pairs
from agpo.relevance import find_scheme
from agpo.settings import ShopProblems
from agpo.settings.distil import AlignedEncoder, Distilling, StudentTraining
from agpo.stages import Work

SCHEME = find_scheme("esci4")
LETTERS = [label.letter for label in SCHEME]

TINY = Distilling(
    scheme="esci4",
    encoders=(
        AlignedEncoder(
            width=16, layers=1, heads=2, feed_forward=16, training=StudentTraining(epochs=3, batch=32, rate=5e-3)
        ),
    ),
    length=48,
)


def write_problems(folder: Path) -> Path:
    folder.mkdir(parents=True)
    sizes = {"train": 60, "selection": 40, "confirmation": 50, "unlabelled": 70}
    write_table(folder, "pairs.parquet", generate_shop(ShopProblems(**sizes, demonstrations=1), 0).pairs, Pairs)
    return folder


def write_labels(folder: Path, problems: Path, **columns: pl.Expr) -> Path:
    """Three quarters of four votes are right. ``columns`` replace columns."""
    folder.mkdir(parents=True)
    pairs = pl.read_parquet(problems / "pairs.parquet").filter(pl.col("split") == "unlabelled")
    levels = [LETTERS.index(gold.removeprefix("esci4:")) for gold in pairs["gold"]]
    votes = 3 * np.eye(4, dtype=int)[levels] + np.eye(4, dtype=int)[[(level + 1) % 4 for level in levels]]
    table = pairs.select(
        "query_id", "query", "title", "attributes", "case", "prompt",
        id=pl.format("label-{}", "id"),
        pair_id=pl.col("id"),
        label=pl.Series([LETTERS[level] for level in levels]),
        votes=pl.Series(votes.tolist()),
        unread=pl.lit(0),
        agreement=pl.lit(0.75),
        expected_gain=pl.lit(0.5),
        scheme=pl.lit("esci4"),
        teacher=pl.lit("teacher"),
        rollouts=pl.lit("rollouts-00000.parquet"),
        gold=pl.lit(None, dtype=pl.String),
    ).with_columns(**columns)  # fmt: skip
    for index, shard in enumerate(table.iter_slices(40)):
        write_table(folder, f"labels-{index:05d}.parquet", Labels.cast(shard), Labels)
    return folder


def make_work(root: Path, **inputs: Path) -> Work:
    """A stage's work in an empty ``out``; what is in ``partial`` stays."""
    out = root / "out"
    out.mkdir(parents=True)
    return Work(inputs=inputs, keys={}, out=out, partial=Files(root / "partial"), seed=0, device="cpu")


def read_folder(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
