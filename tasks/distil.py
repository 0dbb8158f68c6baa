"""Labels → student, and the student's gate."""

from typing import Literal

from agpo.artifacts import ArtifactRef
from agpo.stages import DISTIL, JUDGE_STUDENT
from agpo.student.gate import StudentDecision
from tasks.pipeline import Pipeline
from tasks.stage import end, run_stage, stage_task
from tasks.student_registry import StudentRegistry


@stage_task(name="distil", version=str(DISTIL.version), task_run_name="distil {label}")
def distil(
    pipeline: Pipeline, problems: ArtifactRef, labels: ArtifactRef | None, base: ArtifactRef | None, label: str
) -> ArtifactRef:
    """``base`` is used only where an encoder starts from it."""
    offered = {"problems": problems, "labels": labels, "base": base}
    keys = {name: None if ref is None else ref.key for name, ref in offered.items()}
    stage_run = pipeline.recipe.distil(problems.key, keys["labels"], keys["base"])
    inputs = {name: ref for name, ref in offered.items() if ref is not None and name in stage_run.inputs}
    return end(run_stage(pipeline, f"distil {label}", stage_run, inputs))


@stage_task(name="find_student_champion")
def find_student_champion(pipeline: Pipeline, student: ArtifactRef) -> ArtifactRef | None:
    """Whom the student must beat: the champion of the family; None for a family's first student.

    A student that this run promoted before is judged again against the champion of that time.
    """
    registry = _registry(pipeline)
    champion = registry.artifact("champion")
    if champion is not None and champion.key == student.key:
        champion = registry.artifact("previous")
    return champion


@stage_task(name="judge_student", version=str(JUDGE_STUDENT.version))
def judge_student(
    pipeline: Pipeline, student: ArtifactRef, problems: ArtifactRef, champion: ArtifactRef | None
) -> ArtifactRef:
    """The confirmation pairs of ``problems`` decide."""
    inputs = {"student": student, "problems": problems} | ({} if champion is None else {"champion": champion})
    stage_run = pipeline.recipe.judge_student(student.key, problems.key, None if champion is None else champion.key)
    return end(run_stage(pipeline, "judge student", stage_run, inputs))


@stage_task(name="promote_student")
def promote_student(
    pipeline: Pipeline, student: ArtifactRef, decision: ArtifactRef
) -> Literal["promote", "reject", "inconclusive"]:
    """Register the student as a model that serves, with its evidence, and let the decision act on the aliases, once."""
    folder = pipeline.store.fetch(decision)
    found = StudentDecision.model_validate_json((folder / "decision.json").read_text(encoding="utf-8"))
    registry = _registry(pipeline)
    evidence = {
        "outcome": found.outcome,
        "quality": found.quality,
        "reference": found.reference,
        "ahead": found.macro_f1.model_dump(),
        "decision": decision.uri,
        "margin": found.margin,
    }
    card = (folder / "card.md").read_text(encoding="utf-8")
    version = registry.register(student, pipeline.store.fetch(student), pipeline.parent, evidence, card)
    registry.act_on(found.outcome, version, decision.key)
    return found.outcome


def _registry(pipeline: Pipeline) -> StudentRegistry:
    return StudentRegistry(pipeline.parent.tracking_uri, pipeline.run.family)
