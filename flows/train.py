"""Train a policy: prepare → warm_start → [rollout → verify → update] x steps."""

from prefect import flow

from agpo.artifacts import ArtifactRef
from agpo.settings import TrainRun
from tasks.pipeline import Pipeline, open_pipeline
from tasks.prepare import prepare
from tasks.report import Report
from tasks.rollout import rollout
from tasks.summary import summarize
from tasks.training import open_training
from tasks.update import publish, update
from tasks.verify import verify
from tasks.warm_start import warm_start


@flow(name="train", persist_result=False)
def train(run: TrainRun = TrainRun()) -> Report:
    """Train a policy with verifiable rewards.

    Args:
        run: What to train, on what, and how.
    """
    with open_pipeline("train", run) as pipeline:
        problems = prepare(pipeline)
        base = warm_start(pipeline, problems)
        train_policy(pipeline, problems, base, run.objective.kind)
        report: Report = summarize(pipeline)
        return report


def train_policy(pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef, label: str) -> ArtifactRef:
    """The steps that the journal does not have, then the trained policy."""
    with open_training(pipeline, problems, base, label) as training:
        policy = base
        for step in training.steps():
            for round in training.session.rounds(step):
                rollouts = rollout(training, step, policy, round)
                verdicts = verify(training, step, rollouts, round)
            policy = update(training, step, rollouts, verdicts)
        return publish(training, policy, label)
