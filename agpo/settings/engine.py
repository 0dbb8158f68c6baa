"""Which engine samples answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agpo.settings.common import Settings
from agpo.settings.vllm import VllmSettings

# What changes where and how fast an engine samples, not what: no part of a key.
ENGINE_COSTS = {"endpoints", "weights", "cache", "in_flight", "timeout", "attempts"}


class EmbeddedEngine(Settings):
    """The sampler of this process: nothing to install, and the weights are where they are trained."""

    kind: Literal["local"] = "local"


class SavedRollouts(Settings):
    """No sampling: the rollouts that another training run has journalled, to work on the learner alone."""

    kind: Literal["saved"] = "saved"
    journal: str = Field(
        title="Journal", description="of that run: the folder or fsspec address journal/KEY of a store"
    )


def _name_kind(value: Any) -> Any:
    """``rollout.engine=vllm`` for ``rollout.engine.kind=vllm``."""
    return {"kind": value} if isinstance(value, str) else value


SamplingEngine = Annotated[EmbeddedEngine | VllmSettings, Field(discriminator="kind"), BeforeValidator(_name_kind)]
TrainingEngine = Annotated[
    EmbeddedEngine | VllmSettings | SavedRollouts, Field(discriminator="kind"), BeforeValidator(_name_kind)
]
