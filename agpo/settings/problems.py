"""Where problems come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from agpo.problems.gold import GoldFormat
from agpo.problems.prompt import prompt_names
from agpo.relevance import find_scheme
from agpo.settings.common import Settings

_DECISIONS = Field(
    "",
    title="Audit decisions",
    description="a labelling's audit.csv with its column decision filled in, or a glob of such files; "
    "they become training gold",
)


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
    decisions: str = _DECISIONS


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
    verifier: Literal["math", "countdown", "label", "gym"] = Field(
        "math", title="Verifier", description="label: rows are judged query–ad pairs; gym: tasks of reasoning-gym"
    )
    prompt: str = Field("math-boxed-v1", title="Prompt", description="a named, versioned prompt template")
    selection: int = Field(
        200, ge=0, title="Selection problems", description="taken from a tenth of the rows; 0 trains on that tenth too"
    )
    confirmation: int = Field(
        400, ge=0, title="Confirmation problems", description="taken from another tenth of the rows; 0 as above"
    )
    limit: int | None = Field(None, ge=1, title="Limit", description="use only the first rows")
    evaluation_sets: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        title="Evaluation sets",
        description="files whose questions are not trained on; test.jsonl#problem names another field of the question",
    )
    overlap: int = Field(
        13, ge=5, title="Overlap", description="words in a row that no training and evaluation question may share"
    )
    near_duplicates: float = Field(
        0.9, ge=0, le=1, title="Near-duplicates", description="training questions as similar as this go; 0 keeps all"
    )
    largest_bad_share: float = Field(
        0.05, ge=0, le=1, title="Largest bad share", description="more quarantined rows than this stop the run"
    )
    decisions: str = _DECISIONS

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

    @model_validator(mode="after")
    def _decisions_are_of_pairs(self) -> Self:
        if self.decisions and self.verifier != "label":
            raise ValueError(f"decisions are labels of pairs; verifier is {self.verifier}, accepted: label")
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
