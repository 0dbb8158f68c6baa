from __future__ import annotations

import io
import logging
import sys

import pytest

from agpo import progress as module
from agpo.progress import progress


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    caplog.set_level(logging.INFO, "agpo")
    return clock


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("train", 40, "steps") as advance:
        for _ in range(40):
            clock.now += 2.0
            advance(1)
    assert caplog.messages == [
        "train: 15 of 40 steps, 0.5 steps/s",
        "train: 30 of 40 steps, 0.5 steps/s",
        "train: 40 steps in 80.0 s, 0.5 steps/s",
    ]


def test_after_a_resume_the_rate_is_that_of_this_attempt(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("evaluate", 5000, "answers", done=2000) as advance:
        clock.now += 2.0
        advance(3000)
    assert caplog.messages == ["evaluate: 5000 answers in 2.0 s, 1,500 answers/s"]


def test_nothing_done_is_nothing_said(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with progress("train", 5, "steps", done=5):
        pass
    assert caplog.messages == []


def test_an_error_passes_through(clock: Clock) -> None:
    with pytest.raises(RuntimeError, match="half way"), progress("train", 5, "steps"):
        raise RuntimeError("half way")


def test_a_terminal_gets_a_bar_with_its_rate(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("train", 40, "steps", done=10) as advance:
        clock.now += 1.0
        advance(20)
    shown = terminal.getvalue()
    assert "train" in shown
    assert "30/40" in shown
    assert "20 steps/s" in shown
    assert caplog.messages == []
