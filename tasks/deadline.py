"""A deadline that ends the process: stages are crash-only, so a hung one is killed and run again."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXPIRED = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on
_STDERR = 2  # the descriptor, because sys.stderr may be replaced by something without one
_GRACE = 15.0  # seconds after which the watchdog is taken to be unable to run

_lock = threading.Lock()
_expiries: list[float] = []


@contextmanager
def deadline(seconds: float, what: str, file: Path | None = None) -> Iterator[None]:
    """End the process with code `EXPIRED` unless the block is left within ``seconds``.

    Before that the stacks of all threads go to standard error and, where given, to the end of ``file``, under a line
    that names ``what``. Works in any thread and may be nested. If native code holds the interpreter lock, so that
    no Python code can run, the stacks are dumped 15 seconds later and the process ends with code 1.

    Raises:
        ValueError: ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"the deadline of {what} is {seconds} seconds; it must be above 0")
    watchdog = threading.Timer(seconds, _expire, (seconds, what, file))
    watchdog.name, watchdog.daemon = f"deadline of {what}", True
    expiry = time.monotonic() + seconds
    watchdog.start()
    _watch_interpreter(add=expiry)
    try:
        yield
    finally:
        watchdog.cancel()
        _watch_interpreter(remove=expiry)
        watchdog.join()


def _expire(seconds: float, what: str, file: Path | None) -> None:
    message = (
        f"\nDeadline: {what} took longer than {seconds:g} s. The process ends (code {EXPIRED}); "
        "the same command continues from what was stored. Stacks of all threads:\n"
    )
    try:
        os.write(_STDERR, message.encode())
        faulthandler.dump_traceback(_STDERR, all_threads=True)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as log:
                log.write(message)
                log.flush()
                faulthandler.dump_traceback(log, all_threads=True)
    finally:
        os._exit(EXPIRED)


def _watch_interpreter(*, add: float | None = None, remove: float | None = None) -> None:
    """Keep the process's one native watchdog armed for the earliest expiry of all deadlines."""
    with _lock:
        if add is not None:
            _expiries.append(add)
        if remove is not None:
            _expiries.remove(remove)
        if _expiries:
            left = max(min(_expiries) - time.monotonic(), 0.0)
            faulthandler.dump_traceback_later(left + _GRACE, exit=True, file=_STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()
