"""A server that answers as vLLM does, for tests of its client: no model, and every fault on demand."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from agpo.rollout.vllm_engine import VllmEngine
from agpo.settings.vllm import VllmSettings

FIELDS = [
    *("n", "seed", "temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs", "stop_token_ids"),
    *("ignore_eos", "detokenize", "logit_bias", "allowed_token_ids"),
]


class FakeVllm:
    """Draws tokens by the request's seed. ``faults``: for the next generations, HTTP status, "abort", "close", "hang"
    or a change of the choice (a dict)."""

    def __init__(self, vocabulary: int) -> None:
        self.info: dict[str, Any] = {
            "version": "0.32.0",
            "sampling_fields": FIELDS,
            "logprobs_mode": "processed_logprobs",
            "positions": 64,
            "vocabulary": vocabulary,
            "dtype": "float32",
            "device": "cpu",
            "can_sleep": False,
            "lora_rank": 0,
        }
        self.weights = "default"
        self.adapters: dict[str, str] = {}  # folders by name
        self.faults: deque[Any] = deque()
        self.refusal = ""  # of the next weights
        self.busy_resets = 0  # how many prefix cache resets do not succeed
        self.calls: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.delay = 0.0
        self.running, self.most_running = 0, 0
        self.lock = threading.Lock()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        self.calls.append(path)
        if path == "/collective_rpc":
            return self._call_workers(**body)
        if path == "/update_weight_version":
            self.weights = body["new_version"]
        if path == "/reset_prefix_cache":
            self.busy_resets -= 1
            return 200, {"success": self.busy_resets < 0}
        if path == "/weight_info":
            return 200, {"weight_version": self.weights}
        if path == "/v1/models":
            return 200, {"data": [{"id": "policy"}, *({"id": name, "parent": "policy"} for name in self.adapters)]}
        if path == "/v1/load_lora_adapter":
            if self.refusal or body["lora_name"] in self.adapters:
                return 500, {"error": {"message": self.refusal or "has already been loaded"}}
            self.adapters[body["lora_name"]] = body["lora_path"]
        if path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        if path == "/inference/v1/generate":
            if body.get("model", "policy") not in ("policy", *self.adapters):
                return 404, {"error": {"message": "The model does not exist"}}
            return self._generate(body)
        return 200, {}

    def _call_workers(self, method: str, args: list[Any]) -> tuple[int, Any]:
        if method == "agpo_describe":
            return 200, {"results": [self.info]}
        return 200, {"results": [{"error": self.refusal, "seconds": 0.0}]}

    def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            self.requests.append(body)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            fault = self.faults.popleft() if self.faults else None
        time.sleep(self.delay)
        with self.lock:
            self.running -= 1
        if isinstance(fault, int):
            return fault, {"error": "EngineCore encountered an issue"}
        if fault in ("close", "hang"):
            raise ConnectionAbortedError(fault)
        choice = self._choose(body["token_ids"], body["sampling_params"])
        if fault == "abort":
            choice["finish_reason"] = "abort"
        elif fault:
            choice |= fault
        return 200, {"choices": [choice]}

    def _choose(self, prompt: list[int], sampling: dict[str, Any]) -> dict[str, Any]:
        drawn = random.Random(f"{prompt} {sampling['seed']}")
        stops = sampling["stop_token_ids"]
        ids: list[int] = []
        while len(ids) < sampling["max_tokens"] and (not ids or ids[-1] not in stops):
            ids.append(drawn.randrange(12))
        ended = ids[-1] in stops
        return {
            "token_ids": ids,
            "finish_reason": "stop" if ended else "length",
            "logprobs": {"content": [{"token_id": token, "logprob": -drawn.random()} for token in ids]},
            "weight_versions": [{"version": self.weights, "start": 0, "end": len(ids)}],
        }


@contextmanager
def serve(fake: FakeVllm) -> Iterator[str]:
    """The address of a fake engine while the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            fake.keys.add(self.headers["Authorization"])
            try:
                status, content = fake.answer(urlsplit(self.path).path, body)
            except ConnectionAbortedError as fault:
                if str(fault) == "hang":
                    time.sleep(0.6)
                self.close_connection = True
                return
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None: ...  # a client that went away

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(folder: Any, addresses: list[str], lora_rank: int = 0, **settings: Any) -> VllmEngine:
    options = VllmSettings(endpoints=tuple(addresses), **{"timeout": 5.0, "in_flight": 8, **settings})
    return VllmEngine(folder, {2}, options, folder / "log", lora_rank=lora_rank)
