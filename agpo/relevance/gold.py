"""Stage: query–ad pairs → labels by their own gold, as a perfect teacher would give them, where it is known."""

from __future__ import annotations

from typing import Any

import polars as pl

from agpo.artifacts.table import write_table
from agpo.records import Labels
from agpo.relevance.answers import make_labels
from agpo.relevance.pair_shards import PairShards
from agpo.relevance.scheme import find_scheme, read_gold
from agpo.settings import Labelling
from agpo.stages import Work

TEACHER = "gold"  # in the place of a policy's key


def label_by_gold(settings: Labelling, work: Work) -> dict[str, Any]:
    """Write ``labels-….parquet`` (`records.Labels`), one vote a pair. ValueError if no pair of the split has gold."""
    scheme = find_scheme(settings.scheme)
    count = 0
    for index, pairs in enumerate(PairShards(work.inputs["pairs"] / "pairs.parquet", settings.split, settings.shard)):
        judged = pairs.filter(pl.col("gold").is_not_null())
        if judged.is_empty():
            continue
        golds = [read_gold(gold) for gold in judged["gold"]]
        votes = judged.select(
            vote=pl.Series([found[1].letter if found else None for found in golds], dtype=pl.String),
            policy=pl.lit(TEACHER),
            seed=pl.lit(0, dtype=pl.Int64),
        )
        prompts: dict[str, list[int]] = {pair: [] for pair in judged["id"]}
        labels = make_labels(judged, votes, prompts, scheme, settings.temperature, file="")
        write_table(work.out, f"labels-{index:05d}.parquet", labels, Labels)
        count += judged.height
    if not count:
        raise ValueError(f"no pair of the {settings.split} split has gold, so it cannot label them")
    return {"rows": count, "metrics": {"label/pairs": float(count)}}
