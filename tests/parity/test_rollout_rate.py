"""Rollouts of a small Llama, by the embedded engine and by TRL's trainer, which generates by `transformers`.

Both run in this process on one thread, in turn. Ours end as the table of rollouts, with log-probs; TRL's as token ids
and text, or with rewards, advantages and padded tensors too. Only tokens up to and with an answer's stop count. The
figure is the most per CPU-second of all repetitions, which other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from agpo.rollout import LocalEngine, Sampling, cut_chunks
from tests.parity.small_llama import NEVER, VOCABULARY, make_llama, make_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

PROBLEMS, SAMPLES, PROMPT, TOKENS = 8, 8, 48, 64
REPEATS = 6


# The model's tokens are about equally likely: three stops end an answer after 31 tokens on average.
@pytest.mark.parametrize("stops", [[], [5, 6, 7]], ids=["full length", "about half"])
def test_rollouts_take_less_time_than_those_of_trl(
    stops: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(8, VOCABULARY, (PROBLEMS, PROMPT), generator=generator).tolist()
    prompts = {f"p{index}": prompt for index, prompt in enumerate(ids)}
    (chunk,) = cut_chunks(list(prompts), SAMPLES, PROBLEMS * SAMPLES)
    engine = LocalEngine(make_llama(PROMPT + TOKENS), {NEVER, *stops})
    steps = count()
    texts = [" ".join(f"<{token}>" for token in prompts[problem]) for problem in chunk.problem_ids]
    trainer = make_trainer(stops, tmp_path)

    def generate() -> int:
        rollouts = engine.generate(chunk, prompts, Sampling(TOKENS, 1.0, seed=0), step=next(steps), policy="")
        return int(rollouts["response_ids"].list.len().sum())

    def generate_by_trl() -> int:
        read, answers, *_ = trainer._generate(texts)
        assert read == [prompts[problem] for problem in chunk.problem_ids]
        return sum(map(len, answers))

    def score_by_trl() -> int:
        rollouts = trainer._generate_and_score_completions([{"prompt": text} for text in texts])
        return int(rollouts["completion_mask"].sum())

    (ours, generated, scored), mean = _measure(generate, generate_by_trl, score_by_trl)
    with capsys.disabled():
        print(f"\n{len(chunk)} rollouts, prompts of {PROMPT} tokens, answers of {mean:.1f} on average:")
        print(f"  TRL's generation: {generated:,.0f} tokens per CPU-second, with its rewards {scored:,.0f}")
        print(f"  ours: {ours:,.0f}, {ours / generated:.2f} and {ours / scored:.2f} times TRL's")
    assert ours > 1.5 * generated


def make_trainer(stops: list[int], output: Path) -> Any:
    """A ``GRPOTrainer`` that generates its own rollouts, on the CPU in fp32."""
    from datasets import Dataset

    trl = import_module("trl")
    model = make_llama(PROMPT + TOKENS)
    model.generation_config.eos_token_id = stops
    model.set_attn_implementation("sdpa")
    return trl.GRPOTrainer(
        model=model,
        processing_class=make_tokenizer(stop=NEVER),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.GRPOConfig(
            output_dir=str(output),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=PROBLEMS * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=TOKENS,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "<4>"}] * PROBLEMS),
    )


def _measure(*steps: Callable[[], int]) -> tuple[list[float], float]:
    """Most tokens per CPU-second of each, and the mean length of all answers."""
    best, tokens = [0.0] * len(steps), 0
    for _ in range(REPEATS):
        for index, step in enumerate(steps):
            started = time.process_time()
            found = step()
            best[index] = max(best[index], found / (time.process_time() - started))
            tokens += found
    return best, tokens / (REPEATS * len(steps) * PROBLEMS * SAMPLES)
