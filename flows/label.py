"""Label query–ad pairs with the champion."""

from prefect import flow

from agpo.artifacts import ArtifactRef
from agpo.settings import NightlyRun
from tasks.label import label as label_with
from tasks.label import prepare_pairs, supervise
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.promote import find_teacher
from tasks.report import Report
from tasks.summary import summarize
from tasks.warm_start import warm_start


@flow(name="label", persist_result=False)
def label(run: NightlyRun = NightlyRun()) -> Report:
    """Label pairs by the votes of the family's champion, which at first is the base.

    Args:
        run: The settings of the night whose pairs are labelled.
    """
    with open_pipeline("label", run.check_labels()) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        label_pairs(pipeline, problems, base)
        report: Report = summarize(pipeline)
        return report


def label_pairs(pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef) -> ArtifactRef:
    """The champion's labels of the unlabelled pairs, and how it does on judged ones beside others."""
    teacher = find_teacher(pipeline, base)
    teachers = {"base": base, "teacher": teacher}
    if pipeline.recipe.night.supervise is not None and not pipeline.time_is_up:
        teachers["supervised"] = supervise(pipeline, base, problems)
    for name, policy in teachers.items():
        label_with(pipeline, policy, problems, "confirmation", name)
    pairs = prepare_pairs(pipeline, problems)
    return label_with(pipeline, teacher, pairs, "unlabelled", "teacher")
