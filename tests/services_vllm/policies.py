"""Small policies that vLLM can serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agpo.learner.policy import load_policy, save_policy
from tests.tiny_model import write_tiny_model

# One with a head and ids of its own, one whose head is the embedding and that has more ids than its tokenizer.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen3 tied": {"model_type": "qwen3", "tie_word_embeddings": True, "vocab_size": 270},
}


def write_policy(folder: Path, options: dict[str, Any], seed: int) -> Path:
    """A small model with weights large enough that it prefers some tokens."""
    model, tokenizer = load_policy(write_tiny_model(folder), "cpu")
    config = AutoConfig.for_model(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 512,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **options,
        }
    )
    model = AutoModelForCausalLM.from_config(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2, generator=random)
    save_policy(model, tokenizer, folder)
    return folder
