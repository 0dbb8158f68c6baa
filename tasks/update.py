"""Rollouts and verdicts → the next policy; after the last step, the trained policy as an artifact."""

from agpo.artifacts import ArtifactRef
from agpo.stages import TRAIN
from tasks.deadline import deadline
from tasks.stage import end, end_step, log_result, stage_task
from tasks.training import Training


@stage_task(name="update", version=str(TRAIN.version), task_run_name="update {step}")
def update(training: Training, step: int, rollouts: ArtifactRef, verdicts: ArtifactRef) -> ArtifactRef:
    with deadline(training.step_deadline, f"update of step {step}"):
        policy, found = training.session.update(step)
    training.copy_metrics()
    return end_step(policy, found)


@stage_task(name="train", version=str(TRAIN.version), task_run_name="train {label}")
def publish(training: Training, policy: ArtifactRef, label: str) -> ArtifactRef:
    """Publish the policy after the last step."""
    run, session, pipeline = training.run, training.session, training.pipeline
    training.copy_metrics(now=True)
    training.draw()
    result = session.publish(None if run is None else pipeline.producer(run))
    if run is not None:
        log_result(pipeline, run, result, {"problems": session.problems, "base": session.base})
    pipeline.results[f"train {label}"] = result
    return end(result)
