"""A whole run."""

from __future__ import annotations

from typing import Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from agpo.objectives import Agpo, Objective
from agpo.settings.common import Settings
from agpo.settings.distil import Distilling, DistilSettings
from agpo.settings.engine import ENGINE_COSTS
from agpo.settings.evaluation import (
    EvaluateSettings,
    Evaluation,
    InterpolateSettings,
    Judging,
    PromoteSettings,
    Selecting,
)
from agpo.settings.judge_student import StudentJudging
from agpo.settings.label import Labelling, LabelSettings, UnlabelledPairs
from agpo.settings.policy import Base, ScratchBase, WarmStart
from agpo.settings.problems import (
    CountdownProblems,
    GeneratedProblems,
    PairFields,
    ProblemSource,
    RowProblems,
    ShopProblems,
)
from agpo.settings.supervise import SuperviseSettings, Supervision
from agpo.settings.training import LearnerSettings, LossSettings, RolloutSettings, VerifySettings

# Of `VerifySettings`: what only costs time, watches or stops a run; annotations enter a key by their content.
VERIFY_COSTS = {"workers", "memory", "largest_unverifiable_share", "audit", "annotations"}


class TrainRun(Settings):
    """Everything that decides what a training run makes."""

    family: str = Field(
        "countdown",
        pattern=r"^[a-z0-9-]+$",
        title="Problem family",
        description="names the registered model agpo-policy-FAMILY",
    )
    problems: ProblemSource = Field(CountdownProblems(), title="Problems")
    base: Base = Field(ScratchBase(), title="Base")
    rollout: RolloutSettings = Field(RolloutSettings(), title="Rollout")
    verify: VerifySettings = Field(VerifySettings(), title="Verify")
    objective: Objective = Field(Agpo(), title="Objective")
    loss: LossSettings = Field(LossSettings(), title="Loss")
    learner: LearnerSettings = Field(LearnerSettings(), title="Learner")
    steps: int = Field(200, ge=0, title="Steps", description="raise it and the run continues")
    checkpoint_every: int = Field(50, ge=1, title="Checkpoint every", description="steps between checkpoints")
    seed: int = Field(0, ge=0, title="Seed")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", title="Device")
    threads: int = Field(1, ge=1, title="CPU threads", description="part of the key: it changes rounding")
    step_deadline: float = Field(
        3600.0, gt=0, title="Step deadline", description="seconds; beyond it stacks are dumped and the run ends"
    )

    @property
    def warm_start(self) -> WarmStart:
        return WarmStart(
            problems=self.problems,
            base=self.base,
            chat_template=self.rollout.chat_template,
            tokens=self.rollout.tokens,
        )

    def what_training_depends_on(self) -> dict[str, Any]:
        """The settings in a training run's key: not how long it is, how it is watched, or what only costs time.

        Problems and base enter by their artifacts' keys; seed, device and threads are parts of every stage's key.
        """
        settings = self.model_dump(
            mode="json",
            include={"rollout", "verify", "objective", "loss", "learner"},
            exclude={
                "rollout": {"engine": ENGINE_COSTS},
                "verify": VERIFY_COSTS,
                "learner": {"refusals": True, "guards": {"accuracy"}},
            },
        )
        if self.learner.lora is None:
            del settings["learner"]["lora"]  # the keys of runs that train all weights do not know it
        return settings

    @model_validator(mode="after")
    def _base_fits_problems(self) -> Self:
        if isinstance(self.base, ScratchBase) and not isinstance(self.problems, GeneratedProblems):
            raise ValueError(
                f"base.kind scratch needs generated problems (countdown, shop), not problems.source "
                f"{self.problems.source}; use base.kind folder or hub"
            )
        return self

    @model_validator(mode="after")
    def _mini_batches_fit(self) -> Self:
        if self.learner.mini_batches > self.rollout.problems:
            raise ValueError(
                f"learner.mini_batches {self.learner.mini_batches} exceeds rollout.problems {self.rollout.problems}"
            )
        return self

    @model_validator(mode="after")
    def _correction_sees_all_tokens(self) -> Self:
        if self.loss.correction is not None and self.rollout.truncates:
            raise ValueError(
                "loss.correction compares with the probabilities of all tokens, and rollout.top_p, top_k or min_p "
                "leave some out; accepted: one of the two"
            )
        return self

    @model_validator(mode="after")
    def _objective_fits_groups(self) -> Self:
        _check_objective(self.objective, "objective", self.rollout)
        return self


