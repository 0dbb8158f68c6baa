"""The vLLM service as rollout engine."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agpo.settings.common import Settings


class VllmSettings(Settings):
    """Engines that answer over HTTP: one of our own on this machine, or running ones elsewhere."""

    kind: Literal["vllm"] = "vllm"
    endpoints: tuple[str, ...] = Field(
        (), title="Endpoints", description="addresses of running engines, http://HOST:PORT; none: start one here"
    )
    weights: str = Field(
        "",
        title="Weights folder",
        description="where new weights are handed over; every engine must read it. Empty: this machine's shared memory",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", title="Number type", description="that the engines compute in"
    )
    threads: int = Field(1, ge=1, title="CPU threads", description="of an engine that is started here")
    cache: int = Field(
        256,
        ge=0,
        title="Cache",
        description="MiB of keys and values of an engine that is started here; 0: vLLM decides",
    )
    in_flight: int = Field(256, ge=1, title="Requests in flight", description="to one engine")
    timeout: float = Field(600.0, gt=0, title="Deadline of a request", description="seconds")
    attempts: int = Field(3, ge=1, title="Attempts", description="of a request before the chunk fails")

    @field_validator("endpoints")
    @classmethod
    def _are_addresses(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
                raise ValueError(f"{endpoint!r} is no endpoint; accepted: http://HOST:PORT")
        return tuple(endpoint.rstrip("/") for endpoint in endpoints)
