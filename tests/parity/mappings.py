"""Which settings of this library stand for which method of a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from agpo.objectives import AdvantageEstimator, Agpo, Grpo, StepContext
from agpo.objectives.dapo import Dapo, Overlong
from agpo.objectives.dr_grpo import DrGrpo
from agpo.objectives.losses import KL_ESTIMATORS, ConstantLength, PpoClip, SequenceMean, TokenMean
from agpo.objectives.losses.cispo import Cispo
from agpo.objectives.losses.gspo import Gspo
from agpo.objectives.losses.sapo import Sapo
from agpo.objectives.opo import Opo
from agpo.objectives.pass_at_k import PassAtK
from agpo.objectives.reinforce_plus_plus import ReinforcePlusPlus
from agpo.objectives.reinforce_plus_plus_baseline import ReinforcePlusPlusBaseline
from agpo.objectives.rloo import Rloo
from agpo.settings import LossSettings
from tests.parity.batch import LENGTHS, TokenBatch
from tests.parity.peers import (
    trl_advantages,
    trl_loss,
    trl_overlong_rewards,
    verl_advantages,
    verl_loss,
    verl_subset_advantages,
)

TOLERANCE = 1e-12

Peer = Callable[[TokenBatch], Tensor]


@dataclass(frozen=True)
class AdvantageMapping:
    estimator: AdvantageEstimator
    peer: Peer
    scale: float = 1.0  # what our advantages are multiplied by

    def ours(self, batch: TokenBatch) -> Tensor:
        """[rows]"""
        context = StepContext(0, batch.lengths)
        return self.scale * self.estimator.advantages(batch.rewards, batch.groups, batch.rewards > 0, context)


@dataclass(frozen=True)
class LossMapping:
    settings: LossSettings
    peer: Peer

    def ours(self, batch: TokenBatch) -> Tensor:
        """The loss, a scalar, as the learner puts it together."""
        losses = self.settings.policy.token_losses(batch.new, batch.old, batch.advantages[batch.rows], batch.rows)
        if self.settings.kl:
            losses = losses + self.settings.kl * KL_ESTIMATORS[self.settings.kl_estimator](batch.new, batch.reference)
        losses = losses - self.settings.entropy * batch.entropy
        return (losses * self.settings.normalisation.token_weights(batch.lengths)[batch.rows]).sum()


def value_and_gradient(loss: Callable[[TokenBatch], Tensor], batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """A scalar and its gradient [tokens] by the new log-probs."""
    value = loss(batch)
    (gradient,) = torch.autograd.grad(value, batch.new)
    return value.detach(), gradient


def _verl_advantages(name: str, **options: Any) -> Peer:
    return lambda batch: verl_advantages(name, batch, **options)


def _verl_without_epsilon(batch: TokenBatch) -> Tensor:
    return verl_advantages("grpo", batch, epsilon=0.0).nan_to_num()  # equal rewards are 0/0 there


def _dapo(batch: TokenBatch) -> Tensor:
    overlong = trl_overlong_rewards(batch.lengths, longest=8, buffer=4)
    return verl_advantages("grpo", replace(batch, rewards=batch.rewards + overlong))


ADVANTAGES = {
    "verl grpo": AdvantageMapping(Grpo(), _verl_advantages("grpo")),
    "trl grpo": AdvantageMapping(Grpo(epsilon=1e-4), partial(trl_advantages, scale_rewards="group")),
    "verl grpo, epsilon 0": AdvantageMapping(Agpo(delta=0, negative=0, ddof=1), _verl_without_epsilon),
    "verl grpo, not scaled": AdvantageMapping(DrGrpo(), _verl_advantages("grpo", norm_adv_by_std_in_grpo=False)),
    "trl grpo, not scaled": AdvantageMapping(DrGrpo(), partial(trl_advantages, scale_rewards="none")),
    "verl grpo, not scaled, is agpo with a large delta": AdvantageMapping(
        Agpo(delta=1e8, negative=0), _verl_advantages("grpo", norm_adv_by_std_in_grpo=False), scale=1e8
    ),
    "verl grpo with the overlong rewards of trl": AdvantageMapping(Dapo(overlong=Overlong(longest=8, buffer=4)), _dapo),
    "verl grpo over subsets": AdvantageMapping(PassAtK(k=2), partial(verl_subset_advantages, k=2)),
    "verl rloo": AdvantageMapping(Rloo(), _verl_advantages("rloo")),
    "verl opo": AdvantageMapping(Opo(), _verl_advantages("opo")),
    "verl reinforce++": AdvantageMapping(
        ReinforcePlusPlus(), _verl_advantages("reinforce_plus_plus", config=SimpleNamespace(gamma=1.0))
    ),
    "verl reinforce++ baseline": AdvantageMapping(
        ReinforcePlusPlusBaseline(), _verl_advantages("reinforce_plus_plus_baseline")
    ),
}


def _trl(loss_type: str, level: str = "token", **options: float) -> Peer:
    return lambda batch: trl_loss(loss_type, level, batch, **options)


def _verl(name: str, mode: str, *, low: float = 0.2, **options: Any) -> Peer:
    return lambda batch: verl_loss(name, mode, batch, clip_ratio_low=low, clip_ratio_high=0.28, **options)


def _settings(policy: Any, normalisation: Any, **options: Any) -> LossSettings:
    return LossSettings(policy=policy, normalisation=normalisation, **options)


OFF = 1e9  # a dual clip that never acts
PPO = PpoClip(clip_low=0.2, clip_high=0.28, dual_clip=OFF)
DUAL_3 = PpoClip(clip_low=0.2, clip_high=0.28, dual_clip=3)
DUAL_2 = PpoClip(clip_low=0.2, clip_high=0.28, dual_clip=2)
GSPO = Gspo(clip_low=0.2, clip_high=0.28)
CISPO = Cispo(clip_high=0.28)
TOKENS, ROWS, CONSTANT = TokenMean(), SequenceMean(), ConstantLength(tokens=max(LENGTHS))
K3 = {"kl": 0.1, "kl_estimator": "k3"}

LOSSES = {
    "trl dapo": LossMapping(_settings(PPO, TOKENS), _trl("dapo")),
    "trl bnpo": LossMapping(_settings(PPO, TOKENS), _trl("bnpo")),
    "trl grpo": LossMapping(_settings(PPO, ROWS), _trl("grpo")),
    "trl dr_grpo": LossMapping(_settings(PPO, CONSTANT), _trl("dr_grpo")),
    "trl dapo, delta 3": LossMapping(_settings(DUAL_3, TOKENS), _trl("dapo", delta=3.0)),
    "trl dapo, delta 2": LossMapping(_settings(DUAL_2, TOKENS), _trl("dapo", delta=2.0)),
    "trl dapo, sequence": LossMapping(_settings(GSPO, TOKENS), _trl("dapo", "sequence")),
    "trl grpo, sequence": LossMapping(_settings(GSPO, ROWS), _trl("grpo", "sequence")),
    "trl cispo": LossMapping(_settings(CISPO, TOKENS), _trl("cispo", high=1.28)),
    "trl sapo": LossMapping(_settings(Sapo(), ROWS), _trl("sapo")),
    "trl dapo, k3": LossMapping(_settings(PPO, TOKENS, **K3), _trl("dapo", beta=0.1)),
    "trl grpo, k3": LossMapping(_settings(PPO, ROWS, **K3), _trl("grpo", beta=0.1)),
    "trl dr_grpo, k3": LossMapping(_settings(PPO, CONSTANT, **K3), _trl("dr_grpo", beta=0.1)),
    "trl dapo, entropy": LossMapping(_settings(PPO, TOKENS, entropy=0.1), _trl("dapo", entropy=0.1)),
    "verl vanilla": LossMapping(_settings(PPO, TOKENS), _verl("vanilla", "token-mean", clip_ratio_c=OFF)),
    "verl vanilla, rows": LossMapping(_settings(PPO, ROWS), _verl("vanilla", "seq-mean-token-mean", clip_ratio_c=OFF)),
    "verl vanilla, constant": LossMapping(
        _settings(PPO, CONSTANT), _verl("vanilla", "seq-mean-token-sum-norm", clip_ratio_c=OFF)
    ),
    "verl vanilla, dual clip 3": LossMapping(
        _settings(DUAL_3, TOKENS), _verl("vanilla", "token-mean", clip_ratio_c=3.0)
    ),
    "verl vanilla, dual clip 2": LossMapping(
        _settings(DUAL_2, TOKENS), _verl("vanilla", "token-mean", clip_ratio_c=2.0)
    ),
    "verl gspo": LossMapping(_settings(GSPO, TOKENS), _verl("gspo", "token-mean")),
    "verl gspo, rows": LossMapping(_settings(GSPO, ROWS), _verl("gspo", "seq-mean-token-mean")),
    "verl cispo": LossMapping(_settings(CISPO, TOKENS), _verl("cispo", "token-mean", low=1.0)),
    "verl sapo": LossMapping(_settings(Sapo(), ROWS), _verl("sapo", "seq-mean-token-mean")),
    **{
        f"verl vanilla, {kind}": LossMapping(
            _settings(DUAL_3, TOKENS, kl=0.1, kl_estimator=kind),
            _verl("vanilla", "token-mean", clip_ratio_c=3.0, kl=kind),
        )
        for kind in ("k1", "k2", "k3")
    },
    "verl vanilla, rows, k3": LossMapping(
        _settings(DUAL_3, ROWS, **K3), _verl("vanilla", "seq-mean-token-mean", clip_ratio_c=3.0, kl="k3")
    ),
    "verl vanilla, rows, entropy": LossMapping(
        _settings(DUAL_3, ROWS, entropy=0.1),
        _verl("vanilla", "seq-mean-token-mean", clip_ratio_c=3.0, entropy=0.1),
    ),
}
