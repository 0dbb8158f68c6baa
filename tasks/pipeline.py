"""Where a flow's stages run: settings, store, tracking, and the flow's own MLflow run as their parent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from agpo.artifacts import Store, digest
from agpo.recipe import Recipe
from agpo.settings import TrainRun
from agpo.stages import Result
from tasks.location import home, store_address, tracking_uri
from tasks.tracking import RunRef, open_run, run_context


class Pipeline:
    """Handed to every task of a flow run. ``results`` collects what each stage made or found, in order."""

    def __init__(self, run: TrainRun, parent: RunRef, experiment: str) -> None:
        self.run, self.parent, self.experiment = run, parent, experiment
        self.recipe = Recipe(run)
        self.store = Store(store_address())
        self.results: dict[str, Result] = {}

    def with_recipe(self, recipe: Recipe) -> Pipeline:
        """The same place for another recipe; its results go to the same list."""
        other = object.__new__(Pipeline)
        other.__dict__.update(self.__dict__)
        other.recipe, other.run = recipe, recipe.run
        return other

    def producer(self, run: RunRef) -> dict[str, str]:
        """Who makes an artifact, for its manifest."""
        return {"mlflow_run": run.run_id, "flow_run": flow_run.id or "", "flow": flow_run.flow_name or ""}


@contextmanager
def open_pipeline(flow: str, run: TrainRun) -> Iterator[Pipeline]:
    """The pipeline of a flow run, under one MLflow run per flow and settings: a second attempt continues it."""
    experiment = f"agpo/{flow}"
    settings = run.model_dump(mode="json")
    home().mkdir(parents=True, exist_ok=True)
    parent = open_run(
        experiment, f"{flow} {run.family}", f"{flow}/{digest(settings)}", tracking_uri=tracking_uri(), params=settings
    )
    with run_context(parent):
        yield Pipeline(run, parent, experiment)
