"""The parts of a training step."""

from __future__ import annotations

from pydantic import Field

from agpo.objectives.losses import KlEstimator, Normalisation, PolicyLoss, PpoClip, TokenMean
from agpo.settings.common import Settings


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
