"""Who a process is, so that another one can tell whether it still runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Process(BaseModel):
    """A process, told apart from a later one with the same number by its start time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str  # for people
    machine: str  # equal only where process numbers mean the same: one boot of one kernel, one container
    pid: int
    started: str  # clock ticks since boot; empty where the system does not tell

    @classmethod
    def current(cls) -> Process:
        pid, host = os.getpid(), socket.gethostname()
        return cls(host=host, machine=_machine(host), pid=pid, started=_state_and_start(pid)[1])

    def is_local(self) -> bool:
        return self.machine == _machine(socket.gethostname())

    def runs(self) -> bool:
        """Whether a process of this machine still runs; a zombie does not."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, so it is there
            pass
        state, started = _state_and_start(self.pid)
        return state not in ("Z", "X") and (not self.started or not started or started == self.started)


def _machine(host: str) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return host


def _state_and_start(pid: int) -> tuple[str, str]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    fields = stat.rpartition(")")[2].split()  # what follows the command, which may hold anything
    return fields[0], fields[19]
