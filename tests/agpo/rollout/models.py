"""Tiny models of many types, with weights large enough that every part of the past changes the logits."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 23
STOP = 2

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _SHAPE),
    "llama tied": ("llama", {**_SHAPE, "tie_word_embeddings": True}),
    "llama one key per head": ("llama", {**_SHAPE, "num_key_value_heads": 4}),
    "llama biases": ("llama", {**_SHAPE, "attention_bias": True, "mlp_bias": True}),
    "llama 3 positions": ("llama", {**_SHAPE, "rope_parameters": _LLAMA3_ROPE}),
    "llama yarn": ("llama", {**_SHAPE, "rope_parameters": {**_LLAMA3_ROPE, "rope_type": "yarn"}}),
    "qwen3": ("qwen3", {**_SHAPE, "head_dim": 16}),
    "qwen3 biases": ("qwen3", {**_SHAPE, "head_dim": 16, "attention_bias": True}),
    "qwen3 sliding window": (
        "qwen3",
        {**_SHAPE, "head_dim": 8, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
    ),
    "qwen2": ("qwen2", _SHAPE),
    "mistral": ("mistral", {**_SHAPE, "head_dim": 8, "sliding_window": 6}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "gpt neox": ("gpt_neox", {**_SHAPE}),
    "lfm2": ("lfm2", {**_SHAPE, "layer_types": ["conv", "full_attention"]}),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}),
}

DIRECT = ["llama", "llama tied", "llama one key per head", "llama biases", "llama 3 positions", "qwen3", "qwen3 biases"]
GENERAL = ["llama yarn", "qwen3 sliding window", "qwen2", "mistral", "gpt2", "gpt neox", "lfm2"]


def make_model(name: str, seed: int = 0) -> Any:
    model_type, options = _MODELS[name]
    config = AutoConfig.for_model(
        model_type, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=STOP, pad_token_id=0, **options
    )
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.4, generator=random)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=random) * 0.2)
    return model.eval()
