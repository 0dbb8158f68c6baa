"""Policy and evaluation problems → counts."""

from typing import Literal

from agpo.artifacts import ArtifactRef
from agpo.stages import EVALUATE
from tasks.pipeline import Pipeline
from tasks.stage import end, run_stage, stage_task


@stage_task(name="evaluate", version=str(EVALUATE.version), task_run_name="evaluate {split} {label}")
def evaluate(
    pipeline: Pipeline,
    policy: ArtifactRef,
    problems: ArtifactRef,
    split: Literal["selection", "confirmation"],
    label: str,
) -> ArtifactRef:
    stage_run = pipeline.recipe.evaluate(policy.key, problems.key, split)
    return end(run_stage(pipeline, f"evaluate {split} {label}", stage_run, {"policy": policy, "problems": problems}))
