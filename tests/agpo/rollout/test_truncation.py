from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from agpo.rollout.truncation import truncate_logits

OPTIONS: list[dict[str, Any]] = [
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 1000},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_p": 0.8, "top_k": 7},
    {"top_p": 0.8, "min_p": 0.05},
    {"top_p": 0.8, "top_k": 7, "min_p": 0.05},
]


def kept(logits: list[float], **options: Any) -> list[int]:
    found = truncate_logits(torch.tensor([logits]), **options)[0]
    return torch.nonzero(found > -math.inf)[:, 0].tolist()


def keep_by_definition(logits: list[float], top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0) -> list[int]:
    """Token by token in plain numbers; nothing of the code under test."""
    chances = [math.exp(logit - max(logits)) for logit in logits]
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    order = [token for token in order if chances[token] >= min_p]
    order = order[:top_k] if top_k else order
    total = sum(chances[token] for token in order)
    nucleus: list[int] = []
    for token in order:
        if top_p < 1 and sum(chances[other] for other in nucleus) / total >= top_p:
            break
        nucleus.append(token)
    return sorted(nucleus)


@given(
    # Multiples of a quarter: ties are frequent, and no sum lies on a bound by rounding.
    st.lists(st.integers(-20, 20).map(lambda number: number / 4), min_size=1, max_size=12),
    st.sampled_from([1.0, 0.97, 0.613, 0.1]),
    st.integers(0, 13),
    st.sampled_from([0.0, 0.013, 0.37]),
)
def test_what_is_kept_is_the_definition(logits: list[float], top_p: float, top_k: int, min_p: float) -> None:
    options = {"top_p": top_p, "top_k": top_k, "min_p": min_p}
    assert kept(logits, **options) == keep_by_definition(logits, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_transformers_does(options: dict[str, Any]) -> None:
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * 3
    expected = _process(logits, **options)
    found = truncate_logits(logits, **options)
    assert ((found > -math.inf) == (expected > -math.inf)).all()
    assert torch.equal(found.log_softmax(-1), expected.log_softmax(-1))


def _process(logits: Tensor, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0) -> Tensor:
    ids: Any = None
    if min_p:
        logits = MinPLogitsWarper(min_p)(ids, logits)
    if top_k:
        logits = TopKLogitsWarper(top_k)(ids, logits)
    return TopPLogitsWarper(top_p)(ids, logits) if top_p < 1 else logits


def test_off_it_gives_the_same_tensor() -> None:
    logits = torch.randn(3, 5)
    assert truncate_logits(logits) is logits


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p": 0.4}], ids=str)
def test_of_equally_likely_tokens_the_first_ids_stay(options: dict[str, Any]) -> None:
    assert kept([0.0] * 5, **options) == [0, 1]
    assert kept([-1.0, 0.0, -1.0, -1.0], **options)[:2] == ([0, 1] if "top_k" in options else [1])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_likeliest_token_always_stays(options: dict[str, Any]) -> None:
    assert 1 in kept([-60.0, 0.0, -50.0, -math.inf], **options)
    assert 3 not in kept([-60.0, 0.0, -50.0, -math.inf], **options)


def test_every_row_has_its_own_bound() -> None:
    found = truncate_logits(torch.tensor([[0.0, -9.0, -9.0], [0.0, 0.0, 0.0]]), top_p=0.9)
    assert (found > -math.inf).sum(-1).tolist() == [1, 3]


def test_logits_that_are_no_numbers_stay_visible() -> None:
    for options in OPTIONS:
        assert truncate_logits(torch.tensor([[math.nan, 0.0, 1.0]]), **options).log_softmax(-1).isnan().any()
