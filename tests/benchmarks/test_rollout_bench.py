"""Tokens per CPU-second of the embedded sampler against `transformers.generate`: same model, prompts and lengths.

Both run in this process on one thread, in turn. Every answer has the full number of tokens. `sharp` has the entropy
of a trained policy, so that samples share prefixes; with `random` weights every answer goes its own way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from agpo.learner.policy import make_model
from agpo.problems.tokenizer import countdown_tokenizer
from agpo.rollout import LocalEngine, Sampling, cut_chunks
from agpo.rollout.decoder import CacheDecoder
from agpo.settings import CountdownProblems, ModelShape

SHAPES = {"0.15M": ModelShape(), "1M": ModelShape(width=128, layers=5, heads=4, feed_forward=344)}
SHARP = 10.0  # factor on the logits
PROBLEMS, TOKENS, REPEATS = 16, 18, 3


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_sampler_against_generate() -> None:
    print(f"\n{'model':6} {'policy':6} {'rows':>5} {'nats/token':>10} {'tokens per CPU-second':>33} {'ratio':>12}")
    print(f"{'':29} {'direct':>11} {'general':>10} {'generate':>10} {'direct':>6} {'general':>7}")
    for name, samples in (("0.15M", 16), ("0.15M", 256), ("1M", 16)):
        for policy, factor in (("random", 1.0), ("sharp", SHARP)):
            _compare(name, policy, factor, samples)


def _compare(name: str, policy: str, factor: float, samples: int) -> None:
    tokenizer = countdown_tokenizer(CountdownProblems())
    model = make_model(SHAPES[name], tokenizer, positions=64, seed=0).eval()
    with torch.no_grad():
        model.model.norm.weight.mul_(factor)
    random = np.random.default_rng(0)
    prompts = {f"p{index}": random.integers(3, len(tokenizer), 7).tolist() for index in range(PROBLEMS)}
    (chunk,) = cut_chunks(list(prompts), samples, PROBLEMS * samples)
    direct, general = LocalEngine(model, set()), LocalEngine(model, set())
    general.decoder = CacheDecoder(model)

    def sample(engine: LocalEngine) -> Any:
        return engine.generate(chunk, prompts, Sampling(TOKENS, 1.0, 0), step=0, policy="")

    def generate() -> Any:
        ids = torch.tensor(list(prompts.values()))
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            num_return_sequences=samples,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
        )

    rollouts = sample(direct)
    tokens = len(chunk) * TOKENS
    assert rollouts["response_ids"].list.len().sum() == tokens
    assert generate().numel() == tokens + len(chunk) * 7
    seconds = _measure(lambda: sample(direct), lambda: sample(general), generate)
    rates = [tokens / each for each in seconds]
    entropy = -rollouts["logprobs"].explode().mean()
    print(
        f"{name:6} {policy:6} {len(chunk):5} {entropy:10.2f} "
        f"{rates[0]:11,.0f} {rates[1]:10,.0f} {rates[2]:10,.0f} {rates[0] / rates[2]:5.1f}x {rates[1] / rates[2]:6.1f}x"
    )


def _measure(*actions: Callable[[], Any]) -> list[float]:
    """Least CPU-seconds of each, in turn, so that a busy moment of the machine meets all."""
    best = [float("inf")] * len(actions)
    for _ in range(REPEATS):
        for index, action in enumerate(actions):
            start = time.process_time()
            action()
            best[index] = min(best[index], time.process_time() - start)
    return best
