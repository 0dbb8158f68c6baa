"""Source → problems, quarantine and receipt."""

from agpo.artifacts import ArtifactRef
from agpo.stages import PREPARE
from tasks.pipeline import Pipeline
from tasks.stage import end, run_stage, stage_task


@stage_task(name="prepare", version=str(PREPARE.version))
def prepare(pipeline: Pipeline) -> ArtifactRef:
    return end(run_stage(pipeline, "prepare", pipeline.recipe.prepare(), {}))
