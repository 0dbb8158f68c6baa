"""Bootstrap over problems: intervals of a pass@k curve and of differences between curves on the same problems.

A problem and all its samples are drawn together, because samples of one problem are not independent evidence about
other problems. Both sides of a difference see the same draws (paired).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from agpo.evaluation.passk import FloatArray, curve_frame, pass_tables

_CHUNK = 1 << 22  # multinomial weights held at once, 32 MiB
_ROUNDING = 1e-12


def resample_means(values: FloatArray, resamples: int, seed: int, stream: str) -> FloatArray:
    """Means of resampled problems, [resamples, columns], from per-problem values [problems, columns].

    Equal rows are interchangeable, so a resample is a multinomial draw over the distinct rows. The draws depend on
    seed, stream (the set's name) and values, not on the order of the problems or on other sets.

    Raises:
        ValueError: fewer than two problems, of which no spread can be seen.
    """
    problems = len(values)
    if problems < 2:
        raise ValueError(f"set {stream!r} has {problems} problem; intervals over problems need at least 2")
    distinct, counts = np.unique(values, axis=0, return_counts=True)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream.encode()])))
    means = np.empty((resamples, values.shape[1]))
    size = max(1, _CHUNK // len(distinct))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        weights = random.multinomial(problems, counts / problems, size=rows)
        means[start : start + rows] = weights.astype(np.float64) @ distinct / problems
    return means


@dataclass(frozen=True, slots=True)
class Bounds:
    """One-sided bounds that hold together, and what they were made of; arrays are [columns]."""

    lower: FloatArray
    upper: FloatArray
    errors: FloatArray  # bootstrap standard errors
    critical_lower: float  # standard errors between an estimate and its lower bound
    critical_upper: float


def simultaneous_bounds(estimates: FloatArray, resampled: FloatArray, confidence: float) -> Bounds:
    """Max-t bounds of a family of estimates [columns] from their resampled values [resamples, columns].

    With the given confidence all true values lie above ``lower``; with the same confidence all lie below ``upper``.
    The critical value is the quantile of the largest studentised deviation over the family (Westfall and Young 1993;
    the gate's use of it is simulated in the tests), so correlated columns cost little.
    """
    errors = resampled.std(axis=0, ddof=1)
    deviations = resampled - estimates
    # A column of equal values has no spread but rounding, which must not set the family's critical value.
    studentised = np.divide(deviations, errors, out=np.zeros_like(deviations), where=errors > _ROUNDING)
    critical_lower = float(np.quantile(studentised.max(axis=1), confidence))
    critical_upper = float(np.quantile(-studentised.min(axis=1), confidence))
    return Bounds(
        lower=estimates - critical_lower * errors,
        upper=estimates + critical_upper * errors,
        errors=errors,
        critical_lower=critical_lower,
        critical_upper=critical_upper,
    )


def curve_intervals(
    counts: pl.DataFrame, ks: Sequence[int], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pl.DataFrame:
    """A pass@k curve with pointwise percentile intervals: columns set, k, pass_at_k, lower, upper, problems."""
    tables = {name: table["policy"] for name, table in pass_tables({"policy": counts}, ks).items()}
    resampled = np.concatenate([resample_means(table, resamples, seed, name) for name, table in tables.items()], axis=1)
    lower, upper = _percentiles(resampled, confidence)
    frame = curve_frame(tables, ks).with_columns(lower=lower, upper=upper)
    return frame.select("set", "k", "pass_at_k", "lower", "upper", "problems")


def difference_intervals(
    base: pl.DataFrame,
    candidate: pl.DataFrame,
    ks: Sequence[int],
    *,
    interval: Literal["pointwise", "simultaneous"] = "pointwise",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """Candidate − base in mean pass@k: columns set, k, base, candidate, difference, lower, upper, problems.

    ``pointwise``: two-sided percentile intervals, each right on its own. ``simultaneous``: the bounds of
    `simultaneous_bounds` over all sets and ks.

    Raises:
        ValueError: the two were evaluated on different problems (the message says how many); as `pass_tables`.
    """
    tables = pass_tables({"base": base, "candidate": candidate}, ks)
    curves = {
        policy: curve_frame({name: table[policy] for name, table in tables.items()}, ks)
        for policy in ("base", "candidate")
    }
    differences = {name: table["candidate"] - table["base"] for name, table in tables.items()}
    estimates = np.concatenate([table.mean(0) for table in differences.values()])
    resampled = np.concatenate(
        [resample_means(table, resamples, seed, name) for name, table in differences.items()], axis=1
    )
    if interval == "simultaneous":
        bounds = simultaneous_bounds(estimates, resampled, confidence)
        lower, upper = bounds.lower, bounds.upper
    else:
        lower, upper = _percentiles(resampled, confidence)
    return curves["base"].select(
        "set",
        "k",
        base="pass_at_k",
        candidate=curves["candidate"]["pass_at_k"],
        difference=pl.lit(pl.Series(estimates)),
        lower=pl.lit(pl.Series(lower)),
        upper=pl.lit(pl.Series(upper)),
        problems="problems",
    )


def _percentiles(resampled: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    lower, upper = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return lower, upper
