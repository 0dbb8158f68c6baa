"""Local servers below one home folder: Prefect while a command runs, MLflow as an SQLite file.

A server that the user names by ``PREFECT_API_URL`` or ``MLFLOW_TRACKING_URI`` is used instead.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from uuid import UUID

from tasks.location import tracking_uri

_HOST = "127.0.0.1"
_STARTUP = 120.0  # seconds
_SHUTDOWN = 10.0  # seconds
_SETTLE = 60.0  # seconds
_LOG_TAIL = 2000  # characters
# What a flow that is called, not deployed, has no use for.
_UNUSED_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "EVENT_LOGGER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)
# Task runs are written together: one by one they take three times the CPU time, and while they lock the file other
# requests are turned away for seconds.
_RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


@contextmanager
def prefect_server(home: Path, prefect_port: int | None = None, mlflow_port: int | None = None) -> Iterator[str]:
    """The URL of a Prefect API for this process and its children, served for as long as the block lasts.

    ``PREFECT_API_URL``, if set, is used and nothing is started. Otherwise a server with an SQLite file below ``home``
    is started on 127.0.0.1; it ends with the block or with this process, however that ends. Ports are free ones, which
    ``home`` remembers and later runs use again, so that links between the two user interfaces stay good.

    Raises:
        RuntimeError: the server does not answer; the message has the end of its log.
    """
    ports = _choose_ports(home, prefect_port, mlflow_port)
    given = os.environ.get("PREFECT_API_URL")
    with _environment(_links(home, ports["mlflow"])):
        if given:
            if not _answers(given):
                raise RuntimeError(f"PREFECT_API_URL is {given}, which does not answer: start that server or unset it")
            yield given
            return
        url = _api_url(ports["prefect"])
        with (
            _environment(_client_environment(home, url)),
            _server(home, ports["prefect"]),
            _prefect_settings(home, url),
        ):
            yield url


def how_to_open(home: Path) -> list[str]:
    """The shell commands that open the user interfaces of Prefect and MLflow on what is stored below ``home``.

    A server of the user's own, which is open already, has none.
    """
    ports = _known_ports(home) or _choose_ports(home, None, None)
    commands = []
    if os.environ.get("PREFECT_API_URL") in (None, _api_url(ports["prefect"])):
        commands.append(_shell_command(_server_environment(home, ports["prefect"]), ["prefect", "server", "start"]))
    store = tracking_uri(home)
    if not store.startswith("http"):
        # MLflow's job workers, nine more processes, only serve judges of generated text.
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        address = ["--host", _HOST, "--port", str(ports["mlflow"]), "--workers", "1"]
        files = ["--backend-store-uri", store, "--artifacts-destination", str(home.resolve() / "mlflow-artifacts")]
        commands.append(_shell_command(quiet, ["mlflow", "server", *address, *files]))
    return commands


def _api_url(port: int) -> str:
    return f"http://{_HOST}:{port}/api"


def _links(home: Path, mlflow_port: int) -> dict[str, str]:
    """Where pages link to MLflow: to the server that `how_to_open` names, unless the user has one."""
    if "AGPO_MLFLOW_UI" in os.environ or tracking_uri(home).startswith("http"):
        return {}
    return {"AGPO_MLFLOW_UI": f"http://{_HOST}:{mlflow_port}"}


def _client_environment(home: Path, url: str) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home.resolve() / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }


def _server_environment(home: Path, port: int) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home.resolve() / "prefect"),
        # Not as options: the pages take the address of the API from these settings.
        "PREFECT_SERVER_API_HOST": _HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "true",
    }


def _shell_command(environment: Mapping[str, str], command: list[str]) -> str:
    program = Path(sys.executable).parent / command[0]
    return shlex.join(["env", *(f"{name}={value}" for name, value in environment.items()), str(program), *command[1:]])


def _known_ports(home: Path) -> dict[str, int]:
    file = home / "ports.json"
    known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    return known


def _choose_ports(home: Path, prefect: int | None, mlflow: int | None) -> dict[str, int]:
    known = _known_ports(home)
    ports = {
        "prefect": prefect or _free_port(known.get("prefect", 0)),
        "mlflow": mlflow or _free_port(known.get("mlflow", 0)),
    }
    home.mkdir(parents=True, exist_ok=True)
    (home / "ports.json").write_text(json.dumps(ports))
    return ports


def _free_port(preferred: int) -> int:
    """``preferred`` if it is free, else any; 0 prefers none."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, preferred))
        except OSError:
            probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _server(home: Path, port: int) -> Iterator[None]:
    log = home / "logs" / "prefect-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    (home / "prefect").mkdir(exist_ok=True)
    unused = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNUSED_SERVICES}
    child = [sys.executable, "-P", str(Path(__file__).with_name("child_process.py")), str(os.getpid())]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*child, "prefect", "server", "start"],
            env=os.environ | _server_environment(home, port) | _RECORDER | unused,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt of the terminal is for this process, which then stops the server
        )
    try:
        _wait(process, _api_url(port), log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_SHUTDOWN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _STARTUP
    while process.poll() is None and time.monotonic() < end:
        if _answers(url):
            return
        time.sleep(0.1)
    ended = process.returncode is not None
    what = f"ended with code {process.returncode}" if ended else f"does not answer at {url} after {_STARTUP:g} s"
    raise RuntimeError(f"the Prefect server {what}; the end of {log}:\n{log.read_text()[-_LOG_TAIL:]}")


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False


@contextmanager
def _prefect_settings(home: Path, url: str) -> Iterator[None]:
    """Give the settings to a Prefect that was imported before, and leave when the server has recorded everything."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_RESULTS_DEFAULT_SERIALIZER,
        PREFECT_RESULTS_PERSIST_BY_DEFAULT,
        temporary_settings,
    )

    updates = {
        PREFECT_API_URL: url,
        PREFECT_HOME: home.resolve() / "prefect",
        PREFECT_RESULTS_DEFAULT_SERIALIZER: "json",
        PREFECT_RESULTS_PERSIST_BY_DEFAULT: False,
        # A flow waits up to a second for its heartbeat to stop. Nobody listens to it here, and the environment
        # cannot say so.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(updates):
        try:
            yield
        finally:
            if _answers(url):
                _settle()


def _settle() -> None:
    """Wait until the server has recorded all task runs, which it is told by a queue, and send what else is queued.

    A server that is stopped forgets what it has not recorded. It records in order, so a last task run tells.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterId
    from prefect.events.worker import EventsWorker
    from prefect.logging import disable_run_logger
    from prefect.logging.handlers import APILogWorker
    from prefect.runtime import task_run

    @task(persist_result=False, cache_policy=NO_CACHE)
    def last() -> UUID:
        return UUID(task_run.id)

    with disable_run_logger():
        marker = TaskRunFilter(id=TaskRunFilterId(any_=[last()]))
    end = time.monotonic() + _SETTLE
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            recorded = client.read_task_runs(task_run_filter=marker)
            if recorded and recorded[0].state is not None and recorded[0].state.is_final():
                client.delete_task_run(recorded[0].id)
                break
            time.sleep(0.1)
    # What is left without a server would be tried again for minutes when the process exits.
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=_SHUTDOWN, at_exit=False)
