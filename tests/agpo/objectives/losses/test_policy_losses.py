"""What holds for every policy loss, and each against its formula token by token."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agpo.objectives.losses import POLICY_LOSSES, PpoClip, TokenLoss
from agpo.objectives.losses.cispo import Cispo
from agpo.objectives.losses.gspo import Gspo
from agpo.objectives.losses.sapo import Sapo

LOSSES = [kind_class() for kind_class in POLICY_LOSSES.values()]  # type: ignore[call-arg]
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda each: each.kind)


def draw_tokens(seed: int, spread: float = 0.5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New and old log-probs, advantages and row numbers of six rows of different lengths, in fp64."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(6).repeat_interleave(torch.tensor([1, 3, 2, 5, 4, 2]))
    old = -torch.rand(len(rows), generator=generator, dtype=torch.float64) * 3
    new = old + spread * torch.randn(len(rows), generator=generator, dtype=torch.float64)
    advantages = torch.tensor([1.5, -1.0, -0.3, 0.7, -2.0, 0.0], dtype=torch.float64)[rows]
    return new.requires_grad_(), old, advantages, rows


def gradient_of(loss: TokenLoss, new: Tensor, *rest: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss.token_losses(new, *rest).sum(), new)
    return found


@every
def test_on_policy_the_gradient_is_that_of_reinforce(loss: TokenLoss) -> None:
    new, _, advantages, rows = draw_tokens(0)
    torch.testing.assert_close(gradient_of(loss, new, new.detach(), advantages, rows), -advantages)
    assert not any(held.any() for held in loss.clipped(new.detach(), new.detach(), advantages, rows).values())


@every
def test_rows_without_advantage_have_neither_loss_nor_gradient(loss: TokenLoss) -> None:
    new, old, advantages, rows = draw_tokens(1)
    idle = advantages == 0
    assert not loss.token_losses(new, old, advantages, rows)[idle].any()
    assert not gradient_of(loss, new, old, advantages, rows)[idle].any()


@every
@settings(max_examples=10)
@given(seed=st.integers(0, 1000), cut=st.integers(1, 5))
def test_whole_rows_can_be_computed_apart(loss: TokenLoss, seed: int, cut: int) -> None:
    new, old, advantages, rows = draw_tokens(seed)
    together = loss.token_losses(new, old, advantages, rows)
    for part, first in ((rows < cut, 0), (rows >= cut, cut)):
        apart = loss.token_losses(new[part], old[part], advantages[part], rows[part] - first)
        torch.testing.assert_close(apart, together[part])


@pytest.mark.parametrize("loss", [PpoClip(), Gspo(clip_low=0.2, clip_high=0.2), Sapo()], ids=lambda each: each.kind)
@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_finite_differences(loss: TokenLoss, seed: int) -> None:
    new, old, advantages, rows = draw_tokens(seed)
    torch.autograd.gradcheck(lambda x: loss.token_losses(x, old, advantages, rows), new)


# Each loss for one row, in plain Python.


def _clip(ratio: float, low: float, high: float) -> float:
    return min(max(ratio, 1 - low), 1 + high)


def _ppo(a: float, ratios: list[float], logprobs: list[float]) -> list[float]:
    surrogates = [min(ratio * a, _clip(ratio, 0.2, 0.3) * a) for ratio in ratios]
    return [-(max(value, 2.0 * a) if a < 0 else value) for value in surrogates]


def _gspo(a: float, ratios: list[float], logprobs: list[float]) -> list[float]:
    product = 1.0
    for ratio in ratios:
        product *= ratio
    s = product ** (1 / len(ratios))
    return [-min(s * a, _clip(s, 0.2, 0.3) * a)] * len(ratios)


def _cispo(a: float, ratios: list[float], logprobs: list[float]) -> list[float]:
    return [-_clip(ratio, 1.0, 0.28) * a * logprob for ratio, logprob in zip(ratios, logprobs, strict=True)]


def _sapo(a: float, ratios: list[float], logprobs: list[float]) -> list[float]:
    tau = 1.0 if a > 0 else 1.05
    return [-a * 4 / tau / (1 + exp(-tau * (ratio - 1))) for ratio in ratios]


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (PpoClip(clip_low=0.2, clip_high=0.3, dual_clip=2.0), _ppo),
        (Gspo(clip_low=0.2, clip_high=0.3), _gspo),
        (Cispo(clip_high=0.28), _cispo),
        (Sapo(), _sapo),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
@settings(max_examples=25)
@given(seed=st.integers(0, 1000))
def test_a_row_follows_the_formula(
    loss: TokenLoss, formula: Callable[[float, list[float], list[float]], list[float]], seed: int
) -> None:
    new, old, advantages, rows = draw_tokens(seed, spread=0.8)
    found = loss.token_losses(new, old, advantages, rows)
    for row in range(6):
        own = rows == row
        ratios = (new - old).exp()[own].tolist()
        expected = formula(float(advantages[own][0]), ratios, new[own].tolist())
        assert found[own].tolist() == pytest.approx(expected, abs=1e-12)


def test_cispo_keeps_a_gradient_where_ppo_has_none() -> None:
    new = torch.tensor([log(0.9)], dtype=torch.float64, requires_grad=True)
    old, positive, row = torch.tensor([log(0.3)]).double(), torch.tensor([1.0]).double(), torch.tensor([0])
    assert gradient_of(PpoClip(), new, old, positive, row).tolist() == [0]
    assert gradient_of(Cispo(clip_high=0.28), new, old, positive, row).tolist() == pytest.approx([-1.28])


def test_the_dual_clip_bounds_a_negative_advantage() -> None:
    new = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    old, negative, row = torch.tensor([-5.0]).double(), torch.tensor([-1.0]).double(), torch.tensor([0])
    assert PpoClip().token_losses(new, old, negative, row).tolist() == [3.0]
    assert gradient_of(PpoClip(), new, old, negative, row).tolist() == [0]
    assert gradient_of(PpoClip(dual_clip=1e9), new, old, negative, row).tolist() == pytest.approx([exp(5)])


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.1, 1.5, 4.0])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
@pytest.mark.parametrize("loss", [PpoClip(), Gspo(clip_low=0.2, clip_high=0.2)], ids=lambda each: each.kind)
def test_a_token_without_gradient_is_counted_as_clipped(loss: TokenLoss, advantage: float, ratio: float) -> None:
    new = torch.tensor([log(ratio) - 2] * 2, dtype=torch.float64, requires_grad=True)
    rest = (torch.tensor([-2.0, -2.0]).double(), torch.full((2,), advantage).double(), torch.tensor([0, 0]))
    held = torch.stack(list(loss.clipped(new.detach(), *rest).values())).any(0)
    assert held.tolist() == (gradient_of(loss, new, *rest) == 0).tolist()


def test_gspo_clips_a_response_as_a_whole() -> None:
    """One unlikely token among many does not clip a response that is as likely as before."""
    old = torch.full((10,), -1.0, dtype=torch.float64)
    new = old.clone()
    new[0] += 0.9
    new[1:] -= 0.1
    advantages, rows = torch.ones(10).double(), torch.zeros(10, dtype=torch.long)
    assert PpoClip().clipped(new, old, advantages, rows)["high"].sum() == 1
    assert not Gspo().clipped(new, old, advantages, rows)["high"].any()
    assert Gspo().clipped(new + 0.01, old, advantages, rows)["high"].all()


def test_sapo_fades_negative_advantages_faster() -> None:
    new = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    old, row = torch.tensor([-1.0]).double(), torch.tensor([0])
    positive = gradient_of(Sapo(), new, old, torch.tensor([1.0]).double(), row)
    negative = gradient_of(Sapo(), new, old, torch.tensor([-1.0]).double(), row)
    assert 0 < float(negative) < float(-positive) < exp(1)
