"""Typed settings of a run. Unknown fields are refused; every wrong field is an error with its path, all at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from agpo.objectives import Agpo, Objective
from agpo.objectives.losses import KlEstimator, Normalisation, PolicyLoss, PpoClip, TokenMean
from agpo.problems.gold import GoldFormat
from agpo.problems.prompt import prompt_names
from agpo.relevance import find_scheme


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CountdownProblems(Settings):
    """Generated number puzzles: reach the target with every number once, in steps that the verifier replays."""

    source: Literal["countdown"] = "countdown"
    numbers: int = Field(4, ge=2, le=5, title="Numbers", description="how many numbers a problem has")
    highest: int = Field(9, ge=2, le=99, title="Highest number")
    largest: int = Field(40, ge=4, le=999, title="Largest value", description="bound of targets and of every step")
    train: int = Field(2000, ge=1, title="Training problems")
    selection: int = Field(200, ge=1, title="Selection problems", description="per set")
    confirmation: int = Field(400, ge=1, title="Confirmation problems", description="per set")
    hard_paths: int = Field(12, ge=1, title="Hard: most solutions", description="a hard problem has at most this many")
    demonstrations: int = Field(256_000, ge=1, title="Demonstrations", description="for a warm start from scratch")
    noise: float = Field(0.25, ge=0, lt=1, title="Noise", description="share of demonstrations that are wrong")

    @model_validator(mode="after")
    def _numbers_in_range(self) -> Self:
        if self.highest > self.largest:
            raise ValueError(f"highest {self.highest} exceeds largest {self.largest}, the bound of every value")
        return self


class ShopProblems(Settings):
    """Generated query–ad pairs of a synthetic shop, whose relevance (ESCI) follows from rules."""

    source: Literal["shop"] = "shop"
    train: int = Field(2000, ge=1, title="Training pairs", description="judged")
    selection: int = Field(400, ge=1, title="Selection pairs", description="judged")
    confirmation: int = Field(1500, ge=1, title="Confirmation pairs", description="judged")
    unlabelled: int = Field(6000, ge=0, title="Unlabelled pairs", description="for the teacher to label")
    demonstrations: int = Field(150_000, ge=1, title="Demonstrations", description="for a warm start from scratch")
    noise: float = Field(0.08, ge=0, lt=1, title="Noise", description="share of demonstrations with a random slip")
    over_grading: float = Field(
        0.65, ge=0, le=1, title="Over-grading", description="how often demonstrations pass an accessory or near miss"
    )


class FieldMap(Settings):
    """Which column of a source row holds what; a dotted path leads into it, a list index is a number."""

    question: str = Field("question", min_length=1, title="Question", description="e.g. prompt.0.content")
    gold: str = Field("answer", min_length=1, title="Gold answer")
    id: str = Field("", title="Id", description="empty: the id is a digest of the question and gold")


class PairFields(Settings):
    """Which column of a source row holds what of a judged query–ad pair; paths as in the field map."""

    query: str = Field("query", min_length=1, title="Query")
    title: str = Field("title", min_length=1, title="Title", description="of the ad")
    attributes: tuple[str, ...] = Field((), title="Attributes", description="of the ad, e.g. brand; may be absent")
    label: str = Field("label", min_length=1, title="Label", description="letter, name or level of the scheme")
    id: str = Field("", title="Id", description="empty: the id is a digest of the pair")


class RowProblems(Settings):
    """Problems read from the rows of a table or data set, a part of them held out."""

    fields: FieldMap = Field(FieldMap(), title="Fields", description="of a question; pairs have their own")
    pair: PairFields = Field(PairFields(), title="Fields of a pair", description="for verifier label")
    scheme: str = Field("esci4", title="Label scheme", description="of pairs")
    gold_format: GoldFormat = Field(
        "plain", title="Gold format", description="gsm8k: text after ####; boxed: last \\boxed{…} of a solution"
    )
    verifier: Literal["math", "countdown", "label"] = Field(
        "math", title="Verifier", description="label: rows are judged query–ad pairs"
    )
    prompt: str = Field("math-boxed-v1", title="Prompt", description="a named, versioned prompt template")
    selection: int = Field(
        200, ge=0, title="Selection problems", description="taken from a tenth of the rows; 0 trains on that tenth too"
    )
    confirmation: int = Field(
        400, ge=0, title="Confirmation problems", description="taken from another tenth of the rows; 0 as above"
    )
    limit: int | None = Field(None, ge=1, title="Limit", description="use only the first rows")
    largest_bad_share: float = Field(
        0.05, ge=0, le=1, title="Largest bad share", description="more quarantined rows than this stop the run"
    )

    @field_validator("prompt")
    @classmethod
    def _prompt_exists(cls, name: str) -> str:
        if name not in prompt_names():
            raise ValueError(f"{name!r} is not a prompt template; accepted: {', '.join(prompt_names())}")
        return name

    @field_validator("scheme")
    @classmethod
    def _scheme_exists(cls, name: str) -> str:
        return find_scheme(name).name

    @model_validator(mode="after")
    def _prompt_fits_pairs(self) -> Self:
        fitting = [name for name in prompt_names() if name.startswith(f"relevance-{self.scheme}-")]
        if self.verifier == "label" and self.prompt not in (*fitting, "plain-v1"):
            raise ValueError(
                f"prompt {self.prompt} does not ask for a label of scheme {self.scheme}; "
                f"accepted: {', '.join(fitting)}, plain-v1"
            )
        return self


class TableProblems(RowProblems):
    """Any JSONL, CSV or Parquet file (also .gz, .zst), or a glob of them."""

    source: Literal["table"] = "table"
    path: str = Field(min_length=1, title="File", description="path, glob or fsspec address of the rows")


class HubProblems(RowProblems):
    """A data set of the Hugging Face hub, by id and revision."""

    source: Literal["hub"] = "hub"
    dataset: str = Field(min_length=1, title="Data set", description="hub id, e.g. openai/gsm8k")
    config: str = Field("", title="Configuration")
    split: str = Field("train", title="Split")
    revision: str = Field("main", title="Revision")


GeneratedProblems = CountdownProblems | ShopProblems  # with demonstrations for a base from scratch
ProblemSource = Annotated[GeneratedProblems | TableProblems | HubProblems, Field(discriminator="source")]


class ModelShape(Settings):
    """A small transformer made from scratch."""

    architecture: Literal["llama", "qwen3"] = Field("llama", title="Architecture")
    width: int = Field(64, ge=8, title="Width")
    layers: int = Field(3, ge=1, title="Layers")
    heads: int = Field(2, ge=1, title="Attention heads")
    feed_forward: int = Field(176, ge=8, title="Feed-forward width")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 2 × heads ({self.heads})")
        return self


class Supervised(Settings):
    """Supervised training on demonstrations or gold answers."""

    steps: int = Field(4000, ge=0, title="Steps")
    batch: int = Field(128, ge=1, title="Batch", description="rows a step")
    rate: float = Field(4e-3, gt=0, title="Learning rate")
    warm_up: int = Field(100, ge=0, title="Warm-up steps")


class ScratchBase(Settings):
    """Train a small model from scratch on the problems' demonstrations."""

    kind: Literal["scratch"] = "scratch"
    model: ModelShape = Field(ModelShape(), title="Model")
    training: Supervised = Field(Supervised(), title="Training")


