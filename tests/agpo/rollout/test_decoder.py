from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agpo.rollout import llama_weights
from agpo.rollout.decoder import CacheDecoder, Decoder, make_decoder
from agpo.rollout.llama_decoder import LlamaDecoder
from agpo.rollout.randomness import Uniforms
from agpo.rollout.sampler import sample_answers
from tests.agpo.rollout.models import DIRECT, GENERAL, VOCABULARY, make_model

EQUAL_LENGTHS = (5, 5, 5)
DIFFERENT_LENGTHS = (3, 7, 1)


@pytest.mark.parametrize("lengths", [EQUAL_LENGTHS, DIFFERENT_LENGTHS], ids=["equal", "padded"])
@pytest.mark.parametrize("name", DIRECT)
def test_direct_decoder_equals_the_plain_model_and_the_cache(name: str, lengths: tuple[int, ...]) -> None:
    model = make_model(name)
    for seed in range(2):
        direct, texts = _follow(LlamaDecoder(model), lengths, seed)
        cached, _ = _follow(CacheDecoder(model), lengths, seed)
        for found, other, rows in zip(direct, cached, texts, strict=True):
            _assert_equal_logits(found, _read_whole(model, rows))
            _assert_equal_logits(found, other)


@pytest.mark.parametrize("lengths", [EQUAL_LENGTHS, DIFFERENT_LENGTHS], ids=["equal", "padded"])
@pytest.mark.parametrize("name", GENERAL)
def test_general_decoder_equals_the_plain_model(name: str, lengths: tuple[int, ...]) -> None:
    model = make_model(name)
    for found, rows in zip(*_follow(CacheDecoder(model), lengths, seed=0), strict=True):
        _assert_equal_logits(found, _read_whole(model, rows))


@pytest.mark.parametrize("name", DIRECT)
def test_known_types_are_decoded_directly(name: str) -> None:
    assert isinstance(make_decoder(make_model(name)), LlamaDecoder)


@pytest.mark.parametrize("name", GENERAL)
def test_other_types_take_the_general_path(name: str) -> None:
    assert isinstance(make_decoder(make_model(name)), CacheDecoder)


def test_a_model_that_ignores_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="model type mamba: continuing from its cache gives other logits"):
        make_decoder(make_model("mamba"))


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model type gpt2: .* without dropout"):
        make_decoder(make_model("gpt2").train())


@pytest.mark.parametrize("decoder_type", [LlamaDecoder, CacheDecoder])
def test_weights_are_read_live(decoder_type: type[Any]) -> None:
    model = make_model("llama")
    decoder = decoder_type(model)
    before = decoder.start([[3, 4, 5]], 1, 1).clone()
    decoder.finish()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(2)
    after = decoder.start([[3, 4, 5]], 1, 1)
    assert (before - after).abs().max() > 0.1
    _assert_equal_logits(after, _read_whole(model, [[3, 4, 5]]))


@pytest.mark.parametrize("lengths", [EQUAL_LENGTHS, DIFFERENT_LENGTHS], ids=["equal", "padded"])
@pytest.mark.parametrize("kind", ["llama biases", "qwen3 biases"])
def test_weights_of_a_large_model_are_read_where_they_are(
    monkeypatch: pytest.MonkeyPatch, kind: str, lengths: tuple[int, ...]
) -> None:
    monkeypatch.setattr(llama_weights, "LARGEST_COPY", 0)
    model = make_model(kind)
    found, texts = _follow(LlamaDecoder(model), lengths, seed=0)
    for logits, rows in zip(found, texts, strict=True):
        _assert_equal_logits(logits, _read_whole(model, rows))


def test_a_large_model_in_bf16_is_computed_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_weights, "LARGEST_COPY", 0)
    model = make_model("llama").bfloat16()
    found, texts = _follow(LlamaDecoder(model), DIFFERENT_LENGTHS, seed=0)
    for logits, rows in zip(found, texts, strict=True):
        expected = _read_whole(model, rows)
        assert 1e-4 < (logits - expected).square().mean().sqrt() / expected.std() < 0.1


