from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agpo.objectives.losses import KL_ESTIMATORS, kl_k1, kl_k2, kl_k3

logits = st.lists(st.floats(-2, 2), min_size=4, max_size=4)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def softmax(values: list[float]) -> Tensor:
    return torch.softmax(torch.tensor(values, dtype=torch.float64), 0)


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
@given(policy=logits, reference=logits)
def test_the_mean_over_the_policy_is_the_divergence(
    estimator: Callable[[Tensor, Tensor], Tensor], policy: list[float], reference: list[float]
) -> None:
    p, q = softmax(policy), softmax(reference)
    torch.testing.assert_close((p * estimator(p.log(), q.log())).sum(), divergence(p, q), atol=1e-9, rtol=0)


@given(policy=logits, shift=st.lists(st.floats(-1e-3, 1e-3), min_size=4, max_size=4))
def test_k2_is_the_divergence_for_near_policies(policy: list[float], shift: list[float]) -> None:
    p, q = softmax(policy), softmax([a + b for a, b in zip(policy, shift, strict=True)])
    torch.testing.assert_close((p * kl_k2(p.log(), q.log())).sum(), divergence(p, q), atol=1e-8, rtol=0)


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k2_and_k3_are_never_negative_and_0_where_the_two_agree(new: float, reference: float) -> None:
    a, b = torch.tensor(new).double(), torch.tensor(reference).double()
    for estimator in (kl_k2, kl_k3):
        assert estimator(a, b) >= 0
    for estimator in KL_ESTIMATORS.values():
        assert estimator(a, a) == 0


def mean_gradient(estimator: Callable[[Tensor, Tensor], Tensor], policy: list[float], reference: Tensor) -> Tensor:
    """The loss's expected gradient on on-policy samples, Σ π(y) ∇ estimate(y): sampling is not differentiated."""
    values = torch.tensor(policy, dtype=torch.float64, requires_grad=True)
    logp = torch.log_softmax(values, 0)
    (found,) = torch.autograd.grad((logp.detach().exp() * estimator(logp, reference.log())).sum(), values)
    return found


@given(policy=logits, reference=logits)
def test_on_policy_k1_pulls_nowhere_k2_to_the_reverse_and_k3_to_the_forward_divergence(
    policy: list[float], reference: list[float]
) -> None:
    q = softmax(reference)
    values = torch.tensor(policy, dtype=torch.float64, requires_grad=True)
    (reverse,) = torch.autograd.grad(divergence(torch.softmax(values, 0), q), values)
    (forward,) = torch.autograd.grad(divergence(q, torch.softmax(values, 0)), values)
    for estimator, expected in [(kl_k1, torch.zeros(4).double()), (kl_k2, reverse), (kl_k3, forward)]:
        torch.testing.assert_close(mean_gradient(estimator, policy, q), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("estimator", KL_ESTIMATORS.values(), ids=KL_ESTIMATORS)
def test_the_gradient_is_that_of_finite_differences(estimator: Callable[[Tensor, Tensor], Tensor]) -> None:
    new = -torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    reference = new.flip(0).clone()
    torch.autograd.gradcheck(lambda x: estimator(x, reference), new.requires_grad_())
