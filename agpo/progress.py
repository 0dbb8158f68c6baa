"""Progress of long work: a bar with its rate on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("agpo")
_LOG_EVERY = 30.0  # seconds


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(count)``. ``done``: what was there before, as after a resume."""
    if sys.stderr.isatty():
        with _bar(what, total, unit, done) as advance:
            yield advance
        return
    started = reported = time.monotonic()
    made = 0

    def advance(count: int) -> None:
        nonlocal made, reported
        made += count
        now = time.monotonic()
        if now - reported >= _LOG_EVERY:
            reported = now
            _LOG.info("%s: %d of %d %s, %.0f/s", what, done + made, total, unit, made / (now - started))

    yield advance
    spent = time.monotonic() - started
    if made:
        _LOG.info("%s: %d %s in %.1f s, %.0f/s", what, done + made, unit, spent, made / max(spent, 1e-9))


@contextmanager
def _bar(what: str, total: int, unit: str, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started, made = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="")

        def advance(count: int) -> None:
            nonlocal made
            made += count
            bar.update(task, advance=count, rate=f"{made / max(time.monotonic() - started, 1e-9):,.0f} {unit}/s")

        yield advance