def test_a_small_model_in_bf16_is_computed_in_fp32() -> None:
    model = make_model("llama").bfloat16()
    found, texts = _follow(LlamaDecoder(model), DIFFERENT_LENGTHS, seed=0)
    exact = model.float()
    for logits, rows in zip(found, texts, strict=True):
        _assert_equal_logits(logits, _read_whole(exact, rows))


def test_adapters_take_the_general_path() -> None:
    class Adapted(torch.nn.Linear):
        pass

    model = make_model("llama")
    model.model.layers[0].self_attn.q_proj.__class__ = Adapted
    assert isinstance(make_decoder(model), CacheDecoder)


def test_slots_of_ended_rows_are_given_up() -> None:
    model = make_model("llama")
    decoder = LlamaDecoder(model)
    decoder.start([[3, 4], [5, 6, 7]], 40, 4)
    parents = np.repeat([0, 1], 20)
    tokens = np.tile(np.arange(3, 23), 2)
    decoder.step(parents, torch.from_numpy(tokens))
    left = np.array([1, 19, 20, 38, 39])
    found = decoder.step(left, torch.full((5,), 9))
    assert len(decoder.prompt) == 5
    starts = [[3, 4], [5, 6, 7]]
    texts = [[*starts[parents[row]], int(tokens[row]), 9] for row in left]
    _assert_equal_logits(found, _read_whole(model, texts))


@pytest.mark.parametrize("decoder_type", [LlamaDecoder, CacheDecoder])
@pytest.mark.parametrize("name", ["llama", "llama tied", "qwen3"])
def test_near_zero_temperature_gives_the_greedy_answers_of_generate(name: str, decoder_type: type[Any]) -> None:
    model = make_model(name)
    random = np.random.default_rng(1)
    stops = [2, 9]
    prompts = [random.integers(3, VOCABULARY, length).tolist() for length in (4, 9, 1, 6, 9, 2, 3, 5) * 2]
    answers = sample_answers(
        decoder_type(model),
        prompts,
        np.arange(len(prompts)),
        Uniforms(0, 0, [str(index) for index in range(len(prompts))], [0] * len(prompts)),
        tokens=16,
        temperature=1e-6,
        stops=stops,
    )
    assert answers.truncated.any() and not answers.truncated.all()  # both kinds of end occur
    for prompt, tokens, length in zip(prompts, answers.tokens, answers.lengths, strict=True):
        generated = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=stops)
        assert tokens[:length].tolist() == generated[0, len(prompt) :].tolist()


def _follow(decoder: Decoder, lengths: Sequence[int], seed: int) -> tuple[list[Tensor], list[list[list[int]]]]:
    """Random continuations in which rows split, move and end: the logits of every step, and the texts of the rows."""
    random = np.random.default_rng(seed)
    steps, most = 10, 24
    rows: list[list[int]] = [random.integers(3, VOCABULARY, length).tolist() for length in lengths]
    logits, texts = [decoder.start(rows, most, steps)], [rows]
    for _ in range(steps):
        parents = np.sort(random.integers(0, len(rows), random.integers(1, most + 1)))
        tokens = random.integers(3, VOCABULARY, len(parents))
        rows = [[*rows[parent], int(token)] for parent, token in zip(parents, tokens, strict=True)]
        logits.append(decoder.step(parents, torch.from_numpy(tokens)))
        texts.append(rows)
    decoder.finish()
    return logits, texts


@torch.no_grad()
def _read_whole(model: Any, texts: Sequence[Sequence[int]]) -> Tensor:
    """Logits after each text, read without padding and cache."""
    logits = torch.empty(len(texts), VOCABULARY)
    for length in {len(text) for text in texts}:
        rows = [row for row, text in enumerate(texts) if len(text) == length]
        logits[rows] = model(torch.tensor([texts[row] for row in rows]), use_cache=False).logits[:, -1].float()
    return logits


def _assert_equal_logits(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5 * float(expected.std()))
