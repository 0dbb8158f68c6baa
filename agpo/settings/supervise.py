"""Supervised training on gold, to compare reinforcement learning with."""

from __future__ import annotations

from pydantic import Field

from agpo.settings.common import Settings
from agpo.settings.engine import EmbeddedEngine, SamplingEngine
from agpo.settings.policy import Supervised
from agpo.settings.training import VerifySettings


class SuperviseSettings(Settings):
    """The base, trained further on its own right answers to the training problems (rejection sampling)."""

    samples: int = Field(8, ge=1, title="Answers per problem", description="the right ones are learnt")
    temperature: float = Field(1.0, gt=0, title="Temperature")
    chunk: int = Field(4096, ge=1, title="Chunk", description="answers generated at once")
    training: Supervised = Field(Supervised(steps=300, rate=1e-3, warm_up=10), title="Training")


class Supervision(SuperviseSettings):
    """What supervised training needs to know of a run."""

    tokens: int
    chat_template: str
    engine: SamplingEngine = EmbeddedEngine()
    verify: VerifySettings
