"""The family of differences that the gate judges, bounded together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from agpo.evaluation.bootstrap import resample_means, simultaneous_bounds
from agpo.evaluation.passk import PassTables

ALL_SETS = "mean over sets"


class Comparison(BaseModel):
    """A difference in mean pass@k between candidate and reference with simultaneous one-sided bounds, as shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    k: int
    problems: int
    reference: float
    candidate: float
    difference: float
    lower: float
    upper: float
    standard_error: float

    def __str__(self) -> str:
        return (
            f"{self.set}, pass@{self.k}: {points(self.difference)} points [{points(self.lower)}, {points(self.upper)}]"
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Every difference of one decision; all their lower bounds hold together, and so do all their upper bounds."""

    boundary: dict[str, list[Comparison]]  # by set: one per k, reference = base
    quality: list[Comparison]  # one per set: pass@1, reference = champion
    quality_mean: Comparison  # pass@1, each set with the same weight


def compare_policies(
    tables: PassTables, ks: Sequence[int], *, champion: str, confidence: float, resamples: int, seed: int
) -> Evidence:
    """Bound candidate − base at every k and candidate − champion at k = 1, on every set and on their mean.

    Args:
        tables: pass@k of "base", "candidate" and the policy named ``champion``, with a column for every k.
        ks: budgets, the first is 1.
    """
    cells, resampled = [], []
    for name, table in tables.items():
        pairs = [(k, table["base"][:, column], table["candidate"][:, column]) for column, k in enumerate(ks)]
        pairs.append((1, table[champion][:, 0], table["candidate"][:, 0]))
        values = np.stack([candidate - reference for _, reference, candidate in pairs], axis=1)
        resampled.append(resample_means(values, resamples, seed, name))
        cells += [
            (name, k, len(values), float(reference.mean()), float(candidate.mean()))
            for k, reference, candidate in pairs
        ]
    width = len(ks) + 1
    quality_cells = cells[len(ks) :: width]
    _, _, problems, references, candidates = zip(*quality_cells, strict=True)
    cells.append((ALL_SETS, 1, sum(problems), float(np.mean(references)), float(np.mean(candidates))))
    mean_quality = np.mean([means[:, -1:] for means in resampled], axis=0)
    differences = np.array([candidate - reference for *_, reference, candidate in cells])
    bounds = simultaneous_bounds(differences, np.concatenate([*resampled, mean_quality], axis=1), confidence)
    comparisons = [
        Comparison(
            set=name,
            k=k,
            problems=count,
            reference=reference,
            candidate=candidate,
            difference=float(differences[index]),
            lower=float(bounds.lower[index]),
            upper=float(bounds.upper[index]),
            standard_error=float(bounds.errors[index]),
        )
        for index, (name, k, count, reference, candidate) in enumerate(cells)
    ]
    return Evidence(
        boundary={name: comparisons[row * width : row * width + len(ks)] for row, name in enumerate(tables)},
        quality=comparisons[len(ks) :: width][: len(tables)],
        quality_mean=comparisons[-1],
    )


def points(share: float) -> str:
    """A difference of shares in signed percentage points."""
    return f"{100 * share:+.1f}"
