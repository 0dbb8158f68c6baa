"""The deployments as they are written: whatever Prefect would ignore, refuse or find out late."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from agpo.profile import SettingsError, load_settings
from agpo.settings import NightlyRun
from flows.deployments import FILE, ROOT, render_deployments
from flows.programs import WORK_POOL

WRITTEN = yaml.safe_load(FILE.read_text(encoding="utf-8"))
RENDERED = render_deployments()
# Prefect ignores keys that it does not know, and one in a schedule makes it deploy nothing at all.
KEYS = {"name", "entrypoint", "description", "tags", "work_pool", "concurrency_limit", "schedules", "profile"}
SCHEDULE_KEYS = {"cron", "timezone", "slug", "active"}


def flow_name(deployment: dict[str, Any]) -> str:
    name: str = deployment["entrypoint"].rpartition(":")[2]
    return name


def full_name(deployment: dict[str, Any]) -> str:
    return f"{flow_name(deployment)}/{deployment['name']}"


def load_flow(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Flow[..., Any]:
    monkeypatch.chdir(ROOT)
    return load_flow_from_entrypoint(deployment["entrypoint"])


def test_the_file_has_known_keys_only() -> None:
    assert set(WRITTEN) == {"name", "pull", "definitions", "deployments"}
    for deployment in WRITTEN["deployments"]:
        assert set(deployment) - {"schedules"} == KEYS - {"schedules"}, full_name(deployment)
        assert deployment["work_pool"] == {"name": WORK_POOL}
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_every_flow_has_a_deployment_of_its_own_name() -> None:
    names = [full_name(deployment) for deployment in WRITTEN["deployments"]]
    assert len(set(names)) == len(names)
    flows = {file.stem for file in (ROOT / "flows").glob("*.py") if f'@flow(name="{file.stem}"' in file.read_text()}
    assert {flow_name(deployment) for deployment in WRITTEN["deployments"]} == flows > {"train", "nightly"}


def test_only_the_nights_are_scheduled_each_once_at_a_time_of_its_own() -> None:
    times = set()
    for deployment in WRITTEN["deployments"]:
        schedules = deployment.get("schedules", [])
        assert len(schedules) == (flow_name(deployment) == "nightly")
        for schedule in schedules:
            assert set(schedule) == SCHEDULE_KEYS
            assert CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
            assert ZoneInfo(schedule["timezone"])
            assert schedule["slug"] == "nightly"  # by which a later deployment knows it again
            times.add(schedule["cron"])
    assert len(times) == 2


@pytest.mark.parametrize("deployment", RENDERED["deployments"], ids=full_name)
def test_a_deployment_has_a_flow_and_parameters_that_it_takes(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = load_flow(deployment, monkeypatch)
    assert flow.name == flow_name(deployment)
    run = flow.validate_parameters(deployment["parameters"])["run"]
    assert run.model_dump(mode="json") == deployment["parameters"]["run"]


@pytest.mark.parametrize("deployment", RENDERED["deployments"], ids=full_name)
def test_its_form_opens_with_every_setting_named_and_filled_in(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = parameter_schema(load_flow(deployment, monkeypatch))
    assert set(schema.properties) == {"run"}
    assert schema.properties["run"]["default"]
    assert schema.properties["run"]["description"]
    titles = [field["title"] for model in schema.definitions.values() for field in model["properties"].values()]
    assert not [title for title in titles if title.endswith(("Settings", "Run"))]  # would be the name of a class


def test_a_profile_becomes_the_parameters() -> None:
    by_name = {full_name(deployment): deployment for deployment in RENDERED["deployments"]}
    night = load_settings(NightlyRun, "demo", environ={}).model_dump(mode="json")
    assert by_name["nightly/countdown"]["parameters"] == {"run": night}
    training = by_name["train/countdown"]["parameters"]["run"]
    assert "evaluate" not in training
    assert training == {name: night[name] for name in training}
    assert not any("profile" in deployment for deployment in RENDERED["deployments"])


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments: [{name: a, entrypoint: 'flows/train.py:train', profile: dmeo}]")
    with pytest.raises(SettingsError, match=r"profile 'dmeo': not found; .*did you mean demo\?"):
        render_deployments(file)
