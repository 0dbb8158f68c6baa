"""What a run found, in figures: the table of its end, and the same as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import ArtifactRef, Store
from agpo.evaluation import Choice, Decision, curve_intervals, difference_intervals
from agpo.evaluation.decision import read_counts
from agpo.stages import Result
from tasks.pipeline import Pipeline
from tasks.relevance import Relevance, make_relevance

_CONFIRMATION = "evaluate confirmation "


class PassAtK(BaseModel):
    """Mean pass@k of a policy on a set, with its interval, and its difference to the base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    set: str
    k: int
    problems: int
    value: float
    lower: float
    upper: float
    difference: float
    difference_lower: float
    difference_upper: float


class StageCost(BaseModel):
    """What a stage cost. A found stage shows the figures of the run that made it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    found: bool
    seconds: float
    cpu_seconds: float
    peak_memory_mib: float
    artifact: ArtifactRef


class Report(BaseModel):
    """The outcome of a flow run. Intervals are 95 %, by a paired bootstrap over problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    outcome: str | None  # of the gate: promote | reject | inconclusive
    reasons: list[str]
    weights: dict[str, float]  # chosen on the selection split, by objective
    pass_at_k: list[PassAtK]
    relevance: Relevance | None  # None where nothing was labelled
    stages: list[StageCost]
    nothing_new: bool  # every stage was found
    mlflow_run: str


def make_report(pipeline: Pipeline) -> Report:
    """Collect what the pipeline's stages made or found."""
    decision = _read_decision(pipeline)
    return Report(
        family=pipeline.run.family,
        outcome=None if decision is None else decision.outcome,
        reasons=[] if decision is None else decision.reasons,
        weights=_read_weights(pipeline),
        pass_at_k=_compare(pipeline),
        relevance=make_relevance(pipeline),
        stages=[_cost(name, result) for name, result in pipeline.results.items()],
        nothing_new=all(result.found for result in pipeline.results.values()),
        mlflow_run=pipeline.parent.url,
    )


def decision_folder(pipeline: Pipeline) -> Path | None:
    result = pipeline.results.get("judge")
    return None if result is None else pipeline.store.fetch(result.ref)


def frontier_files(pipeline: Pipeline) -> dict[str, Path]:
    """The frontier picture of each objective."""
    return {
        name.removeprefix("select "): pipeline.store.fetch(result.ref) / "frontier.png"
        for name, result in pipeline.results.items()
        if name.startswith("select ")
    }


def _read_decision(pipeline: Pipeline) -> Decision | None:
    folder = decision_folder(pipeline)
    return None if folder is None else Decision.model_validate_json((folder / "decision.json").read_text())


def _read_weights(pipeline: Pipeline) -> dict[str, float]:
    return {
        label: Choice.model_validate_json((file.parent / "choice.json").read_text()).weight
        for label, file in frontier_files(pipeline).items()
    }


def _compare(pipeline: Pipeline) -> list[PassAtK]:
    counts = _confirmation_counts(pipeline.store, pipeline.results)
    if "base" not in counts:
        return []
    ks = pipeline.recipe.night.evaluate.ks
    seed = pipeline.run.seed
    rows = []
    for policy, frame in counts.items():
        curve = curve_intervals(frame, ks, seed=seed)
        against = difference_intervals(counts["base"], frame, ks, seed=seed)
        for point, difference in zip(curve.iter_rows(named=True), against.iter_rows(named=True), strict=True):
            rows.append(
                PassAtK(
                    policy=policy,
                    set=point["set"],
                    k=point["k"],
                    problems=point["problems"],
                    value=point["pass_at_k"],
                    lower=point["lower"],
                    upper=point["upper"],
                    difference=difference["difference"],
                    difference_lower=difference["lower"],
                    difference_upper=difference["upper"],
                )
            )
    return rows


def _confirmation_counts(store: Store, results: dict[str, Result]) -> dict[str, pl.DataFrame]:
    return {
        name.removeprefix(_CONFIRMATION): read_counts(store.fetch(result.ref))
        for name, result in results.items()
        if name.startswith(_CONFIRMATION)
    }


def _cost(name: str, result: Result) -> StageCost:
    cost: dict[str, Any] = result.summary["cost"]
    return StageCost(stage=name, found=result.found, artifact=result.ref, **cost)
