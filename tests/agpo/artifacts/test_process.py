from __future__ import annotations

import os
import subprocess
import sys

from agpo.artifacts.process import Process


def test_this_process_runs_here() -> None:
    process = Process.current()
    assert process.pid == os.getpid()
    assert process.is_local()
    assert process.runs()
    assert Process.model_validate_json(process.model_dump_json()) == process


def test_a_process_that_ended_does_not_run_even_as_a_zombie() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    ended = Process.current().model_copy(update={"pid": child, "started": ""})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it ended and is not yet reaped
    assert not ended.runs()
    os.waitpid(child, 0)
    assert not ended.runs()


def test_a_later_process_with_the_same_number_is_another() -> None:
    process = Process.current()
    assert not process.model_copy(update={"started": process.started + "0"}).runs()


def test_another_process_sees_the_same_machine_and_start() -> None:
    code = (
        "import sys; from agpo.artifacts.process import Process;"
        "process = Process.model_validate_json(sys.argv[1]); print(process.is_local(), process.runs())"
    )
    command = [sys.executable, "-c", code, Process.current().model_dump_json()]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]


def test_another_machine_is_not_this_one() -> None:
    assert not Process.current().model_copy(update={"machine": "elsewhere"}).is_local()
