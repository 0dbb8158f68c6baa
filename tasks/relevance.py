"""What a run found about relevance, in figures: its teachers, their labels, and the student with its baselines."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import Store
from agpo.artifacts.table import read_table
from agpo.records import Predictions
from agpo.relevance import Interval, Labelled, LabelScores, find_scheme, score_labels
from agpo.stages import Result
from tasks.pipeline import Pipeline

_JUDGED, _POOL = "label confirmation ", "label unlabelled "


class Teacher(BaseModel):
    """How a policy labels the judged pairs of the confirmation split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    single: float  # accuracy of one answer
    near_miss: float | None  # the same on near misses, where cases are known
    votes: LabelScores


class Relevance(BaseModel):
    """Teachers and students on the confirmation split, intervals over its queries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelled_by: str  # the registered version of the teacher
    teachers: list[Teacher]
    pairs: int  # that the teacher labelled
    agreement: float  # mean share of the votes for the label
    label_accuracy: float | None  # of these labels, where their gold is known
    students: dict[str, LabelScores]  # the student and its baselines
    outcome: str | None  # of the student's gate
    reasons: list[str]


def make_relevance(pipeline: Pipeline) -> Relevance | None:
    """None where the run labelled nothing."""
    teachers = [
        read_teacher(pipeline.store, name.removeprefix(_JUDGED), result)
        for name, result in pipeline.results.items()
        if name.startswith(_JUDGED)
    ]
    pool = pipeline.results.get(f"{_POOL}teacher")
    if pool is None:
        return None
    metrics = pool.summary["metrics"]
    student = pipeline.results.get("distil student")
    judged = pipeline.results.get("judge student")
    decision = {} if judged is None else json.loads((pipeline.store.fetch(judged.ref) / "decision.json").read_text())
    return Relevance(
        labelled_by=pipeline.teacher,
        teachers=teachers,
        pairs=pool.ref.rows,
        agreement=metrics["label/agreement"],
        label_accuracy=metrics.get("label/accuracy"),
        students={} if student is None else score_students(pipeline, pipeline.store.fetch(student.ref)),
        outcome=decision.get("outcome"),
        reasons=decision.get("reasons", []),
    )


def score_students(pipeline: Pipeline, folder: Path) -> dict[str, LabelScores]:
    """The student in ``folder`` and its baselines, best first."""
    predictions = read_table(folder, "predictions.parquet", Predictions)
    found = {
        str(name): score_labels(label_predictions(pipeline, rows), rows["case"].to_list(), seed=pipeline.run.seed)
        for (name,), rows in predictions.group_by("model", maintain_order=True)
    }
    return dict(sorted(found.items(), key=lambda entry: -entry[1].macro_f1.value))


def label_predictions(pipeline: Pipeline, rows: pl.DataFrame) -> Labelled:
    """The predictions of one model, in a form that can be scored and compared."""
    ordered = rows.sort("pair_id")
    gold, labels, queries = (ordered[name].to_list() for name in ("gold", "label", "query_id"))
    return Labelled(find_scheme(pipeline.recipe.night.scheme), gold, labels, queries)


def read_teacher(store: Store, name: str, result: Result) -> Teacher:
    """The figures of a labelling of judged pairs."""
    votes = LabelScores.model_validate_json((store.fetch(result.ref) / "quality.json").read_text())
    metrics = result.summary["metrics"]
    return Teacher(
        name=name, single=metrics["label/p_at_1"], near_miss=metrics.get("label/p_at_1_near_miss"), votes=votes
    )


def table_of_teachers(relevance: Relevance) -> list[dict[str, str]]:
    return [
        {
            "teacher": teacher.name,
            "one answer": f"{100 * teacher.single:.1f}",
            "near misses": "" if teacher.near_miss is None else f"{100 * teacher.near_miss:.1f}",
            "votes: accuracy": points(teacher.votes.accuracy),
            "votes: macro-F1": points(teacher.votes.macro_f1),
            "errors too high": "" if teacher.votes.over_graded is None else f"{100 * teacher.votes.over_graded:.0f} %",
        }
        for teacher in relevance.teachers
    ]


def table_of_students(relevance: Relevance) -> list[dict[str, str]]:
    return [
        {"model": name, "accuracy": points(scores.accuracy), "macro-F1": points(scores.macro_f1)}
        for name, scores in relevance.students.items()
    ]


def points(interval: Interval) -> str:
    """In percent, with the 95 % interval."""
    return f"{100 * interval.value:.1f} [{100 * interval.lower:.1f}, {100 * interval.upper:.1f}]"
