from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agpo.learner.policy import make_model
from agpo.problems.tokenizer import countdown_tokenizer
from agpo.rollout.llama_decoder import LlamaDecoder
from agpo.rollout.memory import chunk_memory, model_size
from agpo.settings import CountdownProblems, FolderBase, HubBase, ModelShape, ScratchBase

SMOLLM = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def folder_base(folder: Path, config: dict[str, Any]) -> FolderBase:
    (folder / "config.json").write_text(json.dumps(config))
    return FolderBase(path=str(folder))


def test_a_folder_is_measured_by_its_config(tmp_path: Path) -> None:
    size = model_size(folder_base(tmp_path, SMOLLM))
    assert size is not None
    assert size.parameters == pytest.approx(134.5e6, rel=1e-3)  # published: 134,515,008
    assert (size.kv_heads, size.head_width) == (3, 64)


def test_a_model_from_scratch_is_measured_by_its_shape() -> None:
    shape = ModelShape(width=128, layers=5, heads=4, feed_forward=344)
    size = model_size(ScratchBase(model=shape))
    model = make_model(shape, countdown_tokenizer(CountdownProblems()), positions=64, seed=0)
    assert size is not None
    assert size.parameters == pytest.approx(model.num_parameters(), rel=0.03)


def test_other_models_are_not_measured(tmp_path: Path) -> None:
    assert model_size(HubBase(model="some/model")) is None
    assert model_size(folder_base(tmp_path, {"model_type": "gpt2"})) is None


def test_rows_count_the_cache_that_the_decoder_makes() -> None:
    shape = ModelShape(width=64, layers=3, heads=2, feed_forward=96)
    size = model_size(ScratchBase(model=shape))
    assert size is not None
    decoder = LlamaDecoder(make_model(shape, countdown_tokenizer(CountdownProblems()), positions=64, seed=0))
    decoder.start([[1, 2, 3]], 40, 16)
    made = sum(part.nbytes for pair in decoder.cache for part in pair)
    longer, shorter = (chunk_memory(size, 40, 3, tokens) for tokens in (17, 1))
    assert made == 40 * (longer.row - shorter.row)


def test_the_largest_chunk_is_the_largest_power_of_two_that_fits() -> None:
    size = model_size(ScratchBase())
    assert size is not None
    memory = chunk_memory(size, 16, 100, 20)
    available = memory.bytes(100)
    assert memory.largest_chunk(available) == 64
    assert memory.largest_chunk(memory.bytes(64)) == 64
    assert memory.largest_chunk(memory.weights) == 0
    assert memory.largest_chunk(memory.weights // 2) == 0
