"""The choice of the interpolation weight."""

from __future__ import annotations

import polars as pl
import pytest

from agpo.evaluation.selection import Choice, choose_weight
from tests.agpo.evaluation.simulation import make_counts

SETS = ["easy"] * 10 + ["hard"] * 10


def policy(easy: int, hard: int, n: int = 100) -> pl.DataFrame:
    """Counts whose pass@1 is easy/n on the easy set and hard/n on the hard one, whatever the problem."""
    return make_counts(SETS, [n] * 20, [easy] * 10 + [hard] * 10)


def test_takes_the_largest_weight_that_keeps_every_set() -> None:
    base = policy(50, 20)
    choice = choose_weight(base, {0.2: policy(55, 20), 0.5: policy(60, 19), 1.0: policy(80, 10)}, k=1, margin=0.02)
    assert (choice.weight, choice.kept) == (0.5, True)
    assert [(entry.weight, entry.kept) for entry in choice.evidence] == [(0.2, True), (0.5, True), (1.0, False)]


def test_one_set_below_the_margin_is_enough_to_refuse_a_weight() -> None:
    choice = choose_weight(policy(50, 20), {0.5: policy(52, 20), 1.0: policy(47, 60)}, k=1, margin=0.02)
    assert choice.weight == 0.5


def test_a_larger_weight_may_keep_what_a_smaller_one_lost() -> None:
    choice = choose_weight(policy(50, 20), {0.5: policy(40, 20), 1.0: policy(50, 20)}, k=1, margin=0.02)
    assert (choice.weight, choice.kept) == (1.0, True)


def test_a_drop_of_exactly_the_margin_is_accepted() -> None:
    base, dropped = policy(50, 20), policy(48, 20)
    assert 0.48 - 0.50 < -0.02  # the last bit would refuse it
    assert choose_weight(base, {0.5: policy(50, 20), 1.0: dropped}, k=1, margin=0.02).weight == 1.0
    assert choose_weight(base, {0.5: policy(50, 20), 1.0: dropped}, k=1, margin=0.019).weight == 0.5


def test_without_a_weight_that_keeps_the_boundary_the_smallest_is_taken_and_flagged() -> None:
    choice = choose_weight(policy(50, 20), {1.0: policy(80, 5), 0.2: policy(60, 10)}, k=1, margin=0.02)
    assert (choice.weight, choice.kept) == (0.2, False)


def test_evidence_holds_both_ends_of_the_trade_and_survives_json() -> None:
    base = make_counts(["a", "a"], [4, 4], [0, 2])
    trained = make_counts(["a", "a"], [4, 4], [0, 4])
    choice = choose_weight(base, {1.0: trained}, k=4, margin=0.0)
    evidence = choice.evidence[0].sets[0]
    assert (evidence.set, evidence.problems) == ("a", 2)
    assert (evidence.base_pass_at_1, evidence.pass_at_1, evidence.difference_at_1) == (0.25, 0.5, 0.25)
    assert (evidence.base_pass_at_k, evidence.pass_at_k, evidence.difference_at_k) == (0.5, 0.5, 0.0)
    assert Choice.model_validate_json(choice.model_dump_json()) == choice


def test_bad_input_is_named() -> None:
    base = policy(50, 20)
    with pytest.raises(ValueError, match="no interpolation weights"):
        choose_weight(base, {}, k=1, margin=0.02)
    with pytest.raises(ValueError, match=r"margin = -0\.1"):
        choose_weight(base, {1.0: base}, k=1, margin=-0.1)
    with pytest.raises(ValueError, match=r"base and weight 0\.5 .* lacks 10 of the 20"):
        choose_weight(base, {0.5: base.head(10)}, k=1, margin=0.02)
