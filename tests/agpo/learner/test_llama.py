from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agpo.learner.llama import LlamaBody, is_small_llama
from tests.agpo.learner.models import random_rows, tiny_model

LENGTHS = [(3, 4), (1, 6), (5, 1)]


def exact(model: Any) -> Any:
    """Norms and attention in the model's own precision: `transformers` rounds both to fp32."""
    model.set_attn_implementation("sdpa")
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = lambda hidden, norm=module: torch.nn.functional.rms_norm(
                hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon
            )
    return model


def gradients(model: Any, values: Tensor) -> dict[str, Tensor]:
    factors = torch.randn(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(1))
    names, parameters = zip(*model.model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(values, parameters, factors), strict=True))


def test_values_and_every_gradient_are_those_of_the_models_own_layers() -> None:
    model = exact(tiny_model("llama"))
    ids, chosen = random_rows(LENGTHS)
    found = LlamaBody(model)(ids, chosen)
    expected = model.model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = gradients(model, expected)
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-11, atol=1e-11, msg=name)


def test_in_fp32_it_rounds_no_worse_than_the_models_own_layers() -> None:
    ids, chosen = random_rows([(4, 8)] * 16)
    truth = exact(tiny_model("llama")).model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
    model = tiny_model("llama", torch.float32)
    own = model.model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
    found = LlamaBody(model)(ids, chosen)
    assert (found - truth).square().mean() < 2 * (own - truth).square().mean()


def test_inputs_and_weights_are_left_as_they_were() -> None:
    model = tiny_model("llama")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    ids, chosen = random_rows(LENGTHS)
    body = LlamaBody(model)
    first = body(ids, chosen)
    gradients(model, first)
    torch.testing.assert_close(body(ids, chosen), first, rtol=0, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama-grouped", "llama-biased", "qwen3", "gpt2"])
def test_other_models_are_not_taken(kind: str) -> None:
    assert not is_small_llama(tiny_model(kind))


def test_small_llamas_are_taken_wide_ones_are_not() -> None:
    assert is_small_llama(tiny_model("llama"))
    assert not is_small_llama(tiny_model("llama", width=264))
