"""A stage as a Prefect task: look its key up, run it only if absent, track it, and say which of the two it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from mlflow.exceptions import MlflowException
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from agpo.artifacts import ArtifactRef
from agpo.stages import Result, StageRun
from tasks.pipeline import Pipeline
from tasks.tracking import RunRef, connect, log_dataset, log_output, log_pictures, log_summary, open_run, run_context

P = ParamSpec("P")
R = TypeVar("R")


def stage_task(
    name: str, version: str | None = None, task_run_name: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a Prefect task that is called for its result, whatever its final state is named.

    The store remembers what is done, so Prefect keeps no result and caches nothing; and a stage is crash-only, so it
    has no retries.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        stage = task(
            name=name, version=version, task_run_name=task_run_name or name, persist_result=False, cache_policy=NO_CACHE
        )(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            state: State[R] = stage(*args, **kwargs, return_state=True)
            return state.result()

        return call

    return decorate


def run_stage(pipeline: Pipeline, name: str, stage_run: StageRun, inputs: Mapping[str, ArtifactRef]) -> Result:
    """Find or make a stage's artifact. A found one opens no MLflow run: its manifest names the one that made it."""
    result = stage_run.find(pipeline.store)
    if result is not None:
        run = reopen_maker(pipeline, result.ref)
    else:
        run = open_run(
            pipeline.experiment,
            name,
            stage_run.key,
            tracking_uri=pipeline.parent.tracking_uri,
            parent=pipeline.parent,
            params=stage_run.matter,
        )
    if run is not None:
        with run_context(run):
            result = result or stage_run.run(pipeline.store, inputs, pipeline.producer(run))
            log_result(pipeline, run, result, inputs)
    assert result is not None
    pipeline.results.setdefault(name, result)  # a stage that is needed twice was made by its first call
    return result


def reopen_maker(pipeline: Pipeline, ref: ArtifactRef) -> RunRef | None:
    """The MLflow run that made a found artifact, if it was killed after publishing it and before it had shown it."""
    maker = pipeline.store.manifest(ref).producer.get("mlflow_run")
    if not maker:
        return None
    client = connect(pipeline.parent.tracking_uri)
    try:
        run = client.get_run(maker)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # else it is known to another MLflow
            raise
        return None
    if run.info.status == "FINISHED" or run.info.lifecycle_stage == "deleted":
        return None
    experiment, key = client.get_experiment(run.info.experiment_id), run.data.tags["agpo.run_key"]
    return open_run(experiment.name, run.info.run_name, key, tracking_uri=pipeline.parent.tracking_uri)


def log_result(pipeline: Pipeline, run: RunRef, result: Result, inputs: Mapping[str, ArtifactRef]) -> None:
    """Show a stage's inputs, figures and output on its MLflow run."""
    for name, ref in inputs.items():
        log_dataset(run, ref, name, "input")
    figures = result.summary["metrics"] | {f"cost/{name}": value for name, value in result.summary["cost"].items()}
    # MLflow knows no integers: logged again, one would look like another value and get a second point. The summary of a
    # found artifact has null where there was NaN.
    log_summary(run, {name: float(value) for name, value in figures.items() if value is not None})
    log_output(run, result.ref, result.ref.kind, pipeline.store.manifest(result.ref))
    log_pictures(run, pipeline.store.fetch(result.ref))


def end(result: Result) -> ArtifactRef:
    """The task's final state, named Found or Completed; the caller of a `stage_task` gets the reference in it."""
    return end_step(result.ref, result.found)


def end_step(ref: ArtifactRef, found: bool) -> ArtifactRef:
    """As `end`, for a part of a training step: found when the journal had it."""
    return cast(ArtifactRef, Completed(name="Found" if found else "Completed", data=ref))