class FolderBase(Settings):
    """A local Hugging Face folder: model, tokenizer, safetensors."""

    kind: Literal["folder"] = "folder"
    path: str = Field(title="Folder")
    training: Supervised | None = Field(None, title="Supervised steps on gold", description="none: as it is")


class HubBase(Settings):
    """A model of the Hugging Face hub, by id and revision."""

    kind: Literal["hub"] = "hub"
    model: str = Field(title="Model", description="hub id, e.g. Qwen/Qwen3-8B")
    revision: str = Field("main", title="Revision")
    training: Supervised | None = Field(None, title="Supervised steps on gold", description="none: as it is")


Base = Annotated[ScratchBase | FolderBase | HubBase, Field(discriminator="kind")]


class WarmStart(Settings):
    """What the warm start needs to know of a run."""

    problems: ProblemSource
    base: Base
    chat_template: str
    tokens: int


class RolloutSettings(Settings):
    """How a step's answers are sampled. Problems × samples a step are cut into chunks of fixed size."""

    problems: int = Field(16, ge=1, title="Problems per step")
    samples: int = Field(16, ge=1, title="Rollouts per problem")
    chunk: int = Field(256, ge=1, title="Chunk", description="rollouts generated, journalled and retried as one")
    tokens: int = Field(18, ge=1, title="Most new tokens")
    temperature: float = Field(1.0, gt=0, title="Temperature")
    chat_template: str = Field(
        "none", title="Chat template", description="none: the bare prompt; model: the tokenizer's own; else a named one"
    )


