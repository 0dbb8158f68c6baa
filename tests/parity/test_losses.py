"""Losses and gradients of TRL and verl on the same padded batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agpo.objectives.losses import (
    KL_ESTIMATORS,
    ConstantLength,
    Normalisation,
    PpoClip,
    SequenceMean,
    TokenLoss,
    TokenMean,
)
from agpo.objectives.losses.cispo import Cispo
from agpo.objectives.losses.gspo import Gspo
from agpo.objectives.losses.sapo import Sapo
from tests.parity.peers import LENGTH, PaddedBatch, draw_batch, trl_loss, verl_kl, verl_loss

pytestmark = pytest.mark.parity

CLIP = {"clip_low": 0.2, "clip_high": 0.28}
VERL_CLIP = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
OFF = 1e9  # a dual clip that never acts

Peer = Callable[[PaddedBatch], Tensor]


def trl(loss_type: str, level: str = "token", **options: float) -> Peer:
    return lambda batch: trl_loss(loss_type, level, batch, **options)


def verl(name: str, mode: str, **options: float) -> Peer:
    return lambda batch: verl_loss(name, batch, mode, **{**VERL_CLIP, **options})


def value_and_gradient(loss: Tensor, batch: PaddedBatch) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(loss, batch.new)
    return loss.detach(), gradient


def ours(policy: TokenLoss, normalisation: Normalisation, batch: PaddedBatch) -> Tensor:
    new, old = batch.tokens(batch.new), batch.tokens(batch.old)
    losses = policy.token_losses(new, old, batch.advantages[batch.rows], batch.rows)
    return (losses * normalisation.token_weights(batch.lengths)[batch.rows]).sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("policy", "normalisation", "peer", "tolerance"),
    [
        (PpoClip(**CLIP, dual_clip=OFF), TokenMean(), trl("dapo"), 1e-12),
        (PpoClip(**CLIP, dual_clip=OFF), TokenMean(), verl("vanilla", "token-mean", clip_ratio_c=OFF), 1e-12),
        (PpoClip(**CLIP, dual_clip=OFF), SequenceMean(), trl("grpo"), 1e-12),
        (
            PpoClip(**CLIP, dual_clip=OFF),
            SequenceMean(),
            verl("vanilla", "seq-mean-token-mean", clip_ratio_c=OFF),
            1e-12,
        ),
        (PpoClip(**CLIP, dual_clip=OFF), ConstantLength(tokens=LENGTH), trl("dr_grpo"), 1e-12),
        (
            PpoClip(**CLIP, dual_clip=OFF),
            ConstantLength(tokens=LENGTH),
            verl("vanilla", "seq-mean-token-sum-norm", clip_ratio_c=OFF),
            1e-12,
        ),
        (PpoClip(**CLIP, dual_clip=3.0), TokenMean(), trl("dapo", delta=3.0), 1e-12),
        (PpoClip(**CLIP, dual_clip=3.0), TokenMean(), verl("vanilla", "token-mean", clip_ratio_c=3.0), 1e-12),
        (PpoClip(**CLIP, dual_clip=2.0), TokenMean(), trl("dapo", delta=2.0), 1e-12),
        (PpoClip(**CLIP, dual_clip=2.0), TokenMean(), verl("vanilla", "token-mean", clip_ratio_c=2.0), 1e-12),
        (Gspo(**CLIP), TokenMean(), trl("dapo", "sequence"), 1e-12),
        (Gspo(**CLIP), SequenceMean(), trl("grpo", "sequence"), 1e-12),
        (Gspo(**CLIP), SequenceMean(), verl("gspo", "seq-mean-token-mean"), 1e-12),
        (Cispo(clip_high=0.28), TokenMean(), trl("cispo", high=1.28), 1e-12),
        (Cispo(clip_high=0.28), TokenMean(), verl("cispo", "token-mean", clip_ratio_low=1.0), 1e-12),
        (Sapo(), SequenceMean(), trl("sapo"), 1e-6),  # TRL's temperatures are fp32
        (Sapo(), SequenceMean(), verl("sapo", "seq-mean-token-mean"), 1e-12),
    ],
)
def test_value_and_gradient_are_the_same(
    policy: TokenLoss, normalisation: Normalisation, peer: Peer, tolerance: float, seed: int
) -> None:
    batch = draw_batch(seed)
    found = value_and_gradient(ours(policy, normalisation, batch), batch)
    for mine, theirs in zip(found, value_and_gradient(peer(batch), batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KL_ESTIMATORS)
def test_verl_estimates_the_same_divergence(kind: str) -> None:
    batch = draw_batch(0)
    found = KL_ESTIMATORS[kind](batch.new, batch.reference)  # type: ignore[index]
    torch.testing.assert_close(found, verl_kl(kind, batch), atol=1e-12, rtol=0)


def test_trl_adds_k3_with_the_weights_of_the_loss() -> None:
    batch = draw_batch(0)
    divergence = KL_ESTIMATORS["k3"](batch.tokens(batch.new), batch.tokens(batch.reference))
    loss = ours(PpoClip(**CLIP, dual_clip=OFF), TokenMean(), batch) + 0.1 * divergence.mean()
    for mine, theirs in zip(
        value_and_gradient(loss, batch),
        value_and_gradient(trl_loss("dapo", "token", batch, beta=0.1), batch),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)
