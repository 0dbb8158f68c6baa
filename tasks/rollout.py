"""Policy and a step's problems → rollouts, journalled chunk by chunk."""

from agpo.artifacts import ArtifactRef
from tasks.deadline import deadline
from tasks.stage import end_step, stage_task
from tasks.training import Training


@stage_task(name="rollout", task_run_name="rollout {step}")
def rollout(training: Training, step: int, policy: ArtifactRef, round: int = 0) -> ArtifactRef:
    with deadline(training.step_deadline, f"rollout of step {step}"):
        return end_step(*training.session.generate(step, round))
