"""The chunk: a fixed list of (problem, sample), the unit of generation, durability, retry and distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """Never regenerated in part: the rounding of a sample's log-probs depends on what it was computed with."""

    index: int
    problem_ids: tuple[str, ...]  # one entry a sample
    samples: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.samples)


def cut_chunks(problem_ids: Sequence[str], samples: int, size: int) -> list[Chunk]:
    """All samples of all problems in order, in chunks of ``size``."""
    pairs = [(problem, sample) for problem in problem_ids for sample in range(samples)]
    return [
        Chunk(index, *map(tuple, zip(*pairs[start : start + size], strict=True)))
        for index, start in enumerate(range(0, len(pairs), size))
    ]
