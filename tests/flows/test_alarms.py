"""What looks wrong in a training run is said where people look."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from agpo import alarms
from tests.chaos.snapshot import read_runs
from tests.flows.night import Place, flow_run_id, read_flow_artifacts, smoke

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_an_alarm_is_on_both_pages_and_in_the_log(
    prefect_server: str,
    mlflow_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    found: list[Any] = []

    def find(updates: list[Any]) -> list[alarms.Alarm]:
        found.append(len(updates))
        alarm = alarms.Alarm(
            name="unsolved", figure="rollout/all_wrong_share", first_step=0, last_step=1, value=1, bound=0.5,
            message="steps 0 to 1: too many",
        )  # fmt: skip
        return [alarm] if len(updates) > 1 else []

    monkeypatch.setattr("tasks.training.find_alarms", find)
    place = Place.make(tmp_path / "home", mlflow_template)
    with caplog.at_level(logging.WARNING, "agpo"):
        state = place.run(smoke("steps=2"))
    assert state.is_completed()
    assert max(found) == 2
    assert [record.message for record in caplog.records if "alarm" in record.message] == [
        "alarm unsolved: steps 0 to 1: too many"
    ]
    assert read_runs(place.tracking, "agpo/nightly")["train agpo"].data.tags["agpo.alarms"] == "unsolved"
    assert "too many" in str(read_flow_artifacts(flow_run_id(state))["alarms"].data)
