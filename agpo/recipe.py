"""What a run consists of: for each stage the settings, inputs and sources that its key depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from agpo.artifacts import digest
from agpo.objectives import Objective
from agpo.settings import FolderBase, HubBase, Interpolation, NightlyRun, TrainRun
from agpo.settings.engine import ENGINE_COSTS
from agpo.settings.run import VERIFY_COSTS
from agpo.stages import (
    DISTIL,
    EVALUATE,
    INTERPOLATE,
    JUDGE,
    JUDGE_STUDENT,
    LABEL,
    LABEL_BY_GOLD,
    PREPARE,
    PREPARE_PAIRS,
    SELECT,
    SUPERVISE,
    TRAIN,
    WARM_START,
    Machine,
    StageRun,
)

_ENGINE_COSTS = frozenset(f"engine.{name}" for name in ENGINE_COSTS)
_COSTS = _ENGINE_COSTS | {f"verify.{name}" for name in VERIFY_COSTS}


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
            ignored=frozenset({"path", "dataset", "revision", "evaluation_sets", "decisions"}),
        )

    def snapshot(self) -> list[str]:
        """Identifies the data of the run as they are now."""
        snapshot = [self.prepare().key]
        if isinstance(self.run, NightlyRun) and self.run.label is not None:
            pairs = self.prepare_pairs()
            snapshot += [] if pairs is None else [pairs.key]
        return snapshot

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
            {"problems": problems, "base": base, **self._verdict_sources()},
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
            sources=self._verdict_sources(),
            ignored=_COSTS,
        )

    def select(self, counts: Mapping[str, str]) -> StageRun:
        return StageRun(SELECT, self.night.selecting, inputs=counts, seed=self.run.seed, machine=self.machine)

    def judge(self, counts: Mapping[str, str]) -> StageRun:
        return StageRun(JUDGE, self.night.judging, inputs=counts, seed=self.run.seed, machine=self.machine)

    def prepare_pairs(self) -> StageRun | None:
        """The pairs to be labelled; None where the problems have them."""
        from agpo.problems.source import row_digests

        unlabelled = self.night.unlabelled
        if unlabelled is None:
            return None
        return StageRun(
            PREPARE_PAIRS,
            unlabelled,
            inputs={},
            seed=0,
            machine=self.machine,
            sources=row_digests(unlabelled.path, unlabelled.prompt, "label.path"),
            ignored=frozenset({"path"}),
        )

    def supervise(self, base: str, problems: str) -> StageRun:
        return StageRun(
            SUPERVISE,
            self.night.supervision,
            inputs={"base": base, "problems": problems},
            seed=self.run.seed,
            machine=self.machine,
            sources=self._verdict_sources(),
            ignored=_COSTS,
        )

    def label(self, teacher: str, pairs: str, split: Literal["confirmation", "unlabelled"]) -> StageRun:
        return StageRun(
            LABEL,
            self.night.labelling(split),
            inputs={"policy": teacher, "pairs": pairs},
            seed=self.run.seed,
            machine=self.machine,
            sources=self._templates(),
            ignored=_ENGINE_COSTS,
        )

    def label_by_gold(self, pairs: str) -> StageRun:
        return StageRun(
            LABEL_BY_GOLD,
            self.night.labelling("unlabelled"),
            inputs={"pairs": pairs},
            seed=0,
            machine=self.machine,
            ignored=frozenset({"engine", "samples", "tokens", "chat_template"}),  # gold needs no answers
        )

    def distil(self, problems: str, labels: str | None, base: str | None) -> StageRun:
        """A student; without labels it learns from gold alone."""
        settings = self.night.distilling
        uses_base = any(encoder.kind == "base" for encoder in settings.encoders)
        inputs = {"problems": problems, "labels": labels, "base": base if uses_base else None}
        sources = {}
        for place, encoder in enumerate(settings.encoders):
            if encoder.kind == "folder":
                from agpo.learner.folder import digest_folder

                sources[f"encoder {place}"] = digest_folder(encoder.path)
        return StageRun(
            DISTIL,
            settings,
            inputs={name: key for name, key in inputs.items() if key is not None},
            seed=self.run.seed,
            machine=self.machine,
            sources=sources,
        )

    def judge_student(self, student: str, problems: str, champion: str | None) -> StageRun:
        inputs = {"student": student, "problems": problems, "champion": champion}
        return StageRun(
            JUDGE_STUDENT,
            self.night.promote_student,
            inputs={name: key for name, key in inputs.items() if key is not None},
            seed=self.run.seed,
            machine=self.machine,
        )

    def with_objective(self, objective: Objective) -> Recipe:
        """The same run with another objective; every addition stays."""
        return Recipe(self.run.model_copy(update={"objective": objective}))

    def _templates(self) -> dict[str, str]:
        """Digest of the named chat template; its text is part of what a stage computes."""
        from agpo.problems import template_digest

        name = self.run.rollout.chat_template
        return {} if name in ("none", "model") else {"chat_template": template_digest(name)}

    def _verdict_sources(self) -> dict[str, str]:
        """What rollouts and their verdicts depend on beside the settings."""
        path = self.run.verify.annotations
        annotations = {"annotations": hashlib.sha256(Path(path).read_bytes()).hexdigest()} if path else {}
        return self._templates() | annotations

    @property
    def night(self) -> NightlyRun:
        if not isinstance(self.run, NightlyRun):
            raise TypeError("a TrainRun says nothing about evaluation; give a NightlyRun")
        return self.run
