from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agpo.learner.policy import load_policy, save_policy, stop_ids
from agpo.rollout import LocalEngine, VllmEngine, engines
from agpo.rollout.engines import close_idle, leave_vllm, open_engine, take_vllm
from agpo.settings.engine import EmbeddedEngine
from agpo.settings.vllm import VllmSettings
from tests.agpo.rollout.fake_vllm import FakeVllm, serve
from tests.tiny_model import write_tiny_model


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm(vocabulary=400)


@pytest.fixture
def settings(fake: FakeVllm) -> Iterator[VllmSettings]:
    with serve(fake) as address:
        yield VllmSettings(endpoints=(address,))
        close_idle()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "policy")


def starts(fake: FakeVllm) -> int:
    """How often an engine was asked what it is."""
    return fake.calls.count("/v1/models")


def test_the_embedded_engine(policy: Path, tmp_path: Path) -> None:
    with open_engine(EmbeddedEngine(), policy, "cpu") as (engine, tokenizer):
        assert isinstance(engine, LocalEngine)
        assert engine.stops == {tokenizer.eos_token_id}


def test_the_next_policy_gets_the_engine_of_the_one_before(
    fake: FakeVllm, settings: VllmSettings, policy: Path, tmp_path: Path
) -> None:
    with open_engine(settings, policy, "cpu") as (first, tokenizer):
        assert isinstance(first, VllmEngine)
        model, _ = load_policy(policy, "cpu")
        assert first.stops == stop_ids(model, tokenizer)
    weights = fake.weights
    model.get_input_embeddings().weight.data.add_(1)
    save_policy(model, tokenizer, tmp_path / "next")
    with open_engine(settings, tmp_path / "next", "cpu") as (second, _):
        assert second is first
        assert fake.weights != weights
    assert starts(fake) == 1


def test_one_that_refuses_the_policy_is_replaced(
    fake: FakeVllm, settings: VllmSettings, policy: Path, tmp_path: Path
) -> None:
    with open_engine(settings, policy, "cpu") as (first, _):
        pass
    (policy / "tokenizer.json").write_text((policy / "tokenizer.json").read_text() + "\n")  # another one
    with open_engine(settings, policy, "cpu") as (second, _):
        assert second is not first
    assert starts(fake) == 2


def test_one_with_other_settings_is_replaced(
    fake: FakeVllm, settings: VllmSettings, policy: Path, tmp_path: Path
) -> None:
    other = settings.model_copy(update={"in_flight": 3})
    for each in (settings, other):
        with open_engine(each, policy, "cpu"):
            pass
    assert starts(fake) == 2


def test_one_for_adapters_is_for_those_up_to_its_rank(
    fake: FakeVllm, settings: VllmSettings, policy: Path, tmp_path: Path
) -> None:
    fake.info["lora_rank"] = 16
    for rank, started in ((0, 1), (8, 2), (0, 2), (8, 2), (16, 3)):
        leave_vllm(take_vllm(policy, {2}, settings, tmp_path / "log", lora_rank=rank))
        assert starts(fake) == started


def test_after_a_fault_nothing_is_kept(fake: FakeVllm, settings: VllmSettings, policy: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_engine(settings, policy, "cpu"):
        raise ZeroDivisionError
    with open_engine(settings, policy, "cpu"):
        pass
    assert starts(fake) == 2


def test_an_engine_that_cannot_be_reached_is_one_line(policy: Path, tmp_path: Path) -> None:
    settings = VllmSettings(endpoints=("http://127.0.0.1:9",), attempts=1)
    opening = open_engine(settings, policy, "cpu")
    with pytest.raises(RuntimeError, match=r"the engine at http://127\.0\.0\.1:9 is not reachable"), opening:
        pass


def test_the_output_of_an_engine_that_is_started_here_goes_where_it_was_asked_to(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_logs", engines._logs)  # so that the next test has the old one
    engines.write_logs_to(tmp_path / "logs")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no engine today\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv("AGPO_VLLM_PYTHON", str(python))
    opening = open_engine(VllmSettings(), policy, "cpu")
    with pytest.raises(RuntimeError, match=r"ended; the end of .*/logs/agpo-vllm-\d+\.log:\nno engine today"), opening:
        pass
