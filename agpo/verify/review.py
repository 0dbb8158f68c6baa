"""People's decisions about answers that the verifier and its audit read differently.

`export_disagreements` writes a CSV file with an empty column ``decision``, a person fills it in, and `import_decisions`
makes it the annotations that `apply_annotations` puts in the place of later verdicts about the same answer to the same
problem with the same gold.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from agpo.artifacts.table import read_table, write_table
from agpo.records import Annotations, Disagreements
from agpo.spreadsheet import quote_cell, unquote_cell
from agpo.verify.math import SHOWN

DECISIONS = ("correct", "wrong")
NAME, VERSION = "annotation", 1  # the verifier of an annotated verdict
_KEY = ["problem_id", "gold", "extracted"]


def export_disagreements(sources: Sequence[Path], target: Path) -> int:
    """Write the disagreements (Parquet, `records.Disagreements`) to a CSV file, one row an answer; how many.

    A cell that a spreadsheet would take for a formula begins with an apostrophe. ``target`` must not exist, because it
    may hold decisions. Without disagreements nothing is written.
    """
    if target.exists():
        raise FileExistsError(f"OUT {str(target)!r} exists and may hold decisions; accepted: a new file")
    _check_folder(target)
    rows = _read_disagreements(sources).unique(_KEY, keep="first", maintain_order=True)
    if rows.is_empty():
        return 0
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows.columns, "decision"])
        for row in rows.iter_rows():
            writer.writerow([*(quote_cell(cell) for cell in row), ""])
    os.replace(partial, target)
    return rows.height


def import_decisions(decisions: Path, sources: Sequence[Path], target: Path) -> tuple[str, dict[str, int]]:
    """Add the decisions of a CSV file to the annotations in the Parquet file ``target``, which need not exist yet.

    Only the columns ``id`` and ``decision`` are read; the rest is looked up in the disagreements. A new decision about
    an answer takes the place of the earlier one. Returns the SHA-256 of the annotations, which is their version (equal
    annotations give equal bytes), and counts: decided, undecided, general (that will hold for later verdicts).

    Raises ValueError with the row (the header is row 1) of an unknown id, an unknown decision, or a decision that
    contradicts an earlier row's; FileNotFoundError without the CSV file or the folder of ``target``.
    """
    if not decisions.is_file():
        raise FileNotFoundError(f"IN {str(decisions)!r} is not a file; accepted: what the export wrote, filled in")
    _check_folder(target)
    known = {row["id"]: row for row in _read_disagreements(sources).iter_rows(named=True)}
    decided: dict[tuple[str, str, str | None], dict[str, str | None]] = {}
    undecided = 0
    with decisions.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        absent = {"id", "decision"} - set(reader.fieldnames or ())
        if absent:
            raise ValueError(f"{decisions.name}: column {', '.join(sorted(absent))} is missing")
        for number, row in enumerate(reader, 2):
            place = f"{decisions.name} row {number}"
            decision = (row["decision"] or "").strip().lower()
            if not decision:
                undecided += 1
                continue
            if decision not in DECISIONS:
                raise ValueError(f"{place}: decision is {decision!r}; accepted: {', '.join(DECISIONS)}, or nothing")
            found = known.get(unquote_cell(row["id"] or ""))
            if found is None:
                raise ValueError(f"{place}: id {row['id']!r} is not among the disagreements")
            key = (found["problem_id"], found["gold"], found["extracted"])
            if key in decided and decided[key]["decision"] != decision:
                raise ValueError(
                    f"{place}: decision is {decision}, but an earlier row decides the same answer otherwise"
                )
            decided[key] = {**dict(zip(_KEY, key, strict=True)), "decision": decision}
    schema = Annotations.create_empty().schema
    general = [row for row in decided.values() if _is_general(row["extracted"])]
    earlier = read_table(target.parent, target.name, Annotations) if target.exists() else Annotations.create_empty()
    new = pl.DataFrame(general, schema=schema)
    table = pl.concat([earlier, new]).unique(_KEY, keep="last").sort(_KEY)
    version = write_table(target.parent, target.name, table, Annotations)
    return version, {"decided": len(decided), "undecided": undecided, "general": len(general)}


def read_annotations(path: str) -> pl.DataFrame | None:
    """The annotations in a file that `import_decisions` wrote; None for no path."""
    return read_table(Path(path).parent, Path(path).name, Annotations) if path else None


def apply_annotations(
    verdicts: pl.DataFrame, problem_ids: Sequence[str], golds: Sequence[str], annotations: pl.DataFrame
) -> pl.DataFrame:
    """The verdicts (`records.Verdicts`), with people's in place of those about an annotated answer.

    ``problem_ids`` and ``golds`` are in the order of the verdicts. An annotated verdict has the verifier "annotation".
    """
    keyed = verdicts.with_columns(
        problem_id=pl.Series(problem_ids, dtype=pl.String), gold=pl.Series(golds, dtype=pl.String)
    )
    joined = keyed.join(annotations, on=_KEY, how="left", maintain_order="left")
    annotated = pl.col("decision").is_not_null()
    right = pl.col("decision") == "correct"

    def replace(column: str, value: pl.Expr) -> pl.Expr:
        return pl.when(annotated).then(value).otherwise(pl.col(column)).cast(verdicts.schema[column]).alias(column)

    return joined.with_columns(
        replace("verdict", pl.col("decision").cast(pl.String)),
        replace("cause", pl.lit("none")),
        replace("reason", pl.when(right).then(pl.lit("")).otherwise(pl.lit("annotated"))),
        replace("verifier", pl.lit(NAME)),
        replace("version", pl.lit(VERSION)),
    ).select(verdicts.columns)


def _check_folder(target: Path) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"OUT {str(target)!r}: no folder {str(target.parent)!r} is there; accepted: one that is"
        )


def _read_disagreements(sources: Sequence[Path]) -> pl.DataFrame:
    tables: list[pl.DataFrame] = [Disagreements.create_empty()]
    for source in sources:
        try:
            tables.append(read_table(source.parent, source.name, Disagreements))
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{str(source)!r} is no Parquet file: {error}") from error
    return pl.concat(tables)


def _is_general(extracted: str | None) -> bool:
    """Whether the text is the whole answer: verdicts keep its beginning, or nothing where none was found."""
    return extracted is not None and len(extracted) < SHOWN
