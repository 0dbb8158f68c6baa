"""The parts of a training step."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from agpo.objectives.losses import Correction, KlEstimator, Normalisation, PolicyLoss, PpoClip, TokenMean
from agpo.settings.common import Settings
from agpo.settings.engine import EmbeddedEngine, SamplingEngine, SavedRollouts, TrainingEngine

Precision = Literal["fp32", "bf16"]


class RolloutSettings(Settings):
    """How a step's answers are sampled. Problems × samples a step are cut into chunks of fixed size."""

    problems: int = Field(16, ge=1, title="Problems per step")
    samples: int = Field(16, ge=1, title="Rollouts per problem")
    chunk: int = Field(256, ge=1, title="Chunk", description="rollouts generated, journalled and retried as one")
    tokens: int = Field(18, ge=1, title="Most new tokens")
    temperature: float = Field(1.0, gt=0, title="Temperature")
    top_p: float = Field(
        1.0, gt=0, le=1, title="Top-p", description="only the most likely tokens up to this probability; 1: all tokens"
    )
    top_k: int = Field(0, ge=0, title="Top-k", description="only this many of the most likely tokens; 0: all tokens")
    min_p: float = Field(
        0.0, ge=0, le=1, title="Min-p", description="only tokens with this share of the likeliest's probability; 0: all"
    )
    refills: int = Field(
        0,
        ge=0,
        title="Refills",
        description="rounds in which problems whose group gives no advantage are replaced by others (DAPO's dynamic "
        "sampling); groups that give none are then left out",
    )
    chat_template: str = Field(
        "none", title="Chat template", description="none: the bare prompt; model: the tokenizer's own; else a named one"
    )
    engine: TrainingEngine = Field(
        EmbeddedEngine(), title="Engine", description="what samples, in training and in the stages after it"
    )

    @property
    def sampling_engine(self) -> SamplingEngine:
        """The engine of stages that sample a policy which nothing was journalled for."""
        return EmbeddedEngine() if isinstance(self.engine, SavedRollouts) else self.engine

    @property
    def truncates(self) -> bool:
        """Whether the sampler leaves tokens out. Its log-probs are then not those that the learner reads."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


class VerifySettings(Settings):
    """Bounds of the verifier pool."""

    workers: int = Field(2, ge=1, title="Worker processes")
    timeout: float = Field(5.0, gt=0, title="CPU seconds per answer")
    memory: int = Field(1024, ge=128, title="Memory per worker", description="MiB")
    audit: int = Field(
        32, ge=0, title="Audited answers per step", description="read by a second verifier; of math answers only"
    )
    annotations: str = Field(
        "", title="Annotations", description="file of people's decisions about answers, see agpo review; empty: none"
    )
    largest_unverifiable_share: float = Field(
        0.2, gt=0, le=1, title="Largest unverifiable share", description="a step above it stops the run"
    )


class LossSettings(Settings):
    """The terms of the loss and how tokens add up. KL and entropy act on every row, also where the advantage is 0."""

    policy: PolicyLoss = Field(PpoClip(), title="Policy loss")
    normalisation: Normalisation = Field(TokenMean(), title="Normalisation")
    kl: float = Field(
        0.0, ge=0, title="KL to the base", description="coefficient of the divergence from where training starts"
    )
    kl_estimator: KlEstimator = Field(
        "k3", title="KL estimator", description="k1 measures but does not pull: the mean of its gradient is 0"
    )
    entropy: float = Field(0.0, ge=0, title="Entropy bonus", description="coefficient of the token entropy")
    correction: Correction | None = Field(
        None,
        title="Importance-sampling correction",
        description="where the sampler's log-probs are not the learner's; the local engine's are in fp32",
    )
    mask_truncated: bool = Field(True, title="Mask truncated rollouts")


class GuardSettings(Settings):
    """Bounds beyond which an update is refused as a whole; 0: no bound. All of them are our choice.

    Whatever the bounds, an update that is not finite is refused. The bounds of mismatch, gradient and step act before
    the optimiser step. The others need the policy after the update and undo it: they read ``rows`` of the batch before
    and after. Many updates that are each within bounds can ruin a policy too: a run whose accuracy falls is stopped.
    """

    mismatch: float = Field(
        0.05,
        ge=0,
        title="Largest mismatch",
        description="KL(sampler ‖ learner), nats per token, at the batch's first optimiser step; no bound where the "
        "sampler leaves tokens out (top-p, top-k, min-p)",
    )

    gradient_norm: float = Field(
        10.0, ge=0, title="Largest gradient norm", description="times its median over the last 25 updates"
    )
    step: float = Field(
        3.0,
        ge=0,
        title="Largest step",
        description="root mean square of the weights' change relative to the rate, computed before it is made; "
        "times its median over the last 25 updates",
    )
    kl: float = Field(0.1, ge=0, title="Largest KL of an update", description="KL(before ‖ after), nats per token")
    moved: float = Field(
        0.06,
        ge=0,
        le=1,
        title="Largest share of moved tokens",
        description="tokens whose log-prob an update changes by more than 0.2 nats: many small steps show here first",
    )
    ratio: float = Field(
        0.0, ge=0, title="Largest ratio of an update", description="of a token's probabilities before and after"
    )
    entropy_change: float = Field(
        0.1, ge=0, title="Largest entropy change of an update", description="nats per token, up or down"
    )
    entropy_growth: float = Field(
        2.0, ge=0, title="Largest entropy", description="times that of the run's first five updates"
    )
    accuracy: float = Field(
        0.5,
        ge=0,
        lt=1,
        title="Least accuracy",
        description="of the rollouts, times that of the run's first five steps; a mean of the last 25 below it, beyond "
        "three standard errors, stops the run",
    )
    rows: int = Field(
        32,
        ge=1,
        title="Rows read",
        description="before and after an update, evenly through the batch; of a small one a quarter, 16 at least",
    )

    @field_validator("gradient_norm", "step", "ratio", "entropy_growth")
    @classmethod
    def _multiple(cls, value: float) -> float:
        if 0 < value <= 1:
            raise ValueError("accepted: a multiple above 1, or 0 for no bound")
        return value

    @property
    def reads_after(self) -> bool:
        """Whether a bound is set that needs the policy after the update."""
        return any((self.kl, self.moved, self.ratio, self.entropy_change, self.entropy_growth))


class LoraSettings(Settings):
    """A low-rank adapter (LoRA, arXiv 2106.09685): W x + (alpha / rank) · B (A x), of which A and B are trained.

    No dropout: the sampler's log-probs are the learner's. Rank, alpha and targets are our choice.
    """

    rank: int = Field(16, ge=1, le=512, title="Rank", description="512 is the most that vLLM loads")
    alpha: int = Field(32, ge=1, title="Alpha", description="what the adapter adds is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        (), title="Targets", description="the linear maps that get one, by name, e.g. q_proj; none: all but the head"
    )

    @field_validator("targets")
    @classmethod
    def _have_no_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))


class LearnerSettings(Settings):
    """The optimiser step."""

    frozen: bool = Field(
        False, title="Frozen", description="the policy stays as it is: rollouts and verdicts alone, for another run"
    )
    lora: LoraSettings | None = Field(
        None, title="Adapter", description="train a low-rank adapter, and leave the base's weights; none: all weights"
    )
    rate: float = Field(5e-4, gt=0, title="Learning rate")
    warm_up: int = Field(5, ge=0, title="Warm-up steps")
    weight_decay: float = Field(0.0, ge=0, title="Weight decay")
    clip_norm: float = Field(1.0, gt=0, title="Gradient norm clip")
    mini_batches: int = Field(1, ge=1, title="Mini-batches per step", description="optimiser steps per batch and epoch")
    epochs: int = Field(1, ge=1, title="Epochs per batch")
    micro_tokens: int = Field(16_384, ge=1, title="Tokens per micro-batch")
    precision: Precision = Field(
        "fp32",
        title="Precision",
        description="of the learner's matrix products (bf16: autocast); weights and optimiser stay in fp32",
    )
    checkpoint_activations: bool = Field(
        False,
        title="Checkpoint activations",
        description="computed again in the backward pass: less memory, about a third more time",
    )
    guards: GuardSettings = Field(GuardSettings(), title="Guards")
    refusals: int = Field(5, ge=1, title="Refused updates in a row that stop the run")

    @model_validator(mode="after")
    def _frozen_trains_no_adapter(self) -> Self:
        if self.frozen and self.lora is not None:
            raise ValueError("frozen = true trains nothing, so lora has no use; accepted: one of the two")
        return self
