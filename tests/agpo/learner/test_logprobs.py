from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agpo.learner import chunked_logprobs, logprobs

TEMPERATURE = 0.7


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(logprobs._CHUNK_ELEMENTS, "cpu", 4 * 11)  # four tokens a chunk at a vocabulary of 11


def inputs(tokens: int, dtype: torch.dtype, vocabulary: int = 11, width: int = 5, scale: float = 1.0) -> list[Tensor]:
    """Hidden states, weight, bias and targets."""
    generator = torch.Generator().manual_seed(tokens)
    hidden, weight, bias = (
        (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
        for shape in ((tokens, width), (vocabulary, width), (vocabulary,))
    )
    return [hidden, weight, bias, torch.randint(vocabulary, (tokens,), generator=generator)]


def dense(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = hidden @ weight.T + (0 if bias is None else bias)
    logp = (logits / TEMPERATURE).log_softmax(-1)
    return logp[torch.arange(len(targets)), targets], -(logp.exp() * logp).sum(-1)


@pytest.mark.parametrize("tokens", [1, 4, 10])
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_and_gradients_are_those_of_the_dense_formula(tokens: int, with_bias: bool) -> None:
    hidden, weight, bias, targets = inputs(tokens, torch.float64)
    given_bias = bias if with_bias else None
    leaves = [hidden, weight, *([bias] if with_bias else [])]
    found = chunked_logprobs(hidden, weight, targets, TEMPERATURE, given_bias)
    expected = dense(hidden, weight, given_bias, targets)
    weights = torch.randn(2, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for values, reference, factors in zip(found, expected, weights, strict=True):
        torch.testing.assert_close(values, reference, rtol=0, atol=1e-13)
        for gradient, wanted in zip(
            torch.autograd.grad(values, leaves, factors, retain_graph=True),
            torch.autograd.grad(reference, leaves, factors, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-12)


def test_gradients_pass_gradcheck() -> None:
    *leaves, targets = inputs(6, torch.float64)
    assert torch.autograd.gradcheck(lambda h, w, b: chunked_logprobs(h, w, targets, TEMPERATURE, b), leaves)


def test_both_results_are_differentiated_together() -> None:
    hidden, weight, bias, targets = inputs(6, torch.float64)
    found = sum(part.sum() for part in chunked_logprobs(hidden, weight, targets, TEMPERATURE, bias))
    wanted = sum(part.sum() for part in dense(hidden, weight, bias, targets))
    for gradient, expected in zip(
        torch.autograd.grad(found, (hidden, weight, bias)),  # type: ignore[arg-type]
        torch.autograd.grad(wanted, (hidden, weight, bias)),  # type: ignore[arg-type]
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


@given(scale=st.sampled_from([0.1, 1.0, 3.0]), tokens=st.integers(1, 9))
def test_fp32_is_within_two_millionths_of_fp64(scale: float, tokens: int) -> None:
    exact = inputs(tokens, torch.float64, vocabulary=300, width=16, scale=scale)
    rounded = [part.float() for part in exact[:3]]
    found = chunked_logprobs(rounded[0], rounded[1], exact[3], TEMPERATURE, rounded[2])
    expected = dense(rounded[0].double(), rounded[1].double(), rounded[2].double(), exact[3])
    for values, reference in zip(found, expected, strict=True):
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), reference, rtol=2e-6, atol=2e-6)


def test_bf16_weights_give_fp32_results() -> None:
    hidden, weight, bias, targets = inputs(6, torch.bfloat16)
    found, entropy = chunked_logprobs(hidden, weight, targets, TEMPERATURE, bias)
    expected = dense(hidden.double(), weight.double(), bias.double(), targets)[0]
    assert found.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.05)
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    assert gradient.dtype == torch.bfloat16


def test_the_size_of_a_chunk_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias, targets = inputs(10, torch.float64)
    in_parts = chunked_logprobs(hidden, weight, targets, TEMPERATURE, bias)
    monkeypatch.setitem(logprobs._CHUNK_ELEMENTS, "cpu", 1 << 20)
    at_once = chunked_logprobs(hidden, weight, targets, TEMPERATURE, bias)
    for part, whole in zip(in_parts, at_once, strict=True):
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-14)


def test_no_token_is_no_error() -> None:
    hidden, weight, bias, targets = inputs(0, torch.float64)
    found, entropy = chunked_logprobs(hidden, weight, targets, TEMPERATURE, bias)
    assert found.shape == entropy.shape == (0,)
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    assert not gradient.any()


def test_the_package_loads_without_torch() -> None:
    code = "import sys, agpo.learner, agpo.learner.folder, agpo.learner.hub; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