class VerifySettings(Settings):
    """Bounds of the verifier pool."""

    workers: int = Field(2, ge=1, title="Worker processes")
    timeout: float = Field(5.0, gt=0, title="CPU seconds per answer")
    memory: int = Field(1024, ge=128, title="Memory per worker", description="MiB")
    largest_unverifiable_share: float = Field(
        0.2, gt=0, le=1, title="Largest unverifiable share", description="a step above it stops the run"
    )


class LossSettings(Settings):
    """The terms of the loss and how tokens add up. KL and entropy act on every row, also where the advantage is 0."""

    policy: PolicyLoss = Field(PpoClip(), title="Policy loss")
    normalisation: Normalisation = Field(TokenMean(), title="Normalisation")
    kl: float = Field(0.0, ge=0, title="KL to the base", description="coefficient of the divergence")
    kl_estimator: KlEstimator = Field(
        "k3", title="KL estimator", description="k1 measures but does not pull: the mean of its gradient is 0"
    )
    entropy: float = Field(0.0, ge=0, title="Entropy bonus", description="coefficient of the token entropy")
    mask_truncated: bool = Field(True, title="Mask truncated rollouts")


class LearnerSettings(Settings):
    """The optimiser step."""

    rate: float = Field(5e-4, gt=0, title="Learning rate")
    warm_up: int = Field(5, ge=0, title="Warm-up steps")
    weight_decay: float = Field(0.0, ge=0, title="Weight decay")
    clip_norm: float = Field(1.0, gt=0, title="Gradient norm clip")
    mini_batches: int = Field(1, ge=1, title="Mini-batches per step", description="optimiser steps per batch and epoch")
    epochs: int = Field(1, ge=1, title="Epochs per batch")
    micro_tokens: int = Field(16_384, ge=1, title="Tokens per micro-batch")
    refusals: int = Field(5, ge=1, title="Refused updates in a row that stop the run")


class InterpolateSettings(Settings):
    """How far to go from the base: the largest weight whose boundary holds on the selection split."""

    weights: tuple[float, ...] = Field((0.2, 0.35, 0.5, 0.7, 1.0), min_length=1, title="Weights")
    margin: float = Field(0.02, ge=0, lt=1, title="Margin", description="largest drop of mean pass@k against the base")

    @model_validator(mode="after")
    def _weights_in_range(self) -> Self:
        if any(not 0 < weight <= 1 for weight in self.weights) or len(set(self.weights)) != len(self.weights):
            raise ValueError(f"weights {self.weights} must be different numbers in (0, 1]")
        return self


class EvaluateSettings(Settings):
    """Boundary evaluation: n samples a problem, unbiased pass@k."""

    samples: int = Field(256, ge=1, title="Samples per problem")
    ks: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32, 64), min_length=1, title="k")
    temperature: float = Field(1.0, gt=0, title="Temperature")
    chunk: int = Field(4096, ge=1, title="Chunk", description="answers generated, stored and retried as one")

    @model_validator(mode="after")
    def _samples_cover_ks(self) -> Self:
        if max(self.ks) > self.samples:
            raise ValueError(f"k = {max(self.ks)} needs at least as many samples per problem, got {self.samples}")
        return self


class Evaluation(Settings):
    """What an evaluation needs to know of a run. The same for every policy that is compared."""

    split: Literal["selection", "confirmation"]
    samples: int
    temperature: float
    chunk: int
    tokens: int
    chat_template: str
    verify: VerifySettings


class Interpolation(Settings):
    """One point between base (0) and trained policy (1)."""

    weight: float


class Selecting(Settings):
    """What the choice of the interpolation weight needs to know of a run."""

    weights: tuple[float, ...]
    k: int
    margin: float


class PromoteSettings(Settings):
    """The gate: boundary against the base, quality against the champion."""

    margin: float = Field(
        0.05, gt=0, le=0.05, title="Margin", description="lower bounds of all pass@k differences stay above −margin"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, title="Confidence")
    resamples: int = Field(2000, ge=100, title="Bootstrap resamples")


class Judging(PromoteSettings):
    """What the gate needs to know of a run."""

    ks: tuple[int, ...]


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
            exclude={"verify": {"workers", "memory"}, "learner": {"refusals"}},
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
