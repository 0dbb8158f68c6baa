"""A whole run."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from agpo.objectives import Agpo, Objective
from agpo.settings.common import Settings
from agpo.settings.evaluation import (
    EvaluateSettings,
    Evaluation,
    InterpolateSettings,
    Judging,
    PromoteSettings,
    Selecting,
)
from agpo.settings.policy import Base, ScratchBase, WarmStart
from agpo.settings.problems import CountdownProblems, GeneratedProblems, ProblemSource
from agpo.settings.training import LearnerSettings, LossSettings, RolloutSettings, VerifySettings


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
        return self.model_dump(
            mode="json",
            include={"rollout", "verify", "objective", "loss", "learner"},
            exclude={"verify": {"workers", "memory", "largest_unverifiable_share"}, "learner": {"refusals"}},
        )

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
    def _objective_fits_groups(self) -> Self:
        _check_group(self.objective, "objective", self.rollout.samples)
        return self


class NightlyRun(TrainRun):
    """A whole night: train, choose the candidate, evaluate it, and let the gate decide."""

    interpolate: InterpolateSettings = Field(InterpolateSettings(), title="Interpolate")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), title="Evaluate")
    promote: PromoteSettings = Field(PromoteSettings(), title="Promote")
    compare: tuple[Objective, ...] = Field(
        (), title="Also compare", description="objectives trained beside, same additions"
    )

    @model_validator(mode="after")
    def _compared_fit_groups(self) -> Self:
        for index, objective in enumerate(self.compare):
            _check_group(objective, f"compare.{index}", self.rollout.samples)
        return self

    def evaluation(self, split: Literal["selection", "confirmation"]) -> Evaluation:
        return Evaluation(
            split=split,
            samples=self.evaluate.samples,
            temperature=self.evaluate.temperature,
            chunk=self.evaluate.chunk,
            tokens=self.rollout.tokens,
            chat_template=self.rollout.chat_template,
            verify=self.verify,
        )

    @property
    def selecting(self) -> Selecting:
        return Selecting(weights=self.interpolate.weights, k=max(self.evaluate.ks), margin=self.interpolate.margin)

    @property
    def judging(self) -> Judging:
        return Judging(**self.promote.model_dump(), ks=self.evaluate.ks)


def _check_group(objective: Objective, path: str, samples: int) -> None:
    if samples < objective.least_group:
        raise ValueError(
            f"{path}.kind {objective.kind} needs at least {objective.least_group} rollouts of a problem to give a "
            f"signal; rollout.samples is {samples}"
        )
