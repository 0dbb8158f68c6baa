"""The client of vLLM against a server that answers as vLLM does. tests/vllm has the same against vLLM itself."""

from __future__ import annotations

import itertools
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import polars as pl
import pytest

from agpo.records import Rollouts
from agpo.rollout import Chunk, Engine, Sampling, VllmEngine, cut_chunks, vllm_engine
from agpo.rollout.vllm_client import EngineError, EngineUnavailable
from agpo.rollout.vllm_worker.agpo_vllm import describe_weights
from tests.agpo.rollout.fake_vllm import FakeVllm, connect, serve
from tests.tiny_model import write_tiny_model

PROMPTS = {"long": [1, 5, 6, 7, 8], "short": [1, 9], "middle": [1, 4, 4]}
SAMPLING = Sampling(tokens=12, temperature=0.5, seed=7, top_p=0.9, top_k=20, min_p=0.01)
TOKENS = 259


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("policy"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "_PAUSE", 0.01)


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm(TOKENS)


@pytest.fixture
def address(fake: FakeVllm) -> Iterator[str]:
    with serve(fake) as found:
        yield found


@pytest.fixture
def engine(folder: Path, address: str) -> VllmEngine:
    return connect(folder, [address])


def generate(engine: Engine, chunk: Chunk | None = None, sampling: Sampling = SAMPLING, **options: Any) -> pl.DataFrame:
    chunk = chunk or cut_chunks(list(PROMPTS), samples=4, size=12)[0]
    return engine.generate(chunk, PROMPTS, sampling, **{"step": 3, "policy": "key", **options})


def answer_once(engine: Engine) -> pl.DataFrame:
    return generate(engine, Chunk(0, ("short",), (0,)))


# --- the rows


def test_rows_are_rollouts_in_the_order_of_the_chunk(engine: VllmEngine) -> None:
    rollouts = generate(engine)
    Rollouts.validate(rollouts)
    assert rollouts["id"].to_list() == [f"3/{name}/{sample}" for name in PROMPTS for sample in range(4)]
    assert rollouts["prompt_ids"].to_list() == [PROMPTS[name] for name in PROMPTS for _ in range(4)]
    assert [ids[-1] != 2 for ids in rollouts["response_ids"].to_list()] == rollouts["truncated"].to_list()
    assert set(rollouts["policy"]) == {"key"} and set(rollouts["seed"]) == {7}


def test_the_request_says_everything_about_sampling(engine: VllmEngine, fake: FakeVllm) -> None:
    answer_once(engine)
    (request,) = fake.requests
    seed = request["sampling_params"].pop("seed")
    assert 0 <= seed < 2**63
    assert request == {
        "token_ids": [1, 9],
        "sampling_params": {
            **{"n": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.01, "max_tokens": 12},
            **{"logprobs": 0, "stop_token_ids": [2], "ignore_eos": True, "detokenize": False, "logit_bias": None},
        },
    }


def test_every_sample_has_a_seed_of_its_own_far_from_others(engine: VllmEngine, fake: FakeVllm) -> None:
    """One seed for several prompts gives correlated answers, neighbouring ones overlapping answers."""
    generate(engine)
    generate(engine, step=4)
    seeds = sorted(request["sampling_params"]["seed"] for request in fake.requests)
    assert len(set(seeds)) == 24
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 1000


def test_the_cut_into_chunks_does_not_change_the_answers(engine: VllmEngine) -> None:
    whole = generate(engine)
    parts = [generate(engine, chunk) for chunk in cut_chunks(list(PROMPTS), samples=4, size=5)]
    assert pl.concat(parts).equals(whole)


def test_many_requests_are_in_flight_and_no_more_than_allowed(engine: VllmEngine, fake: FakeVllm) -> None:
    fake.delay = 0.05
    calls: list[int] = []
    generate(engine, cut_chunks(list(PROMPTS), samples=8, size=24)[0], progress=calls.append)
    assert 4 <= fake.most_running <= 8
    assert sum(calls) == 24


