"""Attempts at a night as processes of their own, and their sudden end."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.states import Crashed

from agpo.artifacts import Files
from tests.chaos.snapshot import read_runs

ROOT = Path(__file__).resolve().parents[2]
_ENDED = 20.0  # seconds until no process is left behind
_SLOWEST = 240.0  # seconds of an attempt

# Attempts are forked from a process that has imported everything and run nothing: that is two thirds of a smoke night.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "tests.chaos.attempt",
        "flows.launch",
        "flows.nightly",
        "agpo.evaluation.decision",
        "agpo.evaluation.evaluate",
        "agpo.learner.interpolate",
        "agpo.learner.update",
        "agpo.learner.warm_start",
        "transformers.models.llama.modeling_llama",
    ]
)


@dataclass(frozen=True)
class KillPoint:
    """When to kill: a moment after the store has more than so many files."""

    files: int
    delay: float  # seconds


def draw_kill_points(seed: int, files: int) -> list[KillPoint]:
    """One to three points of a night that leaves ``files`` files, each further than the one before."""
    draw = random.Random(seed)
    counts = sorted(draw.sample(range(files), draw.randint(1, 3)))
    return [KillPoint(count, draw.uniform(0, 0.3)) for count in counts]


class Attempts:
    """Runs commands in one home against one Prefect server; the output of all goes to one file."""

    def __init__(self, home: Path, prefect_url: str) -> None:
        self.home, self.output = home, home / "output.txt"
        self.environment = {"AGPO_HOME": str(home), "PREFECT_API_URL": prefect_url, "COLUMNS": "160"}

    def start_night(self) -> BaseProcess:
        return self._start("agpo", "run", "nightly", "--profile", "smoke")

    def start_retry(self, flow_run: UUID) -> BaseProcess:
        """Prefect's own Retry of a flow run that has no deployment."""
        entrypoint = f"{ROOT / 'flows' / 'nightly.py'}:nightly"
        return self._start("prefect", "flow-run", "retry", "--entrypoint", entrypoint, str(flow_run))

    def _start(self, *command: str) -> BaseProcess:
        process = _FORKS.Process(target=_run_command, args=(command, self.environment, self.output))
        process.start()
        return process

    def kill_at(self, process: BaseProcess, point: KillPoint) -> bool:
        """Kill a process from outside; whether it still ran."""
        store = Files(self.home / "store")
        while process.is_alive():
            if len(store.names()) > point.files:
                time.sleep(point.delay)
                break
            time.sleep(0.02)
        process.kill()
        process.join()
        return process.exitcode != 0

    def finish(self, process: BaseProcess) -> None:
        """Let a process end by itself, which it must do well."""
        process.join(_SLOWEST)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0, self.output.read_text()[-4000:]

    def left_processes(self) -> list[str]:
        """The command lines of what attempts have started and not ended, once it had time to end."""
        return wait_for_end(self.home, _ENDED)

    def read_flow_run(self) -> UUID:
        """The newest Prefect flow run of the night, as its MLflow run names it."""
        night = read_runs(f"sqlite:///{self.home / 'mlflow.db'}", "agpo/nightly")["nightly smoke"]
        return UUID(night.data.tags["prefect.flow_run_id"])


def wait_for_end(home: Path, seconds: float) -> list[str]:
    """The command lines of processes that were started with this home and still run after ``seconds``."""
    end = time.monotonic() + seconds
    while (left := list(_find_processes(home))) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _find_processes(home: Path) -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("AGPO_HOME") == str(home):
                yield " ".join(process.cmdline())


def mark_crashed(flow_run: UUID) -> None:
    """What a worker reports of a flow whose process was killed."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run, Crashed(message="the process was killed"), force=True)


def _run_command(command: tuple[str, ...], environment: dict[str, str], output: Path) -> None:
    os.setsid()
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= environment
    sys.argv = list(command)
    if command[0] == "prefect":
        from prefect.cli import app

        app()
    else:
        from flows.cli import main

        main()
