"""Importance-sampling correction in the learner: weights on the policy loss, against the sampler's log-probs."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agpo.learner.batch import Batch, pack_rows
from agpo.objectives.losses import Correction, kl_k3, ppo_clip_loss
from agpo.settings import LossSettings
from tests.agpo.learner.models import dense_logprobs, tiny_model
from tests.agpo.learner.slopes import assert_slopes
from tests.agpo.learner.test_update import FREE, TEMPERATURE, assert_equal, gradients, learner_of, make, reorder

SEQUENCE_MASK = Correction(level="sequence", mode="mask", cap=2.0, floor=0.5)
CORRECTIONS = [Correction(cap=1.5), Correction(mode="mask", cap=1.5, floor=0.6), SEQUENCE_MASK]
every = pytest.mark.parametrize("correction", CORRECTIONS, ids=["truncate", "mask", "sequence"])


def loss_of(correction: Correction | None) -> LossSettings:
    return LossSettings(kl=0.1, entropy=0.05, correction=correction)


def sampled_elsewhere(drift: float = 0.3) -> Batch:
    """A batch whose sampler is the policy with other rounding, so to speak: log-probs off by about ``drift``."""
    batch = make()
    logprobs = trainer_logprobs(tiny_model("gpt2"), batch).detach()
    noise = torch.randn(len(logprobs), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = (logprobs + drift * noise).split(batch.response_tokens.tolist())  # type: ignore[no-untyped-call]
    return replace(batch, sampled_logprobs=[row.tolist() for row in rows])


def trainer_logprobs(model: Any, batch: Batch) -> Tensor:
    return dense_logprobs(model, *pack_rows(batch, np.arange(len(batch)), "cpu").pad(), TEMPERATURE)[0]


def flat(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Sampler log-probs, advantages and row numbers, [tokens] each."""
    sampled = torch.tensor([value for row in batch.sampled_logprobs for value in row], dtype=torch.float64)
    rows = torch.arange(len(batch)).repeat_interleave(batch.response_tokens)
    return sampled, batch.advantages[rows], rows


@every
def test_the_gradient_is_that_of_the_weighted_loss_by_finite_differences(correction: Correction) -> None:
    learner, batch = learner_of("gpt2", loss_of(correction)), sampled_elsewhere()
    model, reference = copy.deepcopy(learner.model), learner.reference.model  # type: ignore[union-attr]
    sampled, advantages, rows = flat(batch)
    old = trainer_logprobs(model, batch).detach()
    weights = correction.token_weights(old, sampled, rows)
    assert 0 < correction.held(old, sampled, rows).sum() < len(rows)

    def whole_loss() -> Tensor:
        ids, chosen = pack_rows(batch, np.arange(len(batch)), "cpu").pad()
        logprobs, entropy = dense_logprobs(model, ids, chosen, TEMPERATURE)
        policy = weights * ppo_clip_loss(logprobs, old, advantages, 0.2, 0.2, 3.0)
        return (policy + 0.1 * kl_k3(logprobs, trainer_logprobs(reference, batch)) - 0.05 * entropy).mean()

    found = gradients(learner, batch)
    assert_slopes(model, found, whole_loss, directions=3, rel=1e-6)


@every
@pytest.mark.parametrize("steps", [{}, {"mini_batches": 2, "epochs": 2}], ids=["on-policy", "several steps"])
def test_no_cut_into_micro_batches_and_no_order_changes_the_gradient(
    correction: Correction, steps: dict[str, int]
) -> None:
    batch, found = sampled_elsewhere(), []
    for tokens in (1, 20, 10_000):
        settings = FREE.model_copy(update={**steps, "micro_tokens": tokens})
        found.append(gradients(learner_of("gpt2", loss_of(correction), settings), batch))
    assert_equal(found[0], found[2])
    assert_equal(found[1], found[2])
    if not steps:
        reordered = reorder(batch, [3, 0, 8, 5, 1, 7, 2, 6, 4])
        assert_equal(gradients(learner_of("gpt2", loss_of(correction)), reordered), found[2])


def test_weights_are_those_of_the_policy_before_the_first_optimiser_step() -> None:
    """A cap that no ratio reaches before the step, and many would after it."""
    batch = sampled_elsewhere(drift=0.0)
    far = FREE.model_copy(update={"mini_batches": 2, "epochs": 2, "rate": 0.1})
    found = [
        gradients(learner_of("gpt2", loss_of(correction), far), batch)
        for correction in (Correction(mode="mask", cap=1.001, floor=0.999), None)
    ]
    assert_equal(*found)


def test_equal_log_probs_change_nothing() -> None:
    batch = sampled_elsewhere(drift=0.0)
    expected = gradients(learner_of("gpt2", loss_of(None)), batch)
    for correction in CORRECTIONS:
        assert_equal(gradients(learner_of("gpt2", loss_of(correction)), batch), expected, tolerance=1e-14)


@pytest.mark.parametrize("correction", [None, *CORRECTIONS], ids=["off", "truncate", "mask", "sequence"])
def test_the_mismatch_is_measured(correction: Correction | None) -> None:
    learner, batch = learner_of("gpt2", loss_of(correction)), sampled_elsewhere()
    sampled, _, rows = flat(batch)
    old = trainer_logprobs(learner.model, batch).detach()
    metrics = learner.update(batch, 0).metrics
    weights = (old - sampled).exp() if correction is None else correction.token_weights(old, sampled, rows)
    ratio = (old - sampled).exp()
    expected = {
        "policy/sampler_mismatch_kl": (ratio - ratio.log() - 1).mean(),
        "policy/sampler_mismatch_largest": (old - sampled).abs().max(),
        "policy/sampler_ess": weights.sum() ** 2 / (len(weights) * weights.square().sum()),
    }
    if correction is not None:
        expected["policy/clip_correction_share"] = correction.held(old, sampled, rows).double().mean()
    assert {name for name in metrics if "correction" in name} == {name for name in expected if "correction" in name}
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-9), name


def test_nothing_is_left_where_all_is_masked() -> None:
    batch = replace(make(), sampled_logprobs=[[-50.0] * len(row) for row in make().responses])
    learner = learner_of(loss=LossSettings(correction=Correction(mode="mask")))
    outcome = learner.update(batch, 0)
    assert outcome.refused is None
    assert outcome.metrics["policy/gradient_norm"] == outcome.metrics["policy/sampler_ess"] == 0
    assert outcome.metrics["policy/clip_correction_share"] == 1