def test_several_engines_share_the_requests(folder: Path) -> None:
    one, other = FakeVllm(TOKENS), FakeVllm(TOKENS)
    one.delay = other.delay = 0.02
    with serve(one) as first, serve(other) as second:
        rollouts = generate(connect(folder, [first, second]))
        assert len(rollouts) == 12 and min(len(one.requests), len(other.requests)) >= 3
        one.faults.extend([500] * 100)  # a dead engine is always the least busy one
        assert generate(connect(folder, [first, second], attempts=2)).equals(rollouts)


# --- ids beyond the tokenizer, prompts beyond the model


def test_ids_that_the_tokenizer_lacks_are_forbidden(folder: Path) -> None:
    fake = FakeVllm(TOKENS + 2)
    with serve(fake) as address:
        answer_once(connect(folder, [address]))
    assert fake.requests[0]["sampling_params"]["logit_bias"] == {"259": -1e4, "260": -1e4}


def test_a_prompt_that_leaves_no_room_is_named(engine: VllmEngine) -> None:
    with pytest.raises(ValueError, match=r"problem wide \(60 tokens\) and rollout.tokens = 12 exceed the 64 positions"):
        engine.generate(Chunk(0, ("wide",), (0,)), {"wide": [5] * 60}, SAMPLING, step=0, policy="")


# --- faults


@pytest.mark.parametrize("fault", [500, 503, "abort", "close"])
def test_a_request_that_failed_is_sent_again_with_its_seed(engine: VllmEngine, fake: FakeVllm, fault: Any) -> None:
    expected = answer_once(engine)
    fake.requests.clear()
    fake.faults.extend([fault, fault])
    assert answer_once(engine).equals(expected)
    assert len(fake.requests) == 3
    assert fake.requests[0] == fake.requests[2]


def test_a_request_that_hangs_meets_its_deadline(folder: Path, address: str, fake: FakeVllm) -> None:
    engine = connect(folder, [address], timeout=0.2)
    fake.faults.append("hang")
    assert len(answer_once(engine)) == 1
    fake.faults.extend(["hang"] * 3)
    with pytest.raises(
        EngineUnavailable, match=r"at http://\S+ did not answer \S+ in 0.2 seconds \(after 3 attempts\)"
    ):
        answer_once(engine)


def test_an_interrupt_waits_for_no_answer_and_nothing_is_sent_again(folder: Path, address: str, fake: FakeVllm) -> None:
    engine = connect(folder, [address], in_flight=2)
    fake.delay = 3.0
    here = threading.get_ident()
    interrupt = threading.Timer(0.2, lambda: signal.pthread_kill(here, signal.SIGINT))
    interrupt.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        generate(engine)
    assert time.monotonic() - started < 1.5
    time.sleep(0.1)
    assert len(fake.requests) == 2


def test_a_request_that_is_refused_is_not_sent_again(engine: VllmEngine, fake: FakeVllm) -> None:
    fake.faults.append(400)
    with pytest.raises(EngineError, match=r"at http://\S+ answered /inference/v1/generate with 400: .*EngineCore"):
        answer_once(engine)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"weight_versions": [{"version": "old"}]}, r"was made by weights old, not [0-9a-f]{64}"),
        ({"finish_reason": "length"}, "answer .* asked for were 12|does not end with"),
        ({"token_ids": [5, 2, 5, 2], "finish_reason": "stop"}, "log-probs of"),
        ({"token_ids": [], "logprobs": {"content": []}, "finish_reason": "stop"}, "does not end with one of the stop"),
        ({"logprobs": {"content": [{"token_id": 2, "logprob": -math.inf}]}, "token_ids": [2]}, "not finite"),
        (
            {
                "token_ids": [300, 2],
                "finish_reason": "stop",
                "logprobs": {"content": [{"token_id": token, "logprob": -1.0} for token in (300, 2)]},
            },
            "has token 300, and the tokenizer only 259",
        ),
    ],
    ids=["stale weights", "cut", "other tokens", "empty", "infinite", "beyond the tokenizer"],
)
def test_an_answer_that_cannot_be_one_is_an_error(
    engine: VllmEngine, fake: FakeVllm, change: dict[str, Any], fault: str
) -> None:
    fake.faults.append(change)
    with pytest.raises(EngineError, match=fault):
        answer_once(engine)


