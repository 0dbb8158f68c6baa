"""How queries and ads are written: synonyms, other units, typos, word order, and words that mean nothing."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import NamedTuple

from agpo.problems.shop.catalogue import KEYS, TYPES, ProductType, Value, value_forms
from agpo.problems.shop.chance import happens, pick, pick_weighted, shuffle
from agpo.problems.shop.rules import Product

_SYNONYM_OF_TYPE, _SYNONYM_OF_VALUE = 0.4, 0.35
_CONVERTED_IN_QUERY, _CONVERTED_IN_AD = 0.15, 0.25
_TYPO = 0.15
_SHORTEST_TYPO = 5  # letters of a word that may be mistyped
_LISTED = 0.2  # of an ad's attributes stand in its attribute list instead of the title
_LONGEST_TITLE = 15  # words at which no more filler is added

_QUERY_FILLERS = ("best", "cheap", "buy", "new", "sale")
_AD_FILLERS = (
    "free shipping", "best seller", "gift box", "premium", "2026 upgraded", "durable", "limited offer", "modern",
    "lightweight", "top rated", "2 pack", "for home", "clearance",
)  # fmt: skip


class Query(NamedTuple):
    text: str
    wording: frozenset[str]  # of synonym, unit, typo


class Ad(NamedTuple):
    title: str
    attributes: str  # lines "key: value"
    wording: frozenset[str]


def write_query(random: Random, wanted: Product) -> Query:
    """A few words in lower case, mostly in the usual order, sometimes with one typo."""
    name, wording = _write_type(random, wanted.type)
    before: list[str] = []
    after: list[str] = []
    for key, value in wanted.values.items():
        text, how = _write_value(random, wanted.type.attributes[key][value], _CONVERTED_IN_QUERY)
        wording |= how
        if key == "model" and happens(random, 0.4):
            text = f"for {text}"
        leads = key in ("brand", "color", "material") or (key == "audience" and not text.startswith("for"))
        (before if leads else after).append(text)
    parts = [*shuffle(random, before), name, *shuffle(random, after)]
    if happens(random, 0.35):
        parts = shuffle(random, parts)
    if happens(random, 0.12):
        parts.insert(0, pick(random, _QUERY_FILLERS))
    words = " ".join(parts).split()
    places = [place for place, word in enumerate(words) if word in typos()]
    if places and happens(random, _TYPO):
        place = pick(random, places)
        words[place] = typos()[words[place]]
        wording |= {"typo"}
    return Query(" ".join(words), frozenset(wording))


def write_ad(random: Random, offered: Product, goes_with: str = "", gift: str = "") -> Ad:
    """A title of the type, attributes and fillers in some order, and a list of the attributes that it leaves out.

    ``goes_with`` names the product that an accessory is for, ``gift`` something that comes with the product.
    """
    name, wording = _write_type(random, offered.type)
    before: list[str] = []
    after: list[str] = []
    listed: list[str] = []
    brand = ""
    for key in shuffle(random, offered.values):
        text, how = _write_value(random, offered.type.attributes[key][offered.values[key]], _CONVERTED_IN_AD)
        wording |= how
        if key != "brand" and happens(random, _LISTED):
            listed.append(f"{key}: {text}")
        elif key == "brand" and happens(random, 0.75):
            brand = text
        else:
            text = f"for {text}" if key == "model" and offered.type.fits_a_model else text
            (before if happens(random, 0.5) else after).append(text)
    parts = [brand, *before, name, f"for {goes_with}" if goes_with else "", *after]
    parts.append(f"with free {gift}" if gift else "")
    words = " ".join(parts).split()
    fillers = shuffle(random, _AD_FILLERS)[: pick_weighted(random, {0: 0.25, 1: 0.45, 2: 0.3})]
    for filler in fillers:
        if len(words) < _LONGEST_TITLE:
            words = [*words, *filler.split()] if happens(random, 0.7) else [*filler.split(), *words]
    return Ad(" ".join(words), "\n".join(listed), frozenset(wording))


def _write_type(random: Random, sold: ProductType) -> tuple[str, set[str]]:
    if happens(random, _SYNONYM_OF_TYPE):
        name = pick(random, sold.forms)
        return name, {"synonym"} if name != sold.forms[0] else set()
    return sold.forms[0], set()


def _write_value(random: Random, value: Value, converted: float) -> tuple[str, set[str]]:
    if value.converted and happens(random, converted):
        return value.converted, {"unit"}
    if len(value.forms) > 1 and happens(random, _SYNONYM_OF_VALUE):
        return pick(random, value.forms[1:]), {"synonym"}
    return value.forms[0], set()


@cache
def typos() -> dict[str, str]:
    """The one way in which each longer word is mistyped: letters swapped, left out or doubled."""
    random = Random("shop/typos")
    words = sorted(_real_words())
    mistyped = {word: _mistype(random, word) for word in words if len(word) >= _SHORTEST_TYPO and word.isalpha()}
    return {word: typo for word, typo in mistyped.items() if typo not in words}


def _mistype(random: Random, word: str) -> str:
    place = 1 + int(random.random() * (len(word) - 2))
    kind = pick(random, ("swapped", "left out", "doubled"))
    if kind == "swapped" and word[place] != word[place + 1]:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + word[place + 1 :] if kind == "left out" else word[: place + 1] + word[place:]


def _real_words() -> set[str]:
    forms = [form for sold in TYPES.values() for form in sold.forms]
    forms += [form for value in value_forms() for form in (*value.forms, value.converted)]
    return set(" ".join(forms).split())


def surface_words() -> list[str]:
    """Every word of queries and ads, sorted."""
    words = _real_words() | set(typos().values()) | set(" ".join((*_QUERY_FILLERS, *_AD_FILLERS)).split())
    return sorted(words | {"for", "with", "free", *(f"{key}:" for key in KEYS)})
