"""A working life: bring everything up, run a night and a training by their deployments, cancel, go on, take down.

The tests build on one another, in their order: the servers take longer to start than all of them together.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from agpo.artifacts.lease import Lease
from agpo.profile import load_settings
from agpo.settings import NightlyRun, TrainRun
from flows import servers
from flows.services import read_services
from tasks.tracking import close_run, connect, open_run
from tests.services.night import Place, brought_up, wait_for

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]

SMOKE = load_settings(NightlyRun, "smoke", environ={})
# A rate of its own, so that no other test has its journal; it ends only when it is ended.
ENDLESS = TrainRun(
    **{name: getattr(SMOKE, name) for name in TrainRun.model_fields}
    | {"learner": SMOKE.learner.model_copy(update={"rate": 1e-5}), "steps": 100_000, "checkpoint_every": 100_000}
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Everything up, in a home where MLflow was used before without a server."""
    home = tmp_path_factory.mktemp("services") / "home"
    home.mkdir()
    before = open_run("agpo/before", "a run before", "key", tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    connect(before.tracking_uri).log_text(before.run_id, "# Card", "card.md")
    close_run(before, "FINISHED")
    with brought_up(home) as place:
        yield place
    assert place.processes() == []
    assert read_services(home) is None


def test_everything_runs_and_says_where(place: Place) -> None:
    shown = place.command("status")
    for name in ("Prefect server", "MLflow server", "worker"):
        assert f"{name} " in shown
    assert shown.count(" runs, process ") == 3
    assert place.services.mlflow in shown
    addresses = [service.processes()[0].net_connections("tcp") for service in place.services.started.values()]
    listening = {each.laddr.ip for found in addresses for each in found if each.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_the_nights_are_scheduled(place: Place) -> None:
    """Prefect's scheduler makes the next runs a moment after the deployment."""

    def scheduled() -> set[str]:
        found = place.prefect("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}})
        return {json.dumps(sorted(run["tags"])) for run in found if run["auto_scheduled"]}

    nights = {json.dumps(sorted(["auto-scheduled", "nightly", name])) for name in ("countdown", "shop")}
    wait_for(lambda: scheduled() >= nights, 60)


def test_what_was_tracked_without_a_server_shows(place: Place) -> None:
    run = place.mlflow_runs("agpo/before")["a run before"]
    assert place.mlflow_file(run, "card.md") == b"# Card"


def test_a_night_runs_through_its_deployment(place: Place) -> None:
    state = place.wait_for_end(place.start_run("nightly/countdown", SMOKE))
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state["message"]
    runs = place.mlflow_runs("agpo/nightly")
    assert {"prepare", "warm_start", "train agpo", "judge", "nightly smoke"} <= set(runs)
    assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}
    assert "eval/base/hard/pass_at_4" in {metric["key"] for metric in runs["nightly smoke"]["data"]["metrics"]}
    assert place.mlflow_file(runs["train agpo"], "figures/training.png").startswith(b"\x89PNG")
    assert b"oundary" in place.mlflow_file(runs["nightly smoke"], "card.md")
    model = place.mlflow("registered-models/get", name="agpo-policy-smoke")["registered_model"]
    assert {alias["alias"] for alias in model["aliases"]} >= {"base", "champion"}


def test_a_command_uses_what_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with servers.prefect_server(place.home) as url:
        assert url == place.services.prefect == os.environ["PREFECT_API_URL"]
        assert os.environ["MLFLOW_TRACKING_URI"] == place.services.mlflow
    assert servers.how_to_open(place.home) == [
        f"Prefect: {url.removesuffix('/api')}",
        f"MLflow: {place.services.mlflow}",
    ]


def test_a_cancelled_training_keeps_what_it_did(place: Place) -> None:
    flow_run, journal = place.start_run("train/countdown", ENDLESS), place.journal(ENDLESS)
    wait_for(lambda: len(list(journal.updates())) > 3)
    place.prefect(f"flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})
    assert place.wait_for_end(flow_run)["type"] == "CANCELLED"
    assert_checkpoint(place)
    runs = place.mlflow_runs("agpo/train")
    assert {runs[name]["info"]["status"] for name in ("train agpo", "train smoke")} == {"KILLED"}


def test_a_second_up_deploys_again_and_leaves_the_rest(place: Place) -> None:
    before, deployments = place.services, _deployments(place)
    place.command("up")
    assert place.services == before
    assert _deployments(place) == deployments
    assert len(deployments) > 5


def test_down_lets_a_run_write_its_checkpoint(place: Place) -> None:
    journal = place.journal(ENDLESS)
    done = len(list(journal.updates()))
    flow_run = place.start_run("train/countdown", ENDLESS)
    wait_for(lambda: len(list(journal.updates())) > done + 3)
    assert "Ended: Prefect server, MLflow server, worker" in place.command("down")
    assert place.processes() == []
    assert_checkpoint(place)
    with sqlite3.connect(place.home / "prefect" / "prefect.db") as database:
        [(state,)] = database.execute("SELECT state_type FROM flow_run WHERE id = ?", (str(flow_run),)).fetchall()
    assert state == "CRASHED"
    with sqlite3.connect(place.home / "mlflow.db") as database:
        query = "SELECT status FROM runs WHERE name IN ('train agpo', 'train smoke') AND experiment_id = ?"
        ids = database.execute("SELECT experiment_id FROM experiments WHERE name = 'agpo/train'").fetchone()
        assert database.execute(query, ids).fetchall() == [("KILLED",)] * 2


def assert_checkpoint(place: Place) -> None:
    """After the last journalled step there is a checkpoint, and nobody holds the lease.

    Only an update that was interrupted half-way leaves none: the steps since the one before it are replayed.
    """
    journal = place.journal(ENDLESS)
    steps = len(list(journal.updates()))
    interrupted = journal.read_verdicts(steps) is not None
    assert max(journal.checkpoints(), default=0) == steps or interrupted
    with Lease(journal.files, "lease"):
        pass


def _deployments(place: Place) -> dict[str, UUID]:
    found: list[dict[str, Any]] = place.prefect("deployments/filter", {})
    return {f"{each['entrypoint']} {each['name']}": UUID(each["id"]) for each in found}
