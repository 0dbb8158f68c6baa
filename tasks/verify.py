"""Rollouts → verdicts."""

from agpo.artifacts import ArtifactRef
from tasks.deadline import deadline
from tasks.stage import end_step, stage_task
from tasks.training import Training


@stage_task(name="verify", task_run_name="verify {step}")
def verify(training: Training, step: int, rollouts: ArtifactRef, round: int = 0) -> ArtifactRef:
    with deadline(training.step_deadline, f"verification of step {step}"):
        return end_step(*training.session.verify(step, round))
