"""Query–ad pairs from source rows: the field map, the label by its scheme, and the tables that judged pairs make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl

from agpo.problems.pair import Pair
from agpo.problems.prompt import render_prompt
from agpo.problems.reader import SourceRow
from agpo.problems.split import assign_splits
from agpo.problems.table import BadField, CheckedRows, read_text
from agpo.records import Demonstrations, Pairs, Problems
from agpo.relevance import Label, Scheme, find_scheme, write_gold
from agpo.settings import FieldMap, PairFields, RowProblems

# How rows of `read_pairs` are checked.
ROW_SETTINGS = {"fields": FieldMap(question="question", gold="gold", id="id"), "gold_format": "plain"}


class NamedPair(NamedTuple):
    id: str
    pair: Pair


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
            name, pair = read_pair(row.value, settings.pair)
            label = read_label(read_line(row.value, settings.pair.label, "label"), settings.pair.label, scheme)
        except BadField as bad:
            yield SourceRow(row.source, row.number, None, content, bad.reason, bad.detail)
        else:
            value = {"question": pair.render(), "gold": write_gold(scheme, label), "id": name}
            yield SourceRow(row.source, row.number, value, content)


def read_pair(value: Any, fields: PairFields) -> NamedPair:
    """The pair of a source row; BadField says what it lacks."""
    query = read_line(value, fields.query, "query")
    title = read_line(value, fields.title, "title")
    given = [(path.rpartition(".")[2], read_optional_line(value, path)) for path in fields.attributes]
    pair = Pair(query, title, "\n".join(f"{name}: {text}" for name, text in given if text))
    return NamedPair(read_text(value, fields.id) if fields.id else pair.id, pair)


def read_label(text: str, path: str, scheme: Scheme) -> Label:
    """The label that stands in field ``path``, else BadField."""
    label = scheme.read(text)
    if label is None:
        raise BadField("unknown label", f"field {path} is {text[:80]!r}; accepted: {scheme.accepted}")
    return label


def read_line(value: Any, path: str, what: str) -> str:
    text = " ".join(read_text(value, path).split())
    if not text:
        raise BadField(f"empty {what}", f"field {path} is blank")
    return text


def read_optional_line(value: Any, path: str) -> str:
    """A field's text; empty where the row does not have it."""
    try:
        return " ".join(read_text(value, path).split())
    except BadField as bad:
        if bad.reason == "missing field":
            return ""
        raise


def split_pairs(checked: CheckedRows, settings: RowProblems) -> pl.DataFrame:
    """The table `Pairs` of checked rows, all pairs of a query in one split; unused ones are left out."""
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
    )
    return Pairs.cast(rows.filter(pl.col("split").is_not_null()).select(Pairs.column_names()))


def pose_pairs(pairs: pl.DataFrame) -> pl.DataFrame:
    """The table `Problems` of judged pairs."""
    named = pl.when(pl.col("split") == "train").then(pl.lit("train")).otherwise(pl.lit("held_out"))
    columns = (pl.col("split").cast(pl.String), pl.lit("label").alias("verifier"), named.alias("set"))
    return Problems.cast(pairs.with_columns(*columns).select(Problems.column_names()))


def show_labels(pairs: pl.DataFrame) -> pl.DataFrame:
    """The table `Demonstrations` of judged pairs: the bare labels of those in train."""
    letters = pl.col("gold").str.split(":").list.last()
    train = pairs.filter(pl.col("split") == "train")
    return Demonstrations.cast(train.select("id", "prompt", response=pl.format("Label: {}", letters)))
