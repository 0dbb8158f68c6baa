"""vLLM itself, in its own environment, against the trainer's model. `make test-vllm`; one engine at a time."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from agpo.learner.policy import load_policy, stop_ids
from agpo.rollout import LocalEngine, Sampling, VllmEngine, cut_chunks
from agpo.rollout.fingerprint import check_fingerprint
from agpo.rollout.truncation import truncate_logits
from agpo.rollout.vllm_client import EngineError, EngineUnavailable
from agpo.rollout.vllm_worker.agpo_vllm import describe_weights
from agpo.settings.vllm import VllmSettings
from flows.cli_doctor import _find_engine
from tests.services_vllm.policies import MODELS, write_policy
from tests.services_vllm.processes import members_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PROMPTS = {f"p{index}": [20 + index, 6, 7, 30 + index] for index in range(6)}
SAMPLING = Sampling(tokens=24, temperature=1.0, seed=3)
SETTINGS = VllmSettings(cache=64, timeout=120.0)


def trainer_of(folder: Path) -> LocalEngine:
    model, tokenizer = load_policy(folder, "cpu")
    return LocalEngine(model, stop_ids(model, tokenizer))


def generate(engine: Any, samples: int = 4, sampling: Sampling = SAMPLING, step: int = 0) -> pl.DataFrame:
    (chunk,) = cut_chunks(list(PROMPTS), samples, len(PROMPTS) * samples)
    return engine.generate(chunk, PROMPTS, sampling, step=step, policy="key")


@pytest.fixture(scope="module", params=list(MODELS))
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three policies of the same shape."""
    root = tmp_path_factory.mktemp("policies")
    return [write_policy(root / f"step-{seed}", MODELS[request.param], seed) for seed in range(3)]


@pytest.fixture(scope="module")
def engine(folders: list[Path]) -> Iterator[VllmEngine]:
    engine = VllmEngine(folders[0], trainer_of(folders[0]).stops, SETTINGS, folders[0].parent / "vllm.log")
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def first_policy(request: pytest.FixtureRequest) -> None:
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").load_policy(request.getfixturevalue("folders")[0])


# --- weights


def test_after_each_hand_over_it_says_what_the_trainer_says(engine: VllmEngine, folders: list[Path]) -> None:
    """Also after prompts whose keys and values it has kept, and with a head that is the embedding."""
    for folder in [*folders[1:], folders[0]]:
        before = engine.fingerprint()
        start = time.perf_counter()
        engine.load_policy(folder)
        seconds = time.perf_counter() - start
        assert engine._clients[0].weights() == engine._weights
        expected = trainer_of(folder).fingerprint()
        found = engine.fingerprint()
        difference = check_fingerprint(found, expected, 1e-4)
        print(f"\nhand-over in {seconds:.3f} s, largest difference {difference:.1e} nats")
        assert found.ids == expected.ids
        assert found.difference(before) > 0.1
        assert seconds < 1


def test_a_prefix_cache_that_is_not_cleared_is_noticed(engine: VllmEngine, folders: list[Path]) -> None:
    """vLLM goes on with the keys and values of the old weights after a load. Not so any more: no need to clear."""
    (client,) = engine._clients
    engine.fingerprint()
    client._call_workers("agpo_load", [str(folders[1]), describe_weights(folders[1])[1]], 60.0)
    with pytest.raises(RuntimeError, match="does not sample the trainer's policy"):
        check_fingerprint(engine.fingerprint(), trainer_of(folders[1]).fingerprint(), 1e-4)


def test_a_tied_head_that_is_not_packed_again_is_noticed(engine: VllmEngine, folders: list[Path]) -> None:
    """vLLM's own reload leaves it as it was, on a CPU. Not so any more: the worker extension need not."""
    (client,) = engine._clients
    body = {"method": "reload_weights", "kwargs": {"weights_path": str(folders[1])}}
    client._call("POST", "/collective_rpc", body, 60.0)
    client._forget_prefixes()
    model, _ = load_policy(folders[1], "cpu")
    found, expected = engine.fingerprint(), trainer_of(folders[1]).fingerprint()
    if model.config.tie_word_embeddings:
        with pytest.raises(RuntimeError, match="does not sample the trainer's policy"):
            check_fingerprint(found, expected, 1e-4)
    else:
        assert found.ids == expected.ids


