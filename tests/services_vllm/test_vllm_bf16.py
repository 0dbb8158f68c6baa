"""An engine that computes in bfloat16. In a file of its own: no other engine runs beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agpo.learner.policy import load_policy, stop_ids
from agpo.rollout import LocalEngine, VllmEngine
from agpo.rollout.fingerprint import check_fingerprint
from agpo.settings.vllm import VllmSettings
from tests.services_vllm.policies import MODELS, write_policy

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


def test_weights_of_fp32_are_handed_over_and_only_rounding_differs(tmp_path: Path) -> None:
    folders = [write_policy(tmp_path / f"step-{seed}", MODELS["qwen3 tied"], seed) for seed in range(2)]
    model, tokenizer = load_policy(folders[1], "cpu")
    trainer = LocalEngine(model, stop_ids(model, tokenizer))
    settings = VllmSettings(cache=64, dtype="bfloat16")
    engine = VllmEngine(folders[0], trainer.stops, settings, tmp_path / "vllm.log")
    try:
        before = engine.fingerprint()
        engine.load_policy(folders[1])
        difference = check_fingerprint(engine.fingerprint(), trainer.fingerprint(), 0.2)
        print(f"\nlargest difference in bfloat16 {difference:.1e} nats")
        assert before.difference(trainer.fingerprint()) > 0.2
    finally:
        engine.close()
