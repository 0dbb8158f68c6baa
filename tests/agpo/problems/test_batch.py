from __future__ import annotations

import time

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agpo.problems import select_problems


def select(rows: int, step: int, count: int, seed: int) -> list[int]:
    return select_problems(pl.DataFrame({"id": range(rows)}), step, count, seed)["id"].to_list()


@given(rows=st.integers(1, 60), count=st.integers(1, 60), seed=st.integers(0, 5), first=st.integers(0, 40))
def test_steps_walk_through_epochs_without_a_repeat(rows: int, count: int, seed: int, first: int) -> None:
    assume(count <= rows)
    epochs = range(first, first + 4)
    steps = range(epochs[0] * rows // count, epochs[-1] * rows // count + 1)
    drawn: list[int] = []
    for step in steps:
        batch = select(rows, step, count, seed)
        assert len(batch) == len(set(batch)) == count
        drawn += batch
    for epoch in epochs[:-1]:
        start = epoch * rows - steps[0] * count
        assert sorted(drawn[start : start + rows]) == list(range(rows))


def test_epochs_and_seeds_differ() -> None:
    first, second = ([row for step in range(4) for row in select(40, step + 4 * epoch, 10, 0)] for epoch in (0, 1))
    assert first != second
    assert select(40, 0, 10, 0) != select(40, 0, 10, 1)


def test_the_order_is_the_same_in_every_version() -> None:
    assert select(10, 7, 4, 0) == [7, 9, 8, 1]
    assert select(10, 0, 4, 1) == [9, 5, 4, 7]


def test_every_row_is_as_likely_at_every_place() -> None:
    firsts = [select(8, 0, 1, seed)[0] for seed in range(2000)]
    counts = [firsts.count(row) for row in range(8)]
    assert all(190 <= count <= 310 for count in counts)  # 250 expected, standard deviation 15


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rollout.problems = 5 is more than the 4 training problems"):
        select(4, 0, 5, 0)


def test_a_late_step_of_many_problems_is_cheap() -> None:
    problems = pl.DataFrame({"id": range(1_000_000)})
    started = time.process_time()
    assert select_problems(problems, 100_000, 16, 0).height == 16
    assert time.process_time() - started < 2.0  # some 0.05 s
