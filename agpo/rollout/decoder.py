"""Incremental decoding of a causal language model over rows that may split, move and end.

`LlamaDecoder` computes Llama- and Qwen3-type models directly on a static cache; `CacheDecoder` takes any
`transformers` causal model through its cache interface. Both read the live module's weights, so a policy that is
trained in place is sampled without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor


class Decoder(Protocol):
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        """Read the prompts, one row each; logits of the next token [prompts, vocabulary] in fp32.

        ``rows``: most rows there will be at a time; ``capacity``: most tokens that will be generated.
        """

    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        """Continue: new row i is row ``parents[i]`` followed by ``tokens[i]``; logits [len(parents), vocabulary]."""

    def finish(self) -> None:
        """Free the cache: the model may be trained next, in the same memory."""


def make_decoder(model: Any) -> Decoder:
    """The direct decoder where the model's type is known to be computed exactly by it, else the general one."""
    config = model.config
    plain = (
        config.model_type in ("llama", "qwen3")
        and config.hidden_act == "silu"
        and not getattr(config, "use_sliding_window", False)
        and (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        in ("default", "llama3", "linear")
    )
    return LlamaDecoder(model) if plain else CacheDecoder(model)


def _pad_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [rows, longest] and the number of padding tokens before each, [rows]."""
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    return ids, padding


class CacheDecoder:
    """Any `transformers` causal model that continues exactly from `past_key_values`, else ValueError."""

    def __init__(self, model: Any) -> None:
        self.model = model
        if not self._is_exact():
            raise ValueError(
                f"model type {model.config.model_type}: continuing from its cache gives other logits than reading the "
                "whole text, so it cannot be sampled; accepted are models with a transformers cache, without dropout"
            )

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        from transformers import DynamicCache

        ids, self.padding = _pad_left(prompts, self.model.device)
        self.cache = DynamicCache(config=self.model.config)
        self.length = 0
        return self._forward(ids)

    @torch.inference_mode()
    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        if not _is_identity(parents, len(self.padding)):
            index = torch.from_numpy(parents).to(tokens.device)
            self.cache.reorder_cache(index)  # type: ignore[arg-type]  # any index of whole numbers does
            self.padding = self.padding[index]
        return self._forward(tokens[:, None])

    def finish(self) -> None:
        del self.cache

    @torch.inference_mode()
    def _is_exact(self) -> bool:
        """Compare a padded, split and reordered continuation with the plain model: some types ignore the cache."""
        device = self.model.device
        self.start([[1], [2, 3, 1]], rows=3, capacity=1)
        found = self.step(np.array([1, 0, 1]), torch.tensor([2, 2, 3], device=device))
        self.finish()
        texts = [torch.tensor([text], device=device) for text in ([2, 3, 1, 2], [1, 2], [2, 3, 1, 3])]
        expected = torch.cat([self.model(input_ids=text, use_cache=False).logits[:, -1].float() for text in texts])
        error = (found - expected).abs().max()
        return bool(error <= torch.finfo(self.model.dtype).eps ** 0.5 * expected.std())

    def _forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(self.length + ids.shape[1], device=ids.device)
        seen = places >= self.padding[:, None]
        positions = (places[self.length :] - self.padding[:, None]).clamp_min(0)
        self.length += ids.shape[1]
        found = self.model(
            input_ids=ids,
            attention_mask=seen.long(),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = found.logits[:, -1].float()
        return logits


class LlamaDecoder:
    """Llama and Qwen3 models on a static key-value cache [slots, heads, length, width] per layer.

    A row lives in a slot. When a row splits, its first continuation keeps the slot and only the others are copied, so
    a slot's past is written once however long the answers become. Slots of ended rows are computed along until they
    are an eighth of all; then rows from the end move into them: a move costs about two steps of attending to the row.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.body = model, model.model
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        ids, padding = _pad_left(prompts, self.model.device)
        count, length = ids.shape
        self.length = 0
        self.padded = bool((padding > 0).any())
        self.padding = torch.zeros(rows, dtype=padding.dtype, device=ids.device)
        self.padding[:count] = padding
        shape = (rows, self.kv_heads, length + capacity, self.width)
        self.cache = [
            (ids.new_empty(shape, dtype=self.model.dtype), ids.new_empty(shape, dtype=self.model.dtype))
            for _ in self.body.layers
        ]
        positions = torch.arange(length + capacity, device=ids.device)[None]
        like = ids.new_empty(0, dtype=self.model.dtype)
        cos, sin = self.body.rotary_emb(like, position_ids=positions)
        self.cos, self.sin = cos[0], sin[0]
        self.slot = np.arange(count)  # of each row
        self.used = count  # slots 0…used−1 are computed
        return self._forward(ids)

    @torch.inference_mode()
    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        if not _is_identity(parents, len(self.slot)):
            self._place(parents)
        if _is_identity(self.slot, self.used):
            return self._forward(tokens[:, None])
        slot = torch.from_numpy(self.slot).to(tokens.device)
        ids = tokens.new_zeros(self.used)
        ids[slot] = tokens
        return self._forward(ids[:, None])[slot]

    def finish(self) -> None:
        del self.cache

    def _place(self, parents: NDArray[np.int64]) -> None:
        """Give every new row a slot that holds its parent's past."""
        source = self.slot[parents]
        _, first = np.unique(parents, return_index=True)
        copied = np.ones(len(parents), np.bool_)
        copied[first] = False
        slot = source.copy()
        free = np.setdiff1d(np.arange(self.used), source[first], assume_unique=True)
        needed = int(copied.sum())
        fresh = np.arange(self.used, self.used + max(0, needed - len(free)))
        slot[copied] = np.concatenate([free[:needed], fresh])
        self._copy(source[copied], slot[copied])
        self.used += len(fresh)
        if self.used - len(slot) >= self.used / 8:
            outside = slot >= len(slot)
            holes = np.setdiff1d(np.arange(len(slot)), slot[~outside], assume_unique=True)
            self._copy(slot[outside], holes)
            slot[outside], self.used = holes, len(slot)
        self.slot = slot

    def _copy(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        if not len(source):
            return
        a, b = (torch.from_numpy(index).to(self.padding.device) for index in (source, target))
        for keys, values in self.cache:
            for tensor in (keys, values):
                past = tensor[:, :, : self.length]
                past.index_copy_(0, b, past.index_select(0, a))
        self.padding[b] = self.padding[a]

    def _forward(self, ids: Tensor) -> Tensor:
        start, end = self.length, self.length + ids.shape[1]
        # Rotary positions are relative: padding before a text shifts its positions, which changes nothing.
        cos, sin, mask = self.cos[start:end], self.sin[start:end], self._mask(start, end)
        hidden = F.embedding(ids, self.body.embed_tokens.weight)
        for layer, (keys, values) in zip(self.body.layers, self.cache, strict=True):
            normed = _norm(hidden, layer.input_layernorm)
            hidden = hidden + self._attend(layer.self_attn, normed, keys, values, cos, sin, mask)
            inner = _norm(hidden, layer.post_attention_layernorm)
            mlp = layer.mlp
            hidden = hidden + mlp.down_proj(F.silu(mlp.gate_proj(inner)) * mlp.up_proj(inner))
        self.length = end
        logits: Tensor = self.model.lm_head(_norm(hidden[:, -1], self.body.norm)).float()
        return logits

    def _mask(self, start: int, end: int) -> Tensor | None:
        """The additive mask; None where a single new token sees everything before it."""
        if not self.padded:
            return None if end - start == 1 else _causal(self.cos, start, end)
        hidden = torch.arange(end, device=self.padding.device) < self.padding[: self.used, None]
        return _causal(self.cos, start, end).masked_fill(hidden[:, None, None], torch.finfo(self.cos.dtype).min)

    def _attend(
        self,
        attention: Any,
        hidden: Tensor,
        keys: Tensor,
        values: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        rows, count, _ = hidden.shape
        end = self.length + count
        query = attention.q_proj(hidden).view(rows, count, self.heads, self.width)
        key = attention.k_proj(hidden).view(rows, count, self.kv_heads, self.width)
        value = attention.v_proj(hidden).view(rows, count, self.kv_heads, self.width)
        if hasattr(attention, "q_norm"):
            query, key = _norm(query, attention.q_norm), _norm(key, attention.k_norm)
        keys[:rows, :, self.length : end] = _rotate(key.transpose(1, 2), cos, sin)
        values[:rows, :, self.length : end] = value.transpose(1, 2)
        query, keys, values = _rotate(query.transpose(1, 2), cos, sin), keys[:rows, :, :end], values[:rows, :, :end]
        if count == 1:
            found = _attend_once(query, keys, values, mask)
        else:
            found = F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, enable_gqa=self.kv_heads != self.heads
            )
        projected: Tensor = attention.o_proj(found.transpose(1, 2).reshape(rows, count, -1))
        return projected


def _is_identity(index: NDArray[np.int64], rows: int) -> bool:
    return len(index) == rows and bool((index == np.arange(rows)).all())


def _norm(hidden: Tensor, module: Any) -> Tensor:
    normed: Tensor = F.rms_norm(hidden, (hidden.shape[-1],), module.weight, module.variance_epsilon)
    return normed


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-high, low), dim=-1) * sin


def _attend_once(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of one query a row, [rows, heads, 1, width].

    Plain products: on a CPU twice as fast as the fused kernel, and heads that share a key need no copies of it.
    """
    rows, heads, _, width = query.shape
    scores = (query * width**-0.5).reshape(rows, keys.shape[1], -1, width) @ keys.transpose(2, 3)
    if mask is not None:
        scores = scores + mask
    found: Tensor = scores.softmax(dim=-1) @ values
    return found.reshape(rows, heads, 1, width)


def _causal(like: Tensor, start: int, end: int) -> Tensor:
    """Additive mask [end − start, end] in the dtype of ``like``: a token sees itself and what is before it."""
    mask = like.new_full((end - start, end), torch.finfo(like.dtype).min)
    return mask.triu(start + 1)
