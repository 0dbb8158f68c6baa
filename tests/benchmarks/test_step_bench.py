"""A whole training step of a small Llama: sampling, verdicts and update, with everything that is journalled.

The step is that of `shared/reference/trl_peer_bench.py --size 1m --threads 1`: a million weights, 8 problems of 48
tokens, 8 answers of 64 tokens each, one thread. Neither Prefect nor MLflow takes part.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
import pytest

from agpo.artifacts import Files
from agpo.artifacts.lease import Lease
from agpo.journal import Journal, digest_step
from agpo.learner.batch import make_batch
from agpo.learner.diagnostics import describe_step
from agpo.learner.update import Learner
from agpo.objectives import Agpo
from agpo.records import Verdicts
from agpo.rollout import LocalEngine, Sampling, cut_chunks
from agpo.settings import LearnerSettings, LossSettings
from tests.tiny_model import make_llama

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("one_thread")]

PROBLEMS, SAMPLES, PROMPT, TOKENS, VOCABULARY = 8, 8, 48, 64, 112
STEPS, LONG = 8, 200


def judge(rollouts: pl.DataFrame) -> pl.DataFrame:
    """An answer is correct of whose tokens more than 15 % are among the first sixth of the vocabulary: our choice."""
    share = rollouts["response_ids"].list.eval((pl.element() < VOCABULARY // 6).cast(pl.Float64)).list.mean()
    return Verdicts.validate(
        rollouts.select("id").with_columns(
            verdict=pl.when(share > 0.15).then(pl.lit("correct")).otherwise(pl.lit("wrong")),
            cause=pl.lit("none"),
            reason=pl.lit(""),
            extracted=pl.lit(None, pl.String),
            seconds=pl.lit(0.0),
            verifier=pl.lit("density"),
            version=pl.lit(1),
        ),
        cast=True,
    )


class Run:
    """Engine, learner and journal of a run, without flows."""

    def __init__(self, folder: Path) -> None:
        model = make_llama(
            VOCABULARY,
            128,
            512,
            layers=4,
            heads=4,
            key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
        self.engine = LocalEngine(model, set())
        self.learner = Learner(model, None, LossSettings(mask_truncated=False), LearnerSettings(rate=1e-4), 1.0, seed=0)
        lease = Lease(Files(folder), "lease")
        lease.acquire()
        self.journal = Journal(Files(folder), lease)

    def step(self, step: int) -> None:
        random = np.random.default_rng(step)
        prompts = {f"p{n}": random.integers(4, VOCABULARY, PROMPT).tolist() for n in range(PROBLEMS)}
        (chunk,) = cut_chunks(list(prompts), SAMPLES, PROBLEMS * SAMPLES)
        rollouts = self.engine.generate(chunk, prompts, Sampling(TOKENS, 1.0, 0), step=step, policy="policy")
        assert rollouts["response_ids"].list.len().sum() == len(chunk) * TOKENS
        self.journal.write_chunk(step, chunk.index, rollouts)
        verdicts = judge(rollouts)
        self.journal.write_verdicts(step, verdicts)
        batch = make_batch(rollouts, verdicts, Agpo(), False, step)
        outcome = self.learner.update(batch, step)
        assert outcome.refused is None
        metrics = {**describe_step(rollouts, verdicts, batch), **outcome.metrics}
        self.journal.write_update(step, "policy", None, metrics, digest_step(rollouts, verdicts))
        self.learner.guard.note(None, metrics)


def test_step(tmp_path: Path) -> None:
    run, spent = Run(tmp_path), []
    for step in range(STEPS):
        started = time.process_time()
        run.step(step)
        spent.append(time.process_time() - started)
    print(f"\nstep of {PROBLEMS} x {SAMPLES} answers of {TOKENS} tokens: {median(spent[1:]):.3f} CPU-seconds")


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """Slope of the resident memory over the last 150 of 200 steps: at most 0.1 MB a step."""
    run, resident = Run(tmp_path), []
    for step in range(LONG):
        run.step(step)
        resident.append(_resident())
    slope = np.polynomial.Polynomial.fit(np.arange(150), resident[-150:], 1).convert().coef[1]
    print(f"\nmemory after {LONG} steps: {resident[-1]:.0f} MB, {slope:+.3f} MB a step")
    assert slope <= 0.1


def _resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
