"""``agpo passk``: the pass@k curve of a file of counts, with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from agpo.evaluation.bootstrap import curve_intervals

_JSON_LINES = (".jsonl", ".ndjson")


def passk_file(source: Path, ks: Sequence[int]) -> pl.DataFrame:
    """Mean pass@k over the problems of a file with 95 % intervals: columns k, pass_at_k, lower, upper, problems.

    Args:
        source: JSONL or Parquet with one row a problem: problem (its id), n (samples), c (right ones).
        ks: budgets; each at least 1 and at most every n.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another file type, a bad k, or the first bad row with its field, value and what is accepted. Rows
            count from 1; in JSONL they are lines.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"--k {','.join(map(str, ks))}: accepted are integers of at least 1, separated by commas")
    problems: dict[str, int] = {}
    samples, right = [], []
    for number, row in _read_rows(source):
        problem = _read_problem(number, row)
        if problem in problems:
            raise _bad_row(number, "problem", problem, f"one row a problem (row {problems[problem]} has it too)")
        problems[problem] = number
        samples.append(_read_integer(number, row, "n", max(ks), None))
        right.append(_read_integer(number, row, "c", 0, samples[-1]))
    if len(problems) < 2:
        raise ValueError(f"{source} has {len(problems)} problems; intervals over problems need at least 2")
    counts = pl.DataFrame({"problem_id": list(problems), "set": "all", "n": samples, "correct": right})
    counts = counts.with_columns(wrong=pl.col("n") - pl.col("correct"))
    return curve_intervals(counts, ks).drop("set")


def _read_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    if source.suffix == ".parquet":
        yield from enumerate(pl.read_parquet(source).iter_rows(named=True), start=1)
    elif source.suffix in _JSON_LINES:
        with source.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _read_object(number, line)
    else:
        raise ValueError(f"{source}: accepted are files that end in .parquet, {' or '.join(_JSON_LINES)}")


def _read_object(number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:  # also not UTF-8
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"row {number}: {line[:80].decode(errors='replace').strip()!r} is not a JSON object in UTF-8")
    return row


def _read_problem(number: int, row: dict[str, Any]) -> str:
    value = row.get("problem")
    if value == "" or isinstance(value, bool) or not isinstance(value, str | int):
        raise _bad_row(number, "problem", value, "a non-empty text or an integer")
    return str(value)


def _read_integer(number: int, row: dict[str, Any], field: str, lowest: int, highest: int | None) -> int:
    value = row.get(field)
    accepted = f"an integer of at least {lowest}" + ("" if highest is None else f" and at most n = {highest}")
    accepted += " (the largest k)" if field == "n" else ""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest or value > (highest or value):
        raise _bad_row(number, field, value, accepted)
    return value


def _bad_row(number: int, field: str, value: Any, accepted: str) -> ValueError:
    return ValueError(f"row {number}: {field} = {value!r}; accepted is {accepted}")
