"""What the objectives of a night are called in its stages, figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agpo.objectives import Objective
from agpo.settings import NightlyRun


def name_objectives(run: NightlyRun, rivals: Sequence[Objective] | None = None) -> dict[str, Objective]:
    """The run's objective, then those that are compared beside, by kind; the second of a kind is ``<kind> 2``.

    ``rivals`` takes the place of those that the run names.
    """
    seen: Counter[str] = Counter()
    names: dict[str, Objective] = {}
    for objective in (run.objective, *(run.compare if rivals is None else rivals)):
        seen[objective.kind] += 1
        count = seen[objective.kind]
        names[objective.kind if count == 1 else f"{objective.kind} {count}"] = objective
    return names
