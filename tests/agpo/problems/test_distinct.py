from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.distinct import Distinct


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "ä", "", "aa"]), max_size=8), max_size=6))
def test_a_text_is_new_once(batches: list[list[str]]) -> None:
    distinct, met = Distinct(), set[str]()
    for batch in batches:
        wanted = []
        for text in batch:
            wanted.append(text not in met)
            met.add(text)
        assert distinct.are_new(batch).tolist() == wanted


def test_many_texts() -> None:
    distinct = Distinct()
    for start in range(0, 30_000, 1000):
        assert distinct.are_new([str(number) for number in range(start, start + 1000)]).all()
    assert not distinct.are_new([str(number) for number in range(30_000)]).any()
