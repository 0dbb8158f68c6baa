from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import cli_doctor
from flows.cli import app
from flows.cli_doctor import Finding, examine
from tests.agpo.rollout.fake_vllm import FakeVllm, serve


def examined(*endpoints: str) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(endpoints)}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGPO_HOME", str(tmp_path / "not" / "made"))
    return tmp_path / "not"


@pytest.fixture
def server() -> Iterator[Callable[[int], str]]:
    """Starts a server that answers /health with a status."""
    servers: list[HTTPServer] = []

    def start(status: int) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/api/health" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/api"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def test_versions_cpu_and_disk_are_found(home: Path) -> None:
    findings = examined()
    assert all(findings[name].good for name in ("Python", "torch", "polars", "prefect", "mlflow", "CPU", "Home folder"))
    assert str(home) in findings["Home folder"].found
    assert not home.exists()


def test_servers_that_are_not_named_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)  # another test's server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    findings = examined()
    assert "not set" in findings["Prefect server"].found
    assert "sqlite:///mlflow.db" in findings["MLflow server"].found
    assert findings["Prefect server"].good
    assert findings["MLflow server"].good


def test_a_server_is_asked_for_its_health(monkeypatch: pytest.MonkeyPatch, server: Callable[[int], str]) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server(200))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server(503))
    findings = examined()
    assert findings["Prefect server"].good
    assert not findings["MLflow server"].good
    assert "503" in findings["MLflow server"].found


def test_a_server_that_does_not_answer_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)  # another test's server
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    finding = examined()["Prefect server"]
    assert not finding.good
    assert "does not answer" in finding.found


def test_a_missing_package_and_little_disk_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_doctor, "PIPELINE", ("no-such-package",))
    monkeypatch.setattr(cli_doctor, "LEAST_FREE", 2**60)
    findings = examined()
    assert not findings["no-such-package"].good
    assert not findings["Home folder"].good


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_the_command_fails_when_something_will_not_work(monkeypatch: pytest.MonkeyPatch, good: bool, code: int) -> None:
    monkeypatch.setattr(cli_doctor, "examine", lambda endpoints: [Finding("GPU", "on fire", good=good)])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "on fire" in result.output


# --- vLLM


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `make vllm` would put its environment."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    return tmp_path / "env-vllm"


def write_python(file: Path, program: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{program}\n")
    file.chmod(0o755)


def test_without_vllm_nothing_is_wrong(no_vllm: Path) -> None:
    finding = examined()["vLLM"]
    assert finding.good
    assert finding.found.endswith("make one by `make vllm`; optional")


def test_the_build_of_vllm_is_found(no_vllm: Path) -> None:
    write_python(no_vllm / "bin" / "python", "echo 0.32.0, CPU build")
    assert examined()["vLLM"] == Finding("vLLM", f"0.32.0, CPU build, {no_vllm / 'bin' / 'python'}")


def test_an_environment_without_vllm_and_a_wrong_variable_are_faults(
    no_vllm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_python(no_vllm / "bin" / "python", "echo; exit 0")
    finding = examined()["vLLM"]
    assert not finding.good and "has no vLLM; make its environment again" in finding.found
    monkeypatch.setenv("AGPO_VLLM_PYTHON", "/nowhere/python")
    finding = examined()["vLLM"]
    assert not finding.good and "AGPO_VLLM_PYTHON is /nowhere/python, which does not exist" in finding.found


def test_an_engine_says_what_it_is() -> None:
    with serve(FakeVllm(259)) as address:
        finding = examined(address)[f"Engine {address}"]
    assert finding.good
    assert finding.found == "vLLM 0.32.0 on cpu, float32, 64 positions, 259 token ids, no adapters, weights default"


def test_an_engine_that_cannot_be_used_is_one_line_and_the_others_are_shown() -> None:
    raw, gone = FakeVllm(259), "http://127.0.0.1:9"
    raw.info["logprobs_mode"] = "raw_logprobs"
    with serve(raw) as wrong, serve(FakeVllm(259)) as right:
        findings = examined(gone, wrong, right)
    assert "is not reachable" in findings[f"Engine {gone}"].found
    assert "accepted: processed_logprobs" in findings[f"Engine {wrong}"].found
    assert [findings[f"Engine {each}"].good for each in (gone, wrong, right)] == [False, False, True]
    assert not any("\n" in finding.found for finding in findings.values())


def test_what_is_no_address_is_refused() -> None:
    result = CliRunner().invoke(app, ["doctor", "--engine", "localhost:8000"])
    assert result.exit_code == 2
    assert "'localhost:8000' is no endpoint; accepted: http://HOST:PORT" in result.output
