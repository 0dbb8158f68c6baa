from __future__ import annotations

from typing import Any

import pytest
import torch

from agpo.learner.batch import Batch
from agpo.learner.throughput import describe_throughput, find_peak, flops_per_token
from tests.tiny_model import make_llama


def make_batch() -> Batch:
    return Batch(
        ids=["a", "b"],
        prompts=[[1, 2, 3], [1]],
        responses=[[4, 5], [6, 7, 8, 9]],
        sampled_logprobs=[[-1.0] * 2, [-1.0] * 4],
        groups=torch.tensor([0, 0]),
        correct=torch.tensor([True, False]),
        advantages=torch.tensor([1.0, -1.0], dtype=torch.float64),
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return make_llama(64, 32, 64, layers=2, heads=2, key_value_heads=1, head_dim=24)


def test_tokens_of_prompts_and_responses_are_counted_every_epoch(model: Any) -> None:
    found = describe_throughput(model, make_batch(), 2, 3, "fp32", 2.0)
    assert found == {"time/tokens_per_second": 10 * 3 / 2.0}  # no peak of a CPU is known


def test_nothing_is_said_of_no_batch(model: Any) -> None:
    empty = Batch([], [], [], [], torch.tensor([]), torch.tensor([]), torch.tensor([]))
    assert describe_throughput(model, empty, 0, 1, "fp32", 1.0) == {}


def test_flops_are_those_of_the_products(model: Any) -> None:
    """Of a row of ``length`` tokens, counted one by one: weights (forward 2, backward 4) and attention."""
    length = 10
    weights = sum(parameter.numel() for parameter in model.parameters())
    attention = 2 * 2 * (2 * length * 24) * 2  # layers × heads × (scores and values, 2 FLOP each)
    assert flops_per_token(model, length) == 6 * weights + 3 * attention


def test_the_longest_name_of_a_device_counts() -> None:
    assert find_peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert find_peak("NVIDIA H100 PCIe", "bf16") == 756e12
    assert find_peak("NVIDIA L40S", "fp32") == 91.6e12
    assert find_peak("NVIDIA L4", "bf16") == 121e12
    assert find_peak("NVIDIA L40", "bf16") is None
    assert find_peak("Unheard-of", "bf16") is None
