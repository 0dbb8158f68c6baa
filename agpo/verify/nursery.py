"""The processes that verify what can hang, crash or eat memory.

One nursery process loads the libraries once and forks a worker whenever the pool sends it a socket. The kernel ends a
worker that exceeds its CPU time, even inside one long C call; the nursery then says on that worker's socket what it
died of. When the pool's process ends, by whatever signal, the nursery reads the end of its control socket and kills all
workers; an idle worker notices by itself.

Messages are JSON. Pool to worker: ``[CPU seconds, wall-clock seconds, [[module, response, gold], …]]``, the bounds of
an item. Worker to pool: a verdict's fields an item, in order. Nursery to pool, once a worker is dead:
``{"died": reason, "stage": …}``.
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from agpo.verify.verdict import Verdict

STAGES: tuple[Literal["idle", "gold", "response"], ...] = ("idle", "gold", "response")
IDLE, GOLD, RESPONSE = range(3)
RETIRED = 3  # exit code of a worker that makes room for one with a small memory
DEATHS = {
    RETIRED: "retired",
    -signal.SIGPROF: "timeout",
    -signal.SIGALRM: "stalled",
    -signal.SIGKILL: "killed",
}
RECURSION = 20_000  # sympy's expression trees; the memory limit bounds what it can cost


class PooledModule(Protocol):
    """What a module offers whose verdicts are made in worker processes."""

    def warm_up(self) -> None: ...  # fill the caches that every worker inherits

    def read_gold(self, gold: str) -> Any: ...

    def judge(self, response: str, gold: Any) -> Verdict: ...


class Nursery:
    """Forks workers, waits for their death and reports it."""

    def __init__(self, control: socket.socket, memory: int) -> None:
        self.control = control
        self.memory = memory
        self.workers: dict[int, tuple[int, Connection, mmap.mmap]] = {}  # by the pipe that closes with the worker

    def serve(self) -> None:
        while True:
            for ready in wait([self.control, *self.workers]):
                if ready is not self.control:
                    self._report(cast(int, ready))
                    continue
                message, descriptors, _, _ = socket.recv_fds(self.control, 1, 1)
                if not message:
                    self._end()
                    return
                self._fork(Connection(descriptors[0]))

    def _fork(self, connection: Connection) -> None:
        alive, held_by_worker = os.pipe()
        stage = mmap.mmap(-1, 1)  # shared with the worker, so that its last stage outlives it
        pid = os.fork()
        if pid == 0:
            self.control.close()
            for other, (_, inherited, _) in self.workers.items():
                os.close(other)
                inherited.close()
            _work(connection, stage, self.memory)
        os.close(held_by_worker)
        self.workers[alive] = (pid, connection, stage)

    def _report(self, alive: int) -> None:
        pid, connection, stage = self.workers.pop(alive)
        os.close(alive)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError):  # the pool may have closed it
            connection.send_bytes(_encode({"died": DEATHS.get(code, "crash"), "stage": STAGES[stage[0]]}))
        connection.close()

    def _end(self) -> None:
        for pid, _, _ in self.workers.values():
            os.kill(pid, signal.SIGKILL)
        for pid, _, _ in self.workers.values():
            os.waitpid(pid, 0)


def run_nursery(control: int, memory: int, modules: Sequence[str]) -> None:
    """The nursery's main: ``control`` is an inherited socket, ``memory`` MiB a worker beyond what is loaded."""
    for module in modules:
        _load(module).warm_up()
    gc.collect()
    gc.freeze()  # workers then share these pages
    Nursery(socket.socket(fileno=control), memory).serve()


def _work(connection: Connection, stage: mmap.mmap, memory: int) -> None:
    """A worker's main; never returns."""
    try:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        sys.setrecursionlimit(RECURSION)
        base = _limit_memory(memory)
        while True:
            timeout, wall, items = json.loads(connection.recv_bytes())
            for module, response, gold in items:
                before = _peak_memory()
                verdict = _judge(module, response, gold, timeout, wall, stage)
                after = _peak_memory()
                # Libraries turn a failed allocation into "not equal": after such growth that is no verdict.
                hungry = after - before > memory / 8
                if hungry and verdict["verdict"] == "wrong":
                    verdict |= {"verdict": "unverifiable", "cause": "response", "reason": "memory"}
                connection.send_bytes(_encode(verdict))
                if hungry or after - base > memory / 4:
                    os._exit(RETIRED)
    except (EOFError, OSError):  # the pool is gone
        os._exit(0)
    finally:
        os._exit(1)


def _judge(module: str, response: str, gold: str, timeout: float, wall: float, stage: mmap.mmap) -> dict[str, Any]:
    """One verdict's fields. The timers' signals end this process: no handler runs, so no code can delay them."""
    pooled = _load(module)
    started = time.thread_time()
    signal.setitimer(signal.ITIMER_PROF, timeout)
    signal.setitimer(signal.ITIMER_REAL, wall)
    try:
        stage[0] = GOLD
        reference = _read_gold(module, gold)
        stage[0] = RESPONSE
        verdict = asdict(pooled.judge(response, reference))
    except Exception as error:
        reason = {MemoryError: "memory", RecursionError: "unreadable"}.get(type(error), "crash")
        verdict = {"verdict": "unverifiable", "cause": STAGES[stage[0]], "reason": reason}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        stage[0] = IDLE
    return verdict | {"seconds": time.thread_time() - started}


@lru_cache(maxsize=1024)
def _read_gold(module: str, gold: str) -> Any:
    return _load(module).read_gold(gold)


def _load(module: str) -> PooledModule:
    return cast(PooledModule, importlib.import_module(module))


def _limit_memory(memory: int) -> float:
    """Bound the address space to ``memory`` MiB beyond its present size; return the present peak of resident MiB."""
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere the size is not known, and such limits are not enforced
        size = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + memory * 2**20, resource.RLIM_INFINITY))
    return _peak_memory()


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()
