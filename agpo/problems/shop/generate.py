"""The tables of the shop: judged and unlabelled pairs, the problems that they pose, and imperfect demonstrations."""

from __future__ import annotations

from collections.abc import Container
from random import Random
from typing import NamedTuple

import polars as pl

from agpo.problems.shop.answers import misjudge, write_answer
from agpo.problems.shop.draws import Draw, draw_ad, draw_queries, draw_wanted, query_names
from agpo.problems.shop.rules import HARD
from agpo.problems.shop.wording import write_query
from agpo.records import Demonstrations, Pairs, Problems
from agpo.relevance import find_scheme, write_gold
from agpo.settings import ShopProblems

_GOLDS = {label.letter: write_gold(scheme, label) for scheme in [find_scheme("esci4")] for label in scheme}


class Shop(NamedTuple):
    problems: pl.DataFrame  # records.Problems: the judged pairs
    pairs: pl.DataFrame  # records.Pairs: these and the unlabelled ones
    demonstrations: pl.DataFrame  # records.Demonstrations


def generate_shop(settings: ShopProblems, seed: int) -> Shop:
    """Sets: *plain* (the wording is all that is hard) and *hard* (near misses, accessories and the like).

    No query, by its text or by what it asks for, is in two splits, and no demonstration shows a held-out one. Held-out
    splits depend on neither the number of training or unlabelled pairs nor that of demonstrations. ValueError if a
    split asks for more pairs than there are queries for.
    """
    taken: set[str] = set()
    pairs, held_out = [], frozenset[str]()
    for split, count in (
        ("selection", settings.selection),
        ("confirmation", settings.confirmation),
        ("train", settings.train),
        ("unlabelled", settings.unlabelled),
    ):
        pairs += [_pair_row(draw, split) for draw in _draw_pairs(seed, split, count, taken)]
        if split == "confirmation":
            held_out = frozenset(taken)
    table = Pairs.cast(pl.DataFrame(pairs, schema=Pairs.column_names(), orient="row"))
    return Shop(pose_problems(table), table, _demonstrate(settings, seed, held_out))


def _draw_pairs(seed: int, split: str, count: int, taken: set[str]) -> list[Draw]:
    draws: list[Draw] = []
    queries = draw_queries(Random(f"shop/{seed}/{split}"), taken)
    while len(draws) < count:
        ads = next(queries, None)
        if ads is None:
            raise ValueError(
                f"problems.{split} = {count} is more pairs than the shop has queries for; {len(draws)} were left for it"
            )
        draws += ads
    return draws[:count]


def _pair_row(draw: Draw, split: str) -> tuple[str, ...]:
    pair = draw.pair
    return pair.id, pair.query_id, *pair, pair.render(), _GOLDS[draw.judgement.label], split, draw.case


def pose_problems(pairs: pl.DataFrame) -> pl.DataFrame:
    """The table `Problems` of the judged pairs."""
    judged = pairs.filter(pl.col("split") != "unlabelled")
    hard = pl.col("case").is_in(sorted(HARD))
    return Problems.cast(
        judged.select(
            "id",
            "prompt",
            "gold",
            verifier=pl.lit("label"),
            split=pl.col("split").cast(pl.String),
            set=pl.when(hard).then(pl.lit("hard")).otherwise(pl.lit("plain")),
        )
    )


def _demonstrate(settings: ShopProblems, seed: int, held_out: Container[str]) -> pl.DataFrame:
    """An id is the seed and the number of the draw, since what is drawn may repeat."""
    random = Random(f"shop/{seed}/demonstrations")
    prompts: list[str] = []
    responses: list[str] = []
    while len(prompts) < settings.demonstrations:
        wanted = draw_wanted(random)
        query = write_query(random, wanted)
        if any(name in held_out for name in query_names(wanted, query)):
            continue
        draw = draw_ad(random, wanted, query)
        prompts.append(draw.pair.render())
        responses.append(write_answer(draw, misjudge(random, draw, settings.noise, settings.over_grading)))
    frame = pl.DataFrame({"prompt": prompts, "response": responses}).with_row_index("draw")
    named = pl.format("shop-demonstration-{}-{}", pl.lit(seed), "draw").alias("id")
    return Demonstrations.cast(frame.select(named, "prompt", "response"))
