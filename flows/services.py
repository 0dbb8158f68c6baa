"""Servers and worker that outlive the command that started them, and are found again by the next one.

What was started is recorded in ``<home>/services.json``. Each service has a mark in its environment, which whatever it
starts inherits: so they are told from other processes, also from one that has got the number of one that ended, and no
run of a worker that died is forgotten.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

from flows.programs import Program

_MARK = "AGPO_SERVICE"  # environment variable
_STARTUP = 120.0  # seconds
_LOG_TAIL = 2000  # characters


class Service(BaseModel):
    """A process that was started, and all that it started itself. ``grace``: seconds that its orderly end may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: str
    pid: int
    log: Path
    grace: float

    def processes(self) -> list[psutil.Process]:
        """Those that run, in the order of their start."""
        found = [process for process in psutil.process_iter() if _mark_of(process) == self.mark]
        return sorted(found, key=lambda process: process.create_time())

    def runs(self) -> bool:
        return psutil.pid_exists(self.pid) and _mark_of(psutil.Process(self.pid)) == self.mark

    def end(self) -> None:
        """End what it started, then itself: with SIGTERM, and with SIGKILL what is left after the grace period.

        Meanwhile it is stopped. A worker would start the next run that waits, and when it ended first it would kill
        its runs, which could write no checkpoint and tell no server how they ended.
        """
        self._signal(signal.SIGSTOP, itself=True)
        self._signal(signal.SIGTERM, itself=False)
        _wait_until(lambda: not self._others(), self.grace)
        self._signal(signal.SIGTERM, itself=True)
        self._signal(signal.SIGCONT, itself=True)
        _wait_until(lambda: not self.runs(), self.grace)
        while left := self.processes():
            _send(left, signal.SIGKILL)
            time.sleep(0.1)
        with suppress(ChildProcessError):  # the caller that started it is its parent
            os.waitpid(self.pid, os.WNOHANG)

    def _others(self) -> list[psutil.Process]:
        return [process for process in self.processes() if process.pid != self.pid]

    def _signal(self, number: signal.Signals, *, itself: bool) -> None:
        _send([process for process in self.processes() if (process.pid == self.pid) == itself], number)


class Services(BaseModel):
    """What one call started, by name and in its order, and where it is reached."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefect: str  # URL of the API
    mlflow: str
    store: str  # where the worker's runs keep artifacts
    started: dict[str, Service] = Field(default_factory=dict)

    def all_run(self) -> bool:
        return all(service.runs() for service in self.started.values())


def read_services(home: Path) -> Services | None:
    """What was started for this home and not ended since, whether it still runs or not."""
    with suppress(FileNotFoundError):
        return Services.model_validate_json(_record(home).read_text())
    return None


def write_services(home: Path, services: Services) -> None:
    draft = _record(home).with_suffix(".draft")
    draft.write_text(services.model_dump_json(indent=1))
    draft.replace(_record(home))


def start(home: Path, services: Services, name: str, program: Program, grace: float) -> Services:
    """Start a program in a session of its own, with its output in ``<home>/logs``, and record it."""
    log = home / "logs" / f"{name.lower().replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    # A shell starts background jobs with the interrupt signal ignored. A worker would inherit that, and it turns the
    # request to end into an interrupt of itself.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *program.arguments],
                cwd=home,
                env={**os.environ, **program.environment, _MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, handler)
    service = Service(mark=mark, pid=process.pid, log=log, grace=grace)
    services = services.model_copy(update={"started": {**services.started, name: service}})
    write_services(home, services)
    return services


def wait(services: Services, name: str, ready: Callable[[], bool]) -> None:
    """Wait until a service is ready.

    Raises:
        RuntimeError: it ended, or is not ready in time; the message has the end of its log.
    """
    service = services.started[name]
    if _wait_until(lambda: ready() or not service.runs(), _STARTUP) and service.runs():
        return
    what = f"is not ready after {_STARTUP:g} s" if service.runs() else "has ended"
    log = service.log.read_text(errors="replace")[-_LOG_TAIL:]
    raise RuntimeError(f"the {name} {what}; the end of {service.log}:\n{log}")


def end(home: Path, services: Services) -> None:
    """End what was started, in reverse: the worker's runs can still tell the servers how they ended."""
    for service in reversed(services.started.values()):
        service.end()
    _record(home).unlink(missing_ok=True)


@contextmanager
def lock(home: Path) -> Iterator[None]:
    """One command at a time starts or ends services of a home; another one waits."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "services.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _record(home: Path) -> Path:
    return home / "services.json"


def _mark_of(process: psutil.Process) -> str | None:
    try:
        mark: str | None = process.environ().get(_MARK)
        return mark
    except (psutil.Error, OSError):  # another user's, or it has ended
        return None


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end_of_wait = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end_of_wait:
            return False
        time.sleep(0.1)
    return True
