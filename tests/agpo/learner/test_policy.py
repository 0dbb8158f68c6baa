from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from agpo.learner.policy import LogprobReader, copy_policy, load_policy, make_model, save_policy, stop_ids
from agpo.settings import ModelShape
from tests.agpo.learner.models import dense_logprobs, random_rows, tiny_model

LENGTHS = [(3, 4), (1, 6), (5, 1), (2, 2)]
SHAPE = ModelShape(width=16, layers=2, heads=2, feed_forward=24)


def sum_of(parts: tuple[Tensor, Tensor]) -> Tensor:
    return parts[0].sum() + parts[1].sum()


class TestLogprobReader:
    @pytest.mark.parametrize(
        "kind", ["llama", "llama-grouped", "llama-biased", "qwen3", "mistral-window", "gpt2", "gemma2", "cohere"]
    )
    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_reads_what_the_model_says(self, kind: str, temperature: float) -> None:
        model = tiny_model(kind)
        ids, chosen = random_rows(LENGTHS)
        found = LogprobReader(model).read(ids, chosen, temperature)
        for values, expected in zip(found, dense_logprobs(model, ids, chosen, temperature), strict=True):
            torch.testing.assert_close(values, expected, rtol=0, atol=3e-6)  # norms of transformers round to fp32

    @pytest.mark.parametrize(
        ("kind", "chunked"), [("llama", True), ("qwen3", True), ("gpt2", True), ("gemma2", False), ("cohere", False)]
    )
    def test_takes_chunks_only_where_the_head_is_linear(self, kind: str, chunked: bool) -> None:
        assert LogprobReader(tiny_model(kind)).chunked is chunked

    def test_finds_a_cap_that_small_logits_do_not_show(self) -> None:
        model = tiny_model("gemma2", torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.01)
        assert not LogprobReader(model).chunked

    def test_leaves_no_hook_and_no_gradient_behind(self) -> None:
        model = tiny_model("llama")
        reader = LogprobReader(model)
        assert not reader.head._forward_hooks
        assert all(parameter.grad is None for parameter in model.parameters())

    @pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
    def test_what_the_padding_holds_does_not_matter(self, kind: str) -> None:
        reader = LogprobReader(tiny_model(kind))
        ids, chosen = random_rows(LENGTHS)
        other = ids.clone()
        for row, taken in enumerate(chosen):
            other[row, int(taken.nonzero().max()) + 1 :] = 0
        for values, expected in zip(reader.read(other, chosen, 1.0), reader.read(ids, chosen, 1.0), strict=True):
            torch.testing.assert_close(values, expected, rtol=0, atol=0)

    @pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "gemma2"])
    def test_gradients_are_those_of_the_dense_log_probs(self, kind: str) -> None:
        model = tiny_model(kind)
        ids, chosen = random_rows(LENGTHS)
        parameters = list(model.parameters())
        found = torch.autograd.grad(sum_of(LogprobReader(model).read(ids, chosen, 1.0)), parameters)
        expected = torch.autograd.grad(sum_of(dense_logprobs(model, ids, chosen, 1.0)), parameters)
        for gradient, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_saved_policy_loads_as_it_was(architecture: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    shape = SHAPE.model_copy(update={"architecture": architecture})
    model = make_model(shape, tokenizer, positions=12, seed=0)
    save_policy(model, tokenizer, tmp_path)
    loaded, its_tokenizer = load_policy(tmp_path, "cpu")
    assert not model.training and not loaded.training
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    for (name, parameter), (other, again) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(parameter, again)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors"}


def test_a_policy_is_an_ordinary_hugging_face_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_policy(make_model(SHAPE, tokenizer, positions=12, seed=0), tokenizer, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert AutoTokenizer.from_pretrained(tmp_path, local_files_only=True).eos_token_id == 2
    assert model.config.max_position_embeddings == 12
    assert "lm_head.weight" not in dict(model.named_parameters())  # tied


def test_the_seed_decides_the_weights(tokenizer: PreTrainedTokenizerFast) -> None:
    weights = [make_model(SHAPE, tokenizer, 12, seed).get_input_embeddings().weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_weights_of_any_precision_load_in_fp32(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_policy(make_model(SHAPE, tokenizer, positions=12, seed=0).bfloat16(), tokenizer, tmp_path)
    loaded, _ = load_policy(tmp_path, "cpu")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_pickled_weights_are_not_read(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = make_model(SHAPE, tokenizer, positions=12, seed=0)
    save_policy(model, tokenizer, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_policy(tmp_path, "cpu")


def test_a_copy_leaves_out_what_is_no_part_of_a_policy(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    save_policy(make_model(SHAPE, tokenizer, positions=12, seed=0), tokenizer, source)
    for name in ("modeling.py", "pytorch_model.bin", "optimizer.pt"):
        (source / name).write_text("")
    copy_policy(source, target)
    assert {path.name for path in target.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for path in target.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()


def test_stop_ids_are_the_tokenizers_and_the_models(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = make_model(SHAPE, tokenizer, positions=12, seed=0)
    assert stop_ids(model, tokenizer) == {2}
    save_policy(model, tokenizer, tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [2, 7]}))
    assert stop_ids(*load_policy(tmp_path, "cpu")) == {2, 7}
