"""Terms of the loss: one small pure file per policy loss; KL estimators; normalisations; the sampler's correction.

A module of this folder with a subclass of `TokenLoss` is a policy loss; so is an entry point of the group
``agpo.objectives.losses`` that names such a class in another package.
"""

from typing import TYPE_CHECKING, TypeAlias

from agpo.objectives.discovery import find_kinds, tagged_union
from agpo.objectives.losses.correction import Correction
from agpo.objectives.losses.kl import KL_ESTIMATORS, KlEstimator, kl_k1, kl_k2, kl_k3
from agpo.objectives.losses.normalisation import ConstantLength, Normalisation, SequenceMean, TokenMean
from agpo.objectives.losses.ppo import PpoClip, ppo_clip_loss
from agpo.objectives.losses.token_loss import TokenLoss

POLICY_LOSSES = find_kinds(__name__, TokenLoss)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    PolicyLoss: TypeAlias = TokenLoss
else:
    PolicyLoss = tagged_union(POLICY_LOSSES)

__all__ = [
    "KL_ESTIMATORS",
    "POLICY_LOSSES",
    "ConstantLength",
    "Correction",
    "KlEstimator",
    "Normalisation",
    "PolicyLoss",
    "PpoClip",
    "SequenceMean",
    "TokenLoss",
    "TokenMean",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "ppo_clip_loss",
]
