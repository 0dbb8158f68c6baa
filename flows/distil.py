"""Distil the champion's labels into a student, and let the student's gate decide."""

from prefect import flow

from agpo.artifacts import ArtifactRef
from agpo.settings import NightlyRun
from flows.label import label_pairs
from tasks.distil import distil as distil_labels
from tasks.distil import find_student_champion, judge_student, promote_student
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.report import Report
from tasks.summary import summarize
from tasks.warm_start import warm_start


@flow(name="distil", persist_result=False)
def distil(run: NightlyRun = NightlyRun()) -> Report:
    """Train a student on the champion's labels and judged pairs; pairs that lack labels are labelled first.

    Args:
        run: The settings of the night whose labels are distilled.
    """
    with open_pipeline("distil", run.check_labels()) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        labels = label_pairs(pipeline, problems, base)
        distil_student(pipeline, problems, labels, base)
        report: Report = summarize(pipeline)
        return report


def distil_student(pipeline: Pipeline, problems: ArtifactRef, labels: ArtifactRef, base: ArtifactRef) -> str:
    """Labels → student → decision → aliases."""
    student = distil_labels(pipeline, problems, labels, base, "student")
    champion = find_student_champion(pipeline, student)
    decision = judge_student(pipeline, student, problems, champion)
    outcome: str = promote_student(pipeline, student, decision)
    return outcome
