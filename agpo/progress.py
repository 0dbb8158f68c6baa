"""Progress of long work: a bar with its rate on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

_LOG = logging.getLogger("agpo")
_LOG_EVERY = 30.0  # seconds


def progress(what: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Callable[[int], None]]:
    """Yields ``advance(count)``. ``done``: what was there before, as after a resume."""
    show = _bar if sys.stderr.isatty() else _lines
    return show(what, total, unit, done)


def heartbeat(what: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], None]]:
    """As `progress`, for work inside other work that is shown: a line in the log only while it takes long."""
    return _lines(what, total, unit, 0, summary=False)


@contextmanager
def _lines(what: str, total: int, unit: str, done: int, summary: bool = True) -> Iterator[Callable[[int], None]]:
    started = reported = time.monotonic()
    made = 0

    def advance(count: int) -> None:
        nonlocal made, reported
        made += count
        now = time.monotonic()
        if now - reported >= _LOG_EVERY:
            reported = now
            _LOG.info("%s: %d of %d %s, %s", what, done + made, total, unit, _rate(made, now - started, unit))

    yield advance
    spent = time.monotonic() - started
    if made and summary:
        _LOG.info("%s: %d %s in %.1f s, %s", what, done + made, unit, spent, _rate(made, spent, unit))


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
            bar.update(task, advance=count, rate=_rate(made, time.monotonic() - started, unit))

        yield advance


def _rate(count: int, seconds: float, unit: str) -> str:
    rate = count / max(seconds, 1e-9)
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.2g} {unit}/s"
