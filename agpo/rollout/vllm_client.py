"""One vLLM engine over HTTP: what it is, generation, and the hand-over of weights."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KEY_VARIABLE = "AGPO_VLLM_KEY"
_CONTROL = 60.0  # seconds for a call that computes nothing
_BRIEF = 5.0  # seconds for one that no live engine lets wait
_LOAD = 600.0  # seconds for reading weights
_FIRST_VERSION = (0, 32)  # the first that was tried


class EngineError(RuntimeError):
    """An engine failed or cannot be used; the message names it."""


class EngineUnavailable(EngineError):
    """It did not answer, or not in time, or with a fault of its own: worth another attempt."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says about itself."""

    version: str
    positions: int  # longest prompt plus response; vLLM cuts longer ones silently
    vocabulary: int  # rows of the embedding
    dtype: str
    device: str
    can_sleep: bool
    lora_rank: int  # of the largest adapter that it loads; 0: none


class VllmClient:
    """Calls of one engine, from any thread."""

    def __init__(self, address: str, key: str) -> None:
        self.address, self._key = address, key
        parts = urlsplit(address)
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "", parts.port
        self._adapter = ""  # name of the one that answers come from
        self._open: set[socket.socket] = set()

    def describe(self, fields: set[str], timeout: float = _CONTROL) -> EngineInfo:
        """What the engine is. EngineError unless it can do what we ask, with all these fields of a request.

        vLLM ignores what it does not know, samples on, and says nothing.
        """
        try:
            found = self._call_workers("agpo_describe", [], timeout)
        except EngineUnavailable:
            raise
        except EngineError as error:
            raise EngineError(
                f"{error}; it lacks agpo's worker extension or its control endpoints: start it by infra/vllm/start"
            ) from None
        number = tuple(int(part) for part in found["version"].split(".")[:2])
        if number < _FIRST_VERSION:
            least = ".".join(map(str, _FIRST_VERSION))
            raise EngineError(f"the engine at {self.address} is vLLM {found['version']}; accepted: {least} or later")
        unknown = sorted(fields - set(found["sampling_fields"]))
        if unknown:
            raise EngineError(
                f"the engine at {self.address} (vLLM {found['version']}) would ignore {', '.join(unknown)}; "
                "use a version that knows them"
            )
        if found["logprobs_mode"] != "processed_logprobs":
            raise EngineError(
                f"the engine at {self.address} has --logprobs-mode {found['logprobs_mode']}; "
                "accepted: processed_logprobs, the log-probs of what was sampled"
            )
        if missing := sorted(EngineInfo.__dataclass_fields__.keys() - found.keys()):
            raise EngineError(
                f"the engine at {self.address} does not say its {', '.join(missing)}: start it again by "
                "infra/vllm/start of this version"
            )
        self._call("GET", "/v1/models", None, timeout)  # needs the key, which control endpoints do not ask for
        return EngineInfo(**{name: found[name] for name in EngineInfo.__dataclass_fields__})

    def weights(self, timeout: float = _CONTROL) -> str:
        """The label of the weights that it has: the digest of those that were loaded last, `default` before."""
        return str(self._call("GET", "/weight_info", None, timeout)["weight_version"])

    def generate(self, prompt: list[int], sampling: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The one choice of a request."""
        body: dict[str, Any] = {"token_ids": prompt, "sampling_params": sampling}
        if self._adapter:
            body["model"] = self._adapter
        choices = self._call("POST", "/inference/v1/generate", body, timeout)["choices"]
        if len(choices) != 1:
            raise EngineError(f"the engine at {self.address} gave {len(choices)} answers to a request for one")
        choice: dict[str, Any] = choices[0]
        if choice["finish_reason"] == "abort":
            raise EngineUnavailable(f"the engine at {self.address} aborted a request")
        return choice

    def load(self, folder: Path, weights: str) -> None:
        """Put a folder's weights, of digest ``weights``, in the place of those that the engine has.

        Answers are labelled with the digest from then on. ValueError says what differs; the old weights stay.
        """
        with self._replacing(weights):
            found = self._call_workers("agpo_load", [str(folder), weights], _LOAD)
            if found["error"]:
                raise ValueError(f"the engine at {self.address} refuses {folder}: it {found['error']}")
            self._adapter = ""

    def load_adapter(self, folder: Path, weights: str) -> None:
        """Put a folder's adapter on the weights, in the place of the one before; ``weights`` is the digest of both.

        Not by vLLM's ``load_inplace``, which reads the folder again for every request.
        """
        with self._replacing(weights):
            for model in self._call("GET", "/v1/models", None, _CONTROL)["data"]:
                if model.get("parent"):
                    self._call("POST", "/v1/unload_lora_adapter", {"lora_name": model["id"]}, _CONTROL)
            named = {"lora_name": weights, "lora_path": str(folder)}
            self._call("POST", "/v1/load_lora_adapter", named, _LOAD)
            self._adapter = weights

    @contextmanager
    def _replacing(self, weights: str) -> Iterator[None]:
        """For weights to be loaded in, of this digest: nothing runs meanwhile, and nothing of the old ones is left."""
        self._call("POST", "/pause?mode=wait", None, _LOAD)
        try:
            yield
            self._call("POST", "/update_weight_version", {"new_version": weights}, _CONTROL)
            self._forget_prefixes()
        finally:
            self._call("POST", "/resume", None, _CONTROL)

    def _forget_prefixes(self) -> None:
        """Keys and values of the old weights would be used for the prompts that they know; nothing warns."""
        end = time.monotonic() + _CONTROL
        while not self._call("POST", "/reset_prefix_cache", None, _CONTROL)["success"]:
            if time.monotonic() > end:
                raise EngineUnavailable(f"the engine at {self.address} does not clear its prefix cache")
            time.sleep(0.02)

    def sleep(self) -> None:
        self._call("POST", "/sleep?level=1", None, _LOAD)

    def wake(self) -> None:
        self._call("POST", "/wake_up", None, _LOAD)

    def stop_requests(self) -> None:
        """Abort what is running: the server would wait for it before it ends."""
        self._call("POST", "/pause?mode=abort", None, _BRIEF)

    def abandon(self) -> None:
        """Close all connections: the engine aborts their requests, and who waits for one gets EngineUnavailable."""
        for line in self._open.copy():
            with suppress(OSError):  # it has just ended
                line.shutdown(socket.SHUT_RDWR)

    def is_healthy(self) -> bool:
        """Whether the server answers. A frozen engine is not noticed here."""
        try:
            self._call("GET", "/health", None, _BRIEF)
        except EngineError:
            return False
        return True

    def _call_workers(self, method: str, arguments: list[Any], timeout: float) -> dict[str, Any]:
        body = {"method": method, "args": arguments}
        found: list[dict[str, Any]] = self._call("POST", "/collective_rpc", body, timeout)["results"]
        # Every worker loads its part of the same folder; they can only differ in whether they refuse.
        return next((result for result in found if result.get("error")), found[0])

    def _call(self, method: str, path: str, body: Any, timeout: float) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Connection": "close"}
        connection = self._connection(self._host, self._port, timeout=min(timeout, _BRIEF))
        line: socket.socket | None = None
        try:
            connection.connect()
            line = connection.sock
            line.settimeout(timeout)
            self._open.add(line)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            status, kind, content = response.status, response.headers.get_content_type(), response.read()
        except TimeoutError:
            raise EngineUnavailable(
                f"the engine at {self.address} did not answer {path} in {timeout:g} seconds"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnavailable(f"the engine at {self.address} is not reachable: {error}") from None
        finally:
            if line is not None:
                self._open.discard(line)
            connection.close()
        if status == 200:
            return json.loads(content) if kind == "application/json" and content.strip() else None
        if status == 401:
            raise EngineError(
                f"the engine at {self.address} refuses the key; set {KEY_VARIABLE} to the VLLM_API_KEY that it has"
            )
        said = f"the engine at {self.address} answered {path} with {status}: {content[:300].decode(errors='replace')}"
        # A worker's error is a 500 of a live engine; of a request it is the engine's end.
        if status >= 500 and path not in ("/collective_rpc", "/v1/load_lora_adapter"):
            raise EngineUnavailable(said)
        raise EngineError(said)
