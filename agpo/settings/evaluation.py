"""Evaluation, the choice of a candidate, and the gate."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from agpo.settings.common import Settings
from agpo.settings.engine import EmbeddedEngine, SamplingEngine
from agpo.settings.training import VerifySettings


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
    engine: SamplingEngine = EmbeddedEngine()
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
