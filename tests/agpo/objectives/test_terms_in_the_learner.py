"""The loss that the learner takes its gradient from: every policy loss and normalisation, with KL and entropy terms.

The model is a tiny GPT-2 in fp64, and the expected gradient that of each row alone, written out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from agpo.learner.batch import Batch
from agpo.learner.update import Learner
from agpo.objectives.losses import KL_ESTIMATORS, POLICY_LOSSES, ConstantLength, SequenceMean, TokenMean
from agpo.settings import LearnerSettings, LossSettings

VOCABULARY = 7


def make_model(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=12, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1
    )
    return GPT2LMHeadModel(config).double().eval()


def make_rows(order: list[int] | None = None) -> Batch:
    """Three groups of three rows with lengths 1 to 6; a third of the rows has advantage 0."""
    random = np.random.default_rng(3)
    rows = order or list(range(9))
    prompts = [random.integers(0, VOCABULARY, 2 + row % 3).tolist() for row in range(9)]
    responses = [random.integers(0, VOCABULARY, 1 + row % 6).tolist() for row in range(9)]
    correct = torch.arange(9) % 2 == 0
    advantages = torch.tensor([1.3, -1.0, 0.0, 0.4, -0.2, 0.0, 2.0, -1.7, 0.0], dtype=torch.float64)
    return Batch(
        ids=[str(row) for row in rows],
        prompts=[prompts[row] for row in rows],
        responses=[responses[row] for row in rows],
        sampled_logprobs=[[-1.0] * len(responses[row]) for row in rows],
        groups=torch.arange(9)[rows] // 3,
        correct=correct[rows],
        advantages=advantages[rows],
    )


def settings(loss: LossSettings, micro_tokens: int = 10_000, epochs: int = 1) -> tuple[LossSettings, LearnerSettings]:
    return loss, LearnerSettings(micro_tokens=micro_tokens, epochs=epochs, rate=0.05, warm_up=0, clip_norm=1e9)


def learn(batch: Batch, loss: LossSettings, learner: LearnerSettings) -> Tensor:
    """The gradient of the update's last optimiser step, flat."""
    model, reference = make_model(0), make_model(1)
    outcome = Learner(model, reference, loss, learner, temperature=0.9, seed=0).update(batch, 0, guarded=False)
    assert outcome.refused is None
    return _gradient(model)


def _gradient(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def expect(batch: Batch, loss: LossSettings) -> Tensor:
    """The on-policy gradient of the loss, from dense log-probs and each mean as it is defined."""
    model, reference = make_model(0), make_model(1)
    by_row = []
    for index in range(len(batch)):
        ids = torch.tensor(batch.prompts[index] + batch.responses[index])
        places = range(len(batch.prompts[index]) - 1, len(ids) - 1)
        logp = torch.log_softmax(model(ids[None]).logits[0] / 0.9, -1)[places]
        base = torch.log_softmax(reference(ids[None]).logits[0] / 0.9, -1)[places]
        chosen = ids[len(batch.prompts[index]) :, None]
        new, old = logp.gather(1, chosen)[:, 0], base.gather(1, chosen)[:, 0].detach()
        advantages = batch.advantages[index].expand(len(new))
        policy = loss.policy.token_losses(new, new.detach(), advantages, torch.zeros(len(new), dtype=torch.long))
        entropy = -(logp.exp() * logp).sum(-1)
        by_row.append(policy + loss.kl * KL_ESTIMATORS[loss.kl_estimator](new, old) - loss.entropy * entropy)
    total = {
        "token_mean": lambda: torch.cat(by_row).mean(),
        "sequence_mean": lambda: torch.stack([row.mean() for row in by_row]).mean(),
        "constant": lambda: torch.stack([row.sum() / 6 for row in by_row]).mean(),
    }[loss.normalisation.kind]()
    total.backward()
    return _gradient(model)


every_loss = pytest.mark.parametrize(
    "policy", [{"kind": kind} for kind in POLICY_LOSSES], ids=lambda each: each["kind"]
)
every_mean = pytest.mark.parametrize(
    "mean", [TokenMean(), SequenceMean(), ConstantLength(tokens=6)], ids=lambda each: each.kind
)


@every_loss
@every_mean
@pytest.mark.parametrize("terms", [{}, {"kl": 0.3, "kl_estimator": "k2"}, {"kl": 0.1, "entropy": 0.2}], ids=str)
def test_the_gradient_is_that_of_the_loss_as_defined(policy: Any, mean: Any, terms: dict[str, Any]) -> None:
    loss = LossSettings.model_validate({"policy": policy, "normalisation": mean, **terms})
    batch = make_rows()
    torch.testing.assert_close(learn(batch, *settings(loss)), expect(batch, loss), atol=1e-13, rtol=1e-12)


@every_loss
@every_mean
def test_no_cut_into_micro_batches_and_no_order_of_rows_changes_the_gradient(policy: Any, mean: Any) -> None:
    """Off-policy: the second optimiser step of the batch."""
    loss = LossSettings.model_validate({"policy": policy, "normalisation": mean, "kl": 0.1, "entropy": 0.1})
    whole = learn(make_rows(), *settings(loss, epochs=2))
    for micro_tokens in (1, 17):
        cut = learn(make_rows(), *settings(loss, micro_tokens, epochs=2))
        torch.testing.assert_close(cut, whole, atol=1e-13, rtol=1e-12)
    reordered = learn(make_rows([4, 0, 8, 2, 7, 1, 3, 6, 5]), *settings(loss, 17, epochs=2))
    torch.testing.assert_close(reordered, whole, atol=1e-13, rtol=1e-12)


def test_clip_shares_are_reported_for_the_bounds_that_the_loss_has() -> None:
    def metrics(kind: str) -> set[str]:
        loss = LossSettings.model_validate({"policy": {"kind": kind}})
        outcome = Learner(make_model(0), None, *settings(loss, epochs=3), temperature=1.0, seed=0).update(
            make_rows(), step=0
        )
        return {name for name, value in outcome.metrics.items() if "clip" in name and 0 <= value <= 1}

    assert metrics("ppo_clip") == {f"policy/clip_{bound}_share" for bound in ("low", "high", "dual")}
    assert metrics("gspo") == {f"policy/clip_{bound}_share" for bound in ("low", "high")}
    assert metrics("sapo") == set()
