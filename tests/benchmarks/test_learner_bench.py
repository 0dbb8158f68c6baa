"""CPU time of a training step of the demo's model, by `LlamaBody` and by the layers of `transformers`.

Both run in this process on one thread, in turn; the figure is the least of all repetitions, which other work on the
machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from agpo.learner.batch import Batch
from agpo.learner.policy import LogprobReader, make_model
from agpo.learner.update import Learner
from agpo.problems.tokenizer import make_tokenizer
from agpo.settings import CountdownProblems, LearnerSettings, LossSettings, ModelShape

PROMPT, RESPONSE, REPEATS = 7, 18, 30


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.bench
def test_supervised_step() -> None:
    model, rows = _make_model(), _random_rows(128)
    ids = torch.from_numpy(rows)
    chosen = (torch.arange(PROMPT + RESPONSE) >= PROMPT).expand(ids.shape)

    def step(reader: LogprobReader) -> None:
        model.zero_grad()
        (-reader.read(ids, chosen, 1.0)[0].mean()).backward()  # type: ignore[no-untyped-call]

    own, direct = _own(LogprobReader(model)), LogprobReader(model)
    _compare("supervised step, 128 rows", rows.size, lambda: step(own), lambda: step(direct))


@pytest.mark.bench
def test_update_with_a_kl_term() -> None:
    rows, random = _random_rows(256), np.random.default_rng(1)
    batch = Batch(
        ids=[str(row) for row in range(len(rows))],
        prompts=rows[:, :PROMPT].tolist(),
        responses=rows[:, PROMPT:].tolist(),
        sampled_logprobs=(-random.random((256, RESPONSE))).tolist(),
        groups=torch.arange(256) // 16,
        correct=torch.arange(256) % 3 == 0,
        advantages=torch.from_numpy(random.standard_normal(256)),
    )

    def make_learner() -> Learner:
        return Learner(_make_model(), _make_model(), LossSettings(kl=0.05), LearnerSettings(), 1.0, seed=0)

    own, direct = make_learner(), make_learner()
    assert own.reference is not None
    for reader in (own.policy, own.reference):
        _own(reader)
    _compare("update, 256 rows, KL", rows.size, lambda: own.update(batch, 0), lambda: direct.update(batch, 0))


def _compare(name: str, tokens: int, own: Callable[[], Any], direct: Callable[[], Any]) -> None:
    spent: dict[Callable[[], Any], list[float]] = {own: [], direct: []}
    for _ in range(REPEATS):
        for step, seconds in spent.items():
            started = time.process_time()
            step()
            seconds.append(time.process_time() - started)
    before, after = min(spent[own]), min(spent[direct])
    print(
        f"\n{name}: own layers {before * 1e3:.1f} ms, direct {after * 1e3:.1f} ms, ratio {after / before:.2f}, "
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
