from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.pair import Pair

LINES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=30)
PAIRS = st.builds(Pair, LINES, LINES, st.lists(LINES, max_size=3).map("\n".join))


def test_the_text_of_a_pair() -> None:
    assert Pair("red mug", "Mug, 12 oz").render() == "Query: red mug\nAd: Mug, 12 oz"
    assert Pair("mug", "Mug", "brand: aroma\ncolor: red").render() == "Query: mug\nAd: Mug\nbrand: aroma\ncolor: red"


@given(PAIRS)
def test_a_pair_is_read_back_from_its_text(pair: Pair) -> None:
    assert Pair.parse(pair.render()) == pair


@given(PAIRS, PAIRS)
def test_ids_tell_pairs_apart_and_queries_together(one: Pair, other: Pair) -> None:
    assert (one.id == other.id) == (one == other)
    assert one._replace(query=other.query).query_id == other.query_id


def test_case_and_spacing_do_not_make_another_query() -> None:
    assert Pair("Red  Mug", "a").query_id == Pair("red mug ", "b").query_id
    assert Pair("red mug", "a").query_id != Pair("redmug", "a").query_id
