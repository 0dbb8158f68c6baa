"""Advantages: one small pure file per method; settings pick one by its ``kind``.

A module of this folder with a subclass of `AdvantageEstimator` is a method; so is an entry point of the group
``agpo.objectives`` that names such a class in another package.
"""

from typing import TYPE_CHECKING, TypeAlias

from agpo.objectives.agpo import Agpo
from agpo.objectives.discovery import find_kinds, tagged_union
from agpo.objectives.estimator import AdvantageEstimator, StepContext
from agpo.objectives.grpo import Grpo

OBJECTIVES = find_kinds(__name__, AdvantageEstimator)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    Objective: TypeAlias = AdvantageEstimator
else:
    Objective = tagged_union(OBJECTIVES)

__all__ = ["OBJECTIVES", "AdvantageEstimator", "Agpo", "Grpo", "Objective", "StepContext"]
