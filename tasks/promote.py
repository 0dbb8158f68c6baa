"""The gate: candidate and evidence → decision, and the registry's aliases."""

from collections.abc import Mapping
from typing import Literal

from agpo.artifacts import ArtifactRef
from agpo.evaluation.gate import Decision
from agpo.stages import JUDGE
from tasks.pipeline import Pipeline
from tasks.registry import Registry
from tasks.stage import end, run_stage, stage_task
from tasks.tracking import connect

_BASE_CARD = "The base: the boundary is measured against it."
_START = "agpo.start"  # tag of a night: the policy from which it trains


@stage_task(name="find_champion")
def find_champion(pipeline: Pipeline, base: ArtifactRef, candidate: ArtifactRef) -> ArtifactRef:
    """Whom the candidate must beat: the champion of the family, at first the base.

    A candidate that this run promoted before is judged again against the champion of that time.
    """
    registry = _registry(pipeline)
    registry.ensure_base(base, pipeline.parent, card=_BASE_CARD)
    champion = registry.champion()
    if champion is not None and champion.policy.key == candidate.key:
        champion = registry.lookup("previous")
    return base if champion is None else champion.policy


@stage_task(name="find_teacher")
def find_teacher(pipeline: Pipeline, base: ArtifactRef) -> ArtifactRef:
    """Who labels: the champion. A candidate that the gate did not promote leaves that to the champion of before."""
    registry = _registry(pipeline)
    registry.ensure_base(base, pipeline.parent, card=_BASE_CARD)
    champion = registry.champion()
    assert champion is not None  # a family with a base has one
    pipeline.teacher = f"{registry.name} version {champion.version}"
    return champion.policy


@stage_task(name="find_start")
def find_start(pipeline: Pipeline, base: ArtifactRef) -> ArtifactRef:
    """Where training starts. From the champion, it is the one of the run's first attempt: a later one may be this
    run's own candidate."""
    if pipeline.recipe.night.start == "base":
        return base
    tags = connect(pipeline.parent.tracking_uri).get_run(pipeline.parent.run_id).data.tags
    if _START in tags:
        return ArtifactRef.model_validate_json(tags[_START])
    registry = _registry(pipeline)
    registry.ensure_base(base, pipeline.parent, card=_BASE_CARD)
    champion = registry.champion()
    start = base if champion is None else champion.policy
    connect(pipeline.parent.tracking_uri).set_tag(pipeline.parent.run_id, _START, start.model_dump_json())
    return start


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
