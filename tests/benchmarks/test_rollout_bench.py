"""Tokens per CPU-second of the embedded sampler against `transformers.generate` and a bare loop on the same prompts.

All run in this process on one thread, in turn. `sharp` has the entropy of a trained policy, so that samples share
prefixes; with `random` weights every answer goes its own way. With stops, answers end at different places and only
tokens up to the stop token count. `general` is the decoder for other types of model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from agpo.learner.policy import make_model
from agpo.problems.tokenizer import countdown_tokenizer
from agpo.rollout import LocalEngine, Sampling, cut_chunks
from agpo.rollout.decoder import CacheDecoder
from agpo.settings import CountdownProblems, ModelShape
from tests.benchmarks.bare_loop import sample_bare

SHAPES = {
    "0.15M": ModelShape(),
    "1M": ModelShape(width=128, layers=5, heads=4, feed_forward=344),
    "10M": ModelShape(width=320, layers=8, heads=5, feed_forward=864),
    "100M": ModelShape(width=768, layers=14, heads=12, feed_forward=2048),
}
SHARP = 10.0  # factor on the logits
REPEATS = 3


@dataclass(frozen=True)
class Case:
    model: str
    problems: int
    samples: int
    prompt: int
    tokens: int
    sharp: bool = False
    stops: int = 0  # how many of the token ids
    dtype: torch.dtype = torch.float32


CASES = [
    Case("0.15M", 16, 256, 7, 18, sharp=True),  # an evaluation
    Case("1M", 16, 16, 7, 18),
    Case("1M", 16, 16, 48, 64),
    Case("1M", 16, 16, 48, 64, stops=2),
    Case("10M", 16, 8, 48, 32),
    Case("10M", 16, 8, 48, 64, stops=2),
    Case("10M", 16, 8, 48, 32, dtype=torch.bfloat16),
    Case("100M", 2, 8, 48, 16),
]


@pytest.mark.bench
@pytest.mark.usefixtures("one_thread")
def test_sampler_against_generate() -> None:
    print(f"\n{'':46} {'tokens per CPU-second':>44} {'direct against':>17}")
    print(f"{'model':5} {'dtype':8} {'policy':6} {'rows':>5} {'prompt':>6} {'tokens':>6} {'stops':>5}", end=" ")
    print(" ".join(f"{name:>10}" for name in ("direct", "general", "bare", "generate")), f"{'bare':>7} {'generate':>9}")
    for case in CASES:
        _compare(case)


def _compare(case: Case) -> None:
    tokenizer = countdown_tokenizer(CountdownProblems())
    model = make_model(SHAPES[case.model], tokenizer, positions=128, seed=0).to(case.dtype).eval()
    with torch.no_grad():
        model.model.norm.weight.mul_(SHARP if case.sharp else 1.0)
    model.generation_config.eos_token_id = None
    random = np.random.default_rng(0)
    stops = list(range(5, 5 + case.stops))
    ids = torch.from_numpy(random.integers(8, len(tokenizer), (case.problems, case.prompt)))
    prompts = {f"p{index}": row for index, row in enumerate(ids.tolist())}
    (chunk,) = cut_chunks(list(prompts), case.samples, case.problems * case.samples)
    direct, general = LocalEngine(model, set(stops)), LocalEngine(model, set(stops))
    general.decoder = CacheDecoder(model)

    def sample(engine: LocalEngine) -> int:
        rollouts = engine.generate(chunk, prompts, Sampling(case.tokens, 1.0, 0), step=0, policy="")
        return int(rollouts["response_ids"].list.len().sum())

    def bare() -> int:
        return _count(sample_bare(model, ids, case.samples, case.tokens)[0], stops)

    def generate() -> int:
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            num_return_sequences=case.samples,
            max_new_tokens=case.tokens,
            eos_token_id=stops or None,
        )
        return _count(found[:, case.prompt :], stops)

    actions = (lambda: sample(direct), lambda: sample(general), bare, generate)
    rates = _measure(*actions)
    print(
        f"{case.model:5} {str(case.dtype)[6:]:8} {'sharp' if case.sharp else 'random':6} {len(chunk):5} "
        f"{case.prompt:6} {case.tokens:6} {case.stops:5} "
        + " ".join(f"{rate:10,.0f}" for rate in rates)
        + f" {rates[0] / rates[2]:6.2f}x {rates[0] / rates[3]:8.2f}x"
    )


def _count(ids: torch.Tensor, stops: list[int]) -> int:
    """The tokens of rows up to their first stop token, which counts."""
    is_stop = torch.isin(ids, torch.tensor(stops, dtype=ids.dtype)).long()
    return int((is_stop.cumsum(1) - is_stop == 0).sum())


def _measure(*actions: Callable[[], int]) -> list[float]:
    """Most tokens per CPU-second of each, in turn, so that a busy moment of the machine meets all."""
    best = [0.0] * len(actions)
    for _ in range(REPEATS):
        for index, action in enumerate(actions):
            start = time.process_time()
            tokens = action()
            best[index] = max(best[index], tokens / (time.process_time() - start))
    return best
