"""From source rows to checked ones: the field map, the row checks and the quarantine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

import dataframely as dy
import polars as pl

from agpo.problems.gold import extract_gold
from agpo.problems.reader import SourceRow, escape_surrogates
from agpo.records import Quarantine
from agpo.settings import FieldMap, RowProblems

_BATCH = 8192  # source rows held at a time
_ANSWERS = {
    "plain": "text in it",
    "gsm8k": "text after a last ####",
    "boxed": "\\boxed{…} with text and balanced braces in it",
}


class MappedRows(dy.Schema):
    """Source rows by the field map, a batch of them."""

    place = dy.Int64(nullable=False)  # in the batch, from 0
    source = dy.String(nullable=False)
    row = dy.Int64(nullable=False)
    reason = dy.String(nullable=True)  # why the row could not be decoded or mapped
    detail = dy.String(nullable=True)
    id = dy.String(nullable=True)
    question = dy.String(nullable=True)
    gold = dy.String(nullable=True)  # the final answer
    answer = dy.String(nullable=True)  # the gold field's whole text

    @dy.rule()
    def mapped(cls) -> pl.Expr:
        return pl.col("reason").is_null()

    @dy.rule()
    def id_given(cls) -> pl.Expr:
        return pl.col("id") != ""

    @dy.rule()
    def question_given(cls) -> pl.Expr:
        return pl.col("question") != ""

    @dy.rule()
    def gold_given(cls) -> pl.Expr:
        return pl.col("gold") != ""


class DistinctRows(dy.Schema):
    """Good rows of the whole source: of rows that share an id or a question, the first stays."""

    source = dy.String(nullable=False)
    row = dy.Int64(nullable=False)
    id = dy.String(nullable=False)
    question = dy.String(nullable=False)
    gold = dy.String(nullable=False)
    answer = dy.String(nullable=False)

    @dy.rule()
    def id_distinct(cls) -> pl.Expr:
        return pl.col("id").is_first_distinct()

    @dy.rule()
    def question_distinct(cls) -> pl.Expr:
        # A row that goes for its id does not make a later row with its question a repeat.
        first = pl.col("id").is_first_distinct()
        return ~first | pl.struct(pl.col("question"), first.alias("first")).is_first_distinct()


@dataclass(frozen=True)
class CheckedRows:
    kept: pl.DataFrame  # DistinctRows
    quarantine: pl.DataFrame  # Quarantine
    read: int


class TooManyBadRows(ValueError):
    """The share of quarantined rows is above its bound, or no row is good."""

    def __init__(
        self,
        read: int,
        reasons: Mapping[str, int],
        first: tuple[str, int, str] | None,
        largest_share: float,
        place: str,
    ) -> None:
        """``first``: source, row and detail of a bad row; ``place``: where all of them lie."""
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        example = "; first: {} row {}: {}".format(*first) if first else ""
        super().__init__(
            f"{sum(reasons.values())} of {read} rows are bad ({listed or 'the source is empty'}), accepted: at least "
            f"one good row and a share of problems.largest_bad_share = {largest_share}{example}; all of them: {place}"
        )


def check_rows(rows: Iterable[SourceRow], settings: RowProblems) -> CheckedRows:
    """Map and check all rows (the first ``limit`` of them), a batch at a time; bad ones go to quarantine."""
    mapped_reasons = {
        "mapped": (pl.col("reason"), pl.col("detail")),
        "id_given": _refusal("empty id", f"field {settings.fields.id} is blank"),
        "question_given": _refusal("empty question", f"field {settings.fields.question} is blank"),
        "gold_given": _refusal("empty gold", f"field {settings.fields.gold}: no {_ANSWERS[settings.gold_format]}"),
    }
    distinct_reasons = {
        "id_distinct": _refusal("duplicate id", "an earlier row has this id; accepted: one row per id"),
        "question_distinct": _refusal("duplicate question", "an earlier row asks the same; accepted: one row each"),
    }
    kept: list[pl.DataFrame] = [DistinctRows.create_empty()]
    quarantined: list[pl.DataFrame] = [Quarantine.create_empty()]
    read = 0
    for batch in batch_rows(islice(rows, settings.limit)):
        read += len(batch)
        mapped = pl.DataFrame(
            [(place, row.source, row.number, *_map_fields(row, settings)) for place, row in enumerate(batch)],
            schema=MappedRows.create_empty().schema,
            orient="row",
        )
        good, failures = MappedRows.filter(mapped)
        bad = _explain(failures.details(), mapped_reasons)
        content = pl.Series("content", [batch[place].content for place in bad["place"]], dtype=pl.String)
        kept.append(good.select(DistinctRows.column_names()))
        quarantined.append(bad.with_columns(content).select(Quarantine.column_names()))
    distinct, failures = DistinctRows.filter(pl.concat(kept))
    repeats = _explain(failures.details(), distinct_reasons).with_columns(
        content=pl.struct("id", "question", "answer").struct.json_encode()
    )
    return CheckedRows(distinct, pl.concat([*quarantined, repeats.select(Quarantine.column_names())]), read)


def count_reasons(quarantine: pl.DataFrame) -> dict[str, int]:
    """Rows by reason, most frequent first."""
    counts = quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
    return dict(counts.iter_rows())


def batch_rows(rows: Iterator[SourceRow]) -> Iterator[list[SourceRow]]:
    """As many rows at a time as are held in memory."""
    return iter(lambda: list(islice(rows, _BATCH)), [])


def _refusal(reason: str, detail: str) -> tuple[pl.Expr, pl.Expr]:
    return pl.lit(reason), pl.lit(detail)


def _explain(details: pl.DataFrame, reasons: dict[str, tuple[pl.Expr, pl.Expr]]) -> pl.DataFrame:
    """Refused rows with the reason and detail of the first rule that they break."""

    def first(which: int) -> pl.Expr:
        return pl.coalesce(pl.when(pl.col(rule) == "invalid").then(texts[which]) for rule, texts in reasons.items())

    return details.with_columns(reason=first(0), detail=first(1))


class BadField(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, escape_surrogates(detail)


def quarantine_rows(refused: Iterable[tuple[SourceRow, BadField]]) -> pl.DataFrame:
    """The table `Quarantine` of rows with what is wrong with them."""
    rows = [(row.source, row.number, bad.reason, bad.detail, row.content) for row, bad in refused]
    return Quarantine.cast(pl.DataFrame(rows, schema=Quarantine.create_empty().schema, orient="row"))


def _map_fields(row: SourceRow, settings: RowProblems) -> tuple[str | None, ...]:
    """Reason, detail, id, question, gold and answer of a row: the first two or the last four."""
    if row.reason:
        return row.reason, row.detail, None, None, None, None
    fields: FieldMap = settings.fields
    try:
        question, answer = read_text(row.value, fields.question), read_text(row.value, fields.gold)
        gold = extract_gold(answer, settings.gold_format)
        name = read_text(row.value, fields.id) if fields.id else _digest_row(question, gold)
    except BadField as bad:
        return bad.reason, bad.detail, None, None, None, None
    return None, None, name, question, gold, answer


def _digest_row(question: str, gold: str) -> str:
    return hashlib.sha256(f"{question}\n{gold}".encode()).hexdigest()[:20]


def read_text(value: Any, path: str) -> str:
    """The text or number at a path, as text without surrounding blanks."""
    try:
        found = _follow(value, path)
    except (LookupError, TypeError, ValueError):
        has = f", which has {', '.join(map(str, value))}"[:200] if isinstance(value, dict) else ""
        raise BadField("missing field", f"field {path} is not in the row{has}") from None
    if found is None:
        raise BadField("missing field", f"field {path} is null")
    infinite = isinstance(found, float) and not math.isfinite(found)
    if infinite or isinstance(found, bool) or not isinstance(found, (str, int, float, Decimal)):
        kind = type(found).__name__
        raise BadField("wrong type", f"field {path} is {str(found)[:80]} ({kind}); accepted: text or a number")
    text = str(found).strip()
    if escape_surrogates(text) != text:
        raise BadField("non-UTF-8 text", f"field {path} holds half of a surrogate pair")
    return text


def _follow(value: Any, path: str) -> Any:
    """What lies at a dotted path; a field whose own name has dots comes first."""
    if isinstance(value, dict) and path in value:
        return value[path]
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value
