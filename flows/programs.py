"""Prefect's and MLflow's servers and the worker as programs: what to run, and in which environment."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from flows.ports import HOST
from tasks.location import HOME_VARIABLE, STORE_VARIABLE, TRACKING_VARIABLE, tracking_uri

WORK_POOL = "agpo"
# Task runs are written together: one by one they take three times the CPU time, and while they lock the file other
# requests are turned away for seconds.
_RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


@dataclass(frozen=True)
class Program:
    """``python -m <arguments>`` with ``environment`` added to that of this process."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    def shell_command(self) -> str:
        """The same for a shell; the first argument is a script beside this Python."""
        script = Path(sys.executable).parent / self.arguments[0]
        assignments = (f"{name}={value}" for name, value in self.environment.items())
        return shlex.join(["env", *assignments, str(script), *self.arguments[1:]])


def prefect_server(home: Path, port: int) -> Program:
    """The Prefect API and its pages, with an SQLite file below ``home``."""
    environment = {
        "PREFECT_HOME": str(home.resolve() / "prefect"),
        # Not as options: the pages take the address of the API from these settings.
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "true",
        **_RECORDER,
    }
    return Program(("prefect", "server", "start"), environment)


def mlflow_server(home: Path, port: int) -> Program:
    """MLflow's API and pages on the store that runs write to without a server, and on the same artifacts."""
    environment = {
        # The job workers, nine more processes, only serve judges of generated text.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # At its default level uvicorn logs every request, which are several a second while a run goes on.
    address = ("--host", HOST, "--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level=warning")
    # A plain folder, not the server's proxy for it: runs without a server read and write the same experiments.
    artifacts = (home.resolve() / "mlflow-artifacts").as_uri()
    files = ("--backend-store-uri", tracking_uri(home), "--default-artifact-root", artifacts)
    return Program(("mlflow", "server", *address, *files), environment)


def worker(environment: Mapping[str, str]) -> Program:
    """A worker that runs one flow at a time, because runs share the machine; the others wait in their order."""
    arguments = ("prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", "agpo")
    return Program((*arguments, "--limit", "1"), environment)


def client_environment(home: Path, url: str) -> dict[str, str]:
    """How a process finds the Prefect API, and keeps to itself what Prefect would store or report."""
    return {
        "PREFECT_HOME": str(home.resolve() / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "DO_NOT_TRACK": "true",
    }


def worker_environment(home: Path, store: str, prefect: str, mlflow: str) -> dict[str, str]:
    """What the runs of a worker need: the same places as those of the command line."""
    return client_environment(home, prefect) | {
        HOME_VARIABLE: str(home.resolve()),
        STORE_VARIABLE: store,
        TRACKING_VARIABLE: mlflow,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "agpo",
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # who presses Run looks on
    }


def api_url(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def answers(url: str) -> bool:
    """Whether a Prefect API or an MLflow server is healthy."""
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as the block lasts."""
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