def test_a_policy_of_another_shape_is_refused_and_the_old_one_stays(
    engine: VllmEngine, folders: list[Path], tmp_path: Path
) -> None:
    other = write_policy(tmp_path, {"model_type": "llama", "vocab_size": 300}, seed=0)
    with pytest.raises(ValueError, match=r"refuses .*: it has another model: .* in the engine"):
        engine.load_policy(other)
    assert engine.fingerprint().ids == trainer_of(folders[0]).fingerprint().ids


def test_a_folder_that_the_engine_cannot_read_is_named(engine: VllmEngine, folders: list[Path]) -> None:
    (client,) = engine._clients
    with pytest.raises(EngineError, match="No such file"):
        client.load(folders[0].parent / "nowhere", "0" * 64)
    assert len(generate(engine)) == 24


# --- answers


@pytest.mark.parametrize(
    "truncation",
    [{}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.02}, {"top_p": 0.7, "top_k": 9, "min_p": 0.01}],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_logprobs_are_those_of_the_distribution_that_was_sampled(
    engine: VllmEngine, folders: list[Path], temperature: float, truncation: dict[str, Any]
) -> None:
    sampling = dataclasses.replace(SAMPLING, temperature=temperature, **truncation)
    rollouts = generate(engine, 2, sampling)
    model, tokenizer = load_policy(folders[0], "cpu")
    for row in rollouts.iter_rows(named=True):
        expected = _logprobs(model, len(tokenizer), row["prompt_ids"], row["response_ids"], temperature, truncation)
        assert row["logprobs"] == pytest.approx(expected, abs=1e-3)


def _logprobs(
    model: Any, known: int, prompt: Sequence[int], response: Sequence[int], temperature: float, truncation: Any
) -> list[float]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    logits[:, known:] = -torch.inf  # ids that the tokenizer lacks are never drawn
    logp = truncate_logits(logits / temperature, **truncation).log_softmax(-1)
    return logp.gather(1, torch.tensor(response)[:, None])[:, 0].tolist()


def test_the_same_chunk_gives_the_same_rows_however_it_is_sent(engine: VllmEngine) -> None:
    rollouts = generate(engine)
    assert generate(engine)["response_ids"].to_list() == rollouts["response_ids"].to_list()
    parts = [
        engine.generate(chunk, PROMPTS, SAMPLING, step=0, policy="key") for chunk in cut_chunks(list(PROMPTS), 4, 5)
    ]
    assert pl.concat(parts)["response_ids"].to_list() == rollouts["response_ids"].to_list()
    assert generate(engine, step=1)["response_ids"].to_list() != rollouts["response_ids"].to_list()


def test_samples_of_a_problem_and_of_neighbours_differ(engine: VllmEngine) -> None:
    answers = generate(engine)["response_ids"].to_list()
    assert len({tuple(answer) for answer in answers}) == len(answers)


