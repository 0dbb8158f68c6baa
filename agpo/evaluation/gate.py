"""The gate: may a candidate become champion? Boundary against the fixed base, quality against the champion.

The rule is our choice; the tests simulate what it passes and what it stops. All differences are bounded together
(max-t over a paired bootstrap of problems), one-sided at the given confidence:

- boundary: mean pass@k, candidate − base, for every set and k. *Kept* when every lower bound is above −margin, *lost*
  when some upper bound is below −margin. A plain "not below the base at any k" would turn away most equally good
  models, and equality can never be shown, so there is a margin.
- quality: mean pass@1, candidate − champion. *Better* when the mean over sets is above 0 with evidence and every set's
  lower bound is above −margin; *worse* when that mean is below 0 with evidence or a set's upper bound is below −margin.

Kept and better promotes; lost or worse rejects; anything else is inconclusive and leaves the champion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from agpo.evaluation.comparison import Comparison, Evidence, compare_policies, points
from agpo.evaluation.passk import pass_tables
from agpo.evaluation.power import SetPower, fewest_problems, problems_to_decide, set_power

LARGEST_MARGIN = 0.05


class SampleTotals(BaseModel):
    """What became of a policy's samples; unverifiable ones leave pass@k."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    unverifiable: int
    truncated: int
    missing: int  # no final answer found


class Decision(BaseModel):
    """The gate's outcome with everything that it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Literal["promote", "reject", "inconclusive"]
    boundary: Literal["kept", "lost", "undecided"]
    quality: Literal["better", "worse", "undecided"]
    reasons: list[str]
    notes: list[str]  # what a reader should know beside the reasons
    champion_is_base: bool
    boundary_evidence: list[Comparison]  # candidate − base, by set and k
    quality_evidence: list[Comparison]  # candidate − champion in pass@1, by set
    quality_mean: Comparison
    power: list[SetPower]
    totals: dict[str, SampleTotals]  # by policy: base, candidate, champion
    margin: float
    confidence: float
    resamples: int
    seed: int


def decide(
    base: pl.DataFrame,
    candidate: pl.DataFrame,
    champion: pl.DataFrame | None,
    ks: Sequence[int],
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
) -> Decision:
    """Judge a candidate by `records.Counts` of all policies on the same problems (a confirmation split).

    Args:
        champion: None when the base is the champion.
        ks: budgets of the boundary; 1 is always one of them.
        margin: accepted loss as a share, above 0 and at most 0.05.
        confidence: of all lower bounds together, and of all upper bounds together; one-sided.
        resamples: bootstrap resamples, at least 100.

    Raises:
        ValueError: a setting out of range, or counts that cannot be compared (see `pass_tables`).
    """
    _check_settings(margin, confidence, resamples)
    ks = sorted({1, *ks})
    policies = {"base": base, "candidate": candidate} | ({} if champion is None else {"champion": champion})
    evidence = compare_policies(
        pass_tables(policies, ks),
        ks,
        champion="base" if champion is None else "champion",
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    lost, undecided = _judge_boundary(evidence, margin, confidence)
    worse, unsure = _judge_quality(evidence, margin, champion_is_base=champion is None)
    against, doubts = lost + worse, undecided + unsure
    return Decision(
        outcome="reject" if against else "inconclusive" if doubts else "promote",
        boundary="lost" if lost else "undecided" if undecided else "kept",
        quality="worse" if worse else "undecided" if unsure else "better",
        reasons=against or doubts or _merits(evidence, margin),
        notes=_notes(policies, evidence, ks),
        champion_is_base=champion is None,
        boundary_evidence=[entry for entries in evidence.boundary.values() for entry in entries],
        quality_evidence=evidence.quality,
        quality_mean=evidence.quality_mean,
        power=[set_power(entries, margin, confidence) for entries in evidence.boundary.values()],
        totals={name: _totals(counts) for name, counts in policies.items()},
        margin=margin,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _check_settings(margin: float, confidence: float, resamples: int) -> None:
    if not 0 < margin <= LARGEST_MARGIN:
        raise ValueError(f"margin = {margin}: accepted is above 0 and at most {LARGEST_MARGIN}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence = {confidence}: accepted is above 0.5 and below 1")
    if resamples < 100:
        raise ValueError(f"resamples = {resamples}: accepted is at least 100")


def _judge_boundary(evidence: Evidence, margin: float, confidence: float) -> tuple[list[str], list[str]]:
    """Reasons against the candidate and reasons for doubt, at most one of each a set: the set's worst k."""
    lost, undecided = [], []
    fewest = fewest_problems(margin, confidence)
    for name, entries in evidence.boundary.items():
        fallen = [entry for entry in entries if entry.upper < -margin]
        unclear = [entry for entry in entries if entry.lower <= -margin]
        if fallen:
            worst = min(fallen, key=lambda entry: entry.upper)
            lost.append(f"boundary lost at {_ks(fallen)}: {worst}, beyond the margin of {points(-margin)}")
        elif unclear:
            worst = min(unclear, key=lambda entry: entry.lower)
            undecided.append(
                f"boundary undecided at {_ks(unclear)}: {worst}, margin {points(-margin)}; {_needed(worst, -margin)}"
            )
        elif entries[0].problems < fewest:
            undecided.append(
                f"boundary undecided: {name} has {entries[0].problems} problems; below {fewest} a loss of "
                f"{100 * margin:g} points cannot be excluded, whatever is observed"
            )
    return lost, undecided


