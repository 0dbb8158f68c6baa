"""Teacher and pairs → labels; and the teachers that they are compared with."""

from typing import Literal

from agpo.artifacts import ArtifactRef
from agpo.relevance.pair_shards import has_gold
from agpo.stages import LABEL, LABEL_BY_GOLD, PREPARE_PAIRS, SUPERVISE
from tasks.pipeline import Pipeline
from tasks.stage import end, run_stage, stage_task

Split = Literal["confirmation", "unlabelled"]


@stage_task(name="prepare_pairs", version=str(PREPARE_PAIRS.version))
def prepare_pairs(pipeline: Pipeline, problems: ArtifactRef) -> ArtifactRef:
    """The pairs to be labelled: the file that the settings name, else the problems' own."""
    stage_run = pipeline.recipe.prepare_pairs()
    return problems if stage_run is None else end(run_stage(pipeline, "prepare_pairs", stage_run, {}))


@stage_task(name="supervise", version=str(SUPERVISE.version))
def supervise(pipeline: Pipeline, base: ArtifactRef, problems: ArtifactRef) -> ArtifactRef:
    stage_run = pipeline.recipe.supervise(base.key, problems.key)
    return end(run_stage(pipeline, "supervise", stage_run, {"base": base, "problems": problems}))


@stage_task(name="label", version=str(LABEL.version), task_run_name="label {split} {name}")
def label(
    pipeline: Pipeline,
    teacher: ArtifactRef,
    pairs: ArtifactRef,
    split: Split,
    name: str,
) -> ArtifactRef:
    """Labels of the confirmation split are for judging the teacher, those of the unlabelled one for the student."""
    stage_run = pipeline.recipe.label(teacher.key, pairs.key, split)
    return end(run_stage(pipeline, f"label {split} {name}", stage_run, {"policy": teacher, "pairs": pairs}))


@stage_task(name="label_by_gold", version=str(LABEL_BY_GOLD.version))
def label_by_gold(pipeline: Pipeline, pairs: ArtifactRef) -> ArtifactRef | None:
    """What a perfect teacher would say; None where no pair's gold is known."""
    if not has_gold(pipeline.store.fetch(pairs), "unlabelled"):
        return None
    return end(run_stage(pipeline, "label by gold", pipeline.recipe.label_by_gold(pairs.key), {"pairs": pairs}))
