"""Prefect and MLflow for one command: the servers that run, or a Prefect server as long as the command.

Servers that the user names by ``PREFECT_API_URL`` or ``MLFLOW_TRACKING_URI`` come first, then those that ``agpo up``
has started; without either Prefect is started and MLflow is an SQLite file, both below the home folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from flows import programs
from flows.ports import HOST, choose_ports, known_ports
from flows.programs import answers, api_url, client_environment, environment
from flows.services import Services, read_services
from tasks.location import TRACKING_VARIABLE, tracking_uri

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


@contextmanager
def prefect_server(home: Path, prefect_port: int | None = None, mlflow_port: int | None = None) -> Iterator[str]:
    """The URL of a Prefect API for this process and its children, for as long as the block lasts.

    A server that runs is used, as this module says. Otherwise one with an SQLite file below ``home`` is started on
    127.0.0.1; it ends with the block or with this process, however that ends. Ports are free ones, which ``home``
    remembers and later runs use again, so that links between the two user interfaces stay good.

    Raises:
        RuntimeError: the server does not answer; the message has the end of its log.
    """
    given = os.environ.get("PREFECT_API_URL")
    running = _find_running(home)
    ports = choose_ports(home, prefect_port, mlflow_port) if running is None else known_ports(home)
    tracking = {} if running is None or TRACKING_VARIABLE in os.environ else {TRACKING_VARIABLE: running.mlflow}
    with environment(tracking), environment(_links(home, ports["mlflow"])):
        if given:
            if not answers(given):
                raise RuntimeError(f"PREFECT_API_URL is {given}, which does not answer: start that server or unset it")
            yield given
        elif running is not None:
            with environment(client_environment(home, running.prefect)), prefect_settings(home, running.prefect):
                yield running.prefect
        else:
            url = api_url(ports["prefect"])
            with (
                environment(client_environment(home, url)),
                _server(home, ports["prefect"]),
                prefect_settings(home, url),
            ):
                try:
                    yield url
                finally:
                    if answers(url):
                        _settle()


def how_to_open(home: Path) -> list[str]:
    """How to open the user interfaces of Prefect and MLflow: shell commands, or addresses where servers run.

    A server of the user's own, which is open already, has none.
    """
    running = _find_running(home)
    own_prefect = os.environ.get("PREFECT_API_URL")
    own_mlflow = tracking_uri(home).startswith("http")
    if running is not None:
        addresses = {} if own_prefect else {"Prefect": running.prefect.removesuffix("/api")}
        if not own_mlflow:
            addresses["MLflow"] = running.mlflow
        return [f"{name}: {address}" for name, address in addresses.items()]
    ports = known_ports(home) or choose_ports(home, None, None)
    commands = []
    if own_prefect in (None, api_url(ports["prefect"])):
        commands.append(programs.prefect_server(home, ports["prefect"]).shell_command())
    if not own_mlflow:
        commands.append(programs.mlflow_server(home, ports["mlflow"]).shell_command())
    return commands


@contextmanager
def prefect_settings(home: Path, url: str) -> Iterator[None]:
    """Give the settings to a Prefect that was imported before."""
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
        # A flow waits up to a second for its heartbeat to stop. Nobody listens to that of a command, and the
        # environment cannot say so.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(updates):
        yield


def _find_running(home: Path) -> Services | None:
    services = read_services(home)
    return services if services is not None and services.all_run() else None


def _links(home: Path, mlflow_port: int) -> dict[str, str]:
    """Where pages link to MLflow: to the server that `how_to_open` names, unless the user has one."""
    if "AGPO_MLFLOW_UI" in os.environ or tracking_uri(home).startswith("http"):
        return {}
    return {"AGPO_MLFLOW_UI": f"http://{HOST}:{mlflow_port}"}


@contextmanager
def _server(home: Path, port: int) -> Iterator[None]:
    log = home / "logs" / "prefect-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    (home / "prefect").mkdir(exist_ok=True)
    unused = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _UNUSED_SERVICES}
    child = [sys.executable, "-P", str(Path(__file__).with_name("child_process.py")), str(os.getpid())]
    program = programs.prefect_server(home, port)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*child, *program.arguments],
            env={**os.environ, **program.environment, **unused},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt of the terminal is for this process, which then stops the server
        )
    try:
        _wait(process, api_url(port), log)
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
        if answers(url):
            return
        time.sleep(0.1)
    ended = process.returncode is not None
    what = f"ended with code {process.returncode}" if ended else f"does not answer at {url} after {_STARTUP:g} s"
    raise RuntimeError(f"the Prefect server {what}; the end of {log}:\n{log.read_text()[-_LOG_TAIL:]}")


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
