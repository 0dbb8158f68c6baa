from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agpo.learner.adapter import Adapter
from agpo.learner.policy import load_policy, stop_ids
from agpo.rollout import LocalEngine, Sampling, cut_chunks
from agpo.rollout.engines import close_idle
from agpo.rollout.live_engine import LiveEngine
from agpo.rollout.vllm_engine import VllmEngine
from agpo.settings import LoraSettings
from agpo.settings.engine import EmbeddedEngine
from agpo.settings.vllm import VllmSettings
from tests.agpo.rollout.fake_vllm import FakeVllm, serve
from tests.tiny_model import write_tiny_model

CHUNK = cut_chunks(["a", "b"], 2, 4)[0]
PROMPTS = {"a": [5, 6, 7], "b": [8, 9]}
SAMPLING = Sampling(6, 1.0, 0)


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm(vocabulary=400)


@pytest.fixture
def open_live(fake: FakeVllm, tmp_path: Path) -> Iterator[Callable[..., LiveEngine]]:
    """Engines of a run whose vLLM is a fake; all are closed when the test ends."""
    model, tokenizer = load_policy(write_tiny_model(tmp_path / "policy"), "cpu")
    opened: list[LiveEngine] = []
    with serve(fake) as address:

        def open_one(settings: Any = None, adapter: Adapter | None = None) -> LiveEngine:
            settings = settings or VllmSettings(endpoints=(address,), weights=str(tmp_path / "weights"))
            stops, trained = stop_ids(model, tokenizer), model if adapter is None else adapter.model
            opened.append(
                LiveEngine(settings, trained, tokenizer, stops, run="a" * 40, log=tmp_path / "log", adapter=adapter)
            )
            return opened[-1]

        yield open_one
        for engine in opened:
            engine.close()
        close_idle()


@pytest.fixture
def same_weights(monkeypatch: pytest.MonkeyPatch, open_live: Callable[..., LiveEngine]) -> None:
    """The fake has no policy: say what one with the learner's weights would."""
    learner = open_live(EmbeddedEngine())._local
    monkeypatch.setattr(VllmEngine, "fingerprint", lambda engine: learner.fingerprint())


def generate(engine: LiveEngine, policy: str) -> Any:
    return engine.generate(CHUNK, PROMPTS, SAMPLING, step=0, policy=policy)


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "weights").rglob("*") if path.is_dir())


def test_the_embedded_engine_samples_the_model_as_it_is(open_live: Callable[..., LiveEngine]) -> None:
    live = open_live(EmbeddedEngine())
    assert generate(live, "p").equals(
        LocalEngine(live._model, live._stops).generate(CHUNK, PROMPTS, SAMPLING, step=0, policy="p")
    )
    live.rest()
    assert live.metrics == {}


@pytest.mark.usefixtures("same_weights")
def test_weights_are_handed_over_when_the_policy_is_another(
    open_live: Callable[..., LiveEngine], fake: FakeVllm, tmp_path: Path
) -> None:
    live = open_live()
    assert "/collective_rpc" not in fake.calls
    generate(live, "first")
    weights = fake.weights
    assert (live._weights_folder / "1" / "model.safetensors").exists()
    loads = fake.calls.count("/update_weight_version")
    generate(live, "first")
    assert fake.calls.count("/update_weight_version") == loads == 1
    live._model.get_input_embeddings().weight.data.add_(1)
    rows = generate(live, "second")
    assert fake.calls.count("/update_weight_version") == 2
    assert fake.weights != weights
    assert set(rows["policy"]) == {"second"}
    assert folders(tmp_path) == ["2", "agpo-weights-" + "a" * 16]
    assert live.metrics["rollout/probe_difference"] == 0
    assert live.metrics["time/sync"] > 0
    live.close()
    assert folders(tmp_path) == []


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return Adapter(write_tiny_model(tmp_path / "base"), "cpu", LoraSettings(rank=2), 0)


def move(adapter: Adapter) -> None:
    for parameter in adapter.model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1)


def test_the_embedded_engine_samples_the_adapter_as_it_is(
    open_live: Callable[..., LiveEngine], adapter: Adapter
) -> None:
    live = open_live(EmbeddedEngine(), adapter)
    for policy in ("first", "second"):
        found = generate(live, policy)
        expected = LocalEngine(adapter.model, live._stops).generate(CHUNK, PROMPTS, SAMPLING, step=0, policy=policy)
        assert found.drop("logprobs").equals(expected.drop("logprobs"))
        logprobs = [np.concatenate(rows["logprobs"].to_list()) for rows in (found, expected)]
        np.testing.assert_allclose(*logprobs, rtol=0, atol=1e-5)
        move(adapter)


def test_adapters_are_handed_over_alone(
    open_live: Callable[..., LiveEngine],
    fake: FakeVllm,
    adapter: Adapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake.info["lora_rank"] = 8
    live = open_live(None, adapter)
    monkeypatch.setattr(VllmEngine, "fingerprint", lambda engine: live._local.fingerprint())
    for number in (1, 2):
        generate(live, f"policy {number}")
        (folder,) = fake.adapters.values()
        assert folder == str(live._weights_folder / str(number))
        assert sorted(path.name for path in Path(folder).iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        assert live.metrics["rollout/probe_difference"] == 0
        move(adapter)
    live.close()
    assert folders(tmp_path) == []


def test_an_engine_with_other_weights_is_refused(
    open_live: Callable[..., LiveEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And kept for nobody."""
    live, kept = open_live(), list[VllmEngine]()
    with pytest.raises(RuntimeError, match="does not sample the trainer's policy"):
        generate(live, "policy")
    monkeypatch.setattr("agpo.rollout.live_engine.leave_vllm", kept.append)
    live.close()
    assert not kept


def test_weights_do_not_stay_where_no_engine_starts(open_live: Callable[..., LiveEngine], tmp_path: Path) -> None:
    live = open_live(VllmSettings(endpoints=("http://127.0.0.1:9",), weights=str(tmp_path / "weights")))
    with pytest.raises(RuntimeError, match="is not reachable"):
        generate(live, "policy")
    live.close()
    assert folders(tmp_path) == []


def test_an_engine_of_another_precision_is_refused(open_live: Callable[..., LiveEngine], fake: FakeVllm) -> None:
    """It is part of the key of what is sampled."""
    fake.info["dtype"] = "bfloat16"
    with pytest.raises(RuntimeError, match=r"computes in bfloat16, not in float32; accepted: rollout\.engine\.dtype"):
        generate(open_live(), "policy")


@pytest.mark.usefixtures("same_weights")
def test_what_a_killed_session_left_is_removed(open_live: Callable[..., LiveEngine], tmp_path: Path) -> None:
    left = tmp_path / "weights" / ("agpo-weights-" + "a" * 16) / "7"
    left.mkdir(parents=True)
    generate(open_live(), "policy")
    assert not left.exists()


@pytest.mark.usefixtures("same_weights")
def test_the_engine_sleeps_while_the_learner_works(open_live: Callable[..., LiveEngine], fake: FakeVllm) -> None:
    fake.info["can_sleep"] = True
    live = open_live()
    live.rest()  # nothing has started yet
    generate(live, "first")
    live.rest()
    live.rest()
    assert fake.calls.count("/sleep") == 1
    assert "/wake_up" not in fake.calls
    generate(live, "second")
    woken = fake.calls.index("/wake_up")
    assert "/update_weight_version" in fake.calls[woken:], "awake before it loads"
    live.rest()
    assert fake.calls.count("/sleep") == 2
