"""Verdicts for many answers: cheap ones in the caller's process, the rest in worker processes that can be killed."""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from typing import Any, Self

from agpo.verify.registry import Verifier, find_verifier, pooled_modules
from agpo.verify.verdict import Verdict

BATCH = 16  # most items a message: few messages, and a small wait behind an item that hangs
WALL_FACTOR = 3  # wall-clock bound of an item, in CPU bounds
FIRST = 0.1  # most of an item's bound that its first try gets
BRIEFEST = 0.02  # seconds, the least a first try gets: a new worker takes half of that for its first item alone

_logger = logging.getLogger(__name__)
_pools: weakref.WeakSet[VerifierPool] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Item:
    verifier: str
    response: str
    gold: str


class VerifierPool:
    """Killable workers, started when the first item needs one; a context manager, and safe to use from threads.

    ``timeout`` bounds an item's CPU seconds, three times as much its wall-clock seconds (with one retry);
    ``memory`` bounds a worker's MiB beyond its loaded libraries. Of many items each gets a short try first, at most a
    tenth of its bound; those it is too short for begin again, with all of their bound, when the others are done.
    """

    def __init__(self, workers: int = 2, timeout: float = 5.0, memory: int = 1024) -> None:
        for name, value in (("workers", workers), ("timeout", timeout), ("memory", memory)):
            if not value > 0:
                raise ValueError(f"{name} is {value}; accepted: above 0")
        self.workers, self.timeout, self.memory = workers, timeout, memory
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verify(
        self,
        items: Sequence[Item],
        progress: Callable[[int], None] | None = None,
        timeout: float | None = None,
    ) -> list[Verdict]:
        """Verdicts in item order. ``progress`` is told how many more are done; ``timeout`` replaces the pool's.

        Raises ValueError on an unknown verifier, RuntimeError when worker processes cannot run at all.
        """
        verdicts: list[Verdict | None] = []
        remaining: list[int] = []
        for index, item in enumerate(items):
            verdicts.append(_decide(find_verifier(item.verifier), item))
            if verdicts[-1] is None:
                remaining.append(index)
        if progress and len(items) > len(remaining):
            progress(len(items) - len(remaining))
        bound = timeout or self.timeout
        if len(remaining) > self.workers:  # some wait for others
            first = self._first(bound, len(remaining))
            remaining = self._try(items, remaining, verdicts, progress, bound, first)
        self._try(items, remaining, verdicts, progress, bound)
        return [verdict for verdict in verdicts if verdict is not None]

    def _first(self, bound: float, count: int) -> float:
        """CPU seconds of a first try. Our choice: when one item in twenty hangs, a worker loses 0.4 bounds to them."""
        return min(bound, max(BRIEFEST, bound * min(FIRST, 8 * self.workers / count)))

    def _try(
        self,
        items: Sequence[Item],
        indices: list[int],
        verdicts: list[Verdict | None],
        progress: Callable[[int], None] | None,
        bound: float,
        first: float | None = None,
    ) -> list[int]:
        """Fill in the verdicts at ``indices``; which of them a first try of ``first`` seconds was too short for."""
        if not indices:
            return []
        threads = self._start()
        size = max(1, min(BATCH, len(indices) // (4 * self.workers))) if first else 1
        chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
        futures = {threads.submit(self._judge, [items[at] for at in chunk], bound, first): chunk for chunk in chunks}
        stragglers: list[int] = []
        try:
            for future in as_completed(futures):
                found = dict(zip(futures[future], future.result(), strict=True))
                for index, verdict in found.items():
                    verdicts[index] = verdict
                late = [index for index, verdict in found.items() if verdict is None]
                stragglers += late
                if progress and len(found) > len(late):
                    progress(len(found) - len(late))
        except BaseException:
            self.close()
            raise
        return sorted(stragglers)

    def close(self) -> None:
        """End all processes; the next `verify` starts them again."""
        with self._lock:
            nursery, control, threads, idle = self._nursery, self._control, self._threads, self._idle
            self._nursery = self._control = self._threads = None
            self._idle = []
        if control is not None:
            control.close()  # the nursery kills its workers and ends
        for connection in idle:
            connection.close()
        if threads is not None:
            threads.shutdown(cancel_futures=True)
        if nursery is not None:
            nursery.wait()

    def _start(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None or self._nursery is None:
                self._control, inherited = socket.socketpair()
                arguments = f"{inherited.fileno()}, {self.memory}, {pooled_modules()}"
                program = f"from agpo.verify.nursery import run_nursery; run_nursery({arguments})"
                with inherited:
                    # A fresh interpreter rather than multiprocessing: that would run the caller's main module again.
                    self._nursery = subprocess.Popen(
                        [sys.executable, "-P", "-c", program],
                        pass_fds=[inherited.fileno()],
                        env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        process_group=0,  # the terminal's Ctrl-C is for the caller
                    )
                self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="verify")
            return self._threads

    def _hire(self) -> Connection:
        """An idle worker, else a new one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._control is None or self._nursery is None:
                raise RuntimeError("the verifier pool was closed while it was verifying")
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(self._control, [b"w"], [theirs.fileno()])
                except OSError as error:
                    ours.close()
                    code = self._nursery.wait()
                    raise RuntimeError(f"the verifier's worker processes ended with exit code {code}") from error
            return Connection(ours.detach())

    def _judge(self, items: list[Item], timeout: float, first: float | None) -> list[Verdict | None]:
        """Verdicts of one batch, over as many workers as it kills; ``None`` where a first try was too short."""
        verdicts: list[Verdict | None] = []
        failed = False  # the present item has lost a worker, which may not be its fault
        while len(verdicts) < len(items):
            rest = items[len(verdicts) :]
            connection = self._hire()
            death: dict[str, str] | None = None
            try:
                messages = [[find_verifier(item.verifier).pooled, item.response, item.gold] for item in rest]
                connection.send_bytes(json.dumps([first or timeout, WALL_FACTOR * timeout, messages]).encode())
                for item in rest:
                    reply = json.loads(connection.recv_bytes())
                    if "died" in reply:
                        death = reply
                        break
                    verdicts.append(_stamped(Verdict(**reply), item))
                    failed = False
            except (EOFError, OSError):  # it died while idle
                death = {"died": "killed", "stage": "idle"}
            if death is None:
                with self._lock:
                    self._idle.append(connection)
                continue
            connection.close()
            if death["died"] == "retired":
                continue
            if first and death["died"] == "timeout":
                verdicts.append(None)
                failed = False
                continue
            verdict = _explain(death, timeout)
            if verdict.cause == "infrastructure" and not failed:
                failed = True
            else:
                verdicts.append(_stamped(verdict, items[len(verdicts)]))
                failed = False
        return verdicts


def _decide(verifier: Verifier, item: Item) -> Verdict | None:
    try:
        return verifier.decide(item.response, item.gold)
    except Exception:
        _logger.exception("verifier %s failed on gold %.200r", item.verifier, item.gold)
        return _stamped(Verdict("unverifiable", "infrastructure", "crash"), item)


def _explain(death: dict[str, Any], timeout: float) -> Verdict:
    """The verdict on the item that a worker died of."""
    reason, stage = death["died"], death["stage"]
    if stage == "idle" or reason in ("stalled", "killed"):
        return Verdict("unverifiable", "infrastructure", reason)
    return Verdict("unverifiable", stage, reason, seconds=timeout if reason == "timeout" else 0.0)


def _stamped(verdict: Verdict, item: Item) -> Verdict:
    return replace(verdict, verifier=item.verifier, version=find_verifier(item.verifier).version)


@cache
def shared_pool() -> VerifierPool:
    """The process's pool for single answers; its workers end with the process."""
    pool = VerifierPool(workers=os.cpu_count() or 1)
    atexit.register(pool.close)
    return pool


def _forget_all() -> None:
    """A forked child has neither the pools' threads nor a right to their workers, and must not keep those alive."""
    for pool in _pools:
        for held in (pool._control, *pool._idle):
            if held is not None:
                held.close()
        pool._forget()


os.register_at_fork(after_in_child=_forget_all)
