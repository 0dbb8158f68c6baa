"""Stage: rows of unlabelled query–ad pairs → pairs, quarantine and receipt."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agpo.artifacts import Files
from agpo.problems.batched_table import BatchedTable
from agpo.problems.distinct import Distinct
from agpo.problems.pair_rows import NamedPair, read_label, read_optional_line, read_pair
from agpo.problems.prompt import render_prompt
from agpo.problems.reader import SourceRow, read_rows
from agpo.problems.source import find_files, row_digests
from agpo.problems.table import BadField, TooManyBadRows, batch_rows, count_reasons, quarantine_rows
from agpo.records import Pairs, Quarantine
from agpo.relevance import find_scheme, write_gold
from agpo.settings import UnlabelledPairs
from agpo.stages import Work

_SETTING = "label.path"
_REPEATED_ID = BadField("duplicate id", "an earlier row has this id; accepted: one row per id")
_REPEATED_PAIR = BadField("duplicate pair", "an earlier row has this query and ad; accepted: one row each")

_Good = tuple[SourceRow, NamedPair, str | None]  # the last is the gold
_Bad = tuple[SourceRow, BadField]


def prepare_pairs(settings: UnlabelledPairs, work: Work) -> dict[str, Any]:
    """Write the tables ``pairs`` (split *unlabelled*) and ``quarantine``, and ``receipt.json``: what was read, by
    content digest, and what became of it.

    A label is kept as gold where a row has one; an unknown one puts the row into quarantine, as do a missing query or
    title and a pair or id that an earlier row has. Rows are streamed: memory holds a batch of them, and eight bytes of
    every id and text.

    Raises FileNotFoundError for a path without a file, `TooManyBadRows` where the share of bad rows is above its bound
    (the quarantine then lies in the stage's partial space).
    """
    rows = (row for file in find_files(settings.path, _SETTING) for row in read_rows(file))
    reader = _Reader(settings)
    read = judged = 0
    with (
        BatchedTable(work.out, "pairs.parquet", Pairs) as pairs,
        BatchedTable(work.out, "quarantine.parquet", Quarantine) as quarantine,
    ):
        for batch in batch_rows(rows):
            good, bad = reader.read(batch)
            pairs.append(good)
            quarantine.append(bad)
            read += len(batch)
            judged += good.height - good["gold"].null_count()
    reasons = count_reasons(pl.read_parquet(quarantine.path, columns=["reason"]))
    if quarantine.rows > settings.largest_bad_share * read or not pairs.rows:
        work.partial.copy(quarantine.path, quarantine.path.name)
        first = pl.scan_parquet(quarantine.path).select("source", "row", "detail").head(1).collect()
        place = f"{work.partial.uri}/{quarantine.path.name}"
        raise TooManyBadRows(read, reasons, next(first.iter_rows(), None), settings.largest_bad_share, place)
    counts = {"read": read, "kept": pairs.rows, "quarantined": quarantine.rows, "judged": judged}
    digests = row_digests(settings.path, settings.prompt, _SETTING)
    receipt = {"digests": digests, "rows": counts, "quarantined": reasons}
    Files(work.out).write("receipt.json", json.dumps(receipt, indent=1, ensure_ascii=False).encode())
    return {"rows": pairs.rows, "metrics": {f"pairs/{name}": count for name, count in counts.items()}}


class _Reader:
    """Reads batches of rows and remembers which ids and pairs it has met."""

    def __init__(self, settings: UnlabelledPairs) -> None:
        self.settings, self.scheme = settings, find_scheme(settings.scheme)
        self._ids, self._pairs = Distinct(), Distinct()

    def read(self, batch: list[SourceRow]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """`Pairs` of the good rows and `Quarantine` of the others."""
        good: list[_Good] = []
        bad: list[_Bad] = []
        for row in batch:
            try:
                good.append((row, *self._read_row(row)))
            except BadField as fault:
                bad.append((row, fault))
        new = self._ids.are_new([named.id for _, named, _ in good])
        good = _drop(good, new, bad, _REPEATED_ID)
        new = self._pairs.are_new([named.pair.render() for _, named, _ in good])
        good = _drop(good, new, bad, _REPEATED_PAIR)
        return self._make_pairs(good), quarantine_rows(bad)

    def _read_row(self, row: SourceRow) -> tuple[NamedPair, str | None]:
        if row.reason:
            raise BadField(row.reason, row.detail)
        fields = self.settings.pair
        named = read_pair(row.value, fields)
        if not named.id:
            raise BadField("empty id", f"field {fields.id} is blank")
        written = read_optional_line(row.value, fields.label)
        return named, write_gold(self.scheme, read_label(written, fields.label, self.scheme)) if written else None

    def _make_pairs(self, good: list[_Good]) -> pl.DataFrame:
        prompt = self.settings.prompt
        rows = [
            (name, pair.query_id, *pair, render_prompt(prompt, pair.render()), gold, "unlabelled", None)
            for _, (name, pair), gold in good
        ]
        return pl.DataFrame(rows, schema=Pairs.create_empty().schema, orient="row")


def _drop(good: list[_Good], new: NDArray[np.bool_], bad: list[_Bad], fault: BadField) -> list[_Good]:
    """The rows that are new; the others become bad."""
    bad += [(row, fault) for (row, _, _), is_new in zip(good, new, strict=True) if not is_new]
    return [entry for entry, is_new in zip(good, new, strict=True) if is_new]