def test_own_seeds_give_independent_answers_where_a_shared_one_does_not(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = dataclasses.replace(SAMPLING, temperature=2.0)  # flat, so that little agrees by chance
    own = _agreement(generate(engine, sampling=sampling))
    monkeypatch.setattr("agpo.rollout.vllm_engine._seed_of", lambda seed, step, problem, sample: sample)
    shared = _agreement(generate(engine, sampling=sampling))
    print(f"\nequal tokens at the same place: {own:.3f} with own seeds, {shared:.3f} with one for several prompts")
    assert shared > 2 * own


def _agreement(rollouts: pl.DataFrame) -> float:
    """Share of places with the same token in two answers of the same sample number to different problems."""
    answers = rollouts.group_by("sample", maintain_order=True).agg("response_ids")["response_ids"].to_list()
    pairs = [
        pair
        for group in answers
        for one, other in itertools.combinations(group, 2)
        for pair in zip(one, other, strict=False)
    ]
    return sum(one == other for one, other in pairs) / len(pairs)


def test_doctor_shows_the_engine(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    (client,) = engine._clients
    monkeypatch.setenv("AGPO_VLLM_KEY", client._key)
    finding = _find_engine(client.address)
    assert finding.good, finding.found
    assert "on cpu, float32, 512 positions, 2" in finding.found
    assert finding.found.endswith(f"weights {engine._weights[:12]}")


def test_a_prompt_that_leaves_no_room_is_named_and_not_cut(engine: VllmEngine) -> None:
    (chunk,) = cut_chunks(["wide"], 1, 1)
    with pytest.raises(ValueError, match=r"problem wide \(500 tokens\) and rollout.tokens = 24 exceed the 512"):
        engine.generate(chunk, {"wide": [5] * 500}, SAMPLING, step=0, policy="")


def test_a_field_that_vllm_would_ignore_is_named(engine: VllmEngine) -> None:
    (client,) = engine._clients
    with pytest.raises(EngineError, match=r"vLLM \d\S+ would ignore top_pp"):
        client.describe({"top_p", "top_pp"})


# --- faults


def test_a_frozen_engine_meets_the_deadline_and_goes_on_afterwards(engine: VllmEngine) -> None:
    """Its server still says that it is healthy."""
    processes = _group(engine)
    patient = engine.settings
    engine.settings = patient.model_copy(update={"timeout": 1.0, "attempts": 2})
    try:
        for process in processes[2:]:  # all but the supervisor and the server
            os.kill(process, signal.SIGSTOP)
        (client,) = engine._clients
        assert client.is_healthy()
        with pytest.raises(EngineUnavailable, match=rf"{client.address} did not answer .* \(after 2 attempts\)"):
            generate(engine, 1)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
        engine.settings = patient
    assert len(generate(engine)) == 24


def test_the_engine_does_not_go_on_with_answers_that_an_interrupt_has_given_up(engine: VllmEngine) -> None:
    sampling = dataclasses.replace(SAMPLING, tokens=400)
    before, started = _count_tokens(engine), time.perf_counter()
    generate(engine, sampling=sampling)
    whole, seconds = _count_tokens(engine) - before, time.perf_counter() - started
    here = threading.get_ident()
    interrupt = threading.Timer(0.2 * seconds, lambda: signal.pthread_kill(here, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        generate(engine, sampling=sampling)
    time.sleep(seconds)  # enough for the rest
    assert _count_tokens(engine) - before - whole < 0.9 * whole


def _count_tokens(engine: VllmEngine) -> float:
    """How many the engine has generated since it was started."""
    with urllib.request.urlopen(f"{engine._clients[0].address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    (found,) = [line for line in lines if line.startswith("vllm:generation_tokens_total{")]
    return float(found.rsplit(" ", 1)[1])


def test_an_engine_that_is_killed_while_it_generates_is_started_again(engine: VllmEngine, folders: list[Path]) -> None:
    """The last test of an engine: the next start has the newest policy, and the chunk the same answers."""
    engine.load_policy(folders[2])
    sampling = dataclasses.replace(SAMPLING, tokens=400)
    expected = generate(engine, sampling=sampling)
    old, group = _group(engine), engine._service and engine._service.process_group
    killer = threading.Timer(0.3, os.kill, (old[-1], signal.SIGKILL))
    killer.start()
    found = generate(engine, sampling=sampling)
    killer.join()
    assert found["response_ids"].to_list() == expected["response_ids"].to_list()
    assert engine._service and engine._service.process_group != group  # it was killed in time
    assert not [process for process in old if Path(f"/proc/{process}").exists()]


def _group(engine: VllmEngine) -> list[int]:
    assert engine._service is not None and engine._service.process_group is not None
    return members_of(engine._service.process_group)
