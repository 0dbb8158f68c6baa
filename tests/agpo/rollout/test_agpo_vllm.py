from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from agpo.learner.policy import load_policy
from agpo.rollout.vllm_worker.agpo_vllm import WeightSync, describe_weights
from tests.tiny_model import write_tiny_model


class ParallelLMHead(torch.nn.Module):
    """By this name a worker's head is known."""

    def __init__(self, packed: list[str]) -> None:
        super().__init__()
        self.quant_method = SimpleNamespace(process_weights_after_loading=lambda module: packed.append("head"))


class Worker(WeightSync):
    """A worker whose engine records what is done to it."""

    def __init__(self, folder: Path) -> None:
        self.done: list[str] = []
        self.vllm_config = SimpleNamespace(model_config=SimpleNamespace(model=str(folder)))
        model = torch.nn.Sequential(torch.nn.Linear(1, 1), ParallelLMHead(self.done))
        self.model_runner = SimpleNamespace(get_model=lambda: model)
        self.loaded: dict[str, Any] = {}

    def reload_weights(self, weights_iterator: Any) -> None:
        self.loaded = dict(weights_iterator)
        self.done.append("reload")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("policies")
    write_tiny_model(root / "one")
    write_tiny_model(root / "two", seed=1)
    write_tiny_model(root / "wide", width=64)
    return {name: root / name for name in ("one", "two", "wide")}


def test_the_digest_is_of_the_contents(folders: dict[str, Path], tmp_path: Path) -> None:
    layout, digest = describe_weights(folders["one"])
    assert layout["model.embed_tokens.weight"] == "[259, 32]"
    assert digest != describe_weights(folders["two"])[1]
    model, _ = load_policy(folders["one"], "cpu")
    model.save_pretrained(tmp_path, max_shard_size="20kB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert describe_weights(tmp_path) == (layout, digest)


def test_a_tied_head_is_packed_again_after_the_load(folders: dict[str, Path]) -> None:
    """On a CPU the head computes with a packed copy, and vLLM's own reload leaves the old one there."""
    worker = Worker(folders["one"])
    layout, digest = describe_weights(folders["two"])
    assert worker.agpo_load(str(folders["two"]), digest)["error"] == ""
    assert worker.done == ["reload", "head"]
    assert set(worker.loaded) == set(layout)


@pytest.mark.parametrize(
    ("name", "expected", "fault"),
    [
        ("two", "0" * 64, r"holds weights [0-9a-f]{12}…, not 000000000000… as handed over"),
        ("wide", "", r"has another model: \S+ is \[259, 64\], in the engine \[259, 32\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_loaded(
    folders: dict[str, Path], name: str, expected: str, fault: str
) -> None:
    worker = Worker(folders["one"])
    found = worker.agpo_load(str(folders[name]), expected or describe_weights(folders[name])[1])
    assert re.match(fault, found["error"])
    assert worker.done == []


def test_a_missing_tensor_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    save_file({"model.norm.weight": torch.ones(32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({}))
    found = Worker(folders["one"]).agpo_load(str(tmp_path), describe_weights(tmp_path)[1])
    assert "lm_head.weight is missing, in the engine [259, 32]" in found["error"]


def test_another_number_type_is_other_weights_of_the_same_model(folders: dict[str, Path], tmp_path: Path) -> None:
    """A base is often stored in bf16, and what is trained of it in fp32."""
    model, _ = load_policy(folders["one"], "cpu")
    model.bfloat16().save_pretrained(tmp_path)
    layout, digest = describe_weights(tmp_path)
    assert layout == describe_weights(folders["one"])[0] and digest != describe_weights(folders["one"])[1]
    assert Worker(tmp_path).agpo_load(str(folders["two"]), describe_weights(folders["two"])[1])["error"] == ""
