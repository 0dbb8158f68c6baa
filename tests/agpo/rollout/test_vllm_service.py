"""The life of the server, with a stand-in for vLLM: a server and a worker process that outlives it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agpo.rollout import vllm_service
from agpo.rollout.vllm_client import EngineError
from agpo.rollout.vllm_service import PYTHON_VARIABLE, VllmService, find_python
from agpo.rollout.vllm_worker.serve import check_heads, check_host, make_command, round_rank
from agpo.settings.vllm import VllmSettings

SERVER = """
import http.server, os, pathlib, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
here = pathlib.Path(os.environ["FAKE_FOLDER"])
(here / "worker").write_text(str(worker.pid))
(here / "arguments").write_text("\\n".join(sys.argv[1:]))
(here / "key").write_text(os.environ["VLLM_API_KEY"])
print("the stand-in starts", flush=True)
if (here / "broken").exists():
    sys.exit(0)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/die":
            os._exit(0)
    do_POST = do_GET
    def log_message(self, *_): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "vllm" / "entrypoints" / "launchers" / "api_server"
    package.mkdir(parents=True)
    (package / "entry.py").write_text(SERVER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path.cwd())]))
    monkeypatch.setenv("FAKE_FOLDER", str(tmp_path))
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    return tmp_path


@pytest.fixture
def service(stand_in: Path) -> VllmService:
    return VllmService(VllmSettings(threads=3), stand_in / "logs" / "vllm.log")


def worker_of(folder: Path) -> int:
    return int((folder / "worker").read_text())


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # ended, and nobody has asked


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_starts_and_stops_with_all_its_processes(service: VllmService, stand_in: Path) -> None:
    client = service.start(stand_in)
    assert client.is_healthy() and client.address.startswith("http://127.0.0.1:")
    worker = worker_of(stand_in)
    assert lives(worker) and os.getpgid(worker) == service.process_group != os.getpgrp()
    assert "the stand-in starts" in service.log.read_text()
    service.stop()
    wait_until(lambda: not lives(worker))
    assert not client.is_healthy()
    service.stop()  # once more does nothing


def test_the_server_has_a_key_that_no_argument_shows(service: VllmService, stand_in: Path) -> None:
    service.start(stand_in)
    try:
        key, arguments = (stand_in / "key").read_text(), (stand_in / "arguments").read_text()
        group = Path(f"/proc/{service.process_group}/cmdline")
        assert len(key) > 20 and key not in arguments
        assert not group.exists() or key not in group.read_text()
    finally:
        service.stop()


def test_an_engine_that_dies_with_exit_code_0_is_noticed_and_leaves_nothing(
    service: VllmService, stand_in: Path
) -> None:
    client = service.start(stand_in)
    worker = worker_of(stand_in)
    assert not service.has_ended(0.1)
    with pytest.raises(EngineError):
        client._call("GET", "/die", None, 5.0)
        client._call("GET", "/die", None, 5.0)
    assert service.has_ended(10.0)
    wait_until(lambda: not lives(worker))
    assert "vLLM ended with code 0 without being told to" in service.log.read_text()
    assert service.start(stand_in).is_healthy()
    service.stop()


def test_a_server_that_does_not_start_is_an_error_with_its_log(service: VllmService, stand_in: Path) -> None:
    (stand_in / "broken").touch()
    with pytest.raises(EngineError, match=r"(?s)the vLLM engine for .* ended; the end of .*vllm.log:.*stand-in starts"):
        service.start(stand_in)
    wait_until(lambda: not lives(worker_of(stand_in)))


def test_a_server_that_never_answers_is_ended(
    service: VllmService, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_service, "_STARTUP", 0.01)
    monkeypatch.setattr("agpo.rollout.vllm_client.VllmClient.is_healthy", lambda client: False)
    with pytest.raises(EngineError, match=r"does not answer after 0\.01 s"):
        service.start(stand_in)


def test_nothing_is_left_when_the_process_that_started_it_is_killed(stand_in: Path) -> None:
    program = """
        import pathlib, sys, time
        from agpo.rollout.vllm_service import VllmService
        from agpo.settings.vllm import VllmSettings
        folder = pathlib.Path(sys.argv[1])
        service = VllmService(VllmSettings(), folder / "log")
        service.start(folder)
        print(service.process_group, flush=True)
        time.sleep(600)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(stand_in)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        group, worker = int(run.stdout.readline()), worker_of(stand_in)
        assert lives(group) and lives(worker)
        run.send_signal(signal.SIGKILL)
        wait_until(lambda: not lives(group) and not lives(worker))


def test_without_an_environment_the_error_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    with pytest.raises(EngineError, match=r"no environment with vLLM: .* make one by `make vllm`"):
        find_python()
    with monkeypatch.context() as extra:
        extra.setattr(vllm_service, "find_build", lambda: "0.32.0, GPU build")
        assert find_python() == Path(sys.executable)
    python = tmp_path / "env-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find_python() == python
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(EngineError, match=r"AGPO_VLLM_PYTHON is .*gone, which does not exist"):
        find_python()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.7"])
def test_a_server_may_listen_on_a_loopback_or_private_address(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "8.8.8.8", "example.org", ""])
def test_a_server_never_listens_on_a_public_address(host: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="accepted: a loopback or private"):
        check_host(host)


@pytest.mark.parametrize("config", [{"head_dim": 16}, {"hidden_size": 64, "num_attention_heads": 4}])
def test_heads_that_a_cpu_engine_would_die_of_are_refused(config: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="attention heads are 16 wide; vLLM on a CPU accepts 32, 64"):
        check_heads(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"head_dim": 64}))
    check_heads(tmp_path)


@pytest.mark.parametrize("cpu", [True, False])
def test_the_command_asks_for_what_the_client_relies_on(cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agpo.rollout.vllm_worker.serve._is_cpu_build", lambda: cpu)
    options = argparse.Namespace(
        model="m", host="127.0.0.1", port=1, dtype="float32", sequences=8, lora_rank=0, cache=64
    )
    command = " ".join(make_command(options))
    assert "--logprobs-mode processed_logprobs" in command and "--enable-scale-out" in command
    assert "--generation-config vllm" in command and "--kv-cache-memory-bytes 67108864" in command
    assert ("--no-enable-chunked-prefill" in command) == cpu  # with it a seed kills a CPU engine
    assert ("--enable-sleep-mode" in command) != cpu  # a CPU engine does not start with it
    assert "--enable-lora" not in command
    options.lora_rank = 64
    assert "--enable-lora --max-loras 1 --max-lora-rank 64" in " ".join(make_command(options))


@pytest.mark.parametrize(
    ("rank", "started_with"), [("0", 0), ("1", 1), ("2", 8), ("64", 64), ("65", 128), ("512", 512)]
)
def test_a_rank_is_served_by_the_next_that_vllm_has(rank: str, started_with: int) -> None:
    assert round_rank(rank) == started_with


@pytest.mark.parametrize("rank", ["513", "-1", "many"])
def test_no_rank(rank: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{rank} is no rank of adapters; accepted: 0 to 512"):
        round_rank(rank)


@pytest.mark.parametrize("endpoint", ["localhost:8000", "ftp://a:1", "http://", "http://host:1/v1"])
def test_an_endpoint_is_an_address(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is no endpoint; accepted: http://HOST:PORT"):
        VllmSettings(endpoints=(endpoint,))
