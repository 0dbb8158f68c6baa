"""Judged query–ad pairs from source rows: the field map, the label by its scheme, and the tables they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from agpo.problems.pair import Pair
from agpo.problems.prompt import render_prompt
from agpo.problems.reader import SourceRow
from agpo.problems.split import assign_splits
from agpo.problems.table import BadField, CheckedRows, read_text
from agpo.records import Demonstrations, Pairs, Problems
from agpo.relevance import Scheme, find_scheme, write_gold
from agpo.settings import FieldMap, PairFields, RowProblems

# How rows of `read_pairs` are checked.
ROW_SETTINGS = {"fields": FieldMap(question="question", gold="gold", id="id"), "gold_format": "plain"}


def read_pairs(rows: Iterable[SourceRow], settings: RowProblems) -> Iterator[SourceRow]:
    """The rows with question (the pair as text), gold and id as `ROW_SETTINGS` name them.

    A row without a query, title or known label gets the reason why instead of a value; none is guessed.
    """
    scheme = find_scheme(settings.scheme)
    for row in rows:
        if row.reason:
            yield row
            continue
        content = row.content
        try:
            value = _read_pair(row.value, settings.pair, scheme)
        except BadField as bad:
            yield SourceRow(row.source, row.number, None, content, bad.reason, bad.detail)
        else:
            yield SourceRow(row.source, row.number, value, content)


def _read_pair(value: Any, fields: PairFields, scheme: Scheme) -> dict[str, str]:
    query = _read_line(value, fields.query, "query")
    title = _read_line(value, fields.title, "title")
    given = [(path.rpartition(".")[2], _read_optional_line(value, path)) for path in fields.attributes]
    attributes = "\n".join(f"{name}: {text}" for name, text in given if text)
    written = _read_line(value, fields.label, "label")
    label = scheme.read(written)
    if label is None:
        raise BadField("unknown label", f"field {fields.label} is {written[:80]!r}; accepted: {scheme.accepted}")
    pair = Pair(query, title, attributes)
    name = read_text(value, fields.id) if fields.id else pair.id
    return {"question": pair.render(), "gold": write_gold(scheme, label), "id": name}


def _read_line(value: Any, path: str, what: str) -> str:
    text = " ".join(read_text(value, path).split())
    if not text:
        raise BadField(f"empty {what}", f"field {path} is blank")
    return text


def _read_optional_line(value: Any, path: str) -> str:
    """An attribute's text; empty where the row does not have it."""
    try:
        return " ".join(read_text(value, path).split())
    except BadField as bad:
        if bad.reason == "missing field":
            return ""
        raise


def split_pairs(checked: CheckedRows, settings: RowProblems) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The tables `Problems`, `Pairs` and `Demonstrations` of checked rows, all pairs of a query in one split.

    Demonstrations are the bare labels of the training pairs.
    """
    questions = checked.kept["question"].to_list()
    parsed = [Pair.parse(question) for question in questions]
    splits = assign_splits([pair.query_id for pair in parsed], settings.selection, settings.confirmation)
    parts: dict[str, Sequence[str | None]] = {
        "query_id": [pair.query_id for pair in parsed],
        "query": [pair.query for pair in parsed],
        "title": [pair.title for pair in parsed],
        "attributes": [pair.attributes for pair in parsed],
        "prompt": [render_prompt(settings.prompt, question) for question in questions],
        "split": splits,
    }
    rows = checked.kept.select("id", "gold").with_columns(
        *(pl.Series(name, column, dtype=pl.String) for name, column in parts.items()),
        case=pl.lit(None, dtype=pl.String),
        verifier=pl.lit(settings.verifier),
        set=pl.lit("held_out"),
    )
    rows = rows.filter(pl.col("split").is_not_null())
    train = pl.col("split") == "train"
    rows = rows.with_columns(set=pl.when(train).then(pl.lit("train")).otherwise("set"))
    problems, pairs = (schema.cast(rows.select(schema.column_names())) for schema in (Problems, Pairs))
    letters = pl.col("gold").str.split(":").list.last()
    labels = rows.filter(train).select("id", "prompt", response=pl.format("Label: {}", letters))
    return problems, pairs, Demonstrations.cast(labels)
