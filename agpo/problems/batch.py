"""The batch of a step: a pure function of the problems, the step and the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


def select_problems(problems: pl.DataFrame, step: int, count: int, seed: int) -> pl.DataFrame:
    """The ``count`` rows of ``problems`` that step ``step`` (from 0) trains on.

    The steps walk through epochs, each a seeded permutation of all rows: a row comes once an epoch and never twice in
    a step, also where a step takes the end of one epoch and the start of the next. No other step is computed first.
    """
    rows = problems.height
    if count > rows:
        raise ValueError(f"rollout.problems = {count} is more than the {rows} training problems")
    epoch, start = divmod(step * count, rows)
    taken = _epoch_order(rows, epoch, count, seed)[start : start + count]
    if len(taken) < count:
        taken = np.concatenate([taken, _epoch_order(rows, epoch + 1, count, seed)[: count - len(taken)]])
    return problems[taken]


def select_refill(
    problems: pl.DataFrame, step: int, round: int, count: int, seed: int, taken: Container[str]
) -> pl.DataFrame:
    """At most ``count`` rows for refill ``round`` (from 1) of a step, none of those ``taken``, in a seeded order."""
    order = _permutation(problems.height, step, seed, f"refill {round}")
    ids = problems["id"].to_list()
    return problems[[row for row in order.tolist() if ids[row] not in taken][:count]]


def _epoch_order(rows: int, epoch: int, count: int, seed: int) -> NDArray[np.int64]:
    """The epoch's permutation, in which rows of the step that began in the epoch before stand behind that step.

    Only the first ``count`` places are rearranged, so while they do not touch the last ``count`` ones, the end of the
    epoch before is that of its plain permutation; else the walk starts at the last epoch that began with a step.
    """
    aligned = epoch - epoch % (count // gcd(rows, count))
    first = max(aligned, epoch - 1) if rows >= 2 * count else aligned
    order = _permutation(rows, first, seed)
    for current in range(first + 1, epoch + 1):
        begun = order[rows - current * rows % count :]
        order = _permutation(rows, current, seed)
        repeats = np.isin(order[:count], begun)
        order[:count] = np.concatenate([order[:count][~repeats], order[:count][repeats]])
    return order


def _permutation(rows: int, epoch: int, seed: int, use: str = "batch") -> NDArray[np.int64]:
    """A permutation of 0 … rows − 1 from raw Philox words, whose stream is the same in every numpy version."""
    key = int.from_bytes(hashlib.sha256(f"{use}/{seed}/{epoch}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(rows)
    low = np.uint64((1 << rows.bit_length()) - 1)  # the index in the low bits makes every key distinct
    keys = (words & ~low) | np.arange(rows, dtype=np.uint64)
    keys.sort()
    return (keys & low).astype(np.int64)
