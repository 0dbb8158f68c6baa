"""Encoders before their training on labels: made from scratch, from the base policy's body, or an existing one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from agpo.learner.folder import model_files
from agpo.learner.policy import save_policy
from agpo.settings.distil import AlignedEncoder, BaseEncoder, Encoder
from agpo.student.examples import Examples, Rendering
from agpo.student.quiet import quiet_libraries


def rendering_of(encoder: Encoder) -> Rendering:
    """A policy's body reads the text that the policy was asked with, an encoder a pair of texts."""
    return "text" if isinstance(encoder, BaseEncoder) else "pair"


def start_encoder(
    encoder: Encoder, examples: Examples, length: int, inputs: Mapping[str, Path], seed: int, folder: Path
) -> None:
    """Write the encoder with a new head for the examples' labels to ``folder``, padding on the right.

    ``length``: the most tokens of a pair. ValueError where the base is wanted and not among the inputs, or where a
    folder's model reads fewer tokens or its tokenizer cannot be served; FileNotFoundError where it is no model folder.
    """
    labels = examples.targets.shape[1]
    if isinstance(encoder, AlignedEncoder):
        from agpo.student.aligned import make_aligned

        texts = [(query, ad) for query, ad in examples.render("pair")]
        model, tokenizer = make_aligned(encoder, texts, labels, length, seed)
    elif isinstance(encoder, BaseEncoder):
        if "base" not in inputs:
            raise ValueError(
                "distil.encoders: kind base needs the base policy, which this run does not give; use aligned or folder"
            )
        model, tokenizer = _load_encoder(inputs["base"], labels, length, seed)
    else:
        model_files(encoder.path, "distil.encoders.path")
        model, tokenizer = _load_encoder(Path(encoder.path), labels, length, seed)
    tokenizer.padding_side = "right"
    tokenizer.chat_template = None  # sentence-transformers would wrap every text in it
    tokenizer.model_max_length = length
    save_policy(model, tokenizer, folder)


def _load_encoder(folder: Path, labels: int, length: int, seed: int) -> tuple[Any, Any]:
    """Only safetensors weights of the folder are read; the head is random by seed."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise ValueError(
            f"{folder} has no tokenizer.json; a student is served with the library tokenizers, which needs it"
        )
    if length > tokenizer.model_max_length:
        raise ValueError(f"distil.length = {length} is more than {folder} reads: {tokenizer.model_max_length} tokens")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(seed)
    with quiet_libraries():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=labels,
            pad_token_id=tokenizer.pad_token_id,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
        )
    return model, tokenizer
