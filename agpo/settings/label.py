"""Labelling: a teacher votes on query–ad pairs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agpo.settings.common import Settings
from agpo.settings.engine import EmbeddedEngine, SamplingEngine
from agpo.settings.problems import PairFields


class LabelSettings(Settings):
    """How the teacher labels pairs."""

    samples: int = Field(8, ge=1, title="Answers per pair", description="each is a vote")
    temperature: float = Field(1.0, gt=0, title="Temperature")
    shard: int = Field(512, ge=1, title="Pairs per shard", description="answered, stored and retried as one")
    audit: int = Field(200, ge=0, title="Audit queue", description="pairs with the least agreement, for people")
    path: str = Field(
        "",
        title="Unlabelled pairs",
        description="path, glob or fsspec address, by the problems' fields of a pair; empty: the problems' own",
    )


class UnlabelledPairs(Settings):
    """What reading unlabelled pairs needs to know of a run."""

    path: str
    pair: PairFields
    scheme: str
    prompt: str
    largest_bad_share: float


class Labelling(Settings):
    """What labelling needs to know of a run. The same for every teacher that is compared."""

    split: Literal["train", "selection", "confirmation", "unlabelled"]
    scheme: str
    samples: int
    temperature: float
    shard: int
    audit: int
    tokens: int
    chat_template: str
    engine: SamplingEngine = EmbeddedEngine()
