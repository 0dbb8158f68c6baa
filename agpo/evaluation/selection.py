"""How far to go from the base: the largest interpolation weight that keeps the boundary on the selection split."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from pydantic import BaseModel, ConfigDict

from agpo.evaluation.passk import FloatArray, pass_tables

_ROUNDING = 1e-12  # a drop of exactly the margin is accepted, whatever its last bit


class SetEvidence(BaseModel):
    """Mean pass@1 and pass@k of base and interpolated policy on one set; differences are to the base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    problems: int
    base_pass_at_1: float
    base_pass_at_k: float
    pass_at_1: float
    pass_at_k: float
    difference_at_1: float
    difference_at_k: float


class WeightEvidence(BaseModel):
    """What one weight does on every set, and whether it keeps the boundary on all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float
    kept: bool
    sets: tuple[SetEvidence, ...]


class Choice(BaseModel):
    """The chosen weight with the evidence for all of them, in ascending order of weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float
    kept: bool  # False: no weight kept the boundary; the smallest was taken, for the gate to judge
    k: int
    margin: float
    evidence: tuple[WeightEvidence, ...]


def choose_weight(base: pl.DataFrame, by_weight: Mapping[float, pl.DataFrame], k: int, margin: float) -> Choice:
    """The largest weight whose mean pass@k is at most ``margin`` below the base's on every set, else the smallest.

    Args:
        base: `records.Counts` of the base.
        by_weight: those of each interpolated policy, on the same problems.
        margin: largest accepted drop of mean pass@k, as a share (0.02 is two points).

    Raises:
        ValueError: no weights, a negative margin, or counts that cannot be compared (see `pass_tables`).
    """
    if not by_weight:
        raise ValueError("no interpolation weights to choose from; accepted is at least one")
    if margin < 0:
        raise ValueError(f"margin = {margin}: accepted is 0 or more")
    names = {weight: f"weight {weight}" for weight in sorted(by_weight)}
    tables = pass_tables({"base": base, **{name: by_weight[weight] for weight, name in names.items()}}, (1, k))
    evidence = []
    for weight, name in names.items():
        sets = tuple(_compare(set_name, table["base"], table[name]) for set_name, table in tables.items())
        kept = all(entry.difference_at_k >= -margin - _ROUNDING for entry in sets)
        evidence.append(WeightEvidence(weight=weight, kept=kept, sets=sets))
    kept_weights = [entry.weight for entry in evidence if entry.kept]
    return Choice(
        weight=max(kept_weights, default=min(names)),
        kept=bool(kept_weights),
        k=k,
        margin=margin,
        evidence=tuple(evidence),
    )


def _compare(set_name: str, base: FloatArray, policy: FloatArray) -> SetEvidence:
    base_at_1, base_at_k = (float(mean) for mean in base.mean(0))
    at_1, at_k = (float(mean) for mean in policy.mean(0))
    return SetEvidence(
        set=set_name,
        problems=len(base),
        base_pass_at_1=base_at_1,
        base_pass_at_k=base_at_k,
        pass_at_1=at_1,
        pass_at_k=at_k,
        difference_at_1=at_1 - base_at_1,
        difference_at_k=at_k - base_at_k,
    )
