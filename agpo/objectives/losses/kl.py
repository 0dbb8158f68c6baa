"""Estimators of the KL divergence between the policy and a reference, per sampled token.

J. Schulman, "Approximating KL divergence", 2020. All three have the right mean, or nearly so (k2), for tokens sampled
from the policy; as terms of a loss they differ in what their gradients pull towards. Log-probs are [tokens], natural
logarithms, and so is what is returned: [tokens], in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """policy − reference: unbiased for KL(policy ‖ reference), of either sign.

    As a loss on on-policy samples its gradient has mean 0 whatever the reference is: it measures, and does not pull.
    """
    return logprobs - reference_logprobs


def kl_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """½ (policy − reference)²: slightly biased, never negative.

    Its gradient on on-policy samples is that of the reverse divergence KL(policy ‖ reference).
    """
    return (logprobs - reference_logprobs).square() / 2


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(Δ) − Δ − 1 with Δ = reference − policy: unbiased for KL(policy ‖ reference), never negative.

    Its gradient on on-policy samples is that of the forward divergence KL(reference ‖ policy).
    """
    delta = reference_logprobs - logprobs
    return delta.exp() - delta - 1


KL_ESTIMATORS: Mapping[KlEstimator, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
