from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from agpo.rollout import Chunk, cut_chunks


def test_chunks_follow_the_order_of_problems_and_samples() -> None:
    assert cut_chunks(["b", "a"], samples=3, size=4) == [
        Chunk(0, ("b", "b", "b", "a"), (0, 1, 2, 0)),
        Chunk(1, ("a", "a"), (1, 2)),
    ]


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 80))
def test_every_sample_is_in_one_chunk(problems: int, samples: int, size: int) -> None:
    names = [f"p{index}" for index in range(problems)]
    chunks = cut_chunks(names, samples, size)
    pairs = [pair for chunk in chunks for pair in zip(chunk.problem_ids, chunk.samples, strict=True)]
    assert pairs == [(name, sample) for name in names for sample in range(samples)]
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(len(chunk) == size for chunk in chunks[:-1]) and 1 <= len(chunks[-1]) <= size


def test_cutting_chunks_does_not_load_torch() -> None:
    code = "import sys; from agpo.rollout import cut_chunks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
