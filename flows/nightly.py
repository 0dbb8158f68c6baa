"""A whole night: train → interpolate → evaluate → promote → label → distil, and what is compared beside."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from agpo.artifacts import ArtifactRef
from agpo.settings import NightlyRun
from flows.distil import distil_student
from flows.evaluate import choose_candidate, confirm
from flows.label import label_pairs
from flows.naming import name_objectives
from flows.promote import gate
from flows.train import train_policy
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.promote import find_start
from tasks.report import Report
from tasks.summary import summarize
from tasks.warm_start import warm_start


@flow(name="nightly", persist_result=False)
def nightly(run: NightlyRun = NightlyRun()) -> State[Report]:
    """Train a policy, choose how far to go from the base, let the gate decide, label pairs and distil a student.

    Args:
        run: Everything that decides what the night makes.
    """
    with open_pipeline("nightly", run) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        trained = train_policy(pipeline, problems, find_start(pipeline, base), run.objective.kind)
        if trained.rows or not run.steps:  # else its time was up before the first step, and there is nothing to judge
            gate(pipeline, problems, base, trained)
        compare_objectives(pipeline, problems, base)
        if run.label is not None:
            labels = label_pairs(pipeline, problems, base)
            if run.distil is not None:
                distil_student(pipeline, problems, labels, base)
        report: Report = summarize(pipeline)
        name = "NothingNew" if report.nothing_new else "Completed"
        return Completed(name=name, data=report)


def compare_objectives(pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef) -> None:
    """Train and evaluate the objectives that are compared beside, unless the night's time is up."""
    for label, objective in list(name_objectives(pipeline.recipe.night).items())[1:]:
        if pipeline.time_is_up:
            return
        other = pipeline.with_recipe(pipeline.recipe.with_objective(objective))
        rival = train_policy(other, problems, base, label)
        candidate = choose_candidate(other, problems, base, rival, label)
        confirm(other, problems, {"trained": rival, "candidate": candidate}, label)
