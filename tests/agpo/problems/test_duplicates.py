from __future__ import annotations

import random
import sys

import pytest

from agpo.problems.duplicates import NearDuplicate, find_near_duplicates

NOUNS = ["apple", "bridge", "candle", "doctor", "engine", "forest", "garden", "harbour", "island", "jacket", "kettle"]
VERBS = ["buys", "sells", "finds", "loses", "carries", "paints", "counts", "repairs", "borrows", "returns"]


def write_text(number: int, length: int = 60) -> str:
    draw = random.Random(number)
    return " ".join(f"{draw.choice(NOUNS)} {draw.choice(VERBS)} {draw.randint(2, 99)}" for _ in range(length // 3))


def change_word(text: str, place: int) -> str:
    every = text.split()
    return " ".join([*every[:place], "changed", *every[place + 1 :]])


def test_unrelated_texts_are_no_duplicates() -> None:
    assert find_near_duplicates([write_text(number) for number in range(200)], 0, 0.9) == {}


def test_the_first_of_similar_texts_stays() -> None:
    texts = [write_text(0), write_text(1), change_word(write_text(0), 59), write_text(1).upper()]
    found = find_near_duplicates(texts, 0, 0.9)
    # One word at the end is in one of 56 runs of five: 55 runs of 57 in all are shared.
    assert found == {2: NearDuplicate(0, pytest.approx(55 / 57)), 3: NearDuplicate(1, 1.0)}


def test_a_change_beyond_the_threshold_is_another_text() -> None:
    texts = [write_text(0), change_word(write_text(0), 30)]  # in 5 runs of 56: 51 of 61 are shared
    assert find_near_duplicates(texts, 0, 0.9) == {}
    assert find_near_duplicates(texts, 0, 0.7) == {1: NearDuplicate(0, pytest.approx(51 / 61))}


def test_kept_texts_stay_and_later_ones_like_them_go() -> None:
    texts = [write_text(0), write_text(0), write_text(1), write_text(0)]
    assert find_near_duplicates(texts, 2, 0.9) == {3: NearDuplicate(0, 1.0)}


def test_a_text_that_went_is_not_what_others_repeat() -> None:
    chain = [write_text(0)]
    for place in (59, 58, 57, 56, 55, 54, 53, 52):
        chain.append(change_word(chain[-1], place))
    found = find_near_duplicates(chain, 0, 0.9)
    assert all(near.of not in found for near in found.values())
    assert found[1].of == 0
    assert 8 not in found or found[8].of > 0  # eight changed words at the end are too many
    assert 0 < len(found) < 8


def test_signs_and_short_texts() -> None:
    texts = ["What is 3 + 4?", "What is 3 - 4?", "what is 3+4?", "7?", "8?", "7 ?"]
    assert find_near_duplicates(texts, 0, 0.9) == {2: NearDuplicate(0, 1.0), 5: NearDuplicate(3, 1.0)}


def test_rows_of_one_template_are_different_problems() -> None:
    rules = write_text(7, 150)
    texts = [f"{rules}. Numbers {number}, {number * 7 % 1009}: reach {number * 31 % 997}." for number in range(300)]
    assert find_near_duplicates(texts, 0, 0.9) == {}
    assert find_near_duplicates([*texts, texts[5].upper()], 0, 0.9) == {300: NearDuplicate(5, 1.0)}


def test_without_datasketch_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ImportError, match=r"problems\.near_duplicates = 0\.9 needs the package datasketch"):
        find_near_duplicates(["a", "b"], 0, 0.9)
