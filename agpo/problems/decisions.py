"""Audit decisions as training gold: what people wrote into the column ``decision`` of a labelling's audit.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from agpo.problems.contamination import WHOLE, EvaluationSet, find_overlaps
from agpo.problems.pair import Pair
from agpo.problems.pair_rows import read_label, read_line, read_optional_line
from agpo.problems.prompt import render_prompt
from agpo.problems.reader import SourceRow, read_rows
from agpo.problems.source import DECISIONS, find_files
from agpo.problems.table import BadField, quarantine_rows, read_text
from agpo.records import Pairs
from agpo.relevance import Scheme, write_gold
from agpo.spreadsheet import unquote_cell

_HELD_OUT = ("selection", "confirmation")


class Decision(NamedTuple):
    pair_id: str  # as the row has it, else the pair's own
    pair: Pair
    gold: str


class Decided(NamedTuple):
    pairs: pl.DataFrame  # records.Pairs
    quarantine: pl.DataFrame  # records.Quarantine: the refused rows of the file
    counts: dict[str, int]  # rows read, empty (no decision), changed, moved (from unlabelled), added, quarantined

    @property
    def joined(self) -> int:
        """Judged pairs that were none before."""
        return self.counts["moved"] + self.counts["added"]


def apply_decisions(
    pairs: pl.DataFrame, address: str, scheme: Scheme, prompt: str, evaluation: Sequence[EvaluationSet] = ()
) -> Decided:
    """Pairs (`records.Pairs`) with the decisions of the files at ``address`` as gold of the train split.

    A pair of train gets the new gold, one of the unlabelled split moves to train, an unknown one joins it. Gold of
    evaluation never changes, and no query of it or of the sets in ``evaluation`` is trained on: decisions about these
    are refused, as are rows without a query, title or known label, a second decision about a pair, and an id that
    stands for another pair here.
    """
    refused: list[tuple[SourceRow, BadField]] = []
    read: list[tuple[SourceRow, Decision]] = []
    counts = {"read": 0, "empty": 0, "changed": 0, "moved": 0, "added": 0}
    for row in (row for file in find_files(address, DECISIONS) for row in read_rows(file)):
        counts["read"] += 1
        try:
            decision = _read_decision(row, scheme)
        except BadField as bad:
            refused.append((row, bad))
        else:
            counts["empty"] += decision is None
            read += [(row, decision)] if decision else []
    known = _Known(pairs, [decision for _, decision in read], evaluation)
    gold: dict[str, str] = {}
    added: list[tuple[str, Decision]] = []
    for row, decision in read:
        try:
            name, split = known.place(decision)
            if name in gold:
                raise BadField("duplicate decision", f"an earlier row decides {name}; accepted: one row a pair")
        except BadField as bad:
            refused.append((row, bad))
            continue
        gold[name] = decision.gold
        counts[{"train": "changed", "unlabelled": "moved"}.get(split, "added")] += 1
        added += [] if split else [(name, decision)]
    quarantine = quarantine_rows(refused)
    return Decided(_give_gold(pairs, gold, added, prompt), quarantine, {**counts, "quarantined": quarantine.height})


def _read_decision(row: SourceRow, scheme: Scheme) -> Decision | None:
    if row.reason:
        raise BadField(row.reason, row.detail)
    value = row.value
    if isinstance(value, dict):
        value = {name: unquote_cell(cell) if isinstance(cell, str) else cell for name, cell in value.items()}
    if isinstance(value, dict) and value.get("decision", "") is None:
        return None
    text = " ".join(read_text(value, "decision").split())
    if not text:
        return None
    label = read_label(text, "decision", scheme)
    query, title = read_line(value, "query", "query"), read_line(value, "title", "title")
    pair = Pair(query, title, _read_attributes(value))
    return Decision(read_optional_line(value, "pair_id") or pair.id, pair, write_gold(scheme, label))


def _read_attributes(value: Any) -> str:
    """Lines "key: value", as the table of pairs has them; empty where the row has none."""
    try:
        lines = read_text(value, "attributes").splitlines()
    except BadField as bad:
        if bad.reason == "missing field":
            return ""
        raise
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())


class _Known:
    """What the table of pairs says about the decided ones."""

    def __init__(self, pairs: pl.DataFrame, decisions: list[Decision], evaluation: Sequence[EvaluationSet]) -> None:
        ids = [decision.pair_id for decision in decisions]
        queries = [decision.pair.query_id for decision in decisions]
        rows = pairs.filter(pl.col("id").is_in(ids) | pl.col("query_id").is_in(queries))
        held_out = rows.filter(pl.col("split").is_in(_HELD_OUT))
        self.held_out = frozenset(held_out["query_id"])
        self.splits = dict(rows.select("id", pl.col("split").cast(pl.String)).iter_rows())
        self.pairs = {name: Pair(*texts) for name, *texts in rows.select("id", *Pair._fields).iter_rows()}
        self.ids = {pair: name for name, pair in self.pairs.items()}
        decided = list(dict.fromkeys(decision.pair.query for decision in decisions))
        sets = [*evaluation, _held_out_queries(pairs)]
        found = find_overlaps(decided, sets, WHOLE)
        self.overlaps = {decided[at]: it for part in reversed(found) for at, it in part.overlaps.items()}

    def place(self, decision: Decision) -> tuple[str, str]:
        """Id and split of the decided pair, no split where it is new; BadField where it must not be trained on."""
        name, pair = decision.pair_id, decision.pair
        if self.pairs.get(name, pair) != pair:
            raise BadField("other pair", f"{name} is here {self.pairs[name].render()!r}; accepted: the same texts")
        name = self.ids.setdefault(pair, name)
        split = self.splits.get(name, "")
        if split in _HELD_OUT or pair.query_id in self.held_out:
            what = f"pair {name} is" if split in _HELD_OUT else "other pairs of its query are"
            raise BadField("held out", f"{what} evaluated on, whose gold does not change; accepted: other queries")
        overlap = self.overlaps.get(pair.query)
        if overlap:
            raise BadField("contaminated", f"{overlap.set}, {overlap.row}: {overlap.phrase}")
        return name, split


def _held_out_queries(pairs: pl.DataFrame) -> EvaluationSet:
    rows = pairs.filter(pl.col("split").is_in(_HELD_OUT)).unique("query", maintain_order=True)
    names = rows.select(pl.format("{} {}", pl.col("split").cast(pl.String), "id")).to_series().to_list()
    return EvaluationSet("held out", names, rows["query"].to_list())


def _give_gold(
    pairs: pl.DataFrame, gold: Mapping[str, str], added: list[tuple[str, Decision]], prompt: str
) -> pl.DataFrame:
    decided = pl.DataFrame({"id": [*gold], "decided": [*gold.values()]}, schema={"id": pl.String, "decided": pl.String})
    is_decided = pl.col("decided").is_not_null()
    joined = pairs.join(decided, on="id", how="left", maintain_order="left").with_columns(
        gold=pl.coalesce("decided", "gold"),
        split=pl.when(is_decided).then(pl.lit("train")).otherwise(pl.col("split").cast(pl.String)),
    )
    rows = [
        (name, pair.query_id, *pair, render_prompt(prompt, pair.render()), label, "train", None)
        for name, (_, pair, label) in added
    ]
    new = pl.DataFrame(rows, schema=dict.fromkeys(Pairs.column_names(), pl.String), orient="row")
    return Pairs.cast(pl.concat([joined.select(Pairs.column_names()), new]))
