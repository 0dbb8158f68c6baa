"""Problems → base policy."""

from agpo.artifacts import ArtifactRef
from agpo.stages import WARM_START
from tasks.pipeline import Pipeline
from tasks.stage import end, run_stage, stage_task


@stage_task(name="warm_start", version=str(WARM_START.version))
def warm_start(pipeline: Pipeline, problems: ArtifactRef) -> ArtifactRef:
    stage_run = pipeline.recipe.warm_start(problems.key)
    return end(run_stage(pipeline, "warm_start", stage_run, {"problems": problems}))
