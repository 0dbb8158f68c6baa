"""The rules that grade an ad for a query, step by step, by the scheme ``esci4``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from agpo.problems.shop.catalogue import KEYS, ProductType, Relation, relate

Outcome = Literal["equal", "differs", "missing"]
Letter = Literal["E", "S", "C", "I"]


class Product(NamedTuple):
    """What a query asks for or what an ad's text shows: a type and the names of attribute values by key."""

    type: ProductType
    values: Mapping[str, str]


class Comparison(NamedTuple):
    key: str
    wanted: str
    offered: str | None  # None: the ad does not show it
    outcome: Outcome


class Judgement(NamedTuple):
    """The steps of a grading and the grade."""

    relation: Relation
    comparisons: tuple[Comparison, ...]
    label: Letter


def judge(wanted: Product, offered: Product) -> Judgement:
    """Compare the types, then what matters of the query's attributes, and grade the ad.

    Attributes matter for the same type; for an accessory only the phone model does, which it must fit; for other types
    none does.
    """
    relation = relate(wanted.type, offered.type)
    keys = [key for key in KEYS if key in wanted.values and (relation == "same" or key == "model")]
    compared = tuple(_compare(wanted, offered, key) for key in keys) if relation in ("same", "accessory") else ()
    return Judgement(relation, compared, grade(wanted.type, relation, compared))


def grade(wanted: ProductType, relation: Relation, comparisons: Iterable[Comparison]) -> Letter:
    """The grade that follows from the steps.

    Exact: the type and all that the query states. Substitute: another main type of the group, or the type with
    something else than stated. Complement: goes with what is wanted. Irrelevant: the rest, and what does not fit the
    phone model.
    """
    failed = {step.key: step.outcome for step in comparisons if step.outcome != "equal"}
    if relation == "unrelated":
        return "I"
    if relation == "substitute":
        return "S"
    if relation == "accessory":
        return "I" if failed.get("model") == "differs" else "C"
    if wanted.fits_a_model and "model" in failed:
        return "I"
    return "S" if failed else "E"


def _compare(wanted: Product, offered: Product, key: str) -> Comparison:
    asked, shown = wanted.values[key], offered.values.get(key)
    return Comparison(key, asked, shown, "missing" if shown is None else "equal" if shown == asked else "differs")


Case = Literal[
    "clean", "synonym", "unit", "typo", "unrelated",
    "near_miss", "brand", "unstated", "accessory", "sibling", "compatibility",
]  # fmt: skip
HARD: frozenset[Case] = frozenset({"near_miss", "brand", "unstated", "accessory", "sibling", "compatibility"})


def name_case(judgement: Judgement, wording: frozenset[str]) -> Case:
    """What makes a pair hard: how the ad fails the query, else how the two are worded (synonym, unit, typo)."""
    relation, comparisons, label = judgement
    failed = [step for step in comparisons if step.outcome != "equal"]
    if relation == "unrelated":
        return "unrelated"
    if label == "I":
        return "compatibility"
    if relation == "accessory":
        return "accessory"
    if relation == "substitute":
        return "sibling"
    if failed:
        if all(step.outcome == "missing" for step in failed):
            return "unstated"
        return "brand" if all(step.key == "brand" for step in failed) else "near_miss"
    worded: tuple[Case, ...] = ("typo", "unit", "synonym")
    return next((case for case in worded if case in wording), "clean")
