"""What the objectives of a night are called in its stages, figures and tables."""

from __future__ import annotations

from collections import Counter

from agpo.objectives import Objective
from agpo.settings import NightlyRun


def label_objectives(run: NightlyRun) -> dict[str, Objective]:
    """The run's objective, then those that are compared beside, by kind; the second of a kind is ``<kind> 2``."""
    seen: Counter[str] = Counter()
    labels: dict[str, Objective] = {}
    for objective in (run.objective, *run.compare):
        seen[objective.kind] += 1
        count = seen[objective.kind]
        labels[objective.kind if count == 1 else f"{objective.kind} {count}"] = objective
    return labels
