"""Runs a smoke night in this process against real servers, and reads what Prefect and MLflow know of it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, State

from agpo.artifacts import Files
from agpo.profile import load_settings
from agpo.settings import NightlyRun, TrainRun
from flows.nightly import nightly
from tasks.report import Report
from tests.chaos.snapshot import read_artifacts, read_registry, read_tracking

_RECORDED = 60.0  # seconds until Prefect has recorded a task run; it does so in order, a moment after it ended


def smoke(*sets: str) -> NightlyRun:
    return load_settings(NightlyRun, "smoke", list(sets))


@dataclass(frozen=True)
class Place:
    """The home folder of nights, with an MLflow store of its own."""

    home: Path

    @classmethod
    def make(cls, home: Path, mlflow_template: Path) -> Place:
        home.mkdir(parents=True)
        shutil.copy(mlflow_template, home / "mlflow.db")
        return cls(home)

    @property
    def tracking(self) -> str:
        return f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def store(self) -> Files:
        return Files(self.home / "store")

    def run(self, run: TrainRun, flow: Flow[..., Report] = nightly) -> State[Report]:
        """The final state of a flow run."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AGPO_HOME", str(self.home))
            state: State[Report] = flow(run, return_state=True)  # type: ignore[assignment]
            return state

    def snapshot(self) -> dict[str, Any]:
        return {
            "artifacts": read_artifacts(self.store),
            "tracking": read_tracking(self.tracking),
            "registry": read_registry(self.tracking),
        }

    def count_points(self) -> int:
        """Points of all MLflow curves."""
        with sqlite3.connect(self.home / "mlflow.db") as database:
            count: int = database.execute("select count(*) from metrics").fetchone()[0]
            return count


def made(report: Report) -> list[str]:
    """The stages that ran, in order."""
    return [stage.stage for stage in report.stages if not stage.found]


def flow_run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def read_task_states(flow_run: UUID) -> dict[str, str]:
    """The name of each task run's final state, once the last one is recorded."""
    of_the_run = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run]))
    end = time.monotonic() + _RECORDED
    with get_client(sync_client=True) as client:
        while True:
            states = {run.name: run.state for run in client.read_task_runs(task_run_filter=of_the_run)}
            ended = {name: state.name or "" for name, state in states.items() if state is not None and state.is_final()}
            if any(name.startswith("summarize") for name in ended) or time.monotonic() > end:
                return ended
            time.sleep(0.2)


def read_flow_artifacts(flow_run: UUID) -> dict[str, Artifact]:
    of_the_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return {artifact.key or "": artifact for artifact in client.read_artifacts(artifact_filter=of_the_run)}
