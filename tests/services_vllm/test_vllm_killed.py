"""An engine that is killed in a step, and a run that is. In a file of its own: no other engine runs beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agpo.artifacts import Store
from agpo.learner.policy import load_policy, stop_ids
from agpo.rollout import LocalEngine
from agpo.rollout.engines import close_idle
from agpo.rollout.fingerprint import check_fingerprint
from agpo.rollout.vllm_client import VllmClient
from agpo.session import Session
from agpo.settings.vllm import VllmSettings
from tests.agpo.session_start import RUN, make_start, snapshot, take_step, train
from tests.chaos.snapshot import read_runs
from tests.flows.night import Place
from tests.pipeline_fixtures import mlflow_template, prefect_server
from tests.services_vllm.policies import MODELS, write_policy
from tests.services_vllm.processes import members_of

__all__ = ["mlflow_template", "prefect_server"]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

# A request at a time: what runs beside it would decide how an answer's log-probs are rounded.
ENGINE = VllmSettings(cache=64, in_flight=1)
CHUNK = 4


def test_an_engine_that_is_killed_in_a_step_makes_only_what_the_journal_lacks(tmp_path: Path) -> None:
    run = RUN.model_copy(
        update={
            "base": RUN.base.model_copy(update={"model": RUN.base.model.model_copy(update={"heads": 1})}),
            "rollout": RUN.rollout.model_copy(update={"engine": ENGINE, "chunk": CHUNK}),
            "learner": RUN.learner.model_copy(update={"rate": 3e-4, "warm_up": 0}),
            "steps": 2,
        }
    )
    start = make_start(tmp_path / "start", run)
    undisturbed, killed = [
        Session(run, Store(shutil.copytree(start.folder, tmp_path / name)), start.problems, start.base)
        for name in ("undisturbed", "killed")
    ]
    try:
        train(undisturbed)
        with killed:
            take_step(killed, 0)
            chunks = killed.journal.files.local_path("steps/00000001")
            live: Any = killed._live
            with kill_under_request(CHUNK + 2, live.engine, chunks) as (asked, before):
                killed.generate(1)

            assert [*before] == ["rollouts-0000.parquet"]
            assert before.items() <= read_folder(chunks).items()
            assert len(set(asked)) == 4 * CHUNK
            again = {seed for seed, times in Counter(asked).items() if times > 1}
            second = asked[-3 * CHUNK : -2 * CHUNK]  # of four chunks, as it was asked for in the end
            assert {*asked[CHUNK : CHUNK + 2]} <= again <= {*second}

            found = live.engine._engine.fingerprint()
            check_fingerprint(found, LocalEngine(live.model, set()).fingerprint(), 1e-4)
            base, tokenizer = load_policy(killed.store.fetch(start.base), "cpu")
            assert found.difference(LocalEngine(base, stop_ids(base, tokenizer)).fingerprint()) > 0.01

            killed.verify(1)
            killed.update(1)
            killed.publish()
        assert snapshot(killed) == snapshot(undisturbed)
    finally:
        close_idle()


@contextmanager
def kill_under_request(number: int, engine: Any, folder: Path) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Kill an engine while the request of that number is under way: it is frozen before.

    Yields the seeds of all requests in order, and what the folder had at that moment.
    """
    generate = VllmClient.generate
    asked: list[int] = []
    before: dict[str, Any] = {}

    def ask(client: VllmClient, prompt: list[int], sampling: dict[str, Any], timeout: float) -> dict[str, Any]:
        if sampling["temperature"]:  # else it is the probe
            asked.append(sampling["seed"])
        if len(asked) == number and not before:
            before.update(read_folder(folder))
            workers = freeze(engine._engine._service.process_group)
            threading.Timer(0.3, lambda: [os.kill(worker, signal.SIGKILL) for worker in workers]).start()
        return generate(client, prompt, sampling, timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VllmClient, "generate", ask)
        yield asked, before


def freeze(group: int) -> list[int]:
    """Stop an engine whose server goes on: all of the group but the supervisor and the server."""
    workers = members_of(group)[2:]
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    return workers


def read_folder(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and its bytes."""
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(folder.iterdir())}


def test_a_run_that_is_told_to_end_waits_for_no_answer_and_goes_on_later(
    prefect_server: str, mlflow_template: Path, tmp_path: Path
) -> None:
    place = Place.make(tmp_path / "home", mlflow_template)
    command = [Path(sys.executable).with_name("agpo"), "run", "train", "--profile", "smoke"]
    for setting in ("rollout.engine.kind=vllm", "rollout.engine.cache=64", "rollout.chunk=2", "base.model.heads=1"):
        command += ["--set", setting]
    environment = os.environ | {"AGPO_HOME": str(place.home), "PREFECT_API_URL": prefect_server}
    output = place.home / "output.txt"

    with output.open("wb") as file, start_process(command, env=environment, stdout=file, stderr=file) as run:
        while not (written := list(place.home.glob("store/journal/*/steps/00000001/rollouts-0000.parquet"))):
            assert run.poll() is None, output.read_text()
            time.sleep(0.005)
        (server,) = [child for child in psutil.Process(run.pid).children() if "--parent" in child.cmdline()]
        freeze(server.pid)
        time.sleep(1.0)
        chunks = written[0].parent
        before = read_folder(chunks)
        assert len(before) < 8, "all chunks of the step were made before the engine was frozen"
        run.terminate()
        assert run.wait(20.0) == -signal.SIGTERM
    assert "aborted by a termination signal" in output.read_text()
    assert read_runs(place.tracking, "agpo/train")["train agpo"].info.status == "KILLED"
    assert not wait_for_end(server.pid)

    subprocess.run(command, env=environment, check=True)
    assert before.items() <= read_folder(chunks).items()
    assert read_runs(place.tracking, "agpo/train")["train agpo"].info.status == "FINISHED"


@contextmanager
def start_process(*arguments: Any, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that is gone after the block, also where a test fails."""
    with subprocess.Popen(*arguments, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nothing_is_left_when_the_run_is_killed(tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy", MODELS["llama"], seed=0)
    program = """
        import pathlib, sys, time
        from agpo.rollout import VllmEngine
        from agpo.settings.vllm import VllmSettings
        folder = pathlib.Path(sys.argv[1])
        engine = VllmEngine(folder, {2}, VllmSettings(cache=64), folder.parent / "other.log")
        print(engine._service.process_group, flush=True)
        time.sleep(600)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
    with start_process(arguments, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        group = int(run.stdout.readline())
        members = members_of(group)
        assert len(members) >= 3
        regions = [region.path for member in members for region in psutil.Process(member).memory_maps()]
        shared = {Path(path) for path in regions if path.startswith("/dev/shm/psm_")}
        assert shared
        run.send_signal(signal.SIGKILL)
        assert not wait_for_end(group)
    assert not [file for file in shared if file.exists()]


def wait_for_end(group: int) -> list[int]:
    """What is left of a group of processes that had ten seconds to end."""
    end = time.monotonic() + 10
    while (left := members_of(group)) and time.monotonic() < end:
        time.sleep(0.1)
    return left
