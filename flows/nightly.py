"""A whole night: train → interpolate → evaluate → promote, and the objectives that are compared beside."""

from prefect import flow

from agpo.settings import NightlyRun
from flows.evaluate import choose_candidate, confirm
from flows.labels import label_objectives
from flows.promote import gate
from flows.train import train_policy
from tasks.pipeline import open_pipeline
from tasks.prepare import prepare
from tasks.report import Report
from tasks.summary import summarize
from tasks.warm_start import warm_start


@flow(name="nightly", persist_result=False)
def nightly(run: NightlyRun = NightlyRun()) -> Report:
    """Train a policy, choose how far to go from the base, evaluate it and let the gate decide.

    Args:
        run: Everything that decides what the night makes.
    """
    with open_pipeline("nightly", run) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        trained = train_policy(pipeline, problems, base, run.objective.kind)
        gate(pipeline, problems, base, trained)
        for label, objective in list(label_objectives(run).items())[1:]:
            other = pipeline.with_recipe(pipeline.recipe.with_objective(objective))
            rival = train_policy(other, problems, base, label)
            candidate = choose_candidate(other, problems, base, rival, label)
            confirm(other, problems, {"trained": rival, "candidate": candidate}, label)
        report: Report = summarize(pipeline)
        return report
