"""Small models on a CPU: their weights are copied so that a step takes half as many operations.

Where a model is small, the time of a step is that of its many small operations. The copies are in fp32, transposed and
side by side, with the norms' weights and the queries' scale folded in: a product with few rows is faster with
transposed weights, and in fp32 it takes half the time of bf16 where there are no matrix units.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from agpo.learner.llama import normalise

_BLOCK = 64  # rows of a weight


class LlamaCopy:
    """See `LlamaWeights`. What is turned together, (j, j + width / 2) of a head, is next to each other here."""

    def __init__(self, model: Any, positions: int) -> None:
        body = model.model
        heads = model.config.num_attention_heads
        self.blocks = [_Block(layer, heads) for layer in body.layers]
        self.layers = len(self.blocks)
        self.embedding = body.embed_tokens.weight
        self.head = _Projection(model.lm_head, norm=body.norm)
        like = self.embedding.new_empty(0, dtype=torch.float32)
        cos, sin = body.rotary_emb(like, position_ids=torch.arange(positions)[None])
        half = cos.shape[-1] // 2  # the other half repeats it
        self.turns = torch.complex(cos, sin)[0, :, None, :half].contiguous()

    def turn(self, start: int, count: int = 1) -> tuple[Tensor, ...]:
        return (self.turns[start : start + count],)

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding).float()

    def project(self, layer: int, hidden: Tensor, turn: tuple[Tensor, ...]) -> Tensor:
        block = self.blocks[layer]
        heads = block.attention(hidden).view(hidden.shape[0], -1, block.width)
        turned = heads[:, : block.turned]
        if block.norms is not None:
            epsilon, weights = block.norms
            torch.mul(normalise(turned, epsilon)[0], weights, out=turned)
        pairs = turned.view(-1, turn[0].shape[0], *turned.shape[1:-1], block.width // 2, 2)
        torch.view_as_complex(pairs).mul_(turn[0])
        return heads

    def complete(self, layer: int, hidden: Tensor, mixed: Tensor) -> Tensor:
        block = self.blocks[layer]
        hidden = block.out.add(hidden, mixed)
        gate, up = block.gate_up(hidden).chunk(2, dim=-1)
        return block.down.add(hidden, F.silu(gate).mul_(up))

    def read_head(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)


class _Projection:
    """Linear maps of the same input [tokens, width], which goes through the ``norm`` first where there is one."""

    def __init__(self, *modules: Any, norm: Any | None = None) -> None:
        self.matrix = _transpose([module.weight for module in modules])
        biases = [module.bias for module in modules]
        self.bias = None if biases[0] is None else torch.cat(biases).float()
        self.epsilon = None if norm is None else norm.variance_epsilon
        if norm is not None:
            self.matrix.mul_(norm.weight[:, None])

    def __call__(self, hidden: Tensor) -> Tensor:
        """Their results side by side."""
        normed = hidden if self.epsilon is None else normalise(hidden, self.epsilon)[0]
        return normed @ self.matrix if self.bias is None else torch.addmm(self.bias, normed, self.matrix)

    def add(self, hidden: Tensor, change: Tensor) -> Tensor:
        """``hidden`` plus the result for ``change``."""
        return torch.addmm(hidden if self.bias is None else hidden + self.bias, change, self.matrix)


class _Block:
    """One layer. ``norms``: epsilon and weights [turned heads, width] of those of queries and keys, if any."""

    def __init__(self, layer: Any, heads: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.attention = _Projection(attention.q_proj, attention.k_proj, attention.v_proj, norm=layer.input_layernorm)
        self.out = _Projection(attention.o_proj)
        self.gate_up = _Projection(mlp.gate_proj, mlp.up_proj, norm=layer.post_attention_layernorm)
        self.down = _Projection(mlp.down_proj)
        self.width = attention.head_dim
        self.turned = (len(attention.q_proj.weight) + len(attention.k_proj.weight)) // self.width
        factors = self.attention.matrix.new_ones(self.turned, self.width)
        if hasattr(attention, "q_norm"):
            factors[:heads], factors[heads:] = attention.q_norm.weight, attention.k_norm.weight
        factors[:heads] *= self.width**-0.5
        factors = _pair(factors, self.width)
        self.norms = (attention.q_norm.variance_epsilon, factors) if hasattr(attention, "q_norm") else None
        for part in (self.attention.matrix, self.attention.bias):
            if part is not None:
                turned = part[..., : factors.numel()]
                turned.copy_(_pair(turned, self.width))
                if self.norms is None:
                    turned.mul_(factors.flatten())


def _pair(numbers: Tensor, width: int) -> Tensor:
    """Heads [..., heads × width] so that what is turned together is next to each other."""
    return numbers.reshape(*numbers.shape[:-1], -1, 2, width // 2).transpose(-1, -2).flatten(-3)


def _transpose(weights: list[Tensor]) -> Tensor:
    """[inputs, outputs of all], fp32. In blocks that stay in the processor's cache: less than half the time."""
    width = weights[0].shape[1]
    matrix = weights[0].new_empty((width, sum(map(len, weights))), dtype=torch.float32)
    start = 0
    for weight in weights:
        for row in range(0, len(weight), _BLOCK):
            block = weight[row : row + _BLOCK]
            matrix[:, start + row : start + row + len(block)] = block.t()
        start += len(weight)
    return matrix
