"""The pairs that a student learns from and is measured on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agpo.artifacts.table import read_table
from agpo.problems.pair import Pair
from agpo.records import Labels, Pairs
from agpo.relevance import Scheme, read_gold

FloatArray = NDArray[np.float64]
Rendering = Literal["pair", "text"]

# What `agpo.student.scorer` fills, for the same texts as `Examples.render`.
TEMPLATES: dict[Rendering, tuple[str, ...]] = {
    "pair": ("{query}", "{title}{attributes}"),
    "text": (Pair("{query}", "{title}").render() + "{attributes}",),
}

_PARTS = ("id", "query_id", "query", "title", "attributes", "case")


@dataclass(frozen=True)
class Examples:
    """Pairs (`records.Pairs`, ``id`` … ``case``) with what a student shall say about them."""

    pairs: pl.DataFrame
    targets: FloatArray  # [pairs, labels], a row sums to 1; labels from least to most relevant
    judged: NDArray[np.bool_]  # [pairs], by gold; else by votes

    def __len__(self) -> int:
        return self.pairs.height

    def __add__(self, other: Examples) -> Examples:
        return Examples(
            pl.concat([self.pairs, other.pairs]),
            np.concatenate([self.targets, other.targets]),
            np.concatenate([self.judged, other.judged]),
        )

    def select(self, chosen: NDArray[np.bool_]) -> Examples:
        return Examples(self.pairs.filter(pl.Series(chosen)), self.targets[chosen], self.judged[chosen])

    @property
    def levels(self) -> NDArray[np.intp]:
        """The label with the largest target, [pairs]."""
        levels: NDArray[np.intp] = self.targets.argmax(axis=1)
        return levels

    def render(self, rendering: Rendering) -> list[tuple[str, ...]]:
        """The one or two texts of each pair that an encoder reads."""
        parts = [Pair(*texts) for texts in self.pairs.select("query", "title", "attributes").iter_rows()]
        if rendering == "text":
            return [(pair.render(),) for pair in parts]
        return [(pair.query, f"{pair.title}\n{pair.attributes}" if pair.attributes else pair.title) for pair in parts]


def read_judged(problems: Path, scheme: Scheme) -> dict[str, Examples]:
    """The judged pairs by split: train, selection, confirmation.

    ValueError for a gold of another scheme, with the pair's id.
    """
    pairs = read_table(problems, "pairs.parquet", Pairs)
    found = {}
    for split in ("train", "selection", "confirmation"):
        rows = pairs.filter(pl.col("split") == split)
        levels = [_read_level(pair, letter, scheme) for pair, letter in rows.select("id", "gold").iter_rows()]
        found[split] = Examples(rows.select(_PARTS), np.eye(len(scheme.labels))[levels], np.ones(len(levels), bool))
    return found


def read_voted(labels: Path, scheme: Scheme, judged: dict[str, Examples]) -> Examples:
    """The pairs that a teacher labelled, with the shares of its votes.

    Without pairs that are judged, by their texts, for gold counts more; and without any pair of a held-out query.
    ValueError for another scheme.
    """
    files = sorted(labels.glob("labels-*.parquet"))
    if not files:
        raise ValueError(f"{labels} holds no labels-*.parquet; it is not the artifact of a labelling")
    rows = pl.concat([read_table(labels, file.name, Labels) for file in files]).filter(pl.col("label").is_not_null())
    other = rows.filter(pl.col("scheme") != scheme.name).head(1)
    if other.height:
        raise ValueError(f"label {other['id'][0]} is of scheme {other['scheme'][0]}; accepted: {scheme.name}")
    texts = pl.concat([examples.pairs.select("query", "title", "attributes") for examples in judged.values()])
    held_out = pl.concat([judged[split].pairs["query_id"] for split in ("selection", "confirmation")])
    rows = rows.join(texts.unique(), on=texts.columns, how="anti", maintain_order="left")
    rows = rows.filter(~pl.col("query_id").is_in(held_out.implode()))
    votes = np.array(rows["votes"].to_list(), dtype=float).reshape(rows.height, len(scheme.labels))
    pairs = rows.select(pl.col("pair_id").alias("id"), *_PARTS[1:])
    return Examples(pairs, votes / votes.sum(1, keepdims=True), np.zeros(rows.height, bool))


def split_queries(examples: Examples) -> tuple[Examples, Examples]:
    """Two halves without a common query, by the order of the queries' hashes."""
    queries = examples.pairs["query_id"].to_list()
    ordered = sorted(set(queries), key=lambda query: hashlib.sha256(query.encode()).digest())
    first = set(ordered[::2])
    chosen = np.array([query in first for query in queries], dtype=bool)
    return examples.select(chosen), examples.select(~chosen)


def _read_level(pair_id: str, gold: str | None, scheme: Scheme) -> int:
    read = read_gold(gold or "")
    if read is None or read[0].name != scheme.name:
        raise ValueError(f"pair {pair_id} has gold {gold!r}; accepted: {scheme.name}: and one of {scheme.accepted}")
    return scheme.level(read[1])
