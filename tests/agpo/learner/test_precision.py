"""bf16 in the learner: matrix products only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agpo.learner.logprobs import chunked_logprobs
from agpo.learner.policy import LogprobReader
from agpo.objectives.losses import Correction
from agpo.settings import LossSettings
from tests.agpo.learner.models import random_rows, tiny_model
from tests.agpo.learner.test_update import FREE, WITH_ALL, gradients, learner_of, make

HALF = FREE.model_copy(update={"precision": "bf16"})
ROWS = random_rows([(3, 4), (1, 6), (5, 1), (2, 2)])
KINDS = ["llama", "qwen3", "gpt2", "gemma2"]


def flatten(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in tensors])


@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_are_those_of_fp32_up_to_rounding(kind: str) -> None:
    model = tiny_model(kind, torch.float32)
    half, full = (LogprobReader(model, precision).read(*ROWS, 1.0) for precision in ("bf16", "fp32"))
    for found, expected in zip(half, full, strict=True):
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_point_where_those_of_fp32_do(kind: str) -> None:
    half, full = (gradients(learner_of(kind, WITH_ALL, settings, torch.float32), make()) for settings in (HALF, FREE))
    assert {gradient.dtype for gradient in half} == {torch.float32}
    assert torch.cosine_similarity(flatten(half), flatten(full), dim=0) > 0.99


def test_with_checkpointed_activations_gradients_are_exactly_the_same() -> None:
    checkpointed = HALF.model_copy(update={"checkpoint_activations": True})
    found = [gradients(learner_of("qwen3", WITH_ALL, chosen, torch.float32), make()) for chosen in (HALF, checkpointed)]
    assert torch.equal(flatten(found[0]), flatten(found[1]))


def test_weights_and_optimiser_stay_in_fp32_and_keep_small_steps() -> None:
    """A step of 1e-6 of a weight near 1 is lost in bf16."""
    learner = learner_of("qwen3", settings=HALF.model_copy(update={"rate": 1e-6}), dtype=torch.float32)
    norm = learner.model.model.norm.weight
    before = norm.detach().clone()
    assert learner.update(make(), 0).refused is None
    assert {value.dtype for entry in learner.optimizer.state.values() for value in entry.values()} == {torch.float32}
    assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}
    assert 0 < (norm - before).abs().max() < 2e-6


def test_on_policy_the_ratio_is_1_and_the_base_has_no_divergence_from_itself() -> None:
    learner = learner_of("qwen3", LossSettings(kl=0.1, correction=Correction()), HALF, torch.float32)
    assert learner.reference is not None
    learner.reference.model.load_state_dict(learner.model.state_dict())
    metrics = learner.update(make(), 0).metrics
    assert metrics["policy/kl_to_base"] == 0
    assert metrics["policy/clip_low_share"] == metrics["policy/clip_high_share"] == 0
    assert metrics["policy/sampler_mismatch_kl"] > 0  # the random log-probs of these rollouts


def test_the_heads_gradient_is_summed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """One token a chunk: in bf16 the sum of many chunks would stop to grow."""
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.rand(2000, 4, generator=generator) + 0.5).bfloat16()
    weight = torch.randn(3, 4, generator=generator).bfloat16().requires_grad_()
    targets = torch.zeros(2000, dtype=torch.long)
    monkeypatch.setattr("agpo.learner.logprobs._CHUNK_ELEMENTS", {"cpu": 3})
    (found,) = torch.autograd.grad(chunked_logprobs(hidden, weight, targets)[0].sum(), weight)
    exact = weight.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(chunked_logprobs(hidden.double(), exact, targets)[0].sum(), exact)
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.0)
