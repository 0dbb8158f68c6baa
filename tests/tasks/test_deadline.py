"""Deadlines, each in a process of its own, because they end it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.deadline import EXPIRED, deadline

_HEAD = """
import threading, time
from pathlib import Path
from tasks import deadline as module
from tasks.deadline import deadline
"""


def run_script(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _HEAD + body],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_hung_stage_ends_the_process_with_all_stacks(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "stacks.log"
    ended = run_script(
        "def hang(): time.sleep(60)\n"
        "threading.Thread(target=hang, daemon=True).start()\n"
        f"with deadline(0.3, 'update of step 7', Path({str(log)!r})): time.sleep(60)\n"
    )
    assert ended.returncode == EXPIRED
    for text in (ended.stderr, log.read_text()):
        assert "update of step 7 took longer than 0.3 s" in text
        assert "in hang" in text
        assert "in <module>" in text


def test_a_deadline_works_off_the_main_thread() -> None:
    ended = run_script(
        "def stage():\n"
        "    with deadline(0.3, 'verification'): time.sleep(60)\n"
        "thread = threading.Thread(target=stage)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert ended.returncode == EXPIRED
    assert "verification took longer" in ended.stderr


def test_the_inner_deadline_of_two_names_itself_and_the_outer_one_lives_on() -> None:
    inner = run_script("with deadline(60, 'outer'), deadline(0.3, 'inner'): time.sleep(60)\n")
    assert (inner.returncode, "inner took longer" in inner.stderr) == (EXPIRED, True)
    outer = run_script("with deadline(0.5, 'outer'):\n    with deadline(60, 'inner'): pass\n    time.sleep(60)\n")
    assert (outer.returncode, "outer took longer" in outer.stderr) == (EXPIRED, True)


def test_native_code_that_holds_the_interpreter_is_ended_too() -> None:
    """The watchdog thread cannot run during this regular expression, which backtracks for hours."""
    ended = run_script(
        "import re\nmodule._GRACE = 0.5\nwith deadline(0.3, 'stage'): re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    assert ended.returncode == 1
    assert "Timeout (" in ended.stderr
    assert "in match" in ended.stderr


def test_a_stage_in_time_leaves_nothing_behind() -> None:
    before = threading.active_count()
    with deadline(60, "stage"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    ended = run_script(
        "module._GRACE = 0.0\n"
        "with deadline(0.2, 'stage'): pass\n"
        "try:\n"
        "    with deadline(0.2, 'stage'): raise ValueError\n"
        "except ValueError: pass\n"
        "time.sleep(0.5)\n"
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_deadline_must_be_positive(seconds: float) -> None:
    message = f"the deadline of stage is {seconds} seconds; it must be above 0"
    with pytest.raises(ValueError, match=message), deadline(seconds, "stage"):
        pass
