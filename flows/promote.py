"""Judge a candidate against base and champion, and let the gate act."""

from prefect import flow

from agpo.artifacts import ArtifactRef
from agpo.settings import NightlyRun
from flows.evaluate import choose_candidate, confirm
from flows.train import train_policy
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.promote import find_champion, judge
from tasks.promote import promote as act
from tasks.report import Report
from tasks.summary import summarize
from tasks.warm_start import warm_start


@flow(name="promote", persist_result=False)
def promote(run: NightlyRun = NightlyRun()) -> Report:
    """Judge the candidate of a night; the gate promotes, rejects or leaves the champion.

    Args:
        run: The settings of the night whose candidate is judged.
    """
    with open_pipeline("promote", run.check_start()) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        trained = train_policy(pipeline, problems, base, run.objective.kind)
        gate(pipeline, problems, base, trained)
        report: Report = summarize(pipeline)
        return report


def gate(pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef, trained: ArtifactRef) -> str:
    """Candidate → evidence on the confirmation split → decision → aliases."""
    label = pipeline.run.objective.kind
    candidate = choose_candidate(pipeline, problems, base, trained, label)
    policies = {"base": base, "trained": trained, "candidate": candidate}
    champion = find_champion(pipeline, base, candidate)
    if champion.key != base.key:
        policies["champion"] = champion
    decision = judge(pipeline, confirm(pipeline, problems, policies, label))
    outcome: str = act(pipeline, candidate, decision)
    return outcome