# --- what an engine must be


def test_no_engine_at_the_address_is_one_clear_line(folder: Path, address: str) -> None:
    gone = "http://127.0.0.1:9"
    with pytest.raises(EngineError, match=rf"^the engine at {gone} is not reachable: .*refused"):
        connect(folder, [gone])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": "0.31.2"}, "is vLLM 0.31.2; accepted: 0.32 or later"),
        ({"sampling_fields": ["n", "seed"]}, r"would ignore detokenize, .*top_p; use a version that knows them"),
        ({"logprobs_mode": "raw_logprobs"}, "has --logprobs-mode raw_logprobs; accepted: processed_logprobs"),
        ({"vocabulary": 100}, "the tokenizer of .* has 259 tokens, the engine's model 100"),
    ],
    ids=["old", "ignores fields", "raw log-probs", "another model"],
)
def test_an_engine_that_cannot_be_used_is_refused(
    folder: Path, address: str, fake: FakeVllm, change: dict[str, Any], fault: str
) -> None:
    fake.info |= change
    with pytest.raises((EngineError, ValueError), match=fault):
        connect(folder, [address])
    assert not fake.requests


def test_a_server_without_the_extension_is_named(
    folder: Path, address: str, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "answer", lambda path, body: (404, {"detail": "Not Found"}))
    with pytest.raises(EngineError, match=r"lacks agpo's worker extension .*: start it by infra/vllm/start"):
        connect(folder, [address])


def test_engines_of_different_models_are_refused(folder: Path) -> None:
    with (
        serve(FakeVllm(TOKENS)) as first,
        serve(FakeVllm(TOKENS + 5)) as second,
        pytest.raises(EngineError, match="different models, of 259 and 264 tokens"),
    ):
        connect(folder, [first, second])


