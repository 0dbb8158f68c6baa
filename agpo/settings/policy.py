"""Where the base policy comes from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agpo.settings.common import Settings
from agpo.settings.problems import ProblemSource


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
