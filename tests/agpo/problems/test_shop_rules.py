from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.problems.shop.catalogue import TYPES, relate
from agpo.problems.shop.rules import HARD, Product, judge, name_case


def product(name: str, **values: str) -> Product:
    return Product(TYPES[name], values)


@pytest.mark.parametrize(
    ("wanted", "offered", "label", "case"),
    [
        (product("mug"), product("mug", color="red"), "E", "clean"),
        (product("mug", color="red", size="12oz"), product("mug", color="red", size="12oz", brand="x"), "E", "clean"),
        (product("mug", color="red", size="12oz"), product("mug", color="red", size="32oz"), "S", "near_miss"),
        (product("mug", brand="aroma"), product("mug", brand="solano"), "S", "brand"),
        (product("mug", brand="aroma", color="red"), product("mug", brand="solano", color="blue"), "S", "near_miss"),
        (product("mug", brand="aroma"), product("mug"), "S", "unstated"),
        (product("mug", brand="aroma"), product("coffee-maker", brand="aroma"), "C", "accessory"),
        (product("mug", brand="aroma"), product("coffee-filter", brand="aroma"), "I", "unrelated"),
        (product("sofa", color="red"), product("recliner", color="blue"), "S", "sibling"),
        (product("sofa", color="red"), product("slipcover", color="red"), "C", "accessory"),
        (product("phone-case", model="nova-8"), product("phone-case", model="nova-9"), "I", "compatibility"),
        (product("phone-case", model="nova-8"), product("phone-case"), "I", "compatibility"),
        (product("phone-case", model="nova-8", color="red"), product("phone-case", model="nova-8"), "S", "unstated"),
        (product("phone", model="nova-8"), product("phone-case", model="nova-9"), "I", "compatibility"),
        (product("phone", model="nova-8"), product("phone-case", model="nova-8"), "C", "accessory"),
        (product("phone", model="nova-8"), product("phone-case"), "C", "accessory"),
        (product("phone", model="nova-8"), product("phone", model="nova-9"), "S", "near_miss"),
    ],
)
def test_labels_and_cases(wanted: Product, offered: Product, label: str, case: str) -> None:
    judgement = judge(wanted, offered)
    assert judgement.label == label
    assert name_case(judgement, frozenset()) == case


@pytest.mark.parametrize(
    ("wording", "case"),
    [({"synonym"}, "synonym"), ({"synonym", "unit"}, "unit"), ({"synonym", "unit", "typo"}, "typo"), (set(), "clean")],
)
def test_wording_names_the_case_of_an_exact_pair_only(wording: set[str], case: str) -> None:
    exact, missed = (judge(product("mug", color="red"), product("mug", color=color)) for color in ("red", "blue"))
    assert name_case(exact, frozenset(wording)) == case
    assert name_case(missed, frozenset(wording)) == "near_miss"
    assert case not in HARD


@st.composite
def products(draw: Any) -> Product:
    sold = TYPES[draw(st.sampled_from(sorted(TYPES)))]
    shown = [key for key in sold.attributes if draw(st.booleans())]
    values = {key: draw(st.sampled_from(sorted(sold.attributes[key]))) for key in shown}
    return Product(sold, values)


@given(products(), products())
def test_steps_are_what_the_products_say(wanted: Product, offered: Product) -> None:
    judgement = judge(wanted, offered)
    assert judgement.relation == relate(wanted.type, offered.type)
    for step in judgement.comparisons:
        assert step.wanted == wanted.values[step.key]
        assert step.offered == offered.values.get(step.key)
        assert (step.outcome == "equal") == (step.wanted == step.offered)
        assert (step.outcome == "missing") == (step.offered is None)
    if judgement.relation == "same":
        assert {step.key for step in judgement.comparisons} == set(wanted.values)


@given(products())
def test_a_product_is_exact_for_itself(wanted: Product) -> None:
    assert judge(wanted, wanted).label == "E"


@given(products(), products())
def test_exact_is_the_type_and_all_that_is_stated(wanted: Product, offered: Product) -> None:
    served = wanted.type is offered.type and wanted.values.items() <= offered.values.items()
    assert (judge(wanted, offered).label == "E") == served


@given(products(), products(), st.data())
def test_what_the_query_leaves_open_does_not_matter(wanted: Product, offered: Product, data: Any) -> None:
    kept = {key: value for key, value in offered.values.items() if key in wanted.values or data.draw(st.booleans())}
    assert judge(wanted, offered._replace(values=kept)) == judge(wanted, offered)
