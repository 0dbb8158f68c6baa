from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.split import assign_splits

IDS = [f"row {number}" for number in range(1000)]


def splits(ids: list[str], selection: int = 20, confirmation: int = 30) -> dict[str, str | None]:
    return dict(zip(ids, assign_splits(ids, selection, confirmation), strict=True))


def test_sizes() -> None:
    found = list(splits(IDS).values())
    assert found.count("selection") == 20
    assert found.count("confirmation") == 30
    assert 750 <= found.count("train") <= 850


@given(rows=st.integers(500, 1000), order=st.integers(0, 100))
def test_a_row_never_moves_from_one_split_to_another(rows: int, order: int) -> None:
    kept = Random(order).sample(IDS, rows)
    before, after = splits(kept), splits(IDS)
    for name in kept:
        assert before[name] == after[name] or None in (before[name], after[name])
        assert (before[name] == "train") == (after[name] == "train")


def test_a_split_without_rows_sets_nothing_aside() -> None:
    assert set(splits(IDS, 0, 0).values()) == {"train"}
    only_confirmation = list(splits(IDS, 0, 30).values())
    assert "selection" not in only_confirmation
    assert 850 <= only_confirmation.count("train") <= 950


def test_too_few_rows_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"problems.confirmation = 30 is more than the \d+ of 100 rows"):
        splits(IDS[:100])
