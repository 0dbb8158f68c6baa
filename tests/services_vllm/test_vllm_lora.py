"""Adapters in vLLM itself: what it samples after each hand-over, and a training run that hands them over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agpo.artifacts import Store
from agpo.learner.adapter import Adapter
from agpo.learner.policy import save_policy
from agpo.rollout import LocalEngine, Sampling, VllmEngine, cut_chunks
from agpo.rollout.engines import close_idle
from agpo.rollout.fingerprint import check_fingerprint
from agpo.rollout.vllm_client import EngineError
from agpo.session import Session
from agpo.settings import LearnerSettings, LoraSettings, RolloutSettings, ScratchBase
from agpo.settings.vllm import VllmSettings
from tests.agpo.session_start import RUN, make_start, train
from tests.services_vllm.hand_overs import check_hand_overs
from tests.services_vllm.policies import MODELS, write_policy

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

LORA = LoraSettings(rank=4, alpha=8)
SETTINGS = VllmSettings(cache=64, timeout=120.0)
PROMPTS = {f"p{index}": [20 + index, 6, 7, 30 + index] for index in range(4)}


@pytest.fixture(scope="module", params=list(MODELS))
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = write_policy(tmp_path_factory.mktemp("policies") / "base", MODELS[request.param], 0)
    return Adapter(folder, "cpu", LORA, 0)


@pytest.fixture(scope="module")
def engine(adapter: Adapter) -> Iterator[VllmEngine]:
    log = adapter.folder.parent / "vllm.log"
    engine = VllmEngine(adapter.folder, {2}, SETTINGS, log, lora_rank=adapter.rank)
    yield engine
    engine.close()


def draw(adapter: Adapter, folder: Path, seed: int) -> Path:
    """An adapter that changes what the policy says, in a folder."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapter.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2, generator=generator)
    folder.mkdir()
    adapter.save(folder)
    return folder


def test_after_each_hand_over_it_says_what_the_trainer_says(
    engine: VllmEngine, adapter: Adapter, tmp_path: Path
) -> None:
    """Also after prompts whose keys and values it has kept under the adapter before, and when it has died."""
    trainer = LocalEngine(adapter.model, {2})
    engine.load_policy(adapter.folder)
    check_fingerprint(engine.fingerprint(), LocalEngine(adapter.base, {2}).fingerprint(), 1e-4)
    for seed in range(3):
        before = engine.fingerprint()
        engine.load_adapter(draw(adapter, tmp_path / str(seed), seed))
        found = engine.fingerprint()
        print(f"\nlargest difference {check_fingerprint(found, trainer.fingerprint(), 1e-4):.1e} nats")
        assert found.difference(before) > 0.1
    engine.load_adapter(tmp_path / "2")
    check_fingerprint(engine.fingerprint(), trainer.fingerprint(), 1e-4)
    (client,) = engine._clients
    loaded = [model["id"] for model in client._call("GET", "/v1/models", None, 60.0)["data"]]
    assert loaded == ["policy", engine._weights]
    assert engine._service is not None and engine._service.process_group is not None
    os.killpg(engine._service.process_group, signal.SIGKILL)
    (chunk,) = cut_chunks(list(PROMPTS), 2, 8)
    rows = engine.generate(chunk, PROMPTS, Sampling(tokens=8, temperature=1.0, seed=3), step=0, policy="key")
    assert len(rows) == 8
    check_fingerprint(engine.fingerprint(), trainer.fingerprint(), 1e-4)


def test_it_samples_other_weights_too(engine: VllmEngine, adapter: Adapter, tmp_path: Path) -> None:
    """As those that training publishes; the adapter from before is off."""
    engine.load_adapter(draw(adapter, tmp_path / "adapter", 7))
    adapted = engine.fingerprint()
    save_policy(adapter.merge(), adapter.tokenizer, tmp_path)
    engine.load_policy(tmp_path)
    check_fingerprint(engine.fingerprint(), adapted, 1e-4)
    check_fingerprint(engine.fingerprint(), LocalEngine(adapter.merge(), {2}).fingerprint(), 1e-4)


def test_an_adapter_of_a_larger_rank_is_refused(engine: VllmEngine, adapter: Adapter, tmp_path: Path) -> None:
    large = Adapter(adapter.folder, "cpu", LoraSettings(rank=16), 0)
    (tmp_path / "large").mkdir()
    large.save(tmp_path / "large")
    with pytest.raises(EngineError, match="rank 16 is greater than max_lora_rank 8"):
        engine.load_adapter(tmp_path / "large")


def test_a_run_hands_its_adapters_over(tmp_path: Path) -> None:
    model = RUN.base.model.model_copy(update={"heads": 1})  # a head of 32, as vLLM on a CPU needs it
    run = RUN.model_copy(
        update={
            "base": ScratchBase(model=model, training=RUN.base.training),
            "rollout": RolloutSettings(**RUN.rollout.model_dump(exclude={"engine"}), engine=SETTINGS),
            "learner": LearnerSettings(lora=LORA, rate=1e-2),
        }
    )
    start = make_start(tmp_path / "store", run)
    session = Session(run, Store(tmp_path / "store"), start.problems, start.base)
    train(session)
    close_idle()
    updates = list(session.journal.updates())
    assert len(updates) == run.steps
    check_hand_overs(updates)
    assert updates[-1].metrics["policy/kl_to_base"] > 1e-5
