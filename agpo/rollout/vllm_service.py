"""A vLLM engine of our own: a server in vLLM's environment that lives as long as this process at most."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from agpo.rollout.vllm_client import EngineError, VllmClient
from agpo.rollout.vllm_worker.serve import find_build
from agpo.settings.vllm import VllmSettings

PYTHON_VARIABLE = "AGPO_VLLM_PYTHON"
_SERVE = Path(__file__).with_name("vllm_worker") / "serve.py"
_HOST = "127.0.0.1"
_STARTUP = 300.0  # seconds
_GRACE = 15.0  # seconds for an orderly end
_LOG_TAIL = 3000  # characters


def find_python() -> Path:
    """Python of vLLM's environment: what AGPO_VLLM_PYTHON says, else that of `make vllm` beside this one.

    Else this one where it has vLLM, by the extra agpo[vllm]. EngineError where none has.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    python = Path(named) if named else Path(f"{sys.prefix}-vllm") / "bin" / "python"
    if python.exists():
        return python
    if not named and find_build():
        return Path(sys.executable)
    said = f"{PYTHON_VARIABLE} is {named}, which does not exist" if named else f"there is no {python}"
    raise EngineError(f"no environment with vLLM: {said}; make one by `make vllm`")


def read_build(python: Path) -> str:
    """Version and build of the vLLM that a Python has, as `0.32.0, CPU build`. EngineError where it has none."""
    found = subprocess.run([python, "-P", _SERVE, "--version"], capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout.strip():
        raise EngineError(f"{python} has no vLLM; make its environment again by `make vllm`")
    return found.stdout.strip()


class VllmService:
    """Start, stop and start again. Its key and port change with every start."""

    def __init__(self, settings: VllmSettings, log: Path, lora_rank: int = 0) -> None:
        """``lora_rank``: of the largest adapter that the model can get; 0: none."""
        self.settings, self.log, self.lora_rank = settings, log, lora_rank
        self._process: subprocess.Popen[bytes] | None = None
        self._client: VllmClient | None = None

    def start(self, folder: Path) -> VllmClient:
        """Serve a model folder, which must stay until the first load of another; returns when it answers.

        The server ends with this process, however that ends. EngineError has the end of its log.
        """
        python, port, key = find_python(), _free_port(), secrets.token_urlsafe(24)
        settings = self.settings
        command = [str(python), "-P", str(_SERVE), "--model", str(folder.resolve()), "--host", _HOST]
        command += ["--port", str(port), "--dtype", settings.dtype, "--threads", str(settings.threads)]
        command += ["--cache", str(settings.cache), "--sequences", str(settings.in_flight)]
        command += ["--lora-rank", str(self.lora_rank)]
        command += ["--parent", str(os.getpid())]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=os.environ | {"VLLM_API_KEY": key},  # not an argument: every user sees those
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt of the terminal is for this process, which then stops it
            )
        self._client = VllmClient(f"http://{_HOST}:{port}", key)
        end = time.monotonic() + _STARTUP
        while self._process.poll() is None and time.monotonic() < end:
            if self._client.is_healthy():
                return self._client
            time.sleep(0.2)
        said = "ended" if self._process.returncode is not None else f"does not answer after {_STARTUP:g} s"
        self.stop()
        tail = self.log.read_text(errors="replace")[-_LOG_TAIL:]
        raise EngineError(f"the vLLM engine for {folder} {said}; the end of {self.log}:\n{tail}")

    @property
    def process_group(self) -> int | None:
        """Of the server and all that it has started."""
        return None if self._process is None else self._process.pid

    def has_ended(self, within: float) -> bool:
        """Whether the server is gone, or goes within so many seconds. Its exit code says nothing: vLLM's is 0."""
        assert self._process is not None
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End the server and everything that it has started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            if self._client is not None and self._client.is_healthy():
                with suppress(EngineError):
                    self._client.stop_requests()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = self._client = None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        port: int = found.getsockname()[1]
    return port