class NightlyRun(TrainRun):
    """A whole night: train, choose the candidate, evaluate it, let the gate decide, label, and distil a student."""

    start: Literal["base", "champion"] = Field(
        "base", title="Start from", description="where training starts; the boundary is measured against the base"
    )
    stop_training_at: str = Field(
        "",
        pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$",
        title="Stop training at",
        description="HH:MM after the start: the night goes on with what is trained by then; empty: all steps",
    )
    time_zone: str = Field("UTC", title="Time zone", description="of that time, e.g. Europe/Berlin")
    interpolate: InterpolateSettings = Field(InterpolateSettings(), title="Interpolate")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), title="Evaluate")
    promote: PromoteSettings = Field(PromoteSettings(), title="Promote")
    compare: tuple[Objective, ...] = Field(
        (), title="Also compare", description="objectives trained beside, same additions"
    )
    supervise: SuperviseSettings | None = Field(
        None,
        title="Also supervise",
        description="a teacher that spends the same gold on supervised steps",
    )
    label: LabelSettings | None = Field(None, title="Label", description="the champion labels query–ad pairs")
    distil: DistilSettings | None = Field(None, title="Distil", description="a student learns from the labels")
    promote_student: StudentJudging = Field(StudentJudging(), title="Promote the student")

    @field_validator("time_zone")
    @classmethod
    def _time_zone_exists(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is not a time zone; accepted are names such as UTC or Europe/Berlin")
        return name

    @model_validator(mode="after")
    def _labels_need_pairs(self) -> Self:
        wanted = [name for name in ("supervise", "label", "distil") if getattr(self, name) is not None]
        if wanted and not self._has_pairs:
            raise ValueError(f"{', '.join(wanted)}: problems must be query–ad pairs (source shop or verifier label)")
        if self.label is None and wanted:
            raise ValueError(f"{', '.join(wanted)}: there are no labels without label; give it, e.g. label.samples=8")
        if self.label is not None and not self.label.path and not getattr(self.problems, "unlabelled", 0):
            raise ValueError("label.path: the problems have no unlabelled pairs of their own; give a file of pairs")
        if self.distil is not None and not (self.problems.selection and self.problems.confirmation):
            raise ValueError(
                f"distil needs judged pairs to choose and measure a student on; problems.selection = "
                f"{self.problems.selection} and problems.confirmation = {self.problems.confirmation} must be above 0"
            )
        return self

    @model_validator(mode="after")
    def _compared_fit_groups(self) -> Self:
        for index, objective in enumerate(self.compare):
            _check_objective(objective, f"compare.{index}", self.rollout)
        return self

    def evaluation(self, split: Literal["selection", "confirmation"]) -> Evaluation:
        return Evaluation(
            split=split,
            samples=self.evaluate.samples,
            temperature=self.evaluate.temperature,
            chunk=self.evaluate.chunk,
            tokens=self.rollout.tokens,
            chat_template=self.rollout.chat_template,
            engine=self.rollout.sampling_engine,
            verify=self.verify,
        )

    @property
    def _has_pairs(self) -> bool:
        return isinstance(self.problems, ShopProblems) or getattr(self.problems, "verifier", "") == "label"

    @property
    def scheme(self) -> str:
        """The scheme of the pairs' labels."""
        return "esci4" if isinstance(self.problems, ShopProblems) else getattr(self.problems, "scheme", "")

    @property
    def labels(self) -> LabelSettings:
        if self.label is None:
            raise ValueError("this run says nothing about labels; accepted: settings with label, e.g. the profile shop")
        return self.label

    def check_start(self) -> Self:
        """This run; ValueError if it starts from the champion, which is the night's of the moment it began."""
        if self.start != "base":
            raise ValueError("start = champion is for the flow nightly; accepted here: start = base")
        return self

    def on_labels_alone(self) -> Self:
        """This run with a student that learns from no judged pair; ValueError if it says nothing about labels."""
        student = (self.check_labels().distil or DistilSettings()).model_copy(update={"gold_weight": 0.0})
        return self.model_copy(update={"distil": student})

    def check_labels(self) -> Self:
        """This run; ValueError if it says nothing about labels."""
        assert self.labels
        return self

    @property
    def unlabelled(self) -> UnlabelledPairs | None:
        """The file of unlabelled pairs; None where the problems have their own."""
        if not self.labels.path:
            return None
        problems = self.problems
        if isinstance(problems, RowProblems):
            fields, prompt, bad = problems.pair, problems.prompt, problems.largest_bad_share
        else:
            from agpo.problems.shop.catalogue import KEYS

            fields, prompt, bad = PairFields(attributes=tuple(KEYS)), "plain-v1", 0.05
        return UnlabelledPairs(
            path=self.labels.path, pair=fields, scheme=self.scheme, prompt=prompt, largest_bad_share=bad
        )

    def labelling(self, split: Literal["confirmation", "unlabelled"]) -> Labelling:
        return Labelling(
            split=split,
            scheme=self.scheme,
            samples=self.labels.samples,
            temperature=self.labels.temperature,
            shard=self.labels.shard,
            audit=self.labels.audit,
            tokens=self.rollout.tokens,
            chat_template=self.rollout.chat_template,
            engine=self.rollout.sampling_engine,
        )

    @property
    def supervision(self) -> Supervision:
        settings = self.supervise or SuperviseSettings()
        return Supervision(
            **settings.model_dump(),
            tokens=self.rollout.tokens,
            chat_template=self.rollout.chat_template,
            engine=self.rollout.sampling_engine,
            verify=self.verify,
        )

    @property
    def distilling(self) -> Distilling:
        return Distilling(**(self.distil or DistilSettings()).model_dump(), scheme=self.scheme)

    @property
    def selecting(self) -> Selecting:
        return Selecting(weights=self.interpolate.weights, k=max(self.evaluate.ks), margin=self.interpolate.margin)

    @property
    def judging(self) -> Judging:
        return Judging(**self.promote.model_dump(), ks=self.evaluate.ks)


def _check_objective(objective: Objective, path: str, rollout: RolloutSettings) -> None:
    if rollout.samples < objective.least_group:
        raise ValueError(
            f"{path}.kind {objective.kind} needs at least {objective.least_group} rollouts of a problem to give a "
            f"signal; rollout.samples is {rollout.samples}"
        )
    if rollout.refills and not objective.by_group:
        raise ValueError(
            f"rollout.refills asks whether a group by itself gives an advantage, and {path}.kind {objective.kind} "
            "scales by the whole batch; accepted: rollout.refills = 0 or another objective"
        )
