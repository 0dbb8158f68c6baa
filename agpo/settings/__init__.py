"""Typed settings of a run. Unknown fields are refused; every wrong field is an error with its path, all at once."""

from agpo.settings.common import Settings
from agpo.settings.distil import Distilling, DistilSettings
from agpo.settings.evaluation import (
    EvaluateSettings,
    Evaluation,
    InterpolateSettings,
    Interpolation,
    Judging,
    PromoteSettings,
    Selecting,
)
from agpo.settings.judge_student import StudentJudging
from agpo.settings.label import Labelling, LabelSettings, UnlabelledPairs
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
from agpo.settings.supervise import SuperviseSettings, Supervision
from agpo.settings.training import (
    GuardSettings,
    LearnerSettings,
    LoraSettings,
    LossSettings,
    Precision,
    RolloutSettings,
    VerifySettings,
)

__all__ = [
    "Base",
    "CountdownProblems",
    "DistilSettings",
    "Distilling",
    "EvaluateSettings",
    "Evaluation",
    "FieldMap",
    "FolderBase",
    "GeneratedProblems",
    "GuardSettings",
    "HubBase",
    "HubProblems",
    "InterpolateSettings",
    "Interpolation",
    "Judging",
    "LabelSettings",
    "Labelling",
    "LearnerSettings",
    "LoraSettings",
    "LossSettings",
    "ModelShape",
    "NightlyRun",
    "PairFields",
    "Precision",
    "ProblemSource",
    "PromoteSettings",
    "RolloutSettings",
    "RowProblems",
    "ScratchBase",
    "Selecting",
    "Settings",
    "ShopProblems",
    "StudentJudging",
    "SuperviseSettings",
    "Supervised",
    "Supervision",
    "TableProblems",
    "TrainRun",
    "UnlabelledPairs",
    "VerifySettings",
    "WarmStart",
]
