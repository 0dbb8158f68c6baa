from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from agpo.rollout import sampler
from agpo.rollout.decoder import make_decoder
from agpo.rollout.randomness import Uniforms
from agpo.rollout.sampler import Samples, sample_answers
from tests.agpo.rollout.models import STOP, VOCABULARY, make_model
from tests.agpo.rollout.test_truncation import keep_by_definition


class StubDecoder:
    """A language model that is a function from token ids to logits. Refuses two rows with the same text."""

    def __init__(self, logits_of: Callable[[tuple[int, ...]], Sequence[float]]) -> None:
        self.logits_of = logits_of
        self.rows_read = 0

    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        self.texts = [tuple(prompt) for prompt in prompts]
        self.most_rows, self.left = rows, capacity
        return self._read()

    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        assert self.left > 0 and len(parents) <= self.most_rows
        self.left -= 1
        self.texts = [(*self.texts[parent], int(token)) for parent, token in zip(parents, tokens, strict=True)]
        assert len(set(self.texts)) == len(self.texts)
        return self._read()

    def finish(self) -> None:
        self.texts = []

    def _read(self) -> Tensor:
        self.rows_read += len(self.texts)
        return torch.tensor([self.logits_of(text) for text in self.texts], dtype=torch.float32)


class FixedUniforms:
    """The same numbers [samples] at every position."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.numbers = np.array(numbers, np.float64)

    def at(self, position: int) -> NDArray[np.float64]:
        return self.numbers


def draw(
    decoder: Any,
    prompt_of: Sequence[int] = (0,),
    uniforms: Any = None,
    *,
    prompts: Sequence[Sequence[int]] = ((0,), (1, 1)),
    seed: int = 0,
    tokens: int = 3,
    temperature: float = 1.0,
    stops: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
    **truncation: Any,
) -> Samples:
    if uniforms is None:
        uniforms = Uniforms(seed, 0, [str(prompt) for prompt in prompt_of], list(range(len(prompt_of))))
    return sample_answers(
        decoder,
        prompts,
        np.array(prompt_of),
        cast(Uniforms, uniforms),
        tokens=tokens,
        temperature=temperature,
        stops=stops,
        progress=progress,
        **truncation,
    )


def answers_of(samples: Samples) -> list[tuple[int, ...]]:
    return [tuple(row[:length].tolist()) for row, length in zip(samples.tokens, samples.lengths, strict=True)]


def language(text: tuple[int, ...]) -> list[float]:
    """Four tokens whose probabilities depend on the whole text."""
    logits: list[float] = np.random.default_rng(list(text)).normal(0, 1.5, 4).tolist()
    return logits


# --- the distribution


@pytest.mark.parametrize("seed", range(3))
def test_answers_have_the_distribution_of_independent_sampling(seed: int) -> None:
    stop, count = 3, 6000
    samples = draw(StubDecoder(language), [0] * count, seed=seed, stops=[stop])
    expected = _enumerate_answers((0,), tokens=3, stop=stop)
    assert sum(expected.values()) == pytest.approx(1)
    found = Counter(answers_of(samples))
    assert set(found) <= set(expected)
    likely = [answer for answer, chance in expected.items() if chance * count >= 5]
    rest = 1 - sum(expected[answer] for answer in likely)
    counts = [found[answer] for answer in likely]
    chances = [expected[answer] for answer in likely]
    result = stats.chisquare([*counts, count - sum(counts)], [*(count * p for p in chances), count * rest])
    assert result.pvalue > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_samples_are_independent(seed: int) -> None:
    """Samples that share a row of the cache do not share their fate."""
    samples = draw(StubDecoder(language), [0] * 6000, seed=seed, tokens=2)
    codes = samples.tokens[:, 0] * 4 + samples.tokens[:, 1]
    table = np.zeros((16, 16))
    np.add.at(table, (codes[0::2], codes[1::2]), 1)
    common = table.sum(0) + table.sum(1) > 300
    assert stats.chi2_contingency(table[common][:, common]).pvalue > 1e-3


def _enumerate_answers(prompt: tuple[int, ...], tokens: int, stop: int) -> dict[tuple[int, ...], float]:
    """Probability of every answer of at most ``tokens`` tokens."""
    chances: dict[tuple[int, ...], float] = {}
    for length in range(1, tokens + 1):
        for answer in itertools.product(range(4), repeat=length):
            if stop in answer[:-1] or (answer[-1] != stop and length < tokens):
                continue
            chances[answer] = math.exp(sum(_logprobs_of(prompt, answer)))
    return chances


def _logprobs_of(prompt: tuple[int, ...], answer: Sequence[int], temperature: float = 1.0) -> list[float]:
    found = []
    for place, token in enumerate(answer):
        logits = np.array(language((*prompt, *answer[:place]))) / temperature
        found.append(float(logits[token] - np.log(np.exp(logits).sum())))
    return found


# --- each sample alone


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_the_one_that_its_own_numbers_give(seed: int) -> None:
    """Whatever else is in the chunk: token by token the inverse CDF of the sample's own numbers."""
    prompts: list[tuple[int, ...]] = [(0,), (1, 1)]
    prompt_of = [0, 1, 1, 0] * 50
    uniforms = Uniforms(seed, 4, [f"p{prompt}" for prompt in prompt_of], list(range(200)))
    samples = draw(StubDecoder(language), prompt_of, uniforms, prompts=prompts, tokens=6, stops=[3])
    for row, answer in enumerate(answers_of(samples)):
        expected: list[int] = []
        while len(expected) < 6 and (not expected or expected[-1] != 3):
            logits = np.array(language((*prompts[prompt_of[row]], *expected)))
            cumulative = np.cumsum(np.exp(logits) / np.exp(logits).sum())
            expected.append(int((cumulative <= uniforms.at(len(expected))[row]).sum()))
        assert list(answer) == expected


