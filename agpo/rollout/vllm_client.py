"""One vLLM engine over HTTP: what it is, generation, and the hand-over of weights."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

KEY_VARIABLE = "AGPO_VLLM_KEY"
_CONTROL = 60.0  # seconds for a call that computes nothing
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


class VllmClient:
    """Calls of one engine, from any thread."""

    def __init__(self, address: str, key: str) -> None:
        self.address, self._key = address, key
        parts = urlsplit(address)
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "", parts.port

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
        self._call("GET", "/v1/models", None, timeout)  # needs the key, which control endpoints do not ask for
        return EngineInfo(**{name: found[name] for name in EngineInfo.__dataclass_fields__})

    def weights(self, timeout: float = _CONTROL) -> str:
        """The label of the weights that it has: the digest of those that were loaded last, `default` before."""
        return str(self._call("GET", "/weight_info", None, timeout)["weight_version"])

    def generate(self, prompt: list[int], sampling: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The one choice of a request."""
        body = {"token_ids": prompt, "sampling_params": sampling}
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
        self._call("POST", "/pause?mode=wait", None, _LOAD)
        try:
            found = self._call_workers("agpo_load", [str(folder), weights], _LOAD)
            if found["error"]:
                raise ValueError(f"the engine at {self.address} refuses {folder}: it {found['error']}")
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
        self._call("POST", "/pause?mode=abort", None, _CONTROL)

    def is_healthy(self) -> bool:
        """Whether the server answers. A frozen engine is not noticed here."""
        try:
            self._call("GET", "/health", None, 5.0)
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
        connection = self._connection(self._host, self._port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            status, content = response.status, response.read()
        except TimeoutError:
            raise EngineUnavailable(
                f"the engine at {self.address} did not answer {path} in {timeout:g} seconds"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineUnavailable(f"the engine at {self.address} is not reachable: {error}") from None
        finally:
            connection.close()
        if status == 200:
            return json.loads(content) if content.strip() else None
        if status == 401:
            raise EngineError(
                f"the engine at {self.address} refuses the key; set {KEY_VARIABLE} to the VLLM_API_KEY that it has"
            )
        said = f"the engine at {self.address} answered {path} with {status}: {content[:300].decode(errors='replace')}"
        # A worker's error is a 500 of a live engine; of a request it is the engine's end.
        if status >= 500 and path != "/collective_rpc":
            raise EngineUnavailable(said)
        raise EngineError(said)
