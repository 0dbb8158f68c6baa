"""Random queries and the ads shown for them: exact ones, near misses, siblings, accessories and unrelated products.

How an ad was made never decides its label: the rules grade what its text shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Literal, NamedTuple

from agpo.problems.pair import Pair
from agpo.problems.shop.catalogue import TYPES, ProductType, related_types
from agpo.problems.shop.chance import happens, pick, pick_weighted, shuffle
from agpo.problems.shop.rules import Case, Judgement, Product, judge, name_case
from agpo.problems.shop.wording import Query, write_ad, write_query

Kind = Literal["exact", "near", "sibling", "accessory", "other", "same_group", "other_model"]

PATIENCE = 1000  # draws in a row of queries that are taken, after which there are taken to be no others

_ADS_A_QUERY = (3, 4, 5, 6, 7)
_STATED = {0: 0.06, 1: 0.30, 2: 0.36, 3: 0.22, 4: 0.06}  # attributes that a query states
_MOST_STATED = max(_STATED)
_KINDS: dict[Kind, float] = {
    "exact": 0.46,
    "near": 0.22,
    "sibling": 0.10,
    "accessory": 0.115,
    "other": 0.11,
    "same_group": 0.045,
    "other_model": 0.05,
}
_SHOWN = 0.7  # of the attributes that a query leaves open


class Draw(NamedTuple):
    """A query–ad pair with what its writer meant and the rules' judgement."""

    wanted: Product
    offered: Product  # what the text shows
    pair: Pair
    judgement: Judgement
    case: Case
    named: bool  # the title names the product that an accessory goes with


def draw_queries(random: Random, taken: set[str]) -> Iterator[list[Draw]]:
    """Queries with their ads, as long as there are any; what a query asks for and its text join ``taken``."""
    misses = 0
    while misses <= PATIENCE:
        wanted = draw_wanted(random)
        query = write_query(random, wanted)
        if not taken.isdisjoint(names := query_names(wanted, query)):
            misses += 1
            continue
        misses = 0
        taken |= names
        ads = {draw.pair: draw for draw in (draw_ad(random, wanted, query) for _ in range(pick(random, _ADS_A_QUERY)))}
        yield list(ads.values())


def query_names(wanted: Product, query: Query) -> set[str]:
    """What tells two queries apart: what they ask for, and how they are written."""
    values = " ".join(f"{key}={value}" for key, value in sorted(wanted.values.items()))
    return {f"{wanted.type.name} {values}", query.text}


def draw_wanted(random: Random) -> Product:
    """A type and up to four attribute values; who wants something for a phone mostly names its model."""
    sold = pick(random, list(TYPES.values()))
    stated = shuffle(random, sold.attributes)[: pick_weighted(random, _STATED)]
    if sold.fits_a_model and "model" not in stated and happens(random, 0.8):
        stated = ["model", *stated][:_MOST_STATED]
    return Product(sold, {key: pick(random, list(sold.attributes[key])) for key in stated})


def draw_ad(random: Random, wanted: Product, query: Query) -> Draw:
    kind = _draw_kind(random, wanted)
    sold = _draw_type(random, wanted, kind)
    values = {key: _draw_value(random, wanted, sold, key, kind) for key in sold.attributes}
    shown = {key for key in values if key in wanted.values or happens(random, _SHOWN)}
    if kind == "near":
        wrong = 1 if happens(random, 0.8) else 2
        for key in shuffle(random, wanted.values)[:wrong]:
            if happens(random, 0.15):
                shown.discard(key)
            else:
                values[key] = pick(random, [value for value in sold.attributes[key] if value != wanted.values[key]])
    if kind == "other_model":
        models = sold.attributes["model"]
        values["model"] = pick(random, [model for model in models if model != wanted.values["model"]])
    goes_with = gift = ""
    if kind == "accessory" and sold.accessory and not sold.fits_a_model and happens(random, 0.65):
        goes_with = pick(random, wanted.type.forms[:2])
    if kind in ("exact", "sibling", "other") and happens(random, 0.08):
        gift = _draw_gift(random, wanted.type if kind == "other" else sold, kind)
    offered = Product(sold, {key: value for key, value in values.items() if key in shown})
    ad = write_ad(random, offered, goes_with, gift)
    judgement = judge(wanted, offered)
    case = name_case(judgement, query.wording | ad.wording)
    return Draw(wanted, offered, Pair(query.text, ad.title, ad.attributes), judgement, case, bool(goes_with))


def _draw_kind(random: Random, wanted: Product) -> Kind:
    """A kind that this query can have."""
    kind = pick_weighted(random, _KINDS)
    if kind == "other_model" and "model" not in wanted.values:
        kind = "near"
    if kind == "near" and not wanted.values:
        kind = "sibling"
    if kind == "sibling" and not related_types(wanted.type, "substitute"):
        kind = "near" if wanted.values else "exact"
    return kind


def _draw_type(random: Random, wanted: Product, kind: Kind) -> ProductType:
    sold = wanted.type
    unrelated = related_types(sold, "unrelated")
    if kind == "sibling":
        return pick(random, related_types(sold, "substitute"))
    if kind == "accessory":
        return pick(random, related_types(sold, "accessory"))
    if kind == "other":
        return pick(random, [other for other in unrelated if other.group != sold.group])
    if kind == "same_group":
        return pick(random, [other for other in unrelated if other.group == sold.group] or unrelated)
    if kind == "other_model" and not sold.accessory and happens(random, 0.4):
        return pick(random, related_types(sold, "accessory"))
    return sold


def _draw_value(random: Random, wanted: Product, sold: ProductType, key: str, kind: Kind) -> str:
    """What the query states where it can be had, so that an unrelated product tempts too; else any value."""
    stated = wanted.values.get(key, "")
    if stated in sold.attributes[key] and not (kind == "other" and happens(random, 0.4)):
        return stated
    return pick(random, list(sold.attributes[key]))


def _draw_gift(random: Random, sold: ProductType, kind: Kind) -> str:
    """An accessory of the product; with an unrelated one, just what the query asks for."""
    if kind == "other":
        return sold.forms[0]
    accessories = [] if sold.accessory else related_types(sold, "accessory")
    return pick(random, accessories).forms[0] if accessories else ""
