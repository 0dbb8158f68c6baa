"""How good a student is, beside its baselines: what ``scores.json`` holds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from agpo.relevance import Interval, Labelled, LabelScores, Scheme, score_labels
from agpo.student.calibration import Calibration
from agpo.student.examples import Examples, FloatArray


class Export(BaseModel):
    """How the exported graph compares with the encoder in torch, on the selection pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest_difference: float  # of a log-probability, fp32
    int8_kept: bool
    int8_agreement: float  # share of the pairs with the same label as fp32
    int8_drop: float  # of macro-F1 against fp32's
    bytes: int  # of the graph that serves


class StudentScores(BaseModel):
    """Of confirmation pairs unless said otherwise; the student as it is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    parameters: int
    labelled_pairs: int  # that it learnt from, by a teacher's votes
    gold_pairs: int  # that it learnt from
    choice: dict[str, float]  # macro-F1 of each encoder on the selection pairs that it was chosen by
    models: dict[str, LabelScores]  # student and baselines
    ahead: dict[str, Interval]  # the student's macro-F1 minus the baseline's
    temperature: float
    calibration: Calibration
    uncalibrated: Calibration  # at temperature 1
    export: Export


def label_pairs(probabilities: FloatArray, examples: Examples, scheme: Scheme) -> Labelled:
    """The most probable label of each pair beside its gold."""
    letters = [label.letter for label in scheme]
    return Labelled(
        scheme,
        [letters[level] for level in examples.levels],
        [letters[level] for level in probabilities.argmax(axis=1)],
        examples.pairs["query_id"].to_list(),
    )


def macro_f1(probabilities: FloatArray, examples: Examples, scheme: Scheme) -> float:
    return score_labels(label_pairs(probabilities, examples, scheme)).macro_f1.value
