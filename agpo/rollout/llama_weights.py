"""The weights of a Llama- or Qwen3-type model as sampling reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agpo.rollout.memory import LARGEST_COPY

_BLOCK = 64  # rows of a weight


class Projection:
    """Linear maps of the same input.

    ``copied``: their weights side by side, transposed and in fp32. Else the modules are called.
    """

    def __init__(self, *modules: Any, copied: bool) -> None:
        self.modules, self.copied = modules, copied
        if copied:
            self.sizes = [len(module.weight) for module in modules]
            self.matrix = _transpose([module.weight for module in modules])
            biases = [module.bias for module in modules]
            self.bias = None if biases[0] is None else torch.cat(biases).float()

    def __call__(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """One result [..., output width] of each map."""
        if not self.copied:
            return tuple(module(hidden) for module in self.modules)
        found = hidden @ self.matrix
        return (found if self.bias is None else found + self.bias).split_with_sizes(self.sizes, dim=-1)


class Norm:
    """Root mean square norm."""

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        self.weight, self.epsilon = module.weight.to(dtype), module.variance_epsilon

    def __call__(self, hidden: Tensor) -> Tensor:
        normed: Tensor = torch.rms_norm(hidden, (hidden.shape[-1],), self.weight, self.epsilon)
        return normed


class Layer:
    """One layer; ``norms`` are those of queries and keys, where the type has them."""

    def __init__(self, layer: Any, dtype: torch.dtype, copied: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before_attention = Norm(layer.input_layernorm, dtype)
        self.before_mlp = Norm(layer.post_attention_layernorm, dtype)
        self.queries_keys_values = Projection(attention.q_proj, attention.k_proj, attention.v_proj, copied=copied)
        self.attended = Projection(attention.o_proj, copied=copied)
        self.gate_up = Projection(mlp.gate_proj, mlp.up_proj, copied=copied)
        self.down = Projection(mlp.down_proj, copied=copied)
        self.norms = (
            (Norm(attention.q_norm, dtype), Norm(attention.k_norm, dtype)) if hasattr(attention, "q_norm") else None
        )


class LlamaWeights:
    """All of a model's weights, as they are now: read again for every chunk, since training changes them in place.

    Those of a small model on a CPU are copied: a product with few rows is then faster, and in fp32 it takes half the
    time of bf16 where there are no matrix units. With a large model the products wait for memory, and a copy costs more
    than it gains.
    """

    def __init__(self, model: Any) -> None:
        copied = model.device.type == "cpu" and 4 * model.num_parameters() <= LARGEST_COPY
        self.dtype = torch.float32 if copied else model.dtype
        self.embedding = model.model.embed_tokens.weight
        self.layers = [Layer(layer, self.dtype, copied) for layer in model.model.layers]
        self.norm = Norm(model.model.norm, self.dtype)
        self.head = Projection(model.lm_head, copied=copied)


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
