"""Tables as Parquet files: checked by their schema, and the same bytes for the same rows."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import dataframely as dy
import polars as pl

from agpo.artifacts.files import Files


class TableMismatch(ValueError):
    """A table's columns are not those of its schema."""


def write_table(folder: Files | Path, name: str, frame: pl.DataFrame, schema: type[dy.Schema]) -> str:
    """Check every row and write the table, in the schema's column order; the SHA-256 of the file's bytes in hex.

    Equal frames give equal bytes in every process with one version of Polars. Raises `TableMismatch` for missing,
    unexpected or wrongly typed columns and dataframely's `ValidationError` for rows that break a rule.
    """
    files = _files(folder)
    _check_columns(frame.schema, schema, f"table to be written to {files.uri}/{name}")
    # One chunk, because Parquet pages end where a frame's chunks end.
    table = schema.validate(frame.select(schema.column_names())).rechunk()
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    data = buffer.getvalue()
    files.write(name, data)
    return hashlib.sha256(data).hexdigest()


def read_table(folder: Files | Path, name: str, schema: type[dy.Schema]) -> pl.DataFrame:
    """Read a table that `write_table` wrote; only columns and types are checked again, else `TableMismatch`."""
    files = _files(folder)
    frame = pl.read_parquet(files.local_path(name) if files.local else io.BytesIO(files.read(name)))
    _check_columns(frame.schema, schema, f"{files.uri}/{name}")
    return frame


def _files(folder: Files | Path) -> Files:
    return folder if isinstance(folder, Files) else Files(folder)


def _check_columns(found: pl.Schema, schema: type[dy.Schema], table: str) -> None:
    expected = schema.create_empty().schema
    faults = [f"column {name} is missing" for name in expected if name not in found]
    faults += [f"column {name} is unexpected" for name in found if name not in expected]
    faults += [
        f"column {name} is {found[name]}, expected {dtype}"
        for name, dtype in expected.items()
        if name in found and found[name] != dtype
    ]
    if faults:
        raise TableMismatch(f"{table} is not {schema.__name__}: {'; '.join(faults)}")
