from __future__ import annotations

import time

import polars as pl
import pytest

from agpo.problems.pair import Pair
from agpo.problems.shop import Shop, generate_shop
from agpo.problems.shop.rules import HARD
from agpo.records import Demonstrations, Pairs, Problems
from agpo.settings import ShopProblems

SETTINGS = ShopProblems(train=3000, selection=300, confirmation=1000, unlabelled=500, demonstrations=4000)
LEVELS = {"I": 0, "C": 1, "S": 2, "E": 3}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return generate_shop(SETTINGS, seed=0)


def test_tables_are_what_the_records_say(shop: Shop) -> None:
    Problems.validate(shop.problems)
    Pairs.validate(shop.pairs)
    Demonstrations.validate(shop.demonstrations)
    counts = dict(shop.pairs["split"].cast(pl.String).value_counts().iter_rows())
    assert counts == {"selection": 300, "confirmation": 1000, "train": 3000, "unlabelled": 500}
    assert shop.demonstrations.height == 4000


def test_a_judged_pair_is_a_problem_for_the_label_verifier(shop: Shop) -> None:
    judged = shop.pairs.filter(pl.col("split") != "unlabelled")
    for column in ("id", "prompt", "gold"):
        assert shop.problems[column].to_list() == judged[column].to_list()
    assert set(shop.problems["verifier"]) == {"label"}
    assert (shop.problems["set"] == "hard").to_list() == judged["case"].is_in(sorted(HARD)).to_list()
    for row in shop.pairs.iter_rows(named=True):
        pair = Pair(row["query"], row["title"], row["attributes"])
        assert (pair.render(), pair.id, pair.query_id) == (row["prompt"], row["id"], row["query_id"])


def test_no_query_is_in_two_splits(shop: Shop) -> None:
    for column in ("query", "query_id"):
        assert shop.pairs.group_by(column).agg(pl.col("split").n_unique())["split"].max() == 1
    queries = shop.pairs.group_by("query_id").agg(pl.len())["len"]
    assert 3 <= float(queries.median()) <= 7  # type: ignore[arg-type]


def test_demonstrations_show_no_held_out_query(shop: Shop) -> None:
    queries = {prompt.split("\n")[0].removeprefix("Query: ") for prompt in shop.demonstrations["prompt"]}
    by_split = {str(split): set(rows["query"]) for (split,), rows in shop.pairs.group_by("split", maintain_order=True)}
    assert not queries & (by_split["selection"] | by_split["confirmation"])
    assert queries & by_split["train"]


def test_labels_and_cases_are_unbalanced_as_real_ones(shop: Shop) -> None:
    labels = shop.pairs["gold"].str.split(":").list.last().value_counts(normalize=True)
    shares = dict(labels.iter_rows())
    assert shares["E"] > shares["S"] > shares["I"] > shares["C"] > 0.08
    assert shares["E"] == pytest.approx(0.42, abs=0.04)
    cases = dict(shop.pairs["case"].value_counts(normalize=True).iter_rows())
    assert min(cases.values()) > 0.005
    named = {"near_miss", "accessory", "brand", "typo", "synonym", "unit"}  # those that a reader asks about
    assert all(cases[case] > 0.03 for case in named)
    assert sum(cases[case] for case in HARD) == pytest.approx(0.45, abs=0.05)


def test_demonstrations_are_imperfect_mostly_by_over_grading(shop: Shop) -> None:
    right = generate_shop(SETTINGS.model_copy(update={"noise": 0.0, "over_grading": 0.0}), 0).demonstrations
    careful = dict(right.select("prompt", "response").iter_rows())
    shown = [
        (response[-1], careful[prompt][-1])
        for prompt, response in shop.demonstrations.select("prompt", "response").iter_rows()
        if prompt in careful
    ]
    assert len(shown) > 500
    wrong = [(given, gold) for given, gold in shown if given != gold]
    assert len(wrong) / len(shown) == pytest.approx(0.35, abs=0.05)
    assert sum(LEVELS[given] > LEVELS[gold] for given, gold in wrong) / len(wrong) > 0.75


def test_a_seed_decides_everything() -> None:
    small = ShopProblems(train=50, selection=20, confirmation=20, unlabelled=20, demonstrations=50)
    first, again, other = (generate_shop(small, seed) for seed in (7, 7, 8))
    assert all(one.equals(same) for one, same in zip(first, again, strict=True))
    assert not any(one.equals(different) for one, different in zip(first, other, strict=True))


def test_held_out_pairs_do_not_depend_on_the_size_of_the_rest() -> None:
    held_out = []
    for size in (1, 60):
        settings = ShopProblems(train=size, selection=20, confirmation=30, unlabelled=size, demonstrations=1)
        pairs = generate_shop(settings, 0).pairs
        held_out.append(pairs.filter(pl.col("split").is_in(["selection", "confirmation"])))
    assert held_out[0].equals(held_out[1])


def test_more_pairs_than_there_are_queries_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agpo.problems.shop.draws.PATIENCE", 0)
    settings = ShopProblems(train=100_000, selection=1, confirmation=1, unlabelled=0, demonstrations=1)
    with pytest.raises(ValueError, match=r"problems.train = 100000 is more pairs .*; \d+ were left for it"):
        generate_shop(settings, 0)


def test_generating_is_fast() -> None:
    started = time.process_time()
    generate_shop(SETTINGS.model_copy(update={"demonstrations": 20_000}), 0)
    assert time.process_time() - started < 15 / 4  # 150,000 in 15 seconds leave a factor of two for the fixed part
