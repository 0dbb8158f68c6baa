from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from agpo.learner.adapter import Adapter
from agpo.learner.policy import LogprobReader, load_policy, save_policy
from agpo.learner.throughput import flops_per_token
from agpo.learner.update import Learner
from agpo.settings import LearnerSettings, LoraSettings
from tests.agpo.learner.models import random_rows, tiny_model
from tests.agpo.learner.test_update import FREE, TEMPERATURE, WITH_KL, make, state

LORA = LoraSettings(rank=4, alpha=6)
ROWS = random_rows([(3, 9), (1, 5), (4, 2)])
ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


class Adapters:
    """Makes adapters on tiny models in a folder."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, root: Path) -> None:
        self.tokenizer, self.root = tokenizer, root

    def __call__(
        self, kind: str = "llama", settings: LoraSettings = LORA, seed: int = 0, moved: bool = False
    ) -> Adapter:
        """``moved``: as after training, so that the policy is not its base."""
        folder = self.root / kind
        if not folder.exists():
            folder.mkdir()
            save_policy(tiny_model(kind, torch.float32), self.tokenizer, folder)
        adapter = Adapter(folder, "cpu", settings, seed)
        if moved:
            generator = torch.Generator().manual_seed(seed)
            for parameter in adapter.model.parameters():
                if parameter.requires_grad:
                    parameter.data.normal_(0, 0.3, generator=generator)
        return adapter


@pytest.fixture
def make_adapter(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Adapters:
    return Adapters(tokenizer, tmp_path)


@torch.no_grad()
def read(model: Any) -> torch.Tensor:
    return LogprobReader(model).read(*ROWS, 1.0)[0]


def learner_of(adapter: Adapter, settings: LearnerSettings = FREE) -> Learner:
    return Learner(adapter.model, adapter.base, WITH_KL, settings, TEMPERATURE, 0)


def test_it_starts_as_its_base_which_costs_no_memory(make_adapter: Adapters) -> None:
    adapter = make_adapter()
    expected = read(load_policy(adapter.folder, "cpu")[0])
    assert torch.equal(read(adapter.base), expected)
    torch.testing.assert_close(read(adapter.model), expected, rtol=0, atol=1e-6)
    own = {parameter.data_ptr() for parameter in adapter.model.parameters()}
    assert {parameter.data_ptr() for parameter in adapter.base.parameters()} <= own
    trained = [name for name, parameter in adapter.model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * len(ALL) and all("lora_" in name for name in trained)


def test_the_start_follows_from_the_seed_alone(make_adapter: Adapters) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (dict(make_adapter(seed=seed).model.named_parameters()) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


@pytest.mark.parametrize("kind", ["llama", "llama-biased", "qwen2", "qwen3", "mistral-window", "gemma2", "cohere"])
def test_merged_weights_say_what_the_policy_says(kind: str, make_adapter: Adapters) -> None:
    adapter = make_adapter(kind, moved=True)
    merged = adapter.merge()
    assert (read(adapter.model) - read(adapter.base)).abs().max() > 0.05
    torch.testing.assert_close(read(merged), read(adapter.model), rtol=0, atol=1e-5)
    for parameter in adapter.model.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(0.5)
    assert (read(merged) - read(adapter.model)).abs().max() > 0.01
    assert adapter.merge() is merged
    torch.testing.assert_close(read(merged), read(adapter.model), rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_weights_through_the_adapter(make_adapter: Adapters) -> None:
    """∂L/∂B = (alpha / rank) · ∂L/∂W Aᵀ, and where B is 0 there is none for A."""
    adapter, batch = make_adapter(), make()
    plain, _ = load_policy(adapter.folder, "cpu")
    whole = Learner(plain, adapter.base, WITH_KL, FREE, TEMPERATURE, 0)
    for learner in (whole, learner_of(adapter)):
        assert learner.update(batch, 0).refused is None
    parts = dict(adapter.model.named_parameters())
    compared = 0
    for name, parameter in plain.named_parameters():
        layer = name.removesuffix(".weight")
        if f"{layer}.lora_A.default.weight" in parts:
            gradient = parts[f"{layer}.lora_B.default.weight"].grad
            first = Adapter(adapter.folder, "cpu", LORA, 0).model.get_parameter(f"{layer}.lora_A.default.weight")
            torch.testing.assert_close(gradient, 1.5 * parameter.grad @ first.T, rtol=1e-3, atol=1e-6)
            assert not parts[f"{layer}.lora_A.default.weight"].grad.any()
            compared += 1
        else:
            assert parts[name].grad is None
    assert compared == 2 * len(ALL)


@pytest.mark.parametrize("extra", [{}, {"mini_batches": 2, "epochs": 2}, {"checkpoint_activations": True}])
def test_training_moves_the_adapter_and_nothing_else(extra: dict[str, Any], make_adapter: Adapters) -> None:
    adapter, states = make_adapter(), []
    base = read(adapter.base)
    learner = learner_of(adapter, FREE.model_copy(update=extra))
    for step in range(2):
        states.append(state(learner))
        assert learner.update(make(seed=step), step).refused is None
    assert states[0] != states[1]
    assert torch.equal(read(adapter.base), base)
    assert (read(adapter.model) - base).abs().max() > 1e-3


def test_bf16_products_are_near_those_in_fp32(make_adapter: Adapters) -> None:
    adapter = make_adapter("qwen2", moved=True)
    with torch.no_grad():
        found = LogprobReader(adapter.model, "bf16").read(*ROWS, 1.0)[0]
    error = (found - read(adapter.model)).abs().max()
    assert 1e-4 < error < 0.3


def test_what_is_saved_is_loaded_with_its_bytes(make_adapter: Adapters, tmp_path: Path) -> None:
    from peft import PeftModel

    adapter, other = make_adapter(moved=True, seed=1), make_adapter()
    for name, one in (("first", adapter), ("second", other)):
        (tmp_path / name).mkdir()
        if name == "second":
            one.load(tmp_path / "first")
        one.save(tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        content = (tmp_path / "first" / file).read_bytes()
        assert (tmp_path / "second" / file).read_bytes() == content
        assert str(tmp_path).encode() not in content, "the same adapter has the same bytes wherever it was made"
    assert torch.equal(read(other.model), read(adapter.model))
    plain, _ = load_policy(adapter.folder, "cpu")
    opened = PeftModel.from_pretrained(plain, str(tmp_path / "first")).get_base_model()
    torch.testing.assert_close(read(opened), read(adapter.model), rtol=0, atol=1e-6)


def test_another_adapter_is_refused(make_adapter: Adapters, tmp_path: Path) -> None:
    make_adapter().save(tmp_path)
    for settings, fault in (
        (LoraSettings(rank=2), r"is \(4, 24\), .*\(2, 24\)"),
        (LoraSettings(rank=4, targets=("q_proj",)), "missing"),
    ):
        with pytest.raises(ValueError, match=f"has another adapter: base_model.* {fault}"):
            make_adapter(settings=settings).load(tmp_path)


def test_targets_are_linear_maps_of_the_model(make_adapter: Adapters) -> None:
    some = make_adapter(settings=LoraSettings(targets=("v_proj", "q_proj")))
    trained = {name.split(".")[4] for name, parameter in some.model.named_parameters() if parameter.requires_grad}
    assert trained == {"q_proj", "v_proj"}
    accepted = ", ".join(ALL)
    with pytest.raises(ValueError, match=f"type llama has no linear map lm_head, query; accepted: {accepted}$"):
        make_adapter(settings=LoraSettings(targets=("query", "q_proj", "lm_head")))
    with pytest.raises(ValueError, match=r"learner\.lora: a model of type gpt2 has no linear maps to adapt"):
        make_adapter("gpt2")


def test_weights_that_are_not_trained_need_no_gradients_of_their_own(make_adapter: Adapters) -> None:
    adapter = make_adapter()
    plain, _ = load_policy(adapter.folder, "cpu")
    attention = flops_per_token(plain, 10) - 6 * sum(map(torch.numel, plain.parameters()))
    counts = {trained: 0 for trained in (True, False)}
    for parameter in adapter.model.parameters():
        counts[parameter.requires_grad] += parameter.numel()
    assert flops_per_token(adapter.model, 10) == 6 * counts[True] + 4 * counts[False] + attention
