"""Decoding of Llama- and Qwen3-type models: one cache of a problem's prompt, and one of each answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from agpo.rollout.groups import Groups, group_rows
from agpo.rollout.llama_weights import read_weights
from agpo.rollout.rows import is_identity, pad_left


class LlamaDecoder:
    """Llama and Qwen3 models, with keys and values [prompts or slots, heads, length, width] per layer.

    A prompt's keys (transposed, see `_attend`) and values are kept once, and all its rows attend to them in one matrix
    product: on a CPU, reading the cache is what attention costs. A row's answer lives in a slot. When a row splits, its
    first continuation keeps the slot and only the others are copied, so a slot's past is written once however long the
    answers become. Slots of ended rows are computed along until they are an eighth of all; then rows from the end move
    into them: a move costs about two steps of attending to the row. Prompts without rows are dropped by the same rule.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.heads, self.kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
        self.width = model.model.layers[0].self_attn.head_dim

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        ids, padding = pad_left(prompts, self.model.device)
        count, self.prompt_length = ids.shape
        # Rotary positions are relative: padding before a text shifts its positions, which changes nothing.
        self.weights = read_weights(self.model, self.prompt_length + capacity)
        self.length = 0  # of the answers
        hidden = self.weights.embed(ids.flatten())
        self.padding_mask = _mask_padding(padding, self.prompt_length, hidden)
        shape = (rows, self.kv_heads, capacity, self.width)
        self.cache = [(hidden.new_empty(shape), hidden.new_empty(shape)) for _ in range(self.weights.layers)]
        self.prompt_cache: list[tuple[Tensor, Tensor]] = []
        self.slot = np.arange(count)  # of each row
        self.prompt = np.arange(count)  # of each slot in use
        self.groups = self._group(count)
        return self._read_prompts(hidden, count)

    @torch.inference_mode()
    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        if not is_identity(parents, len(self.slot)):
            self._place(parents)
        if is_identity(self.slot, len(self.prompt)):
            return self._continue(tokens)
        slot = torch.from_numpy(self.slot).to(tokens.device)
        ids = tokens.new_zeros(len(self.prompt))
        ids[slot] = tokens
        return self._continue(ids)[slot]

    def finish(self) -> None:
        del self.cache, self.prompt_cache, self.weights

    def _place(self, parents: NDArray[np.int64]) -> None:
        """Give every new row a slot that holds its parent's past."""
        if self.length:
            self._split(parents)
        else:  # there is no past to keep: slots in the order of the rows
            self.prompt, self.slot = self.prompt[self.slot[parents]], np.arange(len(parents))
        self._drop_prompts()
        self.groups = self._group(len(self.prompt_cache[0][0]))

    def _split(self, parents: NDArray[np.int64]) -> None:
        source, used = self.slot[parents], len(self.prompt)
        _, first = np.unique(parents, return_index=True)
        copied = np.ones(len(parents), np.bool_)
        copied[first] = False
        slot = source.copy()
        free = np.setdiff1d(np.arange(used), source[first], assume_unique=True)
        needed = int(copied.sum())
        fresh = np.arange(used, used + max(0, needed - len(free)))
        slot[copied] = np.concatenate([free[:needed], fresh])
        self.prompt = np.concatenate([self.prompt, np.zeros_like(fresh)])
        self._copy(source[copied], slot[copied])
        if len(self.prompt) - len(slot) >= len(self.prompt) / 8:
            outside = slot >= len(slot)
            holes = np.setdiff1d(np.arange(len(slot)), slot[~outside], assume_unique=True)
            self._copy(slot[outside], holes)
            slot[outside] = holes
            self.prompt = self.prompt[: len(slot)]
        self.slot = slot

    def _group(self, prompts: int) -> Groups:
        return group_rows(self.prompt, prompts, self.kv_heads, self.model.device)

    def _copy(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        if not len(source):
            return
        self.prompt[target] = self.prompt[source]
        a, b = (torch.from_numpy(index).to(self.model.device) for index in (source, target))
        for tensor in (part for pair in self.cache for part in pair):
            past = tensor[:, :, : self.length]
            past.index_copy_(0, b, past.index_select(0, a))

    def _drop_prompts(self) -> None:
        left, prompt = np.unique(self.prompt, return_inverse=True)
        before = len(self.prompt_cache[0][0])
        if before - len(left) >= before / 8:
            index = torch.from_numpy(left).to(self.model.device)
            self.prompt_cache = [(keys[index], values[index]) for keys, values in self.prompt_cache]
            if self.padding_mask is not None:
                self.padding_mask = self.padding_mask[index]
            self.prompt = prompt

    def _read_prompts(self, hidden: Tensor, count: int) -> Tensor:
        """Fill the prompt cache from the embedded prompts [count × length, width]; logits of the next token."""
        turn, mask = self.weights.turn(0, self.prompt_length), self.padding_mask
        if mask is not None:
            mask = torch.minimum(_causal(self.prompt_length, hidden), mask)
        for layer in range(self.weights.layers):
            heads = self.weights.project(layer, hidden, turn)
            grid = heads.view(count, self.prompt_length, -1, self.width).transpose(1, 2)
            query, keys, values = grid.split_with_sizes((self.heads, self.kv_heads, self.kv_heads), dim=1)
            found = F.scaled_dot_product_attention(
                query, keys, values, mask, is_causal=mask is None, scale=1.0, enable_gqa=self.kv_heads != self.heads
            )
            hidden = self.weights.complete(layer, hidden, found.transpose(1, 2).reshape(len(hidden), -1))
            # Every later product of a batch would copy what is not contiguous.
            self.prompt_cache.append((keys.transpose(2, 3).contiguous(), values.contiguous()))
        return self.weights.read_head(hidden.view(count, self.prompt_length, -1)[:, -1])

    def _continue(self, ids: Tensor) -> Tensor:
        """One more token [slots] in every slot; logits of the next."""
        turn, place, slots = self.weights.turn(self.prompt_length + self.length), self.length, len(ids)
        self.length += 1
        hidden = self.weights.embed(ids)
        for layer, (prompt, (keys, values)) in enumerate(zip(self.prompt_cache, self.cache, strict=True)):
            heads = self.weights.project(layer, hidden, turn)
            query, key, value = heads.split_with_sizes((self.heads, self.kv_heads, self.kv_heads), dim=1)
            keys[:slots, :, place] = key
            values[:slots, :, place] = value
            past = keys[:slots, :, : self.length], values[:slots, :, : self.length]
            found = _attend(query, prompt, past, self.groups, self.padding_mask)
            hidden = self.weights.complete(layer, hidden, found)
        return self.weights.read_head(hidden)


def _attend(
    query: Tensor, prompt: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor], groups: Groups, mask: Tensor | None
) -> Tensor:
    """Attention [slots, heads × width] of one query a slot, [slots, heads, width], to its prompt and its answer so far.

    ``prompt``: keys [prompts, key heads, width, length], values [prompts, key heads, length, width]. ``past``: keys and
    values [slots, key heads, length, width]. Plain products: on a CPU twice as fast as the fused kernel, and heads that
    share a key need no copies of it.
    """
    slots, _, width = query.shape
    (prompt_keys, prompt_values), (keys, values) = ([part.flatten(0, 1) for part in pair] for pair in (prompt, past))
    query = query.reshape(keys.shape[0], -1, width)
    each, length = query.shape[1], prompt_keys.shape[2]
    to_prompt = torch.bmm(groups.gather(query), prompt_keys)
    if mask is not None:
        to_prompt.view(len(mask), -1, *to_prompt.shape[1:]).add_(mask)
    shares = torch.cat((groups.scatter(to_prompt, each), torch.bmm(query, keys.transpose(1, 2))), dim=2).softmax(dim=2)
    found = groups.scatter(torch.bmm(groups.gather(shares[..., :length]), prompt_values), each)
    return found.baddbmm_(shares[..., length:], values).view(slots, -1)


def _mask_padding(padding: Tensor, length: int, like: Tensor) -> Tensor | None:
    """Additive mask [prompts, 1, 1, length] of the padding before prompts; None where there is none."""
    if not (padding > 0).any():
        return None
    hidden = torch.arange(length, device=padding.device) < padding[:, None]
    mask = like.new_zeros(hidden.shape).masked_fill(hidden, torch.finfo(like.dtype).min)
    return mask[:, None, None]


def _causal(length: int, like: Tensor) -> Tensor:
    """Additive mask [length, length]: a token sees itself and what is before it."""
    return like.new_full((length, length), torch.finfo(like.dtype).min).triu(1)
