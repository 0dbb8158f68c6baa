"""What a run consists of: for each stage the settings, inputs and sources that its key depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agpo.artifacts import digest
from agpo.objectives import Objective
from agpo.settings import FolderBase, HubBase, Interpolation, NightlyRun, TrainRun
from agpo.stages import EVALUATE, INTERPOLATE, JUDGE, PREPARE, SELECT, TRAIN, WARM_START, Machine, StageRun


class Recipe:
    """The stage runs of a `TrainRun` or `NightlyRun`. Inputs are artifact keys, so nothing needs to exist."""

    def __init__(self, run: TrainRun) -> None:
        self.run = run
        self.machine = Machine.resolve(run.device, run.threads)

    def prepare(self) -> StageRun:
        from agpo.problems import source_digests

        problems = self.run.problems
        return StageRun(
            PREPARE,
            problems,
            inputs={},
            seed=self.run.seed,
            machine=self.machine,
            sources=source_digests(problems),
            ignored=frozenset({"path", "dataset", "revision"}),
        )

    def warm_start(self, problems: str) -> StageRun:
        base = self.run.base
        sources = self._templates()
        if isinstance(base, FolderBase):
            from agpo.learner.folder import digest_folder

            sources["base"] = digest_folder(base.path)
        elif isinstance(base, HubBase):
            from agpo.learner.hub import resolve_model

            sources["base"] = f"{base.model}@{resolve_model(base)}"
        return StageRun(
            WARM_START,
            self.run.warm_start,
            inputs={"problems": problems},
            seed=self.run.seed,
            machine=self.machine,
            sources=sources,
            ignored=frozenset({"problems", "base.path", "base.revision"}),
        )

    def train_key(self, problems: str, base: str) -> str:
        """Key of the run itself; the number of steps is not part of it."""
        return TRAIN.key(
            self.run.what_training_depends_on(),
            {"problems": problems, "base": base, **self._templates()},
            self.run.seed,
            self.machine,
        )

    def trained_key(self, problems: str, base: str) -> str:
        """Key of the policy after ``run.steps`` steps."""
        return digest([self.train_key(problems, base), self.run.steps])

    def interpolate(self, base: str, trained: str, weight: float) -> StageRun:
        return StageRun(
            INTERPOLATE,
            Interpolation(weight=weight),
            inputs={"base": base, "trained": trained},
            seed=0,
            machine=self.machine,
        )

    def evaluate(self, policy: str, problems: str, split: Literal["selection", "confirmation"]) -> StageRun:
        return StageRun(
            EVALUATE,
            self.night.evaluation(split),
            inputs={"policy": policy, "problems": problems},
            seed=self.run.seed,
            machine=self.machine,
            sources=self._templates(),
            ignored=frozenset({"verify.workers", "verify.memory", "verify.largest_unverifiable_share"}),
        )

    def select(self, counts: Mapping[str, str]) -> StageRun:
        return StageRun(SELECT, self.night.selecting, inputs=counts, seed=self.run.seed, machine=self.machine)

    def judge(self, counts: Mapping[str, str]) -> StageRun:
        return StageRun(JUDGE, self.night.judging, inputs=counts, seed=self.run.seed, machine=self.machine)

    def with_objective(self, objective: Objective) -> Recipe:
        """The same run with another objective; every addition stays."""
        return Recipe(self.run.model_copy(update={"objective": objective}))

    def _templates(self) -> dict[str, str]:
        """Digest of the named chat template; its text is part of what a stage computes."""
        from agpo.problems import template_digest

        name = self.run.rollout.chat_template
        return {} if name in ("none", "model") else {"chat_template": template_digest(name)}

    @property
    def night(self) -> NightlyRun:
        if not isinstance(self.run, NightlyRun):
            raise TypeError("a TrainRun says nothing about evaluation; give a NightlyRun")
        return self.run