def test_the_key_comes_from_the_environment(
    folder: Path, address: str, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGPO_VLLM_KEY", "secret")
    connect(folder, [address])
    assert fake.keys == {"Bearer secret"}


def test_a_wrong_key_is_named(folder: Path, address: str, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = fake.answer
    monkeypatch.setattr(fake, "answer", lambda path, body: (401, {}) if path == "/v1/models" else answer(path, body))
    with pytest.raises(EngineError, match=r"at http://\S+ refuses the key; set AGPO_VLLM_KEY"):
        connect(folder, [address])


# --- weights


def test_weights_are_loaded_while_nothing_runs_and_the_prefix_cache_is_cleared(
    engine: VllmEngine, fake: FakeVllm, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    fake.calls.clear()
    fake.busy_resets = 1  # answers 200 and does nothing while requests run
    engine.load_policy(other)
    expected = ["/pause", "/collective_rpc", "/update_weight_version", *["/reset_prefix_cache"] * 2, "/resume"]
    assert fake.calls == expected
    assert fake.weights == describe_weights(other)[1]
    assert len(answer_once(engine)) == 1  # labelled with the new weights


def test_weights_that_an_engine_refuses_change_nothing(engine: VllmEngine, fake: FakeVllm, tmp_path: Path) -> None:
    before, fake.refusal = fake.weights, "has another model: a is float32 [1], in the engine missing"
    with pytest.raises(ValueError, match=r"the engine at http://\S+ refuses .*other: it has another model: a is"):
        engine.load_policy(write_tiny_model(tmp_path / "other", seed=1))
    assert fake.weights == before and fake.calls[-1] == "/resume"
    assert len(answer_once(engine)) == 1


def test_a_policy_with_another_tokenizer_is_refused(engine: VllmEngine, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    tokenizer = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(tokenizer.replace("<eos>", "<end>"))
    with pytest.raises(ValueError, match="has another tokenizer"):
        engine.load_policy(other)


# --- adapters


def write_adapter(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_text(content)
    return folder


@pytest.fixture
def adapted(folder: Path, address: str, fake: FakeVllm) -> VllmEngine:
    fake.info["lora_rank"] = 8
    return connect(folder, [address], lora_rank=8)


def test_an_adapter_takes_the_place_of_the_one_before(adapted: VllmEngine, fake: FakeVllm, tmp_path: Path) -> None:
    base = fake.weights
    first, second = (write_adapter(tmp_path / name, name) for name in ("first", "second"))
    adapted.load_adapter(first)
    fake.calls.clear()
    fake.busy_resets = 1
    adapted.load_adapter(second)
    assert fake.calls == [
        *("/pause", "/v1/models", "/v1/unload_lora_adapter", "/v1/load_lora_adapter", "/update_weight_version"),
        *("/reset_prefix_cache", "/reset_prefix_cache", "/resume"),
    ]
    assert fake.adapters == {fake.weights: str(second)} and fake.weights != base
    assert len(answer_once(adapted)) == 1  # labelled with the digest of base and adapter
    assert fake.requests[-1]["model"] == fake.weights
    label = fake.weights
    adapted.load_adapter(second)
    assert fake.weights == label, "the same adapter again, under the same name"
    adapted.load_policy(adapted._folder)
    assert fake.weights == base
    answer_once(adapted)
    assert "model" not in fake.requests[-1]


def test_an_engine_for_smaller_adapters_is_refused(folder: Path, address: str, fake: FakeVllm) -> None:
    fake.info["lora_rank"] = 8
    with pytest.raises(EngineError, match=r"loads adapters up to rank 8, and learner\.lora\.rank is 16; start it with"):
        connect(folder, [address], lora_rank=16)


def test_an_adapter_that_an_engine_refuses_is_one_line(adapted: VllmEngine, fake: FakeVllm, tmp_path: Path) -> None:
    fake.refusal = "LoRA rank 16 is greater than max_lora_rank 8."
    with pytest.raises(
        EngineError, match=r"engine at \S+ answered /v1/load_lora_adapter with 500: .*LoRA rank 16"
    ) as found:
        adapted.load_adapter(write_adapter(tmp_path / "large", "large"))
    assert not isinstance(found.value, EngineUnavailable), "another attempt would not help"
    assert fake.calls[-1] == "/resume"


def test_an_engine_that_started_again_without_its_adapter_answers_nothing(adapted: VllmEngine, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "first", "first")
    adapted.load_adapter(folder)
    (folder / "adapter_model.safetensors").unlink()
    service: Any = Mock(start=Mock(return_value=adapted._clients[0]))
    with pytest.raises(FileNotFoundError):
        adapted._restart(service)
    with pytest.raises(EngineError, match="was made by weights"):
        answer_once(adapted)


# --- sleep, fingerprint


@pytest.mark.parametrize("can_sleep", [True, False])
def test_an_engine_sleeps_where_it_can(folder: Path, address: str, fake: FakeVllm, can_sleep: bool) -> None:
    fake.info["can_sleep"] = can_sleep
    engine = connect(folder, [address])
    fake.calls.clear()
    engine.sleep()
    engine.wake()
    assert fake.calls == (["/sleep", "/wake_up"] if can_sleep else [])


def test_the_fingerprint_is_greedy_and_of_all_engines(folder: Path, address: str, fake: FakeVllm) -> None:
    with serve(FakeVllm(TOKENS)) as second:
        engine = connect(folder, [address, second])
        found = engine.fingerprint()
        assert len(found.ids) == 8 and {len(ids) for ids in found.ids} == {8}
        assert {request["sampling_params"]["temperature"] for request in fake.requests} == {0.0}
        wrong = {"logprobs": {"content": [{"token_id": 0, "logprob": -9.0}] * 8}}
        fake.faults.extend([wrong] * 8)
        with pytest.raises(EngineError, match=r"have the same weights and differ by [89]\.\d\d nats"):
            engine.fingerprint()
