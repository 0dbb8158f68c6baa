"""Services of a home of its own, started by the command, and runs of their deployments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import UUID

import psutil

from agpo.artifacts import Files
from agpo.journal import Journal
from agpo.recipe import Recipe
from agpo.settings import TrainRun
from flows.services import Services, read_services

ROOT = Path(__file__).resolve().parents[2]
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Place:
    """A home folder. Prefect and MLflow are asked over HTTP, as a browser does."""

    home: Path

    def command(self, *arguments: str) -> str:
        """The output of an ``agpo`` command, which must end well."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_T"))}
        found = subprocess.run(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
            cwd=self.home.parent,
            env={**kept, "AGPO_HOME": str(self.home), "PYTHONPATH": os.pathsep.join([str(ROOT), *_given_path()])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    @property
    def services(self) -> Services:
        services = read_services(self.home)
        assert services is not None
        return services

    def prefect(self, path: str, body: Any = None) -> Any:
        return _ask(f"{self.services.prefect}/{path}", body)

    def mlflow(self, path: str, **query: str) -> Any:
        return _ask(f"{self.services.mlflow}/api/2.0/mlflow/{path}?{urlencode(query)}")

    def mlflow_runs(self, experiment: str) -> dict[str, dict[str, Any]]:
        """The runs of an experiment by their names, each with ``info`` and ``data``."""
        found = self.mlflow("experiments/get-by-name", experiment_name=experiment)
        ids = [found["experiment"]["experiment_id"]]
        runs = _ask(f"{self.services.mlflow}/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 100})
        return {run["info"]["run_name"]: run for run in runs["runs"]}

    def mlflow_file(self, run: dict[str, Any], path: str) -> bytes:
        """A file of a run, as its page shows it."""
        query = urlencode({"run_uuid": run["info"]["run_id"], "path": path})
        with urlopen(f"{self.services.mlflow}/get-artifact?{query}", timeout=30) as answer:
            content: bytes = answer.read()
            return content

    def start_run(self, deployment: str, run: TrainRun) -> UUID:
        found = self.prefect(f"deployments/name/{deployment}")
        body = {"parameters": {"run": run.model_dump(mode="json")}, "state": {"type": "SCHEDULED"}}
        return UUID(self.prefect(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def wait_for_end(self, flow_run: UUID) -> dict[str, Any]:
        """The final state of a flow run."""
        wait_for(lambda: self.prefect(f"flow_runs/{flow_run}")["state_type"] in FINAL)
        state: dict[str, Any] = self.prefect(f"flow_runs/{flow_run}")["state"]
        return state

    def journal(self, run: TrainRun) -> Journal:
        """The journal of a training run that starts from the base."""
        recipe = Recipe(run)
        problems = recipe.prepare().key
        key = recipe.train_key(problems, recipe.warm_start(problems).key)
        return Journal(Files(self.home / "store").child(f"journal/{key}"))

    def processes(self) -> list[str]:
        """Command lines of all processes that have this home, the commands' own children included."""
        return list(_command_lines(str(self.home)))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@contextmanager
def brought_up(home: Path) -> Iterator[Place]:
    place = Place(home)
    try:
        place.command("up")
        yield place
    finally:
        place.command("down")


def _given_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def _ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=60) as answer:
        return json.loads(answer.read())


def _command_lines(home: str) -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            if home in process.environ().get("PREFECT_HOME", "") or home in process.environ().get("AGPO_HOME", ""):
                yield " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue
