"""A training run's session with its MLflow run: the journal's metrics are copied there, each step once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import polars as pl

from agpo.alarms import find_alarms
from agpo.artifacts import ArtifactRef
from agpo.evaluation.figures import training_figure
from agpo.progress import progress
from agpo.session import Session
from tasks.log_level import log_level
from tasks.pipeline import Pipeline
from tasks.run_page import show_table
from tasks.stage import reopen_maker
from tasks.tracking import RunRef, StepRecord, connect, last_logged_step, log_figure, log_steps, open_run, run_context
from tasks.waiting_answers import WaitingAnswers

_LOG = logging.getLogger("agpo")
_COPY_EVERY = 2.0  # seconds between copies of metrics to MLflow


class Training:
    """What the tasks of a step share."""

    def __init__(self, pipeline: Pipeline, session: Session, run: RunRef | None) -> None:
        self.pipeline, self.session, self.run = pipeline, session, run
        self.step_deadline = pipeline.run.step_deadline
        logged = -1 if run is None else last_logged_step(run)
        self._updates = list(islice(session.journal.updates(), logged + 1))  # those that MLflow has
        self._waiting = WaitingAnswers(session)
        self._alarmed: set[str] = set()
        self._copied_at = 0.0

    def steps(self) -> Iterator[int]:
        """The steps to run or replay, with their progress."""
        remaining = self.session.remaining()
        with (
            # Three lines a step would bury everything else in the log; the states are on the run's page.
            log_level("prefect.task_runs", logging.WARNING),
            progress(f"train {self.session.run.objective.kind}", remaining.stop, "steps", remaining.start) as advance,
        ):
            for step in remaining:
                if self.pipeline.time_is_up and self.session.journal.read_update(step) is None:
                    _LOG.warning(
                        "time is up after %d of %d steps: the run goes on with what is trained", step, remaining.stop
                    )
                    self.session.end_at(step)
                    return
                yield step
                advance(1)

    def copy_metrics(self, *, now: bool = False) -> None:
        """Log the journalled steps that MLflow does not have. The journal is the source, so no attempt repeats one."""
        if self.run is None or (not now and time.monotonic() - self._copied_at < _COPY_EVERY):
            return
        new = list(self.session.journal.updates(len(self._updates)))
        records: list[StepRecord] = [
            {"step": update.step, "time_ms": update.time_ms, "metrics": update.metrics} for update in new
        ]
        log_steps(self.run, records)
        self._updates += new
        self._sound_alarms(self.run)
        self._waiting.show(self._updates)
        self._copied_at = time.monotonic()

    def _sound_alarms(self, run: RunRef) -> None:
        """Say in the log, on the MLflow run and on the flow run's page what looks wrong; again only when more does."""
        alarms = find_alarms(self._updates)
        names = {alarm.name for alarm in alarms}
        for alarm in alarms:
            if alarm.name not in self._alarmed:
                _LOG.warning("alarm %s: %s", alarm.name, alarm.message)
        if names - self._alarmed:
            connect(run.tracking_uri).set_tag(run.run_id, "agpo.alarms", ", ".join(sorted(names)))
            rows = [alarm.model_dump(exclude={"message"}) | {"message": alarm.message} for alarm in alarms]
            show_table(rows, "alarms", "What looks wrong in the latest steps; nothing was stopped")
        self._alarmed |= names

    def end(self) -> None:
        """Copy what is left, also of a step that stopped the run."""
        self.copy_metrics(now=True)
        if self.run is not None:
            self._waiting.end(len(self._updates), self.run)

    def draw(self) -> None:
        """Draw the run's curves on its page."""
        updates = list(islice(self.session.journal.updates(), self.session.run.steps))
        if self.run is not None and updates:
            metrics = pl.DataFrame([{"step": update.step, **update.metrics} for update in updates])
            log_figure(self.run, training_figure(metrics), "training")


@contextmanager
def open_training(pipeline: Pipeline, problems: ArtifactRef, base: ArtifactRef, label: str) -> Iterator[Training]:
    """The session of the pipeline's training run; a run whose policy is published opens nothing."""
    with Session(pipeline.run, pipeline.store, problems, base) as session:
        published = session.find_published()
        if published is not None:
            run = reopen_maker(pipeline, published)
        else:
            session.claim()  # before the MLflow run, which belongs to whoever holds the lease
            run = open_run(
                pipeline.experiment,
                f"train {label}",
                session.key,
                tracking_uri=pipeline.parent.tracking_uri,
                parent=pipeline.parent,
                params=pipeline.run.what_training_depends_on() | {"steps": pipeline.run.steps},
            )
        if run is None:
            yield Training(pipeline, session, None)
            return
        with run_context(run):
            training = Training(pipeline, session, run)
            try:
                yield training
            finally:
                session.checkpoint()
                training.end()
