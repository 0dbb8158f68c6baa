"""Tiny models with random weights; in a folder with byte-level tokens, so that they read and write any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from agpo.learner.policy import save_policy

_CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_tiny_model(folder: Path, width: int = 32, layers: int = 1, seed: int = 0) -> Path:
    """A Llama of about 30,000 parameters with 260 tokens; its chat template is there, in one line."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        [],
        trainers.BpeTrainer(
            vocab_size=260,
            show_progress=False,
            special_tokens=["<pad>", "<bos>", "<eos>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=_CHAT
    )
    model = make_llama(
        len(tokenizer),
        width,
        2 * width,
        layers,
        heads=2,
        key_value_heads=1,
        seed=seed,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_policy(model, tokenizer, folder)
    return folder


def make_llama(
    vocabulary: int,
    width: int,
    feed_forward: int,
    layers: int,
    heads: int,
    key_value_heads: int,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A Llama in evaluation mode, the same at every call. ``options``: more of its configuration."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        **options,
    )
    return LlamaForCausalLM(config).eval()