def test_a_prefix_is_read_once_however_many_samples_have_it() -> None:
    decoder = StubDecoder(language)
    samples = draw(decoder, [0] * 500, prompts=[(0,)], tokens=4)
    prefixes = {answer[:length] for answer in answers_of(samples) for length in range(4)}
    assert decoder.rows_read == len(prefixes)


def test_a_small_block_of_samples_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(StubDecoder(language), [0, 1] * 50)
    monkeypatch.setattr(sampler, "_BLOCK", 4 * 7)
    parts = draw(StubDecoder(language), [0, 1] * 50)
    assert (whole.tokens == parts.tokens).all() and (whole.logprobs == parts.logprobs).all()


# --- the inverse CDF at its edges

EDGES = [0.0, 5e-324, 2.0**-53, 0.25, 0.5, 1 - 2.0**-24, 1 - 2.0**-25, 1 - 2.0**-53]


@given(
    st.lists(st.one_of(st.just(-math.inf), st.floats(-120, 120)), min_size=1, max_size=9).filter(
        lambda logits: max(logits) > -math.inf
    ),
    st.sampled_from([0.2, 1.0, 3.0]),
)
def test_an_impossible_token_is_never_drawn(logits: list[float], temperature: float) -> None:
    samples = draw(
        StubDecoder(lambda text: logits),
        [0] * len(EDGES),
        FixedUniforms(EDGES),
        tokens=1,
        temperature=temperature,
    )
    drawn = samples.tokens[:, 0]
    assert (drawn < len(logits)).all()
    assert (np.array(logits)[drawn] > -math.inf).all()
    assert np.isfinite(samples.logprobs[:, 0]).all()
    assert (np.diff(drawn) >= 0).all()  # a larger number, a later token


def test_the_tail_of_a_large_vocabulary_keeps_its_probability() -> None:
    """Tokens of probability 1e-8, less than a unit in the last place of an fp32 sum near 1."""
    tail = 2000
    logits = [0.0] + [math.log(1e-8)] * tail
    total = 1 + tail * 1e-8
    numbers = [(1 + (index + 0.5) * 1e-8) / total for index in range(tail)]
    samples = draw(StubDecoder(lambda text: logits), [0] * tail, FixedUniforms(numbers), tokens=1)
    assert samples.tokens[:, 0].tolist() == list(range(1, tail + 1))


