"""Estimators of the KL divergence between the policy and a reference, per sampled token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(Δ) − Δ − 1 with Δ = reference − policy: unbiased for KL(policy ‖ reference), never negative.

    J. Schulman, "Approximating KL divergence", 2020. Its gradient on on-policy samples is that of the forward
    divergence KL(reference ‖ policy).
    """
    delta = reference_logprobs - logprobs
    return delta.exp() - delta - 1
