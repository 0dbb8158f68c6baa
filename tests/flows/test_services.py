"""Processes that outlive the command: started, found again and ended, with programs that misbehave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from flows import services
from flows.programs import Program
from flows.services import Service, Services, read_services

NONE = Services(prefect="http://127.0.0.1:1/api", mlflow="http://127.0.0.1:2", store="store")
SLEEPER = "import time, signal; print('ready', flush=True); time.sleep(60)"
# Starts another child as soon as one ends, as a worker does while runs wait; a child takes a moment to end.
WORKER = """
import subprocess, sys
child = '''
import signal, time
def end(*_):
    time.sleep(0.3)
    print("checkpoint", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print("child", flush=True)
time.sleep(60)
'''
while True:
    subprocess.run([sys.executable, "-c", child], start_new_session=True)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Services]]:
    """Starts Python code as a service of a home, and waits for a word in its log."""
    home = tmp_path / "home"
    home.mkdir()

    def start(code: str, word: str, grace: float = 10.0) -> Services:
        name = f"program_{uuid.uuid4().hex[:8]}"
        (tmp_path / f"{name}.py").write_text(code)
        program = Program((name,), {"PYTHONPATH": str(tmp_path)})
        found = services.start(home, read_services(home) or NONE, name, program, grace)
        services.wait(found, name, lambda: word in found.started[name].log.read_text())
        return found

    yield start
    left = read_services(home)
    for service in left.started.values() if left is not None else ():
        for process in service.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def last(found: Services) -> Service:
    return list(found.started.values())[-1]


def test_what_was_started_is_found_again_and_ended(run: Callable[..., Services], tmp_path: Path) -> None:
    run(SLEEPER, "ready")
    found = run(SLEEPER, "ready")
    assert read_services(tmp_path / "home") == found
    assert found.all_run()
    assert len(found.started) == 2
    assert psutil.Process(last(found).pid).environ()["PYTHONPATH"] == str(tmp_path)
    services.end(tmp_path / "home", found)
    assert read_services(tmp_path / "home") is None
    assert not any(service.processes() for service in found.started.values())


def test_it_has_a_session_of_its_own_and_can_be_interrupted(run: Callable[..., Services]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a background job of a shell
    try:
        code = (
            "import os, signal, time; print(signal.getsignal(signal.SIGINT), os.getsid(0), flush=True); time.sleep(60)"
        )
        service = last(run(code, "\n"))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert service.log.read_text() == f"{signal.default_int_handler} {service.pid}\n"


def test_a_run_ends_in_order_and_no_other_one_begins(run: Callable[..., Services], tmp_path: Path) -> None:
    found = run(WORKER, "child")
    assert len(last(found).processes()) == 2
    services.end(tmp_path / "home", found)
    assert last(found).log.read_text().split() == ["child", "checkpoint"]
    assert last(found).processes() == []


def test_the_runs_of_a_worker_that_died_are_ended_too(run: Callable[..., Services], tmp_path: Path) -> None:
    found = run(WORKER, "child")
    child = psutil.Process(last(found).pid).children()[0]
    psutil.Process(last(found).pid).kill()
    end = time.monotonic() + 10
    while last(found).runs():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert child.is_running()
    assert not found.all_run()
    services.end(tmp_path / "home", found)
    assert last(found).log.read_text().split() == ["child", "checkpoint"]
    assert last(found).processes() == []


def test_one_that_does_not_listen_is_killed(run: Callable[..., Services], tmp_path: Path) -> None:
    found = run(STUBBORN, "ready", grace=0.3)
    services.end(tmp_path / "home", found)
    assert last(found).processes() == []


def test_a_process_that_got_the_number_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        service = Service(mark=uuid.uuid4().hex, pid=other.pid, log=tmp_path / "log", grace=0.1)
        assert not service.runs()
        services.end(tmp_path, NONE.model_copy(update={"started": {"gone": service}}))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_one_that_ends_while_it_starts_shows_the_end_of_its_log(run: Callable[..., Services]) -> None:
    message = r"(?s)the program_\w+ has ended; the end of .*\.log:\n.*ValueError: no such colour"
    with pytest.raises(RuntimeError, match=message):
        run("raise ValueError('no such colour')", "ready")


def test_a_second_command_waits_for_the_first(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from flows.services import lock\n"
        "with lock(Path(sys.argv[1])): print('locked', flush=True); time.sleep(1); print('done', flush=True)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    with services.lock(tmp_path):
        assert other.stdout.readline() == "done\n"
    other.wait()
