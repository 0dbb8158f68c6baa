"""Rows of a source file, one at a time: JSONL, CSV and Parquet, also compressed."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from agpo.problems.source import SourceFile

_BUFFER = 1 << 20
_BATCH = 8192  # rows of a Parquet file held at a time


class SourceRow(NamedTuple):
    """One row as its source has it. A row that could not be decoded has a reason and a detail, and no value."""

    source: str
    number: int
    value: Any = None
    line: str = ""  # the raw text, where the row is a line
    reason: str = ""
    detail: str = ""

    @property
    def content(self) -> str:
        """The raw line, or the value as JSON; always valid UTF-8."""
        return self.line or escape_surrogates(json.dumps(self.value, ensure_ascii=False, default=str))


def escape_surrogates(text: str) -> str:
    """The text with ``\\ud…`` for what UTF-8 cannot hold: half of a surrogate pair in JSON, a stray byte in CSV."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def read_rows(file: SourceFile) -> Iterator[SourceRow]:
    """All rows in order. A row that cannot be decoded is yielded with its reason; blank lines are no rows.

    Raises ValueError that names the file where the file as a whole cannot be read: damaged, truncated, not its format.
    """
    reader = {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}[file.form]
    try:
        yield from reader(file)
    except Exception as error:  # each compression, Polars and each file system has its own
        raise ValueError(f"{file.setting}: cannot read {file.name}: {type(error).__name__}: {error}") from error


def _read_jsonl(file: SourceFile) -> Iterator[SourceRow]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            line = line.strip() if number > 1 else line.removeprefix(codecs.BOM_UTF8).strip()
            if line:
                yield _decode_json(file.name, number, line)


def _decode_json(source: str, number: int, line: bytes) -> SourceRow:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return SourceRow(source, number, None, line.decode(errors="backslashreplace"), "non-UTF-8 line", str(error))
    try:
        return SourceRow(source, number, json.loads(text), text)
    except (ValueError, RecursionError) as error:
        return SourceRow(source, number, None, text, "invalid JSON", str(error))


def _read_csv(file: SourceFile) -> Iterator[SourceRow]:
    """Rows below a header line. A quoted cell may hold line breaks; a row's number is that of its first line."""
    with _open(file) as stream, io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as text:
        reader = csv.reader(text)
        header = [escape_surrogates(name) for name in next(reader, [])]
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = f"lines {number} to {reader.line_num}"
                yield SourceRow(file.name, number, None, lines, "invalid CSV", str(error))
                continue
            if cells:
                yield _decode_csv(file.name, number, header, cells)


def _decode_csv(source: str, number: int, header: list[str], cells: list[str]) -> SourceRow:
    line = ",".join(map(escape_surrogates, cells))
    if len(cells) != len(header):
        return SourceRow(source, number, None, line, "invalid CSV", f"{len(cells)} cells, the header has {len(header)}")
    bad = [name for name, cell in zip(header, cells, strict=True) if escape_surrogates(cell) != cell]
    if bad:
        return SourceRow(source, number, None, line, "non-UTF-8 line", f"field {bad[0]}; accepted: UTF-8")
    return SourceRow(source, number, dict(zip(header, cells, strict=True)))


def _read_parquet(file: SourceFile) -> Iterator[SourceRow]:
    import polars as pl

    with _as_local_file(file) as path:
        batches = pl.scan_parquet(path).collect_batches(chunk_size=_BATCH)
        values = (value for batch in batches for value in batch.iter_rows(named=True))
        for number, value in enumerate(values, 1):
            yield SourceRow(file.name, number, value)


@contextmanager
def _open(file: SourceFile) -> Iterator[BinaryIO]:
    """The file's bytes without their compression."""
    with ExitStack() as stack:
        stream = stack.enter_context(file.files.open(file.path, "rb"))
        if file.compression == "gzip":
            stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
        elif file.compression == "zstd":
            stream = stack.enter_context(_zstd_file(stream))
        yield io.BufferedReader(stream, _BUFFER)


def _zstd_file(stream: BinaryIO) -> Any:
    # Not by fsspec, whose reader may stop silently at the end of the first of several frames.
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdFile
    else:
        from backports.zstd import ZstdFile
    return ZstdFile(stream)


@contextmanager
def _as_local_file(file: SourceFile) -> Iterator[Path]:
    """A path that Polars can map: the file itself, or a copy for as long as it is read."""
    if isinstance(file.files, LocalFileSystem) and not file.compression:
        yield Path(file.path)
        return
    with tempfile.TemporaryDirectory(prefix="agpo-source-") as folder:
        copy = Path(folder, "rows.parquet")
        with _open(file) as stream, copy.open("wb") as target:
            shutil.copyfileobj(stream, target, _BUFFER)
        yield copy
