"""Kills a night again and again, and compares what is left in the end with an uninterrupted one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from tests.chaos.attempt import Attempts, KillPoint, mark_crashed
from tests.chaos.crash import Crash, crash_after
from tests.chaos.snapshot import read_run, read_runs
from tests.flows.night import Place, smoke


@pytest.fixture(scope="module")
def undisturbed(prefect_server: str, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place.make(tmp_path_factory.mktemp("undisturbed") / "home", mlflow_template)
    assert place.run(smoke()).is_completed()
    return place


@pytest.fixture
def place(tmp_path: Path, mlflow_template: Path) -> Place:
    return Place.make(tmp_path / "home", mlflow_template)


def read_night(place: Place) -> dict[str, Any]:
    """Everything that a night leaves, without times: artifacts, journals, checkpoints, MLflow, registry."""
    journals = {key: read_run(place.store, key) for key in place.store.folders("journal")}
    return {"journals": journals, **place.snapshot()}


def assert_equal_nights(place: Place, other: Place) -> None:
    _assert_equal(read_night(place), read_night(other), "night")


def _assert_equal(found: Any, expected: Any, where: str) -> None:
    """Part by part, so that a failure names the smallest that differs."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, part in expected.items():
            _assert_equal(found[name], part, f"{where} / {name}")
    else:
        assert found == expected, where


def read_attempts(place: Place) -> int:
    night = read_runs(place.tracking, "agpo/nightly")["nightly smoke"]
    return int(night.data.tags["agpo.attempts"])


def run_killed_night(place: Place, prefect_url: str, points: list[KillPoint]) -> None:
    """The same command until it ends by itself; killed at each point before."""
    attempts = Attempts(place.home, prefect_url)
    for point in points:
        attempts.kill_at(attempts.start_night(), point)
        assert attempts.left_processes() == []
    attempts.finish(attempts.start_night())


def run_retried_night(place: Place, prefect_url: str, point: KillPoint) -> None:
    """A night that was killed, reported as crashed, and retried through Prefect."""
    attempts = Attempts(place.home, prefect_url)
    assert attempts.kill_at(attempts.start_night(), point)
    assert attempts.left_processes() == []
    flow_run = attempts.read_flow_run()
    mark_crashed(flow_run)
    attempts.finish(attempts.start_retry(flow_run))
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run)
    assert run.state is not None
    assert (run.state.name, run.run_count) == ("Completed", 2)


def run_crashing_night(place: Place, seed: int) -> int:
    """A night in this process that crashes before a random write, again and again; how often it did.

    Each attempt gets some writes further, to the store or to MLflow; a night has about 400 of them.
    """
    draw, crashes = random.Random(seed), 0
    while True:
        try:
            with crash_after(draw.randint(10, 150)):
                assert place.run(smoke()).is_completed()
            return crashes
        except Crash:
            crashes += 1
