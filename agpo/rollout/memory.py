"""What sampling a chunk with the embedded engine on a CPU takes of memory, by the model's shape. Loads no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agpo.settings import Base, FolderBase, ModelShape, ScratchBase

LARGEST_COPY = 128 << 20  # bytes in fp32 of the weights that sampling copies; our choice
_FP32 = 4  # bytes
_LOGIT = 40  # bytes a row and token id: logits and log-probs in fp32; probabilities, their sums and copies in fp64
_SCRATCH_VOCABULARY = 256  # our choice: above every tokenizer that is made from scratch


@dataclass(frozen=True)
class ModelSize:
    """What memory depends on."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Up to norms and biases."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * (attention + 3 * self.width * self.feed_forward) + embeddings


@dataclass(frozen=True)
class ChunkMemory:
    """Bytes: those of the weights, and what a row adds with its share of a prompt."""

    weights: int
    row: int

    def bytes(self, rows: int) -> int:
        return self.weights + rows * self.row

    def largest_chunk(self, available: int) -> int:
        """The largest power of two of rows that fits; 0 where not even one does."""
        rows = (available - self.weights) // self.row
        return 1 << (rows.bit_length() - 1) if rows > 0 else 0


def chunk_memory(size: ModelSize, samples: int, prompt: int, tokens: int) -> ChunkMemory:
    """Of groups of ``samples`` rows with prompts and answers of so many tokens, all of them in fp32.

    `LlamaCopy` copies the weights of small models. A prompt's keys and values are kept once for its group.
    """
    token = 2 * size.layers * size.kv_heads * size.head_width * _FP32
    reading = (4 * size.width + 3 * size.feed_forward) * _FP32  # of a prompt's token, one layer at a time
    weights = size.parameters * _FP32
    return ChunkMemory(
        weights=2 * weights if weights <= LARGEST_COPY else weights,
        row=tokens * token + prompt * (token + reading) // samples + size.vocabulary * _LOGIT,
    )


def model_size(base: Base) -> ModelSize | None:
    """The size of a base policy; None where it is not known without the network, or its type is another."""
    if isinstance(base, ScratchBase):
        return _size_of_shape(base.model)
    if isinstance(base, FolderBase):
        return _size_of_config(json.loads((Path(base.path) / "config.json").read_text()))
    return None


def _size_of_shape(shape: ModelShape) -> ModelSize:
    return ModelSize(
        width=shape.width,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.heads,
        head_width=shape.width // shape.heads,
        feed_forward=shape.feed_forward,
        vocabulary=_SCRATCH_VOCABULARY,
        tied=True,
    )


def _size_of_config(config: dict[str, Any]) -> ModelSize | None:
    if config.get("model_type") not in ("llama", "qwen3"):
        return None
    heads = config["num_attention_heads"]
    return ModelSize(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or config["hidden_size"] // heads,
        feed_forward=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
    )
