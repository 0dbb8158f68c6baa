from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agpo.learner.batch import Batch, cut_micro_batches, make_batch, pack_rows, split_mini_batches
from agpo.objectives import Agpo, Grpo, Objective
from tests.agpo.learner.steps import make_step

ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["correct", "wrong", "unverifiable"]), st.booleans()),
    min_size=1,
    max_size=16,
)


def batch_of(rows: list[tuple[str, str, bool]], objective: Objective | None = None, mask: bool = True) -> Batch:
    problems, verdicts, truncated = (list(column) for column in zip(*rows, strict=True))
    return make_batch(*make_step(verdicts, problems, truncated), objective or Agpo(), mask)


class TestMakeBatch:
    def test_rows_keep_the_order_of_the_rollouts(self) -> None:
        rollouts, verdicts = make_step(["wrong", "correct", "wrong", "correct"], ["b", "a", "b", "a"])
        batch = make_batch(rollouts, verdicts.sample(fraction=1, shuffle=True, seed=1), Grpo(), True)
        assert batch.responses == rollouts["response_ids"].to_list()
        assert batch.prompts == rollouts["prompt_ids"].to_list()
        assert batch.sampled_logprobs == rollouts["logprobs"].to_list()
        assert batch.groups.tolist() == [0, 1, 0, 1]
        assert batch.correct.tolist() == [False, True, False, True]
        assert batch.response_tokens.tolist() == rollouts["response_ids"].list.len().to_list()
        assert batch.advantages.dtype == torch.float64

    def test_a_rollout_without_verdict_is_an_error(self) -> None:
        rollouts, verdicts = make_step(["wrong"] * 3, ["a"] * 3)
        with pytest.raises(ValueError, match="2 of 3 rollouts have no verdict"):
            make_batch(rollouts, verdicts.head(1), Agpo(), True)

    @settings(max_examples=40)
    @given(rows=ROWS, mask=st.booleans())
    def test_rows_that_may_not_teach_change_nothing_for_the_others(
        self, rows: list[tuple[str, str, bool]], mask: bool
    ) -> None:
        rollouts, verdicts = make_step(*([row[place] for row in rows] for place in (1, 0, 2)))  # type: ignore[arg-type]
        kept = (verdicts["verdict"] != "unverifiable") & ~(rollouts["truncated"] & mask)
        whole = make_batch(rollouts, verdicts, Agpo(), mask)
        rest = make_batch(rollouts.filter(kept), verdicts.filter(kept), Agpo(), mask)
        assert whole.prompts == rest.prompts
        assert whole.responses == rest.responses
        assert whole.sampled_logprobs == rest.sampled_logprobs
        for name in ("groups", "correct", "advantages"):
            assert torch.equal(getattr(whole, name), getattr(rest, name))

    def test_truncated_rows_teach_unless_they_are_masked(self) -> None:
        rows = [("a", "correct", False), ("a", "wrong", True), ("a", "wrong", False)]
        assert len(batch_of(rows, mask=False)) == 3
        assert batch_of(rows, mask=True).correct.tolist() == [True, False]

    def test_a_step_without_usable_row_is_an_empty_batch(self) -> None:
        assert len(batch_of([("a", "unverifiable", False), ("b", "wrong", True)])) == 0


@settings(max_examples=40)
@given(rows=ROWS, count=st.integers(1, 4), seed=st.integers(0, 9))
def test_mini_batches_are_whole_groups_and_hold_every_row_once(
    rows: list[tuple[str, str, bool]], count: int, seed: int
) -> None:
    batch = batch_of([*rows, ("a", "wrong", False)])
    parts = split_mini_batches(batch, count, (seed, 0))
    assert sorted(np.concatenate(parts)) == list(range(len(batch)))
    assert 1 <= len(parts) <= count
    groups = [set(batch.groups[part].tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_the_seed_decides_the_mini_batches() -> None:
    batch = batch_of([(problem, "wrong", False) for problem in "abcdefgh"])
    orders = [np.concatenate(split_mini_batches(batch, 4, (seed, 1))).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@settings(max_examples=40)
@given(rows=ROWS, tokens=st.integers(1, 60), padded=st.booleans())
def test_micro_batches_hold_every_row_once_within_the_token_budget(
    rows: list[tuple[str, str, bool]], tokens: int, padded: bool
) -> None:
    batch = batch_of([*rows, ("a", "wrong", False)], mask=False)
    chosen = np.arange(len(batch))[::2]
    parts = list(cut_micro_batches(batch, chosen, tokens, padded))
    assert sorted(np.concatenate(parts)) == list(chosen)
    for part in parts:
        lengths = [len(batch.prompts[row]) + len(batch.responses[row]) for row in part]
        assert len(part) == 1 or (max(lengths) * len(part) if padded else sum(lengths)) <= tokens


def test_a_group_that_fits_in_a_micro_batch_is_not_cut() -> None:
    batch = batch_of([(problem, "wrong", False) for problem in "aaabbbccccc"])
    batch = replace(batch, prompts=[[1, 2]] * 11, responses=[[3]] * 11)
    parts = [part.tolist() for part in cut_micro_batches(batch, np.arange(11), tokens=4 * 3)]
    assert parts == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]


def test_no_row_is_no_micro_batch() -> None:
    batch = batch_of([("a", "wrong", False)])
    assert list(cut_micro_batches(batch, np.arange(0), 100)) == []


def test_rows_are_packed_without_padding_and_only_response_tokens_are_chosen() -> None:
    batch = batch_of([("a", "wrong", False), ("b", "correct", False), ("b", "wrong", False)])
    rows = np.array([2, 0])
    ids, chosen = pack_rows(batch, rows, "cpu").pad()
    for row, its_ids, its_chosen in zip(rows, ids, chosen, strict=True):
        prompt, response = batch.prompts[row], batch.responses[row]
        sequence = prompt + response
        assert its_ids.tolist() == sequence + [0] * (ids.shape[1] - len(sequence))
        assert its_ids[its_chosen].tolist() == response
    assert chosen.sum(1).tolist() == [len(batch.responses[row]) for row in rows]
