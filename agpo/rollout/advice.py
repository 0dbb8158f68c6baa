"""Advice on how a run samples. A run itself never changes its chunk: the chunk is part of what it makes."""

from __future__ import annotations

from collections.abc import Iterator

from agpo.rollout.memory import ChunkMemory, chunk_memory, model_size
from agpo.settings import NightlyRun, TrainRun

_PROMPT = 256  # tokens that a prompt is reckoned at; our choice
_SHARE = 0.5  # of the available memory that a chunk may take, the rest is for learner and reference; our choice
_SMALL = 32  # rows below which a CPU reads the weights for little work; our choice


def advise_rollouts(run: TrainRun, available: int) -> Iterator[str]:
    """A sentence each on what could be better about sampling on a CPU with ``available`` bytes of memory.

    Nothing where another engine samples, or the model's size is not known.
    """
    size = model_size(run.base)
    if size is None or run.rollout.engine.kind != "local":
        return
    usable = int(available * _SHARE)
    for name, chunk, samples, rows in _chunks(run):
        memory = chunk_memory(size, samples, _PROMPT, run.rollout.tokens)
        fitting = memory.largest_chunk(usable)
        if min(chunk, rows) > fitting:
            yield _too_large(name, chunk, memory, min(chunk, rows), fitting, usable)
        elif chunk < min(_SMALL, rows) <= fitting:
            better = min(rows, fitting, 8 * _SMALL)
            yield f"{name} = {chunk} reads all weights for a few rows; {better} fits in memory and samples faster"


def _chunks(run: TrainRun) -> Iterator[tuple[str, int, int, int]]:
    """Name of each setting, its chunk, the samples of a problem and how many rows there are at least."""
    rollout = run.rollout
    yield "rollout.chunk", rollout.chunk, rollout.samples, rollout.problems * rollout.samples
    if isinstance(run, NightlyRun):
        yield "evaluate.chunk", run.evaluate.chunk, run.evaluate.samples, run.evaluate.chunk


def _too_large(name: str, chunk: int, memory: ChunkMemory, rows: int, fitting: int, usable: int) -> str:
    needed = f"{name} = {chunk} may need {memory.bytes(rows) / 2**30:,.1f} GiB of the {usable / 2**30:,.1f} GiB"
    remedy = f"{fitting} fits" if fitting else "not even one row fits"
    return f"{needed} that are free for sampling; {remedy} (prompts reckoned at {_PROMPT} tokens)"
