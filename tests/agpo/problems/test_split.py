from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.split import assign_splits

IDS = [f"row {number}" for number in range(2000)]


def splits(ids: list[str], selection: int = 40, confirmation: int = 60) -> dict[str, str | None]:
    return dict(zip(ids, assign_splits(ids, selection, confirmation), strict=True))


def test_sizes() -> None:
    found = list(splits(IDS).values())
    assert found.count("selection") == 40
    assert found.count("confirmation") == 60
    assert 1500 <= found.count("train") <= 1700
    assert found.count(None) == 2000 - found.count("train") - 100


@given(rows=st.integers(1000, 2000), order=st.randoms(use_true_random=False))
def test_a_row_never_moves_from_one_split_to_another(rows: int, order: object) -> None:
    kept = IDS[:rows]
    order.shuffle(kept)  # type: ignore[attr-defined]
    before, after = splits(kept), splits(IDS)
    for name in kept:
        assert before[name] == after[name] or None in (before[name], after[name])
        assert (before[name] == "train") == (after[name] == "train")


def test_a_split_without_rows_sets_nothing_aside() -> None:
    assert set(splits(IDS, 0, 0).values()) == {"train"}
    assert "selection" not in splits(IDS, 0, 10).values()
    assert sum(split == "train" for split in splits(IDS, 0, 10).values()) > 1700


def test_too_few_rows_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"problems.confirmation = 60 is more than the \d+ of 100 rows"):
        splits(IDS[:100])
