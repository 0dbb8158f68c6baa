"""Log-probs and entropies, with their gradients, of TRL and verl from the same hidden states."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from torch import Tensor

from agpo.learner import chunked_logprobs
from tests.parity.mappings import TOLERANCE

pytestmark = pytest.mark.parity

TEMPERATURE = 0.7


def _trl(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = import_module("trl.trainer.utils").selective_log_softmax_and_entropy(
        logits, targets, temperature=TEMPERATURE
    )
    return found


def _verl(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    functional = import_module("verl.utils.torch_functional")
    scaled = logits / TEMPERATURE
    return functional.logprobs_from_logits_naive(scaled, targets), functional.entropy_from_logits(scaled)


@pytest.mark.parametrize("peer", [_trl, _verl], ids=["trl", "verl"])
def test_values_and_gradients_are_the_same(peer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight = normal(40, 16).requires_grad_(), normal(300, 16).requires_grad_()
    targets = torch.randint(0, 300, (40,), generator=generator)
    by_logprob, by_entropy = normal(40), normal(40)

    def with_gradients(logprobs: Tensor, entropy: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad((logprobs, entropy), (hidden, weight), (by_logprob, by_entropy))
        return [logprobs.detach(), entropy.detach(), *gradients]

    found = with_gradients(*chunked_logprobs(hidden, weight, targets, TEMPERATURE))
    expected = with_gradients(*peer(hidden @ weight.T, targets))
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=TOLERANCE)
