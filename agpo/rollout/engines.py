"""An engine for a policy in a folder, as the settings choose it."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agpo.artifacts import Files
from agpo.rollout.engine import Engine
from agpo.rollout.vllm_client import EngineError
from agpo.rollout.vllm_engine import VllmEngine
from agpo.settings.engine import SamplingEngine
from agpo.settings.vllm import VllmSettings

_idle: list[VllmEngine] = []  # asleep, for the next policy: a start takes many times as long as new weights
_logs = Path(tempfile.gettempdir())


@contextmanager
def open_engine(settings: SamplingEngine, policy: Path, device: str) -> Iterator[tuple[Engine, Any]]:
    """The engine that samples the policy in a Hugging Face folder, and the policy's tokenizer.

    ``device`` is the embedded engine's.
    """
    if isinstance(settings, VllmSettings):
        from transformers import AutoTokenizer

        from agpo.learner.policy import read_stop_ids

        tokenizer = AutoTokenizer.from_pretrained(policy, local_files_only=True)
        engine = take_vllm(policy, read_stop_ids(policy, tokenizer), settings, _shared_log())
        try:
            yield engine, tokenizer
        except BaseException:
            engine.close()
            raise
        leave_vllm(engine)
        return
    from agpo.learner.policy import load_policy, stop_ids
    from agpo.rollout.local_engine import LocalEngine

    model, tokenizer = load_policy(policy, device)
    yield LocalEngine(model, stop_ids(model, tokenizer)), tokenizer


def take_vllm(policy: Path, stops: set[int], settings: VllmSettings, log: Path, *, lora_rank: int = 0) -> VllmEngine:
    """An engine with the policy in a folder: one that was left and fits, else a new one. ``log`` is a new one's.

    ``lora_rank``: of the largest adapter that the policy will get; 0: none.
    """
    while _idle:
        engine = _idle.pop()
        if engine.settings == settings and engine.lora_rank >= lora_rank:
            try:
                engine.wake()
                engine.load_policy(policy)
                engine.stops = stops
                return engine
            except (ValueError, EngineError):  # another model, or it has ended
                pass
            except BaseException:
                engine.close()
                raise
        engine.close()
    return VllmEngine(policy, stops, settings, log, lora_rank=lora_rank)


def leave_vllm(engine: VllmEngine) -> None:
    """Keep an engine for who takes one next; it ends with this process at the latest."""
    try:
        engine.sleep()
    except EngineError:
        engine.close()
    else:
        _idle.append(engine)


@atexit.register
def close_idle() -> None:
    """End the engines that were left."""
    while _idle:
        _idle.pop().close()


def log_file(files: Files) -> Path:
    """Where the output of a training run's engine goes: beside its journal, if that is on this machine."""
    return files.local_path("vllm.log") if files.local else _shared_log()


def write_logs_to(folder: Path) -> None:
    """Where the output of all other engines goes that this process starts; else the folder for temporary files."""
    global _logs
    _logs = folder


def _shared_log() -> Path:
    """An engine outlives the stage that started it, whose folder is removed when it is published."""
    return _logs / f"agpo-vllm-{os.getpid()}.log"
