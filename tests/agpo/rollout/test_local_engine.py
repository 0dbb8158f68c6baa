from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from agpo.learner.policy import LogprobReader, load_policy
from agpo.records import Rollouts
from agpo.rollout import Chunk, Engine, LocalEngine, Sampling, cut_chunks
from agpo.rollout.fingerprint import probe_prompts
from tests.agpo.rollout.models import STOP, VOCABULARY, make_model
from tests.tiny_model import write_tiny_model

PROMPTS = {"long": [1, 5, 6, 7, 8], "short": [1, 9], "middle": [1, 4, 4]}
SAMPLING = Sampling(tokens=12, temperature=2.0, seed=7)


@pytest.fixture(scope="module", params=["llama", "gpt2"], ids=["direct", "general"])
def model(request: pytest.FixtureRequest) -> Any:
    return make_model(request.param)


@pytest.fixture(scope="module")
def engine(model: Any) -> LocalEngine:
    return LocalEngine(model, {STOP})


def generate(engine: LocalEngine, chunk: Chunk, sampling: Sampling = SAMPLING, **options: Any) -> pl.DataFrame:
    return engine.generate(chunk, PROMPTS, sampling, **{"step": 3, "policy": "key", **options})


@pytest.fixture(scope="module")
def rollouts(engine: LocalEngine) -> pl.DataFrame:
    (chunk,) = cut_chunks(list(PROMPTS), samples=8, size=24)
    return generate(engine, chunk)


def test_rows_are_rollouts_in_the_order_of_the_chunk(rollouts: pl.DataFrame) -> None:
    Rollouts.validate(rollouts)
    pairs = [(name, sample) for name in PROMPTS for sample in range(8)]
    assert rollouts.select("problem_id", "sample").rows() == pairs
    assert rollouts["id"].to_list() == [f"3/{name}/{sample}" for name, sample in pairs]
    assert rollouts["prompt_ids"].to_list() == [PROMPTS[name] for name, _ in pairs]
    assert set(rollouts["policy"]) == {"key"} and set(rollouts["seed"]) == {7}


def test_a_chunk_may_list_its_samples_in_any_order(engine: LocalEngine, rollouts: pl.DataFrame) -> None:
    chunk = Chunk(0, ("short", "long", "short"), (6, 0, 1))
    found = generate(engine, chunk)
    assert found["id"].to_list() == ["3/short/6", "3/long/0", "3/short/1"]
    expected = found.select("id").join(rollouts, on="id", how="left", maintain_order="left")
    assert found["response_ids"].to_list() == expected["response_ids"].to_list()


def test_answers_end_with_the_stop_token_unless_truncated(rollouts: pl.DataFrame) -> None:
    ends = [ids[-1] == STOP for ids in rollouts["response_ids"].to_list()]
    assert [not end for end in ends] == rollouts["truncated"].to_list()
    assert len(set(ends)) == 2
    assert rollouts.filter("truncated")["response_ids"].list.len().unique().to_list() == [SAMPLING.tokens]


def test_logprobs_are_those_that_the_learner_reads(model: Any, rollouts: pl.DataFrame) -> None:
    reader = LogprobReader(model)
    for row in rollouts.iter_rows(named=True):
        ids = torch.tensor([row["prompt_ids"] + row["response_ids"]])
        chosen = torch.arange(ids.shape[1])[None] >= len(row["prompt_ids"])
        with torch.no_grad():
            expected, _ = reader.read(ids, chosen, SAMPLING.temperature)
        assert row["logprobs"] == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_same_chunk_gives_the_same_rows(engine: LocalEngine, rollouts: pl.DataFrame) -> None:
    (chunk,) = cut_chunks(list(PROMPTS), samples=8, size=24)
    assert generate(engine, chunk).equals(rollouts)


def test_the_cut_into_chunks_does_not_change_the_answers(engine: LocalEngine, rollouts: pl.DataFrame) -> None:
    parts = [generate(engine, chunk) for chunk in cut_chunks(list(PROMPTS), samples=8, size=5)]
    assert pl.concat(parts)["response_ids"].to_list() == rollouts["response_ids"].to_list()


@pytest.mark.parametrize("options", [{"step": 4}, {"sampling": dataclasses.replace(SAMPLING, seed=8)}])
def test_another_step_or_seed_gives_other_answers(
    engine: LocalEngine, rollouts: pl.DataFrame, options: dict[str, Any]
) -> None:
    (chunk,) = cut_chunks(list(PROMPTS), samples=8, size=24)
    assert generate(engine, chunk, **options)["response_ids"].to_list() != rollouts["response_ids"].to_list()


