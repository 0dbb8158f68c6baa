"""CPU time of a training step: by the layers of `transformers` and by `LlamaBody`, on padded and on packed rows.

Both run in this process on one thread, in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agpo.learner.batch import Batch
from agpo.learner.policy import LogprobReader, make_model
from agpo.learner.update import Learner
from agpo.problems.tokenizer import make_tokenizer
from agpo.settings import CountdownProblems, LearnerSettings, LossSettings, ModelShape
from tests.cpu_time import least_times

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

PROMPT, RESPONSE, REPEATS = 7, 18, 30


def test_supervised_step() -> None:
    model, rows = _make_model(), _random_rows(128)
    ids = torch.from_numpy(rows)
    chosen = (torch.arange(PROMPT + RESPONSE) >= PROMPT).expand(ids.shape)

    def step(reader: LogprobReader) -> None:
        model.zero_grad()
        (-reader.read(ids, chosen, 1.0)[0].mean()).backward()  # type: ignore[no-untyped-call]

    own, direct = _own(LogprobReader(model)), LogprobReader(model)
    _compare("supervised step, 128 rows", rows.size, lambda: step(own), lambda: step(direct))


def test_update_with_a_kl_term() -> None:
    rows = _random_rows(256)
    batch = _make_batch(rows[:, :PROMPT].tolist(), rows[:, PROMPT:].tolist(), group=16)

    def make_learner() -> Learner:
        return Learner(_make_model(), _make_model(), LossSettings(kl=0.05), LearnerSettings(), 1.0, seed=0)

    own, direct = make_learner(), make_learner()
    assert own.reference is not None
    for reader in (own.policy, own.reference):
        _own(reader)
    _compare("update, 256 rows, KL", rows.size, lambda: own.update(batch, 0), lambda: direct.update(batch, 0))


@pytest.mark.parametrize("lengths", ["mixed", "long-tailed"])
@pytest.mark.parametrize(
    ("shape", "repeats"),
    [
        pytest.param(
            ModelShape(architecture="llama", width=384, layers=6, heads=6, feed_forward=1024), 2, id="llama-11M"
        ),
        pytest.param(
            ModelShape(architecture="qwen3", width=384, layers=6, heads=6, feed_forward=1024), 2, id="qwen3-11M"
        ),
        pytest.param(ModelShape(architecture="qwen3"), 10, id="qwen3-small"),
    ],
)
def test_update_without_padding(shape: ModelShape, repeats: int, lengths: str) -> None:
    """Prompts of 16 tokens; responses of 8 to 64, or from 32 up, half of them below 80 and few far beyond."""
    random = np.random.default_rng(0)
    if lengths == "mixed":
        tokens = random.integers(8, 65, 128)
    else:
        tokens = np.clip(random.lognormal(np.log(80), 0.9, 48), 32, 1024).astype(int)
    prompts = random.integers(3, 51, (len(tokens) // 8, 16)).repeat(8, axis=0).tolist()
    batch = _make_batch(prompts, [random.integers(3, 51, count).tolist() for count in tokens], group=8)
    tokenizer = make_tokenizer(CountdownProblems())
    padded, packed = (
        Learner(make_model(shape, tokenizer, 1040, seed=0), None, LossSettings(), LearnerSettings(), 1.0, seed=0)
        for _ in range(2)
    )
    assert not packed.policy.padded
    padded.policy.packed = None
    _compare(
        f"update, {len(tokens)} rows, {lengths}, longest {max(tokens) + 16}",
        int(tokens.sum()) + 16 * len(tokens),
        lambda: padded.update(batch, 0),
        lambda: packed.update(batch, 0),
        ("padded", "packed"),
        repeats,
    )


def _make_batch(prompts: list[list[int]], responses: list[list[int]], group: int) -> Batch:
    random, rows = np.random.default_rng(1), len(prompts)
    return Batch(
        ids=[str(row) for row in range(rows)],
        prompts=prompts,
        responses=responses,
        sampled_logprobs=[(-random.random(len(response))).tolist() for response in responses],
        groups=torch.arange(rows) // group,
        correct=torch.arange(rows) % 3 == 0,
        advantages=torch.from_numpy(random.standard_normal(rows)),
    )


def _compare(
    name: str,
    tokens: int,
    own: Callable[[], Any],
    direct: Callable[[], Any],
    names: tuple[str, str] = ("own layers", "direct"),
    repeats: int = REPEATS,
) -> None:
    before, after = least_times(own, direct, repeats=repeats)
    print(
        f"\n{name}: {names[0]} {before * 1e3:.1f} ms, {names[1]} {after * 1e3:.1f} ms, ratio {before / after:.2f}, "
        f"{tokens / after:,.0f} tokens per CPU-second"
    )
    assert after < before


def _own(reader: LogprobReader) -> LogprobReader:
    """The reader with the model's own layers."""
    assert reader.small_llama is not None
    reader.small_llama = None
    return reader


def _make_model() -> Any:
    return make_model(ModelShape(), make_tokenizer(CountdownProblems()), positions=PROMPT + RESPONSE, seed=0)


def _random_rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, 51, (count, PROMPT + RESPONSE))
