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
from agpo.rollout.llama_weights import Layer, LlamaWeights
from agpo.rollout.rows import is_identity, pad_left


class LlamaDecoder:
    """Llama and Qwen3 models, with keys and values [prompts or slots, heads, length, width] per layer.

    A prompt's keys and values are kept once, and all its rows attend to them in one matrix product: on a CPU, reading
    the cache is what attention costs. A row's answer lives in a slot. When a row splits, its first continuation keeps
    the slot and only the others are copied, so a slot's past is written once however long the answers become. Slots of
    ended rows are computed along until they are an eighth of all; then rows from the end move into them: a move costs
    about two steps of attending to the row. Prompts without rows are dropped by the same rule.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        self.weights = LlamaWeights(self.model)
        ids, padding = pad_left(prompts, self.model.device)
        count, self.prompt_length = ids.shape
        self.length = 0  # of the answers
        like = ids.new_empty(0, dtype=self.weights.dtype)
        # Rotary positions are relative: padding before a text shifts its positions, which changes nothing.
        positions = torch.arange(self.prompt_length + capacity, device=ids.device)[None]
        cos, sin = self.model.model.rotary_emb(like, position_ids=positions)
        self.cos, self.sin = cos[0], sin[0].clone()
        self.sin[:, : self.width // 2].neg_()
        self.padding_mask = _mask_padding(padding, self.prompt_length, like)
        shape = (rows, self.kv_heads, capacity, self.width)
        self.cache = [(like.new_empty(shape), like.new_empty(shape)) for _ in self.weights.layers]
        self.prompt_cache: list[tuple[Tensor, Tensor]] = []
        self.slot = np.arange(count)  # of each row
        self.prompt = np.arange(count)  # of each slot in use
        self.groups = group_rows(self.prompt, count, ids.device)
        return self._read_prompts(ids)

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
        self._drop_prompts()
        self.groups = group_rows(self.prompt, len(self.prompt_cache[0][0]), self.cos.device)

    def _copy(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        if not len(source):
            return
        self.prompt[target] = self.prompt[source]
        if self.length:
            a, b = (torch.from_numpy(index).to(self.cos.device) for index in (source, target))
            for tensor in (part for pair in self.cache for part in pair):
                past = tensor[:, :, : self.length]
                past.index_copy_(0, b, past.index_select(0, a))

    def _drop_prompts(self) -> None:
        left, prompt = np.unique(self.prompt, return_inverse=True)
        before = len(self.prompt_cache[0][0])
        if before - len(left) >= before / 8:
            index = torch.from_numpy(left).to(self.cos.device)
            self.prompt_cache = [(keys[index], values[index]) for keys, values in self.prompt_cache]
            if self.padding_mask is not None:
                self.padding_mask = self.padding_mask[index]
            self.prompt = prompt

    def _read_prompts(self, ids: Tensor) -> Tensor:
        """Fill the prompt cache from ids [prompts, length]; logits of the next token."""
        cos, sin = self.cos[: self.prompt_length], self.sin[: self.prompt_length]
        mask = None if self.padding_mask is None else torch.minimum(_causal(self.prompt_length, cos), self.padding_mask)
        hidden = F.embedding(ids, self.weights.embedding).to(self.weights.dtype)
        for layer in self.weights.layers:
            query, keys, values = self._project(layer, hidden, cos, sin)
            # Every later product of a batch would copy what is not contiguous.
            self.prompt_cache.append((keys.contiguous(), values.contiguous()))
            found = F.scaled_dot_product_attention(
                query, keys, values, mask, is_causal=mask is None, enable_gqa=self.kv_heads != self.heads
            )
            hidden = self._complete(layer, hidden, found)
        return self._read_head(hidden[:, -1])

    def _continue(self, ids: Tensor) -> Tensor:
        """One more token [slots] in every slot; logits of the next."""
        place = self.prompt_length + self.length
        cos, sin = self.cos[place : place + 1], self.sin[place : place + 1]
        self.length += 1
        hidden = F.embedding(ids[:, None], self.weights.embedding).to(self.weights.dtype)
        for layer, prompt, (keys, values) in zip(self.weights.layers, self.prompt_cache, self.cache, strict=True):
            query, key, value = self._project(layer, hidden, cos, sin)
            keys[: len(ids), :, self.length - 1] = key[:, :, 0]
            values[: len(ids), :, self.length - 1] = value[:, :, 0]
            past = keys[: len(ids), :, : self.length], values[: len(ids), :, : self.length]
            found = _attend(query, prompt, past, self.groups, self.padding_mask)
            hidden = self._complete(layer, hidden, found)
        return self._read_head(hidden[:, 0])

    def _project(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values of the normalised hidden states, each [rows, its heads, length, width]."""
        rows, length, _ = hidden.shape
        parts = layer.queries_keys_values(layer.before_attention(hidden))
        query, key, value = (part.view(rows, length, -1, self.width) for part in parts)
        if layer.norms is not None:
            query, key = layer.norms[0](query), layer.norms[1](key)
        turned = _rotate(torch.cat((query, key), dim=2).transpose(1, 2), cos, sin)
        query, key = turned.split_with_sizes((self.heads, self.kv_heads), dim=1)
        return query, key, value.transpose(1, 2)

    def _complete(self, layer: Layer, hidden: Tensor, found: Tensor) -> Tensor:
        """What follows a layer's attention [rows, heads, length, width]."""
        (attended,) = layer.attended(found.transpose(1, 2).flatten(2))
        hidden = hidden + attended
        gate, up = layer.gate_up(layer.before_mlp(hidden))
        (down,) = layer.down(F.silu(gate) * up)
        return hidden + down

    def _read_head(self, hidden: Tensor) -> Tensor:
        (logits,) = self.weights.head(self.weights.norm(hidden))
        return logits.float()


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions; ``sin`` is negative in its first half."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _attend(
    query: Tensor, prompt: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor], groups: Groups, mask: Tensor | None
) -> Tensor:
    """Attention of one query a slot, [slots, heads, 1, width], to its prompt and its answer so far.

    Plain products: on a CPU twice as fast as the fused kernel, and heads that share a key need no copies of it.
    """
    rows, heads, _, width = query.shape
    (prompt_keys, prompt_values), (keys, values) = prompt, past
    query = (query * width**-0.5).view(rows, keys.shape[1], -1, width)
    each = query.shape[2]
    to_prompt = groups.gather(query) @ prompt_keys.transpose(2, 3)
    if mask is not None:
        to_prompt = to_prompt + mask
    scores = torch.cat((groups.scatter(to_prompt, each), query @ keys.transpose(2, 3)), dim=-1)
    of_prompt, of_past = scores.softmax(dim=-1).split_with_sizes((prompt_keys.shape[2], keys.shape[2]), dim=-1)
    found: Tensor = groups.scatter(groups.gather(of_prompt) @ prompt_values, each) + of_past @ values
    return found.reshape(rows, heads, 1, width)


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
