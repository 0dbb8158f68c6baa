"""Verify a file of answers: ``agpo verify --kind math IN OUT``."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from agpo.verify.pool import Item, VerifierPool
from agpo.verify.registry import find_verifier

BATCH = 4096  # rows in memory at a time
FORMATS = (".jsonl", ".parquet")
VERDICTS = {
    "id": pl.String,
    "verdict": pl.String,
    "cause": pl.String,
    "extracted": pl.String,
    "reason": pl.String,
    "seconds": pl.Float64,
}


def verify_file(
    kind: str,
    source: Path,
    target: Path,
    timeout: float,
    workers: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write one verdict a row of ``source``, in order; return how many are correct, wrong and unverifiable.

    ``source`` and ``target`` are JSONL or Parquet, by suffix. Rows hold ``id``, ``response`` and ``gold``; a field that
    is missing or neither text nor number counts as blank, and a line that is no JSON object as a row without fields.
    An id keeps its type in JSONL and becomes text in Parquet. ``timeout`` is an answer's CPU seconds. ``target``
    appears when it is whole. Raises ValueError for an unknown kind or suffix or a broken Parquet file, and
    FileNotFoundError without a source or a folder for ``target``.
    """
    find_verifier(kind)
    for name, path in (("IN", source), ("OUT", target)):
        if path.suffix not in FORMATS:
            raise ValueError(f"{name} is {path.name!r}; accepted suffixes: {', '.join(FORMATS)}")
    if not source.is_file():
        raise FileNotFoundError(f"IN {str(source)!r} is not a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"OUT {str(target)!r}: there is no folder {str(target.parent)!r}")
    counts = Counter(correct=0, wrong=0, unverifiable=0)
    rows = _read_jsonl(source) if source.suffix == ".jsonl" else _read_parquet(source)
    lines = target.with_name(f"{target.name}.partial")
    try:
        with VerifierPool(workers, timeout) as pool, lines.open("w", encoding="utf-8", errors="replace") as file:
            while batch := list(islice(rows, BATCH)):
                items = [Item(kind, _text(row.get("response")), _text(row.get("gold"))) for row in batch]
                for row, verdict in zip(batch, pool.verify(items, progress), strict=True):
                    counts[verdict.verdict] += 1
                    fields = {name: getattr(verdict, name) for name in VERDICTS if name != "id"}
                    key = row.get("id")
                    if target.suffix == ".parquet" and key is not None:
                        key = str(key)
                    file.write(json.dumps({"id": key} | fields, ensure_ascii=False, default=str) + "\n")
        if target.suffix == ".parquet":
            table = target.with_name(f"{target.name}.table")
            pl.scan_ndjson(lines, schema=VERDICTS).sink_parquet(table)
            os.replace(table, target)
        else:
            os.replace(lines, target)
    finally:
        lines.unlink(missing_ok=True)
    return dict(counts)


def _read_jsonl(source: Path) -> Iterator[Mapping[str, Any]]:
    with source.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else {}


def _read_parquet(source: Path) -> Iterator[Mapping[str, Any]]:
    table = pl.scan_parquet(source)
    try:
        fields = [name for name in ("id", "response", "gold") if name in table.collect_schema()]
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"IN {str(source)!r} is no Parquet file: {error}") from error
    if not fields:
        for _ in range(table.select(pl.len()).collect().item()):
            yield {}
        return
    for frame in table.select(fields).collect_batches(chunk_size=BATCH):
        yield from frame.iter_rows(named=True)


def _text(value: object) -> str:
    """Text as it is, numbers as written, anything else blank."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
