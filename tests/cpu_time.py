"""CPU time of work that takes turns in this process, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def least_times(*calls: Callable[[], Any], repeats: int) -> list[float]:
    """CPU-seconds of each, the least of all repetitions, which other work on the machine disturbs least."""
    found = [float("inf")] * len(calls)
    for _ in range(repeats):
        for index, call in enumerate(calls):
            started = time.process_time()
            call()
            found[index] = min(found[index], time.process_time() - started)
    return found
