"""The gate: candidate and evidence → decision, and the registry's aliases."""

from collections.abc import Mapping
from typing import Literal

from agpo.artifacts import ArtifactRef
from agpo.evaluation.gate import Decision
from agpo.stages import JUDGE
from tasks.pipeline import Pipeline
from tasks.registry import Registry
from tasks.stage import end, run_stage, stage_task


@stage_task(name="find_champion")
def find_champion(pipeline: Pipeline, base: ArtifactRef, candidate: ArtifactRef) -> ArtifactRef:
    """Whom the candidate must beat: the champion of the family, at first the base.

    A candidate that this run promoted before is judged again against the champion of that time.
    """
    registry = _registry(pipeline)
    registry.ensure_base(base, pipeline.parent, card="The base: the boundary is measured against it.")
    champion = registry.champion()
    if champion is not None and champion.policy.key == candidate.key:
        champion = registry.lookup("previous")
    return base if champion is None else champion.policy


@stage_task(name="judge", version=str(JUDGE.version))
def judge(pipeline: Pipeline, counts: Mapping[str, ArtifactRef]) -> ArtifactRef:
    """``counts`` of the confirmation split: ``base``, ``trained``, ``candidate`` and, unless it is the base,
    ``champion``."""
    stage_run = pipeline.recipe.judge({name: ref.key for name, ref in counts.items()})
    return end(run_stage(pipeline, "judge", stage_run, counts))


@stage_task(name="promote")
def promote(
    pipeline: Pipeline, candidate: ArtifactRef, decision: ArtifactRef
) -> Literal["promote", "reject", "inconclusive"]:
    """Register the candidate with its evidence and let the decision act on the aliases, once."""
    folder = pipeline.store.fetch(decision)
    found = Decision.model_validate_json((folder / "decision.json").read_text())
    registry = _registry(pipeline)
    evidence = {
        "outcome": found.outcome,
        "boundary": found.boundary,
        "quality": found.quality,
        "decision": decision.uri,
        "margin": found.margin,
    }
    card = (folder / "card.md").read_text()
    version = registry.register(candidate, pipeline.parent, "candidate", evidence=evidence, card=card)
    registry.act_on(found.outcome, version, decision.key)
    return found.outcome


def _registry(pipeline: Pipeline) -> Registry:
    return Registry(pipeline.parent.tracking_uri, pipeline.run.family)
