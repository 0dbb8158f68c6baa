"""What `agpo up` refuses, and that a failure leaves nothing behind. `tests/services` has the rest."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Running, Scheduled
from typer.testing import CliRunner

from flows import up as command
from flows.cli import app
from flows.deployments import _create_pool
from flows.programs import WORK_POOL
from flows.servers import prefect_settings
from flows.services import Services, read_services


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGPO_HOME", str(tmp_path / "home"))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "AGPO_STORE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where something else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_given_port_that_is_taken_is_named(home: Path, taken: int) -> None:
    found = CliRunner().invoke(app, ["up", "--mlflow-port", str(taken)])
    assert found.exit_code == 2
    assert f"port {taken} of 127.0.0.1 is taken" in found.stderr
    assert read_services(home) is None


def test_a_server_of_the_user_that_does_not_answer_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = CliRunner().invoke(app, ["up"])
    assert found.exit_code == 1
    assert "http://127.0.0.1:9/api does not answer" in found.stderr


@pytest.mark.services
def test_a_server_that_does_not_start_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_KEEPALIVE_TIMEOUT", "soon")
    with pytest.raises(RuntimeError, match=r"(?s)the Prefect server has ended; the end of .*keepalive_timeout"):
        command.up()
    assert read_services(home) is None
    assert not [line for line in _command_lines() if str(home) in line]


def test_down_and_status_without_up(home: Path) -> None:
    assert CliRunner().invoke(app, ["down"]).output == "Nothing was started by agpo up.\n"
    found = CliRunner().invoke(app, ["status"])
    assert (found.exit_code, found.output) == (1, "Nothing was started by agpo up.\n")


@pytest.mark.parametrize(
    ("variable", "value", "ports", "wanted"),
    [
        ("AGPO_STORE", "/store", (None, None), True),
        ("AGPO_STORE", "/other", (None, None), False),
        ("AGPO_STORE", "/store", (4200, 5000), True),
        ("AGPO_STORE", "/store", (None, 5001), False),
        ("PREFECT_API_URL", "http://127.0.0.1:4201/api", (None, None), False),
    ],
)
def test_what_runs_is_kept_while_it_is_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, ports: tuple[int | None, int | None], wanted: bool
) -> None:
    running = Services(prefect="http://127.0.0.1:4200/api", mlflow="http://127.0.0.1:5000", store="/store")
    monkeypatch.setenv("AGPO_STORE", "/store")
    monkeypatch.setenv(variable, value)
    assert command._as_wanted(running, *ports) is wanted


@pytest.mark.services
def test_a_run_that_was_cut_off_has_crashed_and_one_that_waits_stays(home: Path, prefect_server: str) -> None:
    running = Services(prefect=prefect_server, mlflow="", store="")
    home.mkdir()

    @flow(name="night")
    def night() -> None: ...

    with prefect_settings(home, prefect_server), get_client(sync_client=True) as client:
        _create_pool()
        cut_off = client.create_flow_run(night, state=Running(), work_pool_name=WORK_POOL).id
        waits = client.create_flow_run(night, state=Scheduled(), work_pool_name=WORK_POOL).id
        elsewhere = client.create_flow_run(night, state=Running()).id
        command._close_runs(home, running)
        states = [client.read_flow_run(run).state_name for run in (cut_off, waits, elsewhere)]
    assert states == ["Crashed", "Scheduled", "Running"]


def _command_lines() -> list[str]:
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
