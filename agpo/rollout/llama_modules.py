"""Large models, and those on a GPU: the model's own weights are used where they are."""

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
            _apply(projection, normed).reshape(len(hidden), -1, self.width)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        turned = torch.cat((query * self.width**-0.5, key), dim=1)
        grid = turned.view(-1, len(turn[0]), *turned.shape[1:])  # the places of a text follow one another
        return torch.cat((_rotate(grid, *turn).view_as(turned), value), dim=1)

    def complete(self, layer: int, hidden: Tensor, mixed: Tensor) -> Tensor:
        block = self.body.layers[layer]
        mlp, hidden = block.mlp, hidden + _apply(block.self_attn.o_proj, mixed)
        normed = _norm(block.post_attention_layernorm, hidden)
        gated = F.silu(_apply(mlp.gate_proj, normed)) * _apply(mlp.up_proj, normed)
        return hidden + _apply(mlp.down_proj, gated)

    def read_head(self, hidden: Tensor) -> Tensor:
        return _apply(self.model.lm_head, _norm(self.body.norm, hidden)).float()


def _apply(linear: Any, hidden: Tensor) -> Tensor:
    """What a linear map makes of ``hidden`` [tokens, width].

    On a CPU with the weight as the left factor: with some ten to a hundred tokens a tenth faster (our measurement).
    """
    if hidden.device.type != "cpu":
        called: Tensor = linear(hidden)
        return called
    found: Tensor = linear.weight @ hidden.T
    return (found if linear.bias is None else found + linear.bias[:, None]).T


def _norm(module: Any, hidden: Tensor) -> Tensor:
    """As one operation, where the module is several."""
    normed: Tensor = torch.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)
    return normed


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions; ``sin`` is negative in its first half."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)
