"""What the shop sells: groups of product types, their attributes, the values these take, and how people write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

Relation = Literal["same", "substitute", "accessory", "unrelated"]

KEYS = ("brand", "color", "size", "material", "audience", "model", "storage")  # in the order of a comparison


class Value(NamedTuple):
    name: str  # one word, which comparisons use
    forms: tuple[str, ...]  # as people write it, the usual form first
    converted: str = ""  # the same in another unit


@dataclass(frozen=True, eq=False, slots=True)
class ProductType:
    name: str  # one word, which comparisons use
    forms: tuple[str, ...]  # as people write it, the usual form first
    group: str
    accessory: bool  # goes with the group's main types; these replace each other
    attributes: Mapping[str, Mapping[str, Value]]  # by key: the values that it takes, by name

    @property
    def fits_a_model(self) -> bool:
        """Whether it is of use with one phone model only."""
        return self.accessory and "model" in self.attributes


def _values(**forms: str) -> dict[str, Value]:
    return {name: Value(name, tuple(text.split(", "))) for name, text in forms.items()}


def _sizes(sizes: Mapping[str, tuple[str, str]]) -> dict[str, Value]:
    return {name: Value(name, tuple(forms.split(", ")), converted) for name, (forms, converted) in sizes.items()}


_BRANDS = (
    "norvik", "halden", "zumo", "trailix", "brisko", "vanta",
    "corelle", "lumio", "aroma", "kestrel", "pinecrest", "solano",
)  # fmt: skip
_BRANDS_PER_GROUP = 5  # groups share brands

_POOLS: dict[str, dict[str, Value]] = {
    "color": _values(
        black="black, blk",
        white="white, wht",
        gray="gray, grey",
        blue="blue, navy",
        red="red, crimson",
        green="green, olive",
        brown="brown, chocolate",
        beige="beige, cream",
        pink="pink, rose",
        silver="silver, chrome",
    ),
    "audience": _values(men="mens, for men", women="womens, for women, ladies", kids="kids, for kids, childrens"),
    "size/shoe": _sizes({f"us{n}": (f"size {n}, {n}, us {n}", f"eu {n + 33}") for n in range(6, 12)}),
    "size/screen": _sizes(
        {
            f"{inches}in": (f"{inches} inch, {inches} in, {inches}", f"{centimetres} cm")
            for inches, centimetres in ((11, 28), (13, 33), (14, 36), (15, 38), (17, 43))
        }
    ),
    "size/bed": _sizes(
        {
            name: (f"{name}, {name} size", converted)
            for name, converted in (("twin", "38x75"), ("full", "54x75"), ("queen", "60x80"), ("king", "76x80"))
        }
    ),
    "size/rug": _sizes(
        {
            f"{feet}ft": (f"{feet}, {feet} ft", f"{centimetres} cm")
            for feet, centimetres in (("2x3", "60x90"), ("3x5", "90x150"), ("5x7", "150x210"), ("8x10", "240x300"))
        }
    ),
    "size/drink": _sizes(
        {
            f"{ounces}oz": (f"{ounces} oz, {ounces}oz, {ounces} ounce", f"{millilitres} ml")
            for ounces, millilitres in ((12, 355), (16, 473), (20, 591), (24, 710), (32, 946), (40, 1180))
        }
    ),
    "storage": _sizes(
        {
            "64gb": ("64gb, 64 gb", ""),
            "128gb": ("128gb, 128 gb", ""),
            "256gb": ("256gb, 256 gb", ""),
            "1tb": ("1tb, 1 tb", "1000 gb"),
        }
    ),
    "model": {
        name.replace(" ", "-"): Value(name.replace(" ", "-"), (name,))
        for name in ("nova 8", "nova 9", "nova 10", "pixo 5", "pixo 6", "pixo 7")
    },
    "material/shoe": _values(leather="leather", suede="suede", mesh="mesh, knit", canvas="canvas"),
    "material/soft": _values(silicone="silicone, rubber", foam="foam"),
    "material/cover": _values(leather="leather", velvet="velvet, plush", linen="linen", cotton="cotton"),
    "material/hard": _values(
        oak="oak, oak wood", walnut="walnut", glass="glass", metal="metal, iron", marble="marble, stone"
    ),
    "material/rug": _values(wool="wool", jute="jute, sisal", cotton="cotton"),
    "material/drink": _values(steel="steel, stainless steel", glass="glass", plastic="plastic, tritan"),
}

# group: main types, their attributes, accessories, their attributes
_GROUPS: dict[str, tuple[dict[str, str], str, dict[str, str], str]] = {
    "footwear": (
        {
            "running-shoe": "running shoes, sneakers, trainers",
            "hiking-boot": "hiking boots, trekking boots",
            "sandal": "sandals, flip flops",
        },
        "brand color size/shoe audience material/shoe",
        {"insole": "insoles, shoe inserts", "shoelace": "shoe laces, laces"},
        "brand color size/shoe",
    ),
    "phones": (
        {"phone": "phone, smartphone, cell phone"},
        "model color storage",
        {
            "phone-case": "phone case, case, phone cover",
            "charger": "charger, charging cable",
            "screen-protector": "screen protector, screen guard",
        },
        "brand color model",
    ),
    "computing": (
        {"laptop": "laptop, notebook computer", "tablet": "tablet, pad computer"},
        "brand color size/screen storage",
        {"laptop-sleeve": "laptop sleeve, laptop bag", "laptop-stand": "laptop stand, laptop riser"},
        "brand color size/screen",
    ),
    "audio": (
        {"headphones": "headphones, over ear headphones, headset", "earbuds": "earbuds, in ear buds"},
        "brand color",
        {"ear-tips": "ear tips, replacement tips"},
        "brand color material/soft",
    ),
    "sofas": (
        {"sofa": "sofa, couch", "recliner": "recliner, reclining chair"},
        "brand color material/cover",
        {"slipcover": "slipcover, furniture cover", "throw-pillow": "throw pillow, accent pillow"},
        "brand color material/cover",
    ),
    "beds": (
        {"bed-frame": "bed frame, bedstead"},
        "brand color size/bed material/hard",
        {"mattress": "mattress, bed mattress", "sheet-set": "sheet set, bed sheets"},
        "brand size/bed color",
    ),
    "tables": (
        {"coffee-table": "coffee table, cocktail table", "end-table": "end table, side table"},
        "brand color material/hard",
        {"coaster": "coasters, drink coasters"},
        "color material/hard",
    ),
    "lighting": (
        {"floor-lamp": "floor lamp, standing lamp", "table-lamp": "table lamp, desk lamp"},
        "brand color material/hard",
        {"light-bulb": "light bulb, led bulb", "lampshade": "lamp shade, lampshade"},
        "brand color",
    ),
    "rugs": (
        {"area-rug": "area rug, carpet", "doormat": "doormat, welcome mat"},
        "brand color size/rug material/rug",
        {"rug-pad": "rug pad, rug gripper"},
        "brand size/rug",
    ),
    "coffee": (
        {
            "coffee-maker": "coffee maker, drip coffee machine",
            "espresso-machine": "espresso machine, espresso maker",
        },
        "brand color",
        {"coffee-filter": "coffee filters, paper filters", "mug": "mug, coffee cup"},
        "brand color size/drink",
    ),
    "drinkware": (
        {"water-bottle": "water bottle, drink bottle", "tumbler": "tumbler, travel cup"},
        "brand color size/drink material/drink",
        {"bottle-brush": "bottle brush, cleaning brush"},
        "brand color",
    ),
}


def _product_types() -> dict[str, ProductType]:
    types = {}
    for index, (group, (mains, of_mains, accessories, of_accessories)) in enumerate(_GROUPS.items()):
        brands = [_BRANDS[(2 * index + place) % len(_BRANDS)] for place in range(_BRANDS_PER_GROUP)]
        pools = _POOLS | {"brand": {brand: Value(brand, (brand,)) for brand in brands}}
        for sold, attributes, accessory in ((mains, of_mains, False), (accessories, of_accessories, True)):
            taken = {pool.partition("/")[0]: pools[pool] for pool in attributes.split()}
            for name, forms in sold.items():
                types[name] = ProductType(name, tuple(forms.split(", ")), group, accessory, taken)
    return types


TYPES = _product_types()


def relate(wanted: ProductType, offered: ProductType) -> Relation:
    """How the offered type serves who wants the other. Main types of a group replace each other; an accessory and a
    main type of its group go together, whichever is wanted; two accessories have nothing to do with each other."""
    if wanted is offered:
        return "same"
    if wanted.group != offered.group or (wanted.accessory and offered.accessory):
        return "unrelated"
    return "accessory" if wanted.accessory or offered.accessory else "substitute"


@cache
def related_types(wanted: ProductType, relation: Relation) -> tuple[ProductType, ...]:
    return tuple(offered for offered in TYPES.values() if relate(wanted, offered) == relation)


def value_forms() -> list[Value]:
    """All values of all attributes, brands first; a value of several attributes comes as often."""
    brands = [Value(brand, (brand,)) for brand in _BRANDS]
    return brands + [value for pool in _POOLS.values() for value in pool.values()]
