"""Distillation: a student learns from labels."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agpo.settings.common import Settings


class StudentTraining(Settings):
    """How an encoder is trained: AdamW, linear warm-up and decay."""

    epochs: int = Field(ge=1, title="Epochs")
    batch: int = Field(ge=1, title="Batch", description="pairs a step")
    rate: float = Field(gt=0, title="Learning rate")
    warm_up: float = Field(0.06, ge=0, lt=1, title="Warm-up", description="share of the steps")
    weight_decay: float = Field(0.01, ge=0, title="Weight decay")


class AlignedEncoder(Settings):
    """A small BERT made from scratch that first aligns the words of the query with those of the ad."""

    kind: Literal["aligned"] = "aligned"
    width: int = Field(64, ge=8, title="Width")
    layers: int = Field(2, ge=1, title="Layers")
    heads: int = Field(4, ge=1, title="Attention heads")
    feed_forward: int = Field(128, ge=8, title="Feed-forward width")
    vocabulary: int = Field(4000, ge=100, title="Vocabulary", description="most tokens, learnt from the pairs")
    training: StudentTraining = Field(StudentTraining(epochs=10, batch=64, rate=3e-3), title="Training")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads ({self.heads})")
        return self


class BaseEncoder(Settings):
    """The body of the run's base policy with a classification head on the last token of the policy's own text."""

    kind: Literal["base"] = "base"
    training: StudentTraining = Field(StudentTraining(epochs=15, batch=64, rate=1e-3), title="Training")


class FolderEncoder(Settings):
    """Any encoder in a local Hugging Face folder: model, tokenizer, safetensors."""

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1, title="Folder")
    training: StudentTraining = Field(StudentTraining(epochs=4, batch=32, rate=2e-4), title="Training")


Encoder = Annotated[AlignedEncoder | BaseEncoder | FolderEncoder, Field(discriminator="kind")]


class DistilSettings(Settings):
    """How the student is made."""

    encoders: tuple[Encoder, ...] = Field(
        (AlignedEncoder(),), min_length=1, title="Encoders", description="the best on selection pairs is the student"
    )
    length: int = Field(64, ge=8, le=4096, title="Most tokens", description="of a pair; longer ones are cut")
    temperature: float = Field(
        1.0, gt=0, title="Distillation temperature", description="softens votes and student while it learns; 1: neither"
    )
    gold_weight: float = Field(
        1.0,
        ge=0,
        title="Gold weight",
        description="of a judged pair in the loss; a labelled one has 1. 0: labels alone",
    )
    int8_agreement: float = Field(
        0.99, ge=0, le=1, title="int8: least agreement", description="share of selection pairs with the same label"
    )
    int8_drop: float = Field(
        0.01, ge=0, le=1, title="int8: largest drop", description="of macro-F1 on selection pairs; beyond it fp32 stays"
    )


class Distilling(DistilSettings):
    """What distillation needs to know of a run."""

    scheme: str
