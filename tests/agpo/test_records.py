from __future__ import annotations

import itertools
from typing import Any, get_args, get_type_hints

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agpo.records import Counts, Demonstrations, Problems, Quarantine, Rollouts, Verdicts, rollout_id
from agpo.verify.verdict import Verdict

PROBLEM = {
    "id": "countdown-1",
    "prompt": "Use 1 2 3 4 to make 10.",
    "gold": "1 2 3 4 = 10",
    "verifier": "countdown",
    "split": "train",
    "set": "in_distribution",
}
ROLLOUT = {
    "id": "0/countdown-1/0",
    "problem_id": "countdown-1",
    "sample": 0,
    "prompt_ids": [1, 2],
    "response_ids": [3, 4, 0],
    "logprobs": [-0.5, -1.0, 0.0],
    "truncated": False,
    "policy": "5" * 64,
    "seed": 0,
}
VERDICT = {
    "id": "0/countdown-1/0",
    "verdict": "wrong",
    "cause": "none",
    "reason": "mismatch",
    "extracted": None,
    "seconds": 0.001,
    "verifier": "countdown",
    "version": 1,
}
COUNT = {
    "problem_id": "countdown-1",
    "set": "hard",
    "n": 8,
    "correct": 3,
    "wrong": 4,
    "unverifiable": 1,
    "truncated": 0,
    "missing": 2,
    "distinct_correct": 2,
    "tokens": 120,
    "logprob": -40.0,
}


def table(schema: type[dy.Schema], *rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema.create_empty().schema, strict=False)


@pytest.mark.parametrize(
    ("schema", "row"), [(Problems, PROBLEM), (Rollouts, ROLLOUT), (Verdicts, VERDICT), (Counts, COUNT)]
)
def test_a_good_row_is_accepted_and_the_same_id_twice_is_not(schema: type[dy.Schema], row: dict[str, Any]) -> None:
    assert list(row) == schema.column_names()
    assert schema.is_valid(table(schema, row))
    assert failures(schema, row, row) == {"primary_key"}


@pytest.mark.parametrize(
    ("schema", "row", "change", "rule"),
    [
        (Problems, PROBLEM, {"prompt": "  "}, "prompt_not_blank"),
        (Problems, PROBLEM, {"gold": "\n"}, "gold_not_blank"),
        (Problems, PROBLEM, {"gold": None}, "gold|nullability"),
        (Problems, PROBLEM, {"id": ""}, "id|min_length"),
        (Problems, PROBLEM, {"split": None}, "split|nullability"),
        (Rollouts, ROLLOUT, {"logprobs": [-0.5]}, "one_logprob_per_token"),
        (Rollouts, ROLLOUT, {"sample": -1}, "sample|min"),
        (Rollouts, ROLLOUT, {"response_ids": [3, None, 0]}, "response_ids|inner_nullability"),
        (Verdicts, VERDICT, {"seconds": -1.0}, "seconds|min"),
        (Counts, COUNT, {"correct": 4}, "outcomes_sum_to_n"),
        (Counts, COUNT, {"n": 0, "correct": 0, "wrong": 0, "unverifiable": 0}, "n|min"),
    ],
)
def test_a_bad_row_is_refused_by_its_rule(
    schema: type[dy.Schema], row: dict[str, Any], change: dict[str, Any], rule: str
) -> None:
    assert failures(schema, {**row, **change}) == {rule}


def failures(schema: type[dy.Schema], *rows: dict[str, Any]) -> set[str]:
    return set(schema.filter(table(schema, *rows)).failure.counts())


def test_a_verdict_and_its_row_know_the_same_words() -> None:
    columns, fields = Verdicts.create_empty().schema, get_type_hints(Verdict)
    for name in ("verdict", "cause"):
        assert columns[name] == pl.Enum(get_args(fields[name]))
    assert set(fields) == set(columns) - {"id"}


def test_a_quarantined_row_may_be_anything() -> None:
    row = {name: 1 if name == "row" else "" for name in Quarantine.column_names()}
    assert Quarantine.is_valid(table(Quarantine, row, row))


def test_a_demonstration_needs_an_answer() -> None:
    row = {"id": "1", "prompt": "1 + 1 =", "response": "2"}
    assert Demonstrations.is_valid(table(Demonstrations, row))
    assert failures(Demonstrations, {**row, "response": ""}) == {"response|min_length"}


@given(st.lists(st.tuples(st.integers(0, 10**6), st.text(), st.integers(0, 10**6)), unique=True, max_size=20))
def test_different_rollouts_have_different_ids(rollouts: list[tuple[int, str, int]]) -> None:
    assert len({rollout_id(*rollout) for rollout in rollouts}) == len(rollouts)


def test_a_rollout_id_is_unique_even_where_problem_ids_look_like_rollout_ids() -> None:
    problems = ["1", "1/1", "/", "1/", "/1", ""]
    ids = [rollout_id(*parts) for parts in itertools.product((0, 1), problems, (0, 1))]
    assert len(set(ids)) == len(ids)
