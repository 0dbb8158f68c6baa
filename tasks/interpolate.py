"""Base and trained policy → the policy at one weight between them; and the choice among the weights."""

from collections.abc import Mapping

from agpo.artifacts import ArtifactRef
from agpo.stages import INTERPOLATE, SELECT
from tasks.pipeline import Pipeline
from tasks.stage import end, run_stage, stage_task


@stage_task(name="interpolate", version=str(INTERPOLATE.version), task_run_name="interpolate {label} {weight}")
def interpolate(pipeline: Pipeline, base: ArtifactRef, trained: ArtifactRef, weight: float, label: str) -> ArtifactRef:
    stage_run = pipeline.recipe.interpolate(base.key, trained.key, weight)
    return end(run_stage(pipeline, f"interpolate {label} {weight}", stage_run, {"base": base, "trained": trained}))


@stage_task(name="select", version=str(SELECT.version), task_run_name="select {label}")
def select(pipeline: Pipeline, counts: Mapping[str, ArtifactRef], label: str) -> ArtifactRef:
    """``counts``: of the selection split, ``base`` and one ``weight_<w>`` for each weight."""
    stage_run = pipeline.recipe.select({name: ref.key for name, ref in counts.items()})
    return end(run_stage(pipeline, f"select {label}", stage_run, counts))
