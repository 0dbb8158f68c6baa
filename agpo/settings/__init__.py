"""Typed settings of a run. Unknown fields are refused; every wrong field is an error with its path, all at once."""

from agpo.settings.common import Settings
from agpo.settings.evaluation import (
    EvaluateSettings,
    Evaluation,
    InterpolateSettings,
    Interpolation,
    Judging,
    PromoteSettings,
    Selecting,
)
from agpo.settings.policy import Base, FolderBase, HubBase, ModelShape, ScratchBase, Supervised, WarmStart
from agpo.settings.problems import (
    CountdownProblems,
    FieldMap,
    GeneratedProblems,
    HubProblems,
    PairFields,
    ProblemSource,
    RowProblems,
    ShopProblems,
    TableProblems,
)
from agpo.settings.run import NightlyRun, TrainRun
from agpo.settings.training import LearnerSettings, LossSettings, RolloutSettings, VerifySettings

__all__ = [
    "Base",
    "CountdownProblems",
    "EvaluateSettings",
    "Evaluation",
    "FieldMap",
    "FolderBase",
    "GeneratedProblems",
    "HubBase",
    "HubProblems",
    "InterpolateSettings",
    "Interpolation",
    "Judging",
    "LearnerSettings",
    "LossSettings",
    "ModelShape",
    "NightlyRun",
    "PairFields",
    "ProblemSource",
    "PromoteSettings",
    "RolloutSettings",
    "RowProblems",
    "ScratchBase",
    "Selecting",
    "Settings",
    "ShopProblems",
    "Supervised",
    "TableProblems",
    "TrainRun",
    "VerifySettings",
    "WarmStart",
]
