"""Rollouts: chunks, exact sampling, and the engines that do it."""

from typing import TYPE_CHECKING, Any

from agpo.rollout.chunk import Chunk, cut_chunks

if TYPE_CHECKING:
    from agpo.rollout.engine import LocalEngine, Sampling

__all__ = ["Chunk", "LocalEngine", "Sampling", "cut_chunks"]


def __getattr__(name: str) -> Any:
    """The engines load torch; the chunk does not need it."""
    if name in ("LocalEngine", "Sampling"):
        from agpo.rollout import engine

        return getattr(engine, name)
    raise AttributeError(name)
