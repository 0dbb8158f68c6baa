"""What an evaluation can decide: power of the gate, and how many problems would be enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict

from agpo.evaluation.comparison import Comparison

_WANTED_POWER = 0.9


class SetPower(BaseModel):
    """The chance that an equally good candidate keeps the boundary on one set, at the k that is hardest to show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    problems: int
    k: int
    standard_error: float  # of the paired difference, as a share
    equal_passes: float  # probability
    problems_wanted: int  # for a probability of 90 %


def set_power(comparisons: Sequence[Comparison], margin: float, confidence: float) -> SetPower:
    """Normal approximation from the observed standard errors: an equal model passes when margin > q·se + noise."""
    hardest = max(comparisons, key=lambda entry: entry.standard_error)
    reach = hardest.difference - hardest.lower
    fewest = fewest_problems(margin, confidence)
    if hardest.standard_error == 0:
        equal_passes, wanted = 1.0, fewest
    else:
        equal_passes = NormalDist().cdf((margin - reach) / hardest.standard_error)
        needed = reach + NormalDist().inv_cdf(_WANTED_POWER) * hardest.standard_error
        wanted = max(fewest, math.ceil(hardest.problems * (needed / margin) ** 2))
    return SetPower(
        set=hardest.set,
        problems=hardest.problems,
        k=hardest.k,
        standard_error=hardest.standard_error,
        equal_passes=equal_passes if hardest.problems >= fewest else 0.0,
        problems_wanted=wanted,
    )


def fewest_problems(margin: float, confidence: float) -> int:
    """Problems below which nothing observed can exclude a loss of the margin.

    If a share ``margin`` of all problems were lost, P sampled problems would show none of them with probability
    (1 − margin)^P; that must not exceed 1 − confidence.
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - margin))


def problems_to_decide(comparison: Comparison, threshold: float) -> int | None:
    """Problems at which the bound would clear the threshold if the observed difference stands; None: it lies on it."""
    distance = comparison.difference - threshold
    reach = comparison.difference - comparison.lower if distance > 0 else comparison.upper - comparison.difference
    return math.ceil(comparison.problems * (reach / distance) ** 2) if distance else None
