"""Prompt–response pairs as token ids, to be imitated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from agpo.problems import encode_prompts, encode_texts

_BLOCK = 4096  # rows encoded at once: a tokenizer's own result takes a hundred times the memory of its ids


@dataclass(frozen=True)
class EncodedPairs:
    """Rows one behind the other in one array: prompt, response and the token that ends it."""

    tokens: NDArray[np.int32]  # of all rows
    ends: NDArray[np.int64]  # [rows], where a row ends in ``tokens``
    lengths: NDArray[np.int64]  # [rows], tokens of a row
    prompts: NDArray[np.int64]  # [rows], of which prompt

    def __len__(self) -> int:
        return len(self.ends)

    def pad(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Token ids [rows, longest], padded on the right, and which are response tokens, bool of the same shape."""
        lengths = self.lengths[rows, None]
        places = np.arange(lengths.max())
        within = places < lengths
        ids = np.zeros(within.shape, np.int64)
        ids[within] = self.tokens[(self.ends[rows, None] - lengths + places)[within]]
        return torch.from_numpy(ids), torch.from_numpy(within & (places >= self.prompts[rows, None]))


def encode_pairs(tokenizer: Any, pairs: pl.DataFrame, chat_template: str) -> EncodedPairs:
    """Encode the columns ``prompt``, as one user turn, and ``response``, followed by the tokenizer's end token.

    ValueError if there is no row.
    """
    if pairs.is_empty():
        raise ValueError("base.training: the training problems have no answer to learn from")
    blocks = list(_encode_blocks(tokenizer, pairs, chat_template))
    tokens, lengths, prompts = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return EncodedPairs(tokens, lengths.cumsum(), lengths, prompts)


def _encode_blocks(
    tokenizer: Any, pairs: pl.DataFrame, chat_template: str
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]]:
    for block in pairs.iter_slices(_BLOCK):
        prompts = encode_prompts(tokenizer, block["prompt"].to_list(), chat_template)
        responses = encode_texts(tokenizer, block["response"].to_list(), special_tokens=False)
        rows = [
            [*prompt, *response, tokenizer.eos_token_id] for prompt, response in zip(prompts, responses, strict=True)
        ]
        yield (
            np.fromiter(chain.from_iterable(rows), np.int32),
            np.array([len(row) for row in rows]),
            np.array([len(prompt) for prompt in prompts]),
        )
