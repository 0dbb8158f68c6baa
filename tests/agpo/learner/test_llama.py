from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agpo.learner.llama import LlamaBody, is_small_llama
from agpo.learner.packed import pack_padded
from tests.agpo.learner.models import exact, random_rows, tiny_model
from tests.tiny_model import make_llama

LENGTHS = [(3, 4), (1, 6), (5, 1)]


def read(body: LlamaBody, ids: Tensor, chosen: Tensor) -> Tensor:
    """At the places that ``chosen`` names; a row ends there."""
    rows = pack_padded(ids, chosen)
    return body(rows.ids, rows.lengths, rows.chosen)


def gradients(model: Any, values: Tensor) -> dict[str, Tensor]:
    factors = torch.randn(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(1))
    names, parameters = zip(*model.model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(values, parameters, factors), strict=True))


def assert_exact(model: Any, ids: Tensor, chosen: Tensor, found: Tensor) -> None:
    """Values and every gradient are those of the model's own layers on padded rows."""
    expected = model.model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    wanted = gradients(model, expected)
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-11, atol=1e-11, msg=name)


@pytest.mark.parametrize("kind", ["llama", "llama-grouped"])
def test_values_and_every_gradient_are_those_of_the_models_own_layers(kind: str) -> None:
    model = exact(tiny_model(kind))
    ids, chosen = random_rows(LENGTHS)
    found = read(LlamaBody(model), ids, chosen)
    assert_exact(model, ids, chosen, found)


def test_what_rows_begin_with_alike_is_computed_once_and_changes_nothing() -> None:
    """Values and gradients are those of each row alone; the second row is the first one, the third begins like it."""
    model = exact(tiny_model("llama-grouped"))
    ids, chosen = random_rows([(3, 4), (3, 4), (3, 4), (3, 2)])
    ids[1], ids[2, :5], ids[3, :3] = ids[0], ids[0, :5], ids[0, :3]
    embedded: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: embedded.append(inputs[0].numel()))
    found = read(LlamaBody(model), ids, chosen)
    hook.remove()
    assert embedded == [7 + 0 + 2 + 2]
    assert_exact(model, ids, chosen, found)


@pytest.mark.parametrize("rests", [(9, 1, 2), (2, 2, 2), (6, 5, 4), (0, 0, 3)])
def test_the_first_row_of_a_group_may_be_longer_than_the_rests_of_the_others(rests: tuple[int, ...]) -> None:
    """Values and gradients with a prompt of 10 tokens, and a row of another group behind."""
    model = exact(tiny_model("llama-grouped"))
    ids, chosen = random_rows([(10, 3), *((10, max(1, rest)) for rest in rests), (4, 2)])
    for row, rest in enumerate(rests, start=1):
        alike = 10 if rest else 11
        ids[row, :alike] = ids[0, :alike]
    found = read(LlamaBody(model), ids, chosen)
    assert_exact(model, ids, chosen, found)


def test_gradients_are_the_same_bytes_with_several_threads() -> None:
    """Rows that begin alike are read at shared places: what flows back to these must be summed in one order."""
    model = make_llama(64, 128, 128, layers=1, heads=2, key_value_heads=2)
    rows = torch.randint(0, 64, (3, 40), generator=torch.Generator().manual_seed(0)).repeat_interleave(8, dim=0)
    chosen = (torch.arange(40) >= 20).expand(rows.shape)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [gradients(model, read(LlamaBody(model), rows, chosen)) for _ in range(20)]
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(gradient, other[name]) for name, gradient in found[0].items())


def test_in_fp32_it_rounds_no_worse_than_the_models_own_layers() -> None:
    ids, chosen = random_rows([(4, 8)] * 16)
    truth = exact(tiny_model("llama")).model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
    model = tiny_model("llama", torch.float32)
    own = model.model(input_ids=ids, use_cache=False).last_hidden_state[chosen]
    found = read(LlamaBody(model), ids, chosen)
    assert (found - truth).square().mean() < 2 * (own - truth).square().mean()


def test_inputs_and_weights_are_left_as_they_were() -> None:
    model = tiny_model("llama")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    ids, chosen = random_rows(LENGTHS)
    body = LlamaBody(model)
    first = read(body, ids, chosen)
    gradients(model, first)
    torch.testing.assert_close(read(body, ids, chosen), first, rtol=0, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama-biased", "qwen3", "gpt2"])
def test_other_models_are_not_taken(kind: str) -> None:
    assert not is_small_llama(tiny_model(kind))


def test_small_llamas_are_taken_wide_ones_are_not() -> None:
    assert is_small_llama(tiny_model("llama"))
    assert not is_small_llama(tiny_model("llama", width=264))