def _judge_quality(evidence: Evidence, margin: float, *, champion_is_base: bool) -> tuple[list[str], list[str]]:
    """As `_judge_boundary`. Against the base, the sets' pass@1 is part of the boundary and not judged twice."""
    worse, unsure = [], []
    mean = evidence.quality_mean
    if mean.upper < 0:
        worse.append(f"quality worse than the champion: {mean}")
    elif mean.lower <= 0:
        unsure.append(f"quality not shown to be better than the champion's: {mean}; {_needed(mean, 0.0)}")
    for entry in [] if champion_is_base else evidence.quality:
        if entry.upper < -margin:
            worse.append(f"quality worse than the champion: {entry}, beyond the margin of {points(-margin)}")
        elif entry.lower <= -margin:
            unsure.append(f"quality undecided: {entry}, margin {points(-margin)}; {_needed(entry, -margin)}")
    return worse, unsure


def _merits(evidence: Evidence, margin: float) -> list[str]:
    closest = min((entry for entries in evidence.boundary.values() for entry in entries), key=lambda entry: entry.lower)
    return [
        f"boundary kept: every lower bound is above {points(-margin)} points; the closest is {closest}",
        f"quality better than the champion: {evidence.quality_mean}",
    ]


def _ks(entries: Sequence[Comparison]) -> str:
    return "k = " + ", ".join(str(entry.k) for entry in entries)


def _needed(comparison: Comparison, threshold: float) -> str:
    needed = problems_to_decide(comparison, threshold)
    if needed is None or needed > 1000 * comparison.problems:
        return "no practical number of problems would decide"
    rounded = int(float(f"{needed:.2g}"))
    return f"about {rounded:,} problems (here {comparison.problems:,}) would decide if the difference stands"


def _notes(policies: Mapping[str, pl.DataFrame], evidence: Evidence, ks: Sequence[int]) -> list[str]:
    notes = []
    left_out = len(policies["base"]) - sum(entries[0].problems for entries in evidence.boundary.values())
    if left_out:
        notes.append(f"{left_out} problems left: some policy has fewer than {max(ks)} verified samples of them")
    for name, counts in policies.items():
        samples = int(counts["n"].to_numpy().min())
        if max(ks) > samples / 4:
            notes.append(f"{name} has {samples} samples a problem; pass@{max(ks)} is steady from {4 * max(ks)} on")
    return notes


def _totals(counts: pl.DataFrame) -> SampleTotals:
    return SampleTotals(
        samples=int(counts["n"].sum()),
        unverifiable=int(counts["unverifiable"].sum()),
        truncated=int(counts["truncated"].sum()),
        missing=int(counts["missing"].sum()),
    )
