"""Where a flow's stages run: settings, store, tracking, and the flow's own MLflow run as their parent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from prefect.runtime import flow_run

from agpo.artifacts import digest
from agpo.recipe import Recipe
from agpo.rollout.engines import write_logs_to
from agpo.settings import NightlyRun, TrainRun
from agpo.stages import Result
from tasks.location import home, open_store, tracking_uri
from tasks.log_level import log_level
from tasks.tracking import RunRef, open_run, run_context


class Pipeline:
    """Handed to every task of a flow run. ``results`` collects what each stage made or found, in order."""

    def __init__(self, run: TrainRun, parent: RunRef, experiment: str) -> None:
        self.run, self.parent, self.experiment = run, parent, experiment
        self.recipe = Recipe(run)
        self.store = open_store()
        self.results: dict[str, Result] = {}
        self.teacher = ""  # registered version that labels
        self.stop_training_at = self.next_stop(run) if isinstance(run, NightlyRun) else None

    @property
    def time_is_up(self) -> bool:
        """Whether training must end here."""
        return self.stop_training_at is not None and datetime.now(UTC) >= self.stop_training_at

    @staticmethod
    def next_stop(run: NightlyRun) -> datetime | None:
        """The first moment after the flow run's scheduled start at which the clock shows ``stop_training_at``.

        A retry has the start of the first attempt, so it does not get another day.
        """
        if not run.stop_training_at:
            return None
        # Prefect's own class of moments is not the standard library's.
        start = datetime.fromtimestamp(flow_run.scheduled_start_time.timestamp(), ZoneInfo(run.time_zone))
        hour, minute = map(int, run.stop_training_at.split(":"))
        stop = start.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return stop if stop > start else stop + timedelta(days=1)

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
    """The pipeline of a flow run, under one MLflow run per flow, settings and data: a second attempt continues it."""
    experiment = f"agpo/{flow}"
    settings = run.model_dump(mode="json")
    key = f"{flow}/{digest([settings, Recipe(run).snapshot()])}"
    home().mkdir(parents=True, exist_ok=True)
    write_logs_to(home() / "logs")
    parent = open_run(experiment, f"{flow} {run.family}", key, tracking_uri=tracking_uri(), params=settings)
    # Prefect would drop the library's own messages below WARNING.
    with run_context(parent), log_level("agpo", logging.INFO):
        yield Pipeline(run, parent, experiment)
