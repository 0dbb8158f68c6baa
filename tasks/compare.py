"""Teachers side by side: what the labels of each are worth, to themselves and to a student that learns from them."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import ArtifactRef
from agpo.artifacts.table import read_table
from agpo.records import Predictions
from agpo.relevance import Interval, LabelScores, compare_macro_f1, score_labels
from tasks.pipeline import Pipeline
from tasks.relevance import Teacher, label_predictions, points, read_teacher
from tasks.run_page import show_link, show_table
from tasks.stage import stage_task
from tasks.tracking import log_json, log_summary

_REFERENCE = "base"


class Compared(BaseModel):
    """One teacher: its votes on judged pairs, its labels of the others, and the student of these labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    teacher: Teacher | None  # None for labels by gold
    label_accuracy: float | None  # of what the student learns from, where gold is known
    student: LabelScores
    difference: Interval  # macro-F1 of the student minus that of the base's student, same draws of queries


class Comparison(BaseModel):
    """The outcome of a comparison. Intervals are 95 %, by a bootstrap over the confirmation split's queries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    teachers: list[Compared]
    mlflow_run: str


@stage_task(name="compare_students")
def compare_students(pipeline: Pipeline, students: Mapping[str, ArtifactRef]) -> Comparison:
    """Score the students and show teachers and students as one table. ``students``: by teacher, *base* among them."""
    predictions = {name: _read_student(pipeline, ref) for name, ref in students.items()}
    comparison = Comparison(
        family=pipeline.run.family,
        teachers=[_compare(pipeline, name, predictions) for name in students],
        mlflow_run=pipeline.parent.url,
    )
    show_link(pipeline.parent)
    show_table(table_of_comparison(comparison), "teachers", "Labels and students of each teacher, against judged pairs")
    log_json(pipeline.parent, comparison.model_dump(mode="json"), "comparison")
    figures = {f"student/{entry.name}/macro_f1": entry.student.macro_f1.value for entry in comparison.teachers}
    log_summary(pipeline.parent, figures)
    return comparison


def table_of_comparison(comparison: Comparison) -> list[dict[str, str]]:
    return [
        {
            "labels by": entry.name,
            "one answer": "" if entry.teacher is None else f"{100 * entry.teacher.single:.1f}",
            "votes: macro-F1": "" if entry.teacher is None else points(entry.teacher.votes.macro_f1),
            "labels right": "" if entry.label_accuracy is None else f"{100 * entry.label_accuracy:.1f}",
            "student: macro-F1": points(entry.student.macro_f1),
            "against base": "" if entry.name == _REFERENCE else signed_points(entry.difference),
        }
        for entry in comparison.teachers
    ]


def signed_points(difference: Interval) -> str:
    value, lower, upper = (f"{100 * part:+.1f}" for part in (difference.value, difference.lower, difference.upper))
    return f"{value} [{lower}, {upper}]"


def _compare(pipeline: Pipeline, name: str, predictions: Mapping[str, pl.DataFrame]) -> Compared:
    seed = pipeline.run.seed
    mine = label_predictions(pipeline, predictions[name])
    reference = label_predictions(pipeline, predictions[_REFERENCE])
    judged, pool = (pipeline.results.get(f"label {split} {name}") for split in ("confirmation", "unlabelled"))
    return Compared(
        name=name,
        teacher=None if judged is None else read_teacher(pipeline.store, name, judged),
        label_accuracy=None if pool is None else pool.summary["metrics"].get("label/accuracy"),
        student=score_labels(mine, seed=seed),
        difference=compare_macro_f1(mine, reference, seed=seed),
    )


def _read_student(pipeline: Pipeline, student: ArtifactRef) -> pl.DataFrame:
    predictions = read_table(pipeline.store.fetch(student), "predictions.parquet", Predictions)
    return predictions.filter(pl.col("model") == "student")
