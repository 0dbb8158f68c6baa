from __future__ import annotations

import pytest

from agpo.problems.shop.catalogue import KEYS, TYPES, ProductType, relate, related_types

ALL = list(TYPES.values())


@pytest.mark.parametrize(
    ("wanted", "offered", "relation"),
    [
        ("sofa", "sofa", "same"),
        ("sofa", "recliner", "substitute"),
        ("sofa", "slipcover", "accessory"),
        ("slipcover", "sofa", "accessory"),
        ("slipcover", "throw-pillow", "unrelated"),
        ("sofa", "mug", "unrelated"),
    ],
)
def test_relations(wanted: str, offered: str, relation: str) -> None:
    assert relate(TYPES[wanted], TYPES[offered]) == relation


def test_relations_hold_both_ways() -> None:
    assert all(relate(one, other) == relate(other, one) for one in ALL for other in ALL)


@pytest.mark.parametrize("sold", ALL, ids=lambda sold: sold.name)
def test_every_type_has_something_related_and_something_unrelated(sold: ProductType) -> None:
    assert related_types(sold, "same") == (sold,)
    assert related_types(sold, "accessory")
    assert any(other.group != sold.group for other in related_types(sold, "unrelated"))


@pytest.mark.parametrize("sold", ALL, ids=lambda sold: sold.name)
def test_a_phrase_means_one_thing_within_a_type(sold: ProductType) -> None:
    assert set(sold.attributes) <= set(KEYS)
    phrases = [
        phrase
        for pool in sold.attributes.values()
        for value in pool.values()
        for phrase in (*value.forms, value.converted)
        if phrase
    ]
    assert len(set(phrases)) == len(phrases)
    assert all(len(pool) >= 2 for pool in sold.attributes.values())  # a near miss needs another value


def test_no_two_types_share_a_name() -> None:
    forms = [form for sold in ALL for form in sold.forms]
    assert len(set(forms)) == len(forms)


def test_what_comparisons_use_is_one_word() -> None:
    names = [name for sold in ALL for pool in sold.attributes.values() for name in pool] + list(TYPES)
    assert all(len(name.split()) == 1 for name in names)


def test_only_accessories_of_phones_fit_a_model() -> None:
    assert {sold.name for sold in ALL if sold.fits_a_model} == {"phone-case", "charger", "screen-protector"}
