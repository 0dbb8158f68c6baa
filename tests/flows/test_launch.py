"""The command as a user runs it: a process of its own, with its own servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agpo.artifacts import Files
from tests.chaos.attempt import ROOT, wait_for_end

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]


class Command:
    """Runs the command in a home of its own. What is not told to lie there would lie in the user's home directory."""

    def __init__(self, folder: Path) -> None:
        self.home, self.users_home = folder / "home", folder / "user"
        self.started: list[subprocess.Popen[str]] = []
        self.users_home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "XDG_", "MPL"))}
        self.environment = {
            **kept,
            "AGPO_HOME": str(self.home),
            "HOME": str(self.users_home),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
            cwd=self.users_home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    for process in command.started:
        process.kill()  # if the test failed


def test_a_missing_file_is_named_before_anything_starts(command: Command) -> None:
    code, output = command.run("run", "nightly", "--profile", "gsm8k", "--set", "problems.path=missing.jsonl")
    assert code == 2
    assert output == "Error: problems.path = 'missing.jsonl': no file is there; accepted: a file, or a glob of files\n"
    assert not (command.home / "store").exists()
    assert not (command.home / "logs").exists()


def test_a_killed_night_leaves_no_process_and_the_same_command_ends_it(command: Command) -> None:
    night = ("run", "nightly", "--profile", "smoke", "--json", "out/night.json")
    process, store = command.start(*night), Files(command.home / "store")
    while not any("verdicts" in name for name in store.names("journal")):
        assert process.poll() is None
        time.sleep(0.05)
    assert any("prefect server start" in line for line in wait_for_end(command.home, 0))
    process.kill()
    process.communicate()
    assert wait_for_end(command.home, 20) == []

    code, output = command.run(*night)
    assert code == 0, output
    assert wait_for_end(command.home, 0) == []
    words = " ".join(output.split())
    for shown in (
        "warm_start Found",
        "judge Completed",
        "agpo candidate hard",
        "Gate: inconclusive",
        "MLflow run: http",
    ):
        assert shown in words
    assert "MLflow run: http://127.0.0.1:" in output
    files = [path for path in command.users_home.rglob("*") if path.is_file()]
    assert files == [command.users_home / "out/night.json"]
    content = json.loads(files[0].read_text())
    assert set(content) == {
        "family",
        "outcome",
        "reasons",
        "weights",
        "pass_at_k",
        "relevance",
        "stages",
        "nothing_new",
        "mlflow_run",
    }
    assert {"seconds", "cpu_seconds", "peak_memory_mib", "artifact", "found", "stage"} == set(content["stages"][0])
    assert {"value", "lower", "upper", "difference", "difference_lower"} < set(content["pass_at_k"][0])
    found = {stage["stage"]: stage["found"] for stage in content["stages"]}
    assert found["warm_start"]
    assert not found["judge"]


def test_an_interrupt_leaves_no_process(command: Command) -> None:
    process = command.start("run", "train", "--profile", "smoke")
    assert process.stdout is not None
    assert any("Beginning flow run" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert wait_for_end(command.home, 20) == []


def test_a_deadline_ends_the_process(command: Command, prefect_server: str) -> None:
    command.environment["PREFECT_API_URL"] = prefect_server
    code, output = command.run("run", "train", "--profile", "smoke", "--set", "step_deadline=0.001")
    assert code == 75, output
    assert "Deadline: rollout of step 0 took longer than 0.001 s" in output
    assert "tasks/rollout.py" in output  # the stacks of all threads, wherever the rollout was
    assert wait_for_end(command.home, 20) == []


def test_a_failure_exits_with_1_and_says_why(command: Command, prefect_server: str) -> None:
    command.environment["PREFECT_API_URL"] = prefect_server
    (command.users_home / "file").write_text("not a folder")
    code, output = command.run("run", "train", "--profile", "smoke", "--store", "file")
    assert code == 1
    assert "train failed: Flow run encountered an exception: NotADirectoryError" in output
    assert output.endswith("The same command goes on from what is stored.\n")
