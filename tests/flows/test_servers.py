"""The local servers, started for real."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from prefect import flow, task
from prefect.states import Completed

from flows import servers
from flows.ports import choose_ports
from flows.programs import answers
from flows.servers import how_to_open
from tasks import location
from tasks.tracking import connect, open_run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests: only the first server has to make a database."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "AGPO_MLFLOW_UI"):
        monkeypatch.delenv(name, raising=False)


def wait_for(what: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def fetch(url: str) -> Any:
    with urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())


def child_servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "child_process.py" in " ".join(child.cmdline())]


def programs(home: Path) -> list[str]:
    """What the commands run, behind ``env NAME=VALUE …``."""
    return [
        next(Path(word).name for word in shlex.split(command)[1:] if "=" not in word) for command in how_to_open(home)
    ]


def test_a_block_has_a_server_and_leaves_none(home: Path) -> None:
    environment = dict(os.environ)
    others = {child.pid for child in child_servers()}
    with servers.prefect_server(home) as url:
        [server] = [child for child in child_servers() if child.pid not in others]
        addresses = {connection.laddr.ip for connection in server.net_connections() if connection.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}
        assert os.environ["PREFECT_API_URL"] == url
    assert not server.is_running()
    assert dict(os.environ) == environment
    assert "Check out the dashboard" in (home / "logs" / "prefect-server.log").read_text()


def test_a_block_leaves_every_task_run_recorded(home: Path) -> None:
    @task(persist_result=False)
    def step() -> Any:
        return Completed(name="Found", data=1)

    @flow(persist_result=False)
    def train() -> None:
        for _ in range(100):
            _ = step()

    with servers.prefect_server(home):
        train()
    with sqlite3.connect(home / "prefect" / "prefect.db") as database:
        assert database.execute("SELECT state_name, count(*) FROM task_run GROUP BY 1").fetchall() == [("Found", 100)]
        assert database.execute("SELECT state_name FROM flow_run").fetchall() == [("Completed",)]


def test_the_server_of_a_killed_process_ends(home: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from flows.servers import prefect_server\n"
        "with prefect_server(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(home)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        [server] = psutil.Process(parent.pid).children()
        assert fetch(f"{url}/health") is True
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 15)


def test_a_given_server_is_used_and_none_started(
    prefect_server: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    before = child_servers()
    with servers.prefect_server(home) as url:
        assert url == prefect_server
        assert child_servers() == before
    assert programs(home) == ["mlflow"]


def test_a_given_server_that_does_not_answer_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    message = r"PREFECT_API_URL is http://127\.0\.0\.1:9/api, which does not answer"
    with pytest.raises(RuntimeError, match=message), servers.prefect_server(home):
        pass


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_KEEPALIVE_TIMEOUT", "soon")
    message = r"(?s)the Prefect server ended with code 1; the end of .*keepalive_timeout"
    with pytest.raises(RuntimeError, match=message), servers.prefect_server(tmp_path):
        pass
    assert "PREFECT_API_URL" not in os.environ


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    first = choose_ports(tmp_path, None, None)
    assert choose_ports(tmp_path, None, None) == first
    asked = choose_ports(tmp_path, None, 5999)
    assert asked == {"prefect": first["prefect"], "mlflow": 5999}
    with socket.socket() as other:
        other.bind(("127.0.0.1", first["prefect"]))
        other.listen()
        assert choose_ports(tmp_path, None, None)["prefect"] != first["prefect"]


def test_mlflow_is_a_file_unless_the_user_has_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    assert location.tracking_uri(home) == f"sqlite:///{home}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert location.tracking_uri(home) == "http://127.0.0.1:5000"
    assert programs(home) == ["prefect"]


@contextmanager
def open_both(commands: list[str], folder: Path) -> Iterator[None]:
    """Run the commands as a user would, from a folder that they leave empty."""
    with (folder.with_suffix(".log")).open("wb") as log:
        opened = [
            subprocess.Popen(shlex.split(command), cwd=folder, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
    try:
        yield
    finally:
        for process in opened:
            children = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(30)
            psutil.wait_procs(children, 30)


def test_the_printed_commands_open_both_user_interfaces(home: Path, tmp_path: Path) -> None:
    ref = open_run("agpo/nightly", "nightly", "key", tracking_uri=location.tracking_uri(home))
    connect(ref.tracking_uri).log_text(ref.run_id, "# Card", "card.md")
    empty = tmp_path / "empty"
    empty.mkdir()
    commands = how_to_open(home)
    ports = json.loads((home / "ports.json").read_text())
    prefect, mlflow = (f"http://127.0.0.1:{ports[name]}" for name in ("prefect", "mlflow"))
    with open_both(commands, empty):
        assert wait_for(lambda: answers(f"{prefect}/api") and answers(mlflow))
        assert fetch(f"{prefect}/ui-settings")["api_url"] == f"{prefect}/api"  # where its pages look for runs
        client = connect(mlflow)
        assert client.get_run(ref.run_id).data.tags["agpo.run_key"] == "key"
        card = client.download_artifacts(ref.run_id, "card.md", str(tmp_path))
        assert Path(card).read_text() == "# Card"
    assert list(empty.iterdir()) == []
