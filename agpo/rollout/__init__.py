"""Rollouts: chunks, exact sampling, and the engines that do it."""

from typing import TYPE_CHECKING, Any

from agpo.rollout.chunk import Chunk, cut_chunks
from agpo.rollout.engine import Engine, Sampling
from agpo.rollout.fingerprint import Fingerprint

if TYPE_CHECKING:
    from agpo.rollout.local_engine import LocalEngine
    from agpo.rollout.vllm_engine import VllmEngine

__all__ = ["Chunk", "Engine", "Fingerprint", "LocalEngine", "Sampling", "VllmEngine", "cut_chunks"]


def __getattr__(name: str) -> Any:
    """The engines are read where they are used: the local one loads torch, and settings need neither."""
    if name == "LocalEngine":
        from agpo.rollout.local_engine import LocalEngine

        return LocalEngine
    if name == "VllmEngine":
        from agpo.rollout.vllm_engine import VllmEngine

        return VllmEngine
    raise AttributeError(name)