@pytest.mark.parametrize("logits", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_logits_without_a_distribution_are_an_error(logits: list[float]) -> None:
    with pytest.raises(FloatingPointError, match="next-token probabilities are not numbers"):
        draw(StubDecoder(lambda text: logits))


# --- ends, lengths, log-probs


def test_an_answer_ends_with_a_stop_token_or_is_marked_truncated() -> None:
    stops = [1, 3]
    samples = draw(StubDecoder(language), [0, 1] * 100, tokens=4, stops=stops)
    for answer, truncated in zip(answers_of(samples), samples.truncated, strict=True):
        assert not set(answer[:-1]) & set(stops)
        assert truncated == (answer[-1] not in stops)
        assert len(answer) == 4 or not truncated
    assert samples.truncated.any()
    assert ((samples.lengths == 4) & ~samples.truncated).any()  # a stop token in the last place is an end


def test_one_token_can_be_the_whole_answer() -> None:
    samples = draw(StubDecoder(lambda text: [0.0]), [0, 1], tokens=5, stops=[0])
    assert samples.lengths.tolist() == [1, 1] and not samples.truncated.any()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logprobs_are_those_of_the_distribution_that_was_sampled(temperature: float) -> None:
    prompts: list[tuple[int, ...]] = [(0,), (1, 1)]
    samples = draw(StubDecoder(language), [0, 1] * 20, prompts=prompts, tokens=5, temperature=temperature, stops=[3])
    for row, answer in enumerate(answers_of(samples)):
        expected = _logprobs_of(prompts[row % 2], answer, temperature)
        assert samples.logprobs[row, : len(answer)].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("stops", [[], [3], [0, 1, 2, 3]])
def test_progress_counts_every_answer_once(stops: list[int]) -> None:
    calls: list[int] = []
    draw(StubDecoder(language), [0, 1] * 30, tokens=4, stops=stops, progress=calls.append)
    assert sum(calls) == 60 and min(calls) > 0


# --- top-p, top-k, min-p

TRUNCATIONS: list[dict[str, Any]] = [{"top_p": 0.7}, {"top_k": 2}, {"min_p": 0.3}, {"top_p": 0.9, "top_k": 3}]


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_answers_are_drawn_from_what_truncation_leaves(truncation: dict[str, Any], temperature: float) -> None:
    """Token by token the inverse CDF of the sample's own number over the tokens left, in the order of their ids."""
    uniforms = Uniforms(1, 0, ["p"] * 200, list(range(200)))
    samples = draw(StubDecoder(language), [0] * 200, uniforms, tokens=4, temperature=temperature, **truncation)
    for row, answer in enumerate(answers_of(samples)):
        for place, token in enumerate(answer):
            chances = _truncated_chances((0, *answer[:place]), temperature, truncation)
            left, drawn = uniforms.at(place)[row], 0
            while left >= chances[drawn]:
                left, drawn = left - chances[drawn], drawn + 1
            assert token == drawn
            assert samples.logprobs[row, place] == pytest.approx(math.log(chances[drawn]), abs=1e-5)


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
def test_no_number_draws_a_token_that_was_taken_away(truncation: dict[str, Any]) -> None:
    samples = draw(StubDecoder(language), [0] * len(EDGES), FixedUniforms(EDGES), tokens=1, **truncation)
    chances = _truncated_chances((0,), 1.0, truncation)
    assert all(chances[token] > 0 for token in samples.tokens[:, 0])
    assert samples.tokens[-1, 0] == max(token for token, chance in enumerate(chances) if chance > 0)


def test_one_token_left_is_greedy_with_certainty() -> None:
    samples = draw(StubDecoder(language), [0] * 50, tokens=3, top_k=1)
    assert len(set(answers_of(samples))) == 1
    assert (samples.logprobs == 0).all()


def test_settings_that_leave_all_tokens_change_no_byte() -> None:
    plain = draw(StubDecoder(language), [0, 1] * 50)
    off = draw(StubDecoder(language), [0, 1] * 50, top_p=1.0, top_k=0, min_p=0.0)
    assert plain.tokens.tobytes() == off.tokens.tobytes() and plain.logprobs.tobytes() == off.logprobs.tobytes()


def _truncated_chances(text: tuple[int, ...], temperature: float, truncation: dict[str, Any]) -> list[float]:
    logits = (np.array(language(text), np.float32) / np.float32(temperature)).tolist()
    kept = keep_by_definition(logits, **truncation)
    total = sum(math.exp(logits[token]) for token in kept)
    return [math.exp(logits[token]) / total if token in kept else 0.0 for token in range(len(logits))]


# --- a real model


def test_the_same_chunk_gives_the_same_bytes() -> None:
    first, second = _sample_model(range(24)), _sample_model(range(24))
    for name in ("tokens", "logprobs", "lengths", "truncated"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_other_samples_of_the_chunk_do_not_change_an_answer() -> None:
    together, apart = _sample_model(range(24)), _sample_model([5, 17, 18])
    for row, alone in zip([5, 17, 18], range(3), strict=True):
        assert answers_of(together)[row] == answers_of(apart)[alone]
        assert together.logprobs[row] == pytest.approx(apart.logprobs[alone], abs=1e-4)


def _sample_model(rows: Sequence[int]) -> Samples:
    prompts = [[3, 4, 5], [6, 7], [8, 9, 10, 11]]
    prompt_of = [row // 8 for row in rows]
    uniforms = Uniforms(0, 0, [str(prompt) for prompt in prompt_of], [row % 8 for row in rows])
    samples = draw(
        make_decoder(make_model("llama")),
        prompt_of,
        uniforms,
        prompts=prompts,
        tokens=10,
        temperature=3.0,
        stops=[STOP],
    )
    assert samples.tokens.max() < VOCABULARY
    return samples
