"""What ``agpo doctor`` finds out about this machine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from agpo.rollout.vllm_client import KEY_VARIABLE, EngineError, VllmClient
from agpo.rollout.vllm_service import PYTHON_VARIABLE, find_python, read_build
from agpo.settings.vllm import VllmSettings
from tasks.location import TRACKING_VARIABLE, home

BASE = ("agpo", "torch", "transformers", "polars", "dataframely", "pydantic", "math-verify")
PIPELINE = ("prefect", "mlflow", "datasets")
LEAST_FREE = 2 * 2**30  # bytes: the demo's store, databases and figures take less
SERVER_TIMEOUT = 2.0  # seconds
ENGINE_TIMEOUT = 10.0  # seconds: an engine answers between two steps of what it generates


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    good: bool = True


def examine(endpoints: Sequence[str] = ()) -> Iterator[Finding]:
    """Versions, devices, disk, servers and engines, one finding each; ``good`` is False where something will not work.

    ``endpoints``: addresses of vLLM engines; ValueError names one that is none.
    """
    addresses = VllmSettings(endpoints=tuple(endpoints)).endpoints
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in BASE:
        yield _find_version(package, "not installed: pip install agpo")
    for package in PIPELINE:
        yield _find_version(package, "not installed: pip install 'agpo[pipeline]'")
    yield from _find_devices()
    yield _find_disk(home())
    yield _find_server("Prefect server", "PREFECT_API_URL")
    yield _find_server("MLflow server", TRACKING_VARIABLE)
    yield _find_vllm()
    for address in addresses:
        yield _find_engine(address)


def _find_version(package: str, missing: str) -> Finding:
    try:
        return Finding(package, version(package))
    except PackageNotFoundError:
        return Finding(package, missing, good=False)


def _find_devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return  # its version says so
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding(
        "CPU", f"{usable} of {os.cpu_count()} cores usable, {torch.get_num_threads()} torch threads by default"
    )
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch can use; the CPU profiles need none")


def _find_disk(folder: Path) -> Finding:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    return Finding("Home folder", f"{folder}, {free / 2**30:.0f} GiB free", good=free >= LEAST_FREE)


def _find_server(what: str, variable: str) -> Finding:
    address = os.environ.get(variable, "")
    if not address.startswith(("http://", "https://")):
        return Finding(what, f"{variable} is {address or 'not set'}: a run starts its own")
    try:
        with urlopen(f"{address.rstrip('/')}/health", timeout=SERVER_TIMEOUT) as answer:
            return Finding(what, f"{address} answers", good=answer.status == 200)
    except HTTPError as error:
        return Finding(what, f"{address} answers {error.code} {error.reason}", good=False)
    except OSError as error:
        return Finding(what, f"{address} does not answer: {error}", good=False)


def _find_vllm() -> Finding:
    """The vLLM that a run starts which asks for it; no run needs it otherwise."""
    try:
        python = find_python()
    except EngineError as error:
        return Finding("vLLM", f"{error}; optional", good=PYTHON_VARIABLE not in os.environ)
    try:
        return Finding("vLLM", f"{read_build(python)}, {python}")
    except (EngineError, OSError) as error:
        return Finding("vLLM", str(error), good=False)


def _find_engine(address: str) -> Finding:
    client = VllmClient(address, os.environ.get(KEY_VARIABLE, ""))
    try:
        info = client.describe(set(), ENGINE_TIMEOUT)
        weights = client.weights(ENGINE_TIMEOUT)
    except EngineError as error:
        return Finding(f"Engine {address}", " ".join(str(error).split()), good=False)
    return Finding(
        f"Engine {address}",
        f"vLLM {info.version} on {info.device}, {info.dtype}, {info.positions} positions, {info.vocabulary} token ids, "
        f"{f'adapters up to rank {info.lora_rank}' if info.lora_rank else 'no adapters'}, weights {weights[:12]}",
    )
