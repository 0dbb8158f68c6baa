"""Unbiased pass@k from counts of right answers, and its curve over problem sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.integer] | Sequence[int]
PassTables = dict[str, dict[str, FloatArray]]  # set → policy → pass@k [problems, ks]


@overload
def pass_at_k(n: int, c: int, k: int) -> float: ...  # type: ignore[overload-overlap]  # int is also array-like
@overload
def pass_at_k(n: IntArray | int, c: IntArray | int, k: IntArray | int) -> FloatArray: ...
def pass_at_k(n: IntArray | int, c: IntArray | int, k: IntArray | int) -> float | FloatArray:
    """The chance that k of n samples, drawn without replacement, hold at least one of the c right ones.

        pass@k = 1 − C(n−c, k) / C(n, k)        (Chen et al. 2021, arXiv 2107.03374, eq. 1)

    It is an unbiased estimate of 1 − (1−p)^k for n ≥ k independent samples of a problem with success rate p.

    Args:
        n: samples, at least 1. c: right ones, 0..n. k: budget, 1..n. Integers, or integer arrays that broadcast.

    Returns:
        A float for three integers, else an array of the broadcast shape.

    Raises:
        ValueError: a value out of range or not an integer; the message shows the first one.
    """
    samples, right, budget = np.broadcast_arrays(_integers("n", n), _integers("c", c), _integers("k", k))
    _require(samples >= 1, "1 ≤ n", samples, right, budget)
    _require((right >= 0) & (right <= samples), "0 ≤ c ≤ n", samples, right, budget)
    _require((budget >= 1) & (budget <= samples), "1 ≤ k ≤ n", samples, right, budget)
    # Extended precision (where the platform has it) keeps the differences of large log-factorials exact to 1e-15.
    log_factorials = np.zeros(int(samples.max(initial=0)) + 1, np.longdouble)
    np.cumsum(np.log(np.arange(1, len(log_factorials), dtype=np.longdouble)), out=log_factorials[1:])
    wrong = samples - right
    can_fail = wrong >= budget
    left = np.where(can_fail, wrong - budget, 0)
    log_failure = (
        log_factorials[wrong] - log_factorials[left] - log_factorials[samples] + log_factorials[samples - budget]
    )
    result = np.where(can_fail, -np.expm1(log_failure), 1.0).astype(np.float64)
    return float(result) if result.ndim == 0 else result


def pass_tables(policies: Mapping[str, pl.DataFrame], ks: Sequence[int]) -> PassTables:
    """Per-problem pass@k of policies evaluated on the same problems: set → policy → [problems, ks].

    Rows are ordered by problem id, so row i is the same problem for every policy; sets keep their order in the first
    policy's counts. Unverifiable samples leave: a problem's n is correct + wrong. A problem with fewer than max(ks)
    of those under any of the policies leaves altogether.

    Args:
        policies: `records.Counts` by a name that error messages use.

    Raises:
        ValueError: a k that is not positive or exceeds the samples drawn; policies that were evaluated on different
            problems; a set of which no problem is left.
    """
    if not ks or min(ks) < 1:
        raise ValueError(f"k = {list(ks)}: at least one k is needed, and each must be at least 1")
    ordered = _align(policies, max(ks))
    sets = next(iter(policies.values()))["set"].unique(maintain_order=True).to_list()
    tables: PassTables = {}
    for set_name in sets:
        tables[set_name] = {
            name: _tabulate(counts.filter(pl.col("set") == set_name), ks) for name, counts in ordered.items()
        }
        if any(len(table) == 0 for table in tables[set_name].values()):
            raise ValueError(
                f"set {set_name!r} has no problem with at least {max(ks)} verified samples (k = {max(ks)})"
            )
    return tables


def pass_curve(counts: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    """Mean pass@k by set: columns set, k, pass_at_k, problems. Errors as in `pass_tables`."""
    return curve_frame({name: tables["policy"] for name, tables in pass_tables({"policy": counts}, ks).items()}, ks)


def curve_frame(tables: Mapping[str, FloatArray], ks: Sequence[int]) -> pl.DataFrame:
    """Mean pass@k of per-problem tables [problems, ks] by set: one row a set and k."""
    return pl.DataFrame(
        {
            "set": [name for name in tables for _ in ks],
            "k": [k for _ in tables for k in ks],
            "pass_at_k": [float(mean) for table in tables.values() for mean in table.mean(0)],
            "problems": [len(table) for table in tables.values() for _ in ks],
        },
        schema={"set": pl.String, "k": pl.Int64, "pass_at_k": pl.Float64, "problems": pl.Int64},
    )


def _integers(name: str, value: IntArray | int) -> NDArray[np.int64]:
    array = np.asarray(value)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} = {array.flat[0]!r} has type {array.dtype}; accepted are integers")
    return array.astype(np.int64)


def _require(valid: NDArray[np.bool_], rule: str, n: IntArray, c: IntArray, k: IntArray) -> None:
    if valid.all():
        return
    first = int(np.argmin(valid))
    found = ", ".join(f"{name} = {np.ravel(values)[first]}" for name, values in (("n", n), ("c", c), ("k", k)))
    raise ValueError(f"{found}: accepted is {rule}")


def _align(policies: Mapping[str, pl.DataFrame], k: int) -> dict[str, pl.DataFrame]:
    ordered = {name: counts.sort("problem_id") for name, counts in policies.items()}
    reference_name, reference = next(iter(ordered.items()))
    for name, counts in ordered.items():
        short = counts.filter(pl.col("n") < k)
        if len(short):
            raise ValueError(
                f"k = {k} needs at least {k} samples per problem: {name} has n = {short['n'][0]} for problem "
                f"{short['problem_id'][0]!r} ({len(short)} of {len(counts)} problems are short)"
            )
        _check_same_problems(reference_name, reference, name, counts)
    enough = np.logical_and.reduce([_verified(counts) >= k for counts in ordered.values()])
    return {name: counts.filter(enough) for name, counts in ordered.items()}


def _check_same_problems(reference_name: str, reference: pl.DataFrame, name: str, counts: pl.DataFrame) -> None:
    keys = ["problem_id", "set"]
    if reference.select(keys).equals(counts.select(keys)):
        return
    missing = reference.join(counts, on=keys, how="anti")
    extra = counts.join(reference, on=keys, how="anti")
    example = (missing if len(missing) else extra).row(0, named=True)
    raise ValueError(
        f"{reference_name} and {name} must be evaluated on the same problems: {name} lacks {len(missing)} of the "
        f"{len(reference)} problems of {reference_name} and has {len(extra)} others, "
        f"e.g. {example['problem_id']!r} of set {example['set']!r}"
    )


def _verified(counts: pl.DataFrame) -> NDArray[np.int64]:
    return (counts["correct"] + counts["wrong"]).to_numpy().astype(np.int64)


def _tabulate(counts: pl.DataFrame, ks: Sequence[int]) -> FloatArray:
    verified, correct = _verified(counts), counts["correct"].to_numpy()
    return np.stack([pass_at_k(verified, correct, np.array(k)) for k in ks], axis=1)
