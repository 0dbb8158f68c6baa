from __future__ import annotations

from pathlib import Path
from random import Random
from statistics import mean, median

import pytest

from agpo.problems.shop.catalogue import TYPES
from agpo.problems.shop.draws import draw_wanted
from agpo.problems.shop.rules import Product
from agpo.problems.shop.wording import surface_words, typos, write_ad, write_query

SNEAKER = Product(TYPES["running-shoe"], {"brand": "norvik", "color": "black", "size": "us9", "audience": "men"})


def queries(count: int) -> list[str]:
    random = Random("test")
    return [write_query(random, draw_wanted(random)).text for _ in range(count)]


def test_one_meaning_is_worded_in_many_ways() -> None:
    random = Random("test")
    written = [write_query(random, SNEAKER) for _ in range(300)]
    assert len({query.text for query in written}) > 200
    words = set(" ".join(query.text for query in written).split())
    assert {"sneakers", "trainers", "blk", "black", "9", "eu", "42", "mens", "cheap"} <= words


def test_wording_names_what_was_done() -> None:
    random = Random("test")
    written = [write_query(random, Product(TYPES["mug"], {"size": "12oz", "color": "gray"})) for _ in range(500)]
    for query in written:
        assert ("unit" in query.wording) == ("355 ml" in query.text or "ml 355" in query.text)
        mistyped = set(query.text.split()) & set(typos().values())
        assert ("typo" in query.wording) == bool(mistyped)
        assert len(mistyped) <= 1
    shares = {how: sum(how in query.wording for query in written) / 500 for how in ("unit", "typo", "synonym")}
    assert shares["unit"] == pytest.approx(0.15, abs=0.05)
    assert shares["synonym"] > 0.3
    assert shares["typo"] > 0.02


def test_typos_are_one_edit_away_and_no_words() -> None:
    mistyped = typos()
    assert len(mistyped) > 80
    assert len(set(mistyped.values())) == len(mistyped)
    assert not set(mistyped) & set(mistyped.values())
    for word, typo in mistyped.items():
        assert typo != word
        assert typo[0] == word[0]
        assert abs(len(typo) - len(word)) <= 1
        assert sorted(typo) == sorted(word) or len(typo) != len(word)


def test_an_ad_shows_all_its_values_in_title_or_list() -> None:
    random = Random("test")
    listed = 0
    for _ in range(300):
        ad = write_ad(random, SNEAKER)
        shown = f"{ad.title} {ad.attributes}"
        assert "norvik" in ad.title
        assert "black" in shown or "blk" in shown
        assert sum(f" {size}" in f" {shown}" for size in ("9", "size 9", "us 9", "eu 42")) >= 1
        for line in ad.attributes.splitlines():
            key, text = line.split(": ")
            assert key in SNEAKER.values
            assert text
            listed += 1
    assert listed / 900 == pytest.approx(0.2, abs=0.05)


def test_titles_say_what_an_accessory_is_for_and_what_comes_with_a_product() -> None:
    random = Random("test")
    insole = Product(TYPES["insole"], {})
    assert "for sneakers" in write_ad(random, insole, goes_with="sneakers").title
    assert "with free shoe laces" in write_ad(random, SNEAKER, gift="shoe laces").title


def test_every_word_is_known() -> None:
    assert set(" ".join(queries(3000)).split()) <= set(surface_words())


def test_queries_are_as_long_as_real_ones(shared_data: Path) -> None:
    lines = (shared_data / "wands/query.csv").read_text(encoding="utf-8").splitlines()
    real = [len(line.split("\t")[1].split()) for line in lines[1:]]
    ours = [len(query.split()) for query in queries(2000)]
    assert abs(median(ours) - median(real)) <= 1
    assert abs(mean(ours) - mean(real)) <= 1