def test_a_model_trained_in_place_is_sampled_as_it_is() -> None:
    model = make_model("llama")
    engine = LocalEngine(model, {STOP})
    chunk = Chunk(0, ("short",) * 4, (0, 1, 2, 3))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    logprobs = generate(engine, chunk)["logprobs"].explode()
    assert logprobs.to_list() == pytest.approx([-math.log(VOCABULARY)] * len(logprobs))


def test_an_empty_prompt_is_named(engine: LocalEngine) -> None:
    with pytest.raises(ValueError, match="prompt of problem bare has no tokens"):
        engine.generate(Chunk(0, ("bare",), (0,)), {"bare": []}, SAMPLING, step=0, policy="")


def test_a_prompt_that_leaves_no_room_for_the_answer_is_named() -> None:
    engine = LocalEngine(make_model("gpt2"), {STOP})
    chunk, prompts = Chunk(0, ("wide",), (0,)), {"wide": [5] * 60}
    expected = r"problem wide \(60 tokens\) and rollout.tokens = 12 exceed the 64 positions"
    with pytest.raises(ValueError, match=expected):
        engine.generate(chunk, prompts, SAMPLING, step=0, policy="")
    fitting = dataclasses.replace(SAMPLING, tokens=4)
    assert len(engine.generate(chunk, prompts, fitting, step=0, policy="")) == 1


def test_progress_counts_the_answers(engine: LocalEngine) -> None:
    calls: list[int] = []
    (chunk,) = cut_chunks(list(PROMPTS), samples=8, size=24)
    generate(engine, chunk, progress=calls.append)
    assert sum(calls) == 24


def test_truncated_sampling_gives_the_logprobs_of_what_was_sampled(model: Any, engine: LocalEngine) -> None:
    (chunk,) = cut_chunks(list(PROMPTS), samples=8, size=24)
    rollouts = generate(engine, chunk, dataclasses.replace(SAMPLING, top_k=3))
    row = rollouts.row(0, named=True)
    for place in range(len(row["response_ids"])):
        ids = torch.tensor([row["prompt_ids"] + row["response_ids"][:place]])
        with torch.no_grad():
            best = (model(input_ids=ids).logits[0, -1] / SAMPLING.temperature).topk(3)
        rank = best.indices.tolist().index(row["response_ids"][place])
        assert row["logprobs"][place] == pytest.approx(float(best.values.log_softmax(-1)[rank]), abs=1e-4)


# --- the rest of the protocol


def test_it_is_an_engine(model: Any) -> None:
    engine: Engine = LocalEngine(model, {STOP})
    engine.sleep()
    engine.wake()
    engine.close()


def test_the_fingerprint_is_what_greedy_generation_says(model: Any, engine: LocalEngine) -> None:
    found = engine.fingerprint()
    for prompt, ids, logprobs in zip(
        probe_prompts(VOCABULARY, engine.positions), found.ids, found.logprobs, strict=True
    ):
        text = list(prompt)
        for token, logprob in zip(ids, logprobs, strict=True):
            with torch.no_grad():
                expected = model(input_ids=torch.tensor([text])).logits[0, -1].log_softmax(-1)
            assert token == int(expected.argmax()) and logprob == pytest.approx(float(expected[token]), abs=1e-4)
            text.append(token)


def test_a_policy_folder_replaces_the_weights(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "one")
    write_tiny_model(tmp_path / "two", seed=1)
    (first, tokenizer), (second, _) = (load_policy(tmp_path / name, "cpu") for name in ("one", "two"))
    engine = LocalEngine(first, {tokenizer.eos_token_id})
    expected = LocalEngine(second, {tokenizer.eos_token_id}).fingerprint()
    assert engine.fingerprint().digest != expected.digest
    engine.load_policy(tmp_path / "two")
    assert engine.fingerprint() == expected


def test_a_policy_of_another_shape_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "one")
    write_tiny_model(tmp_path / "wide", width=64)
    model, tokenizer = load_policy(tmp_path / "one", "cpu")
    engine = LocalEngine(model, {tokenizer.eos_token_id})
    before = engine.fingerprint()
    with pytest.raises(ValueError, match=r"another model: lm_head.weight is \(259, 64\), in the engine \(259, 32\)"):
        engine.load_policy(tmp_path / "wide")
    assert engine.fingerprint() == before
