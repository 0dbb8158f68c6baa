"""Tokens per CPU-second: vLLM over HTTP against vLLM in the caller's process, and the embedded sampler beside them.

All three draw the same number of tokens for the same prompts, each sample with its own seed and its log-probs, on one
core, in turn. CPU time is that of all processes that take part. `random` weights, so samples share only their prompt.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from agpo.learner.policy import load_policy, make_model, save_policy
from agpo.problems.tokenizer import countdown_tokenizer
from agpo.rollout import LocalEngine, Sampling, VllmEngine, cut_chunks
from agpo.rollout.fingerprint import check_fingerprint
from agpo.rollout.vllm_client import EngineError
from agpo.rollout.vllm_engine import _seed_of
from agpo.rollout.vllm_service import find_python
from agpo.rollout.vllm_worker.serve import make_environment
from agpo.settings import CountdownProblems, ModelShape
from agpo.settings.vllm import VllmSettings
from tests.services_vllm.processes import members_of

SHAPES = {
    "1M": ModelShape(width=128, layers=5, heads=4, feed_forward=344),
    "10M": ModelShape(width=384, layers=6, heads=6, feed_forward=1024),
}
LEAST = {"1M": 0.6, "10M": 0.8}  # of the tokens per CPU-second in process
PROBLEMS, SAMPLES, PROMPT, TOKENS, REPEATS = 32, 8, 48, 64, 4


@pytest.fixture(autouse=True)
def one_core(one_thread: None) -> Iterator[None]:
    """For all processes: on several, vLLM's wait for each other in loops."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return find_python()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.mark.bench
@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("size", list(SHAPES))
def test_http_against_in_process_and_the_embedded_sampler(python: Path, tmp_path: Path, size: str) -> None:
    tokenizer = countdown_tokenizer(CountdownProblems())
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        save_policy(make_model(SHAPES[size], tokenizer, positions=PROMPT + TOKENS, seed=seed), tokenizer, folder)
    model, _ = load_policy(folders[1], "cpu")
    local = LocalEngine(model, set())
    engine = VllmEngine(folders[0], set(), VllmSettings(), tmp_path / "vllm.log")
    try:
        start = time.perf_counter()
        engine.load_policy(folders[1])
        sync = time.perf_counter() - start
        check_fingerprint(engine.fingerprint(), local.fingerprint(), 1e-4)
        assert engine._service is not None and engine._service.process_group is not None
        group = engine._service.process_group
        with _serve_in_process(python, folders[1]) as (other, answer):
            rates, mismatch = _measure(engine, group, local, other, answer, len(tokenizer))
    finally:
        engine.close()
    http, in_process, embedded = rates
    print(
        f"\n{size:4} tokens per CPU-second: vLLM over HTTP {http:,.0f}, in process {in_process:,.0f} "
        f"({http / in_process:.2f}x), embedded {embedded:,.0f}; hand-over {sync:.3f} s, mismatch KL {mismatch:.1e} nats"
    )
    assert http >= LEAST[size] * in_process
    assert mismatch < 1e-8


def _measure(
    engine: VllmEngine, group: int, local: LocalEngine, other: int, answer: Callable[[Any], int], vocabulary: int
) -> tuple[list[float], float]:
    """Most tokens per CPU-second of the three, and the mismatch KL of the last rollouts. The first round warms up."""
    rates = []
    for repeat in range(REPEATS):
        random = np.random.default_rng(repeat)  # other prompts each time: none is in a cache
        prompts = {f"p{index}": random.integers(3, vocabulary, PROMPT).tolist() for index in range(PROBLEMS)}
        (chunk,) = cut_chunks(list(prompts), SAMPLES, PROBLEMS * SAMPLES)
        sampling = Sampling(TOKENS, 1.0, repeat)
        batch = [
            (prompts[problem], engine._parameters(sampling, _seed_of(repeat, 0, problem, sample)))
            for problem, sample in zip(chunk.problem_ids, chunk.samples, strict=True)
        ]
        clock = [_cpu_seconds(group)]
        rollouts = engine.generate(chunk, prompts, sampling, step=0, policy="")
        clock += [_cpu_seconds(group), _cpu_seconds(other)]
        assert answer(batch) == len(chunk) * TOKENS
        clock += [_cpu_seconds(other), _cpu_seconds()]
        local.generate(chunk, prompts, sampling, step=0, policy="")
        clock += [_cpu_seconds()]
        rates.append(len(chunk) * TOKENS / np.diff(clock)[::2])
    return np.max(rates[1:], axis=0).tolist(), _mismatch(local.model, rollouts)


@contextmanager
def _serve_in_process(python: Path, folder: Path) -> Iterator[tuple[int, Callable[[Any], int]]]:
    """The group of the processes of `vllm_in_process.py`, and a function that has it answer a batch."""
    process = subprocess.Popen(
        [python, "-P", Path(__file__).with_name("vllm_in_process.py"), folder],
        env=make_environment(Namespace(threads=1, lora_rank=0)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    lines, output = process.stdin, process.stdout

    def answer(batch: Any) -> int:
        lines.write(json.dumps(batch) + "\n")
        lines.flush()
        return int(output.readline())

    try:
        assert any(line == "ready\n" for line in output), "vLLM does not start in the caller's process"
        yield process.pid, answer
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _cpu_seconds(group: int | None = None) -> float:
    """Used so far by this process and by those of a group."""
    used = time.process_time()
    for process in members_of(group) if group else []:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        used += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def _mismatch(model: Any, rollouts: pl.DataFrame) -> float:
    """KL divergence of the trainer from the engine, nats a token: mean of r - 1 - log r, r the trainer's share (k3)."""
    ids = torch.tensor([row[0] + row[1] for row in rollouts.select("prompt_ids", "response_ids").iter_rows()])
    with torch.no_grad():
        logp = model(input_ids=ids).logits[:, PROMPT - 1 : -1].log_softmax(-1)
    logp = logp.gather(2, ids[:, PROMPT:, None])[..., 0]
    ratio = (logp.double() - torch.tensor(rollouts["logprobs"].to_list()).double()).numpy()
    return float(np.mean(np.expm1(ratio) - ratio))
