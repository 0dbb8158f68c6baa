"""The champion of a registry, served by `mlflow models serve` as a user would, and asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from agpo.artifacts import ArtifactRef
from agpo.relevance import find_scheme
from agpo.student.scorer import Scorer
from tasks.student_registry import StudentRegistry
from tasks.tracking import RunRef
from tests.agpo.student.tiny_student import make_values, write_student

pytestmark = [pytest.mark.services, pytest.mark.slow]

STARTUP = 90.0  # seconds
HOST = "127.0.0.1"


@pytest.fixture
def scorer(tmp_path: Path) -> Scorer:
    return Scorer(write_student(tmp_path / "student", make_values(find_scheme("esci4"))))


@pytest.fixture
def port(mlflow_uri: str, run: RunRef, scorer: Scorer, tmp_path: Path) -> Iterator[int]:
    """A server of the family's champion, ended with all its processes."""
    registry = StudentRegistry(mlflow_uri, "shop")
    ref = ArtifactRef(uri="s3://b/student/a", key="a", sha256="cd" * 32, kind="student", rows=0, bytes=1_234)
    registry.promote(registry.register(ref, tmp_path / "student", run))
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        free = probe.getsockname()[1]
    program = Path(sys.executable).with_name("mlflow")
    model = ["-m", "models:/agpo-student-shop@champion", "--env-manager", "local"]
    address = ["--host", HOST, "--port", str(free)]
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(program), "models", "serve", *model, *address],
            cwd=tmp_path,  # not the checkout: the model must bring what it needs
            # MLflow looks for uvicorn on the path.
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": mlflow_uri,
                "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(server, free, log)
        yield free
    finally:
        with suppress(ProcessLookupError):  # where it ended by itself
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + STARTUP
    while time.monotonic() < end and server.poll() is None:
        try:
            if _request(port, "GET", "/ping")[0] == 200:
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server does not answer after {STARTUP:g} s; its log:\n{log.read_text()[-3000:]}")


def _request(port: int, method: str, path: str, content: Any = None) -> tuple[int, str]:
    connection = HTTPConnection(HOST, port, timeout=30)
    try:
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _ask(port: int, rows: list[dict[str, Any]]) -> tuple[int, Any]:
    status, body = _request(port, "POST", "/invocations", {"dataframe_records": rows})
    return status, json.loads(body)


def test_the_champion_answers_over_http(port: int, scorer: Scorer) -> None:
    rows = [
        {"query": "red shoe", "title": "blue shoe"},
        {"query": "lamp", "title": "case for lamp", "attributes": "for: lamp"},
    ]
    status, answer = _ask(port, rows)
    assert status == 200
    expected = scorer.score(["red shoe", "lamp"], ["blue shoe", "case for lamp"], [None, "for: lamp"])
    assert len(answer["predictions"]) == 2
    for found, shares in zip(answer["predictions"], expected.tolist(), strict=True):
        label = scorer.labels[shares.index(max(shares))]
        assert (found["label"], found["name"], found["relevant"]) == (label.letter, label.name, label.relevant)
        assert found["probabilities"] == pytest.approx(dict(zip("ICSE", shares, strict=True)))

    status, refused = _ask(port, [{"query": "red shoe"}])
    assert status == 400
    assert "missing inputs ['title']" in refused["message"]

    status, refused = _ask(port, [{"query": "red shoe", "title": "lamp"}, {"query": "", "title": "lamp"}])
    assert status == 400
    assert "row 2: query is ''; accepted: a text that is not blank" in refused["message"]
