"""Large models, and those on a GPU: the model's own modules are called."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class LlamaModules:
    """See `LlamaWeights`."""

    def __init__(self, model: Any, positions: int) -> None:
        self.model, self.body = model, model.model
        self.layers, self.heads = len(self.body.layers), model.config.num_attention_heads
        self.width = self.body.layers[0].self_attn.head_dim
        places = torch.arange(positions, device=model.device)[None]
        cos, sin = self.body.rotary_emb(self.body.embed_tokens.weight, position_ids=places)
        sin = sin.clone()
        sin[..., : self.width // 2].neg_()
        self.cos, self.sin = cos[0, :, None], sin[0, :, None]

    def turn(self, start: int, count: int = 1) -> tuple[Tensor, ...]:
        return self.cos[start : start + count], self.sin[start : start + count]

    def embed(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.body.embed_tokens(ids)
        return hidden

    def project(self, layer: int, hidden: Tensor, turn: tuple[Tensor, ...]) -> Tensor:
        block = self.body.layers[layer]
        attention, normed = block.self_attn, _norm(block.input_layernorm, hidden)
        query, key, value = (
            projection(normed).view(len(hidden), -1, self.width)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        turned = torch.cat((query * self.width**-0.5, key), dim=1)
        grid = turned.view(-1, len(turn[0]), *turned.shape[1:])  # the places of a text follow one another
        return torch.cat((_rotate(grid, *turn).view_as(turned), value), dim=1)

    def complete(self, layer: int, hidden: Tensor, mixed: Tensor) -> Tensor:
        block = self.body.layers[layer]
        mlp, hidden = block.mlp, hidden + block.self_attn.o_proj(mixed)
        normed = _norm(block.post_attention_layernorm, hidden)
        completed: Tensor = hidden + mlp.down_proj(F.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))
        return completed

    def read_head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(_norm(self.body.norm, hidden))
        return logits.float()


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """As one operation, where the module is several."""
    normed: Tensor = torch.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)
    return normed


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions; ``sin`` is negative in its first half."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)
