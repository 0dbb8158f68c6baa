"""Small Llama models on a CPU: the halves of a layer as autograd functions with backward passes written by hand.

They compute what a layer of `transformers` does in fewer passes over memory: a norm's weight is folded into the
projections behind it, and nothing is kept that the backward pass can cheaply make again. Where a model is so small that
matrix products do not dominate, a training step takes a quarter less time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def is_small_llama(model: Any) -> bool:
    """Whether `LlamaBody` computes the model exactly, and faster than the model's own layers."""
    config = model.config
    return (
        config.model_type == "llama"
        and config.hidden_size <= 256
        and config.num_key_value_heads == config.num_attention_heads
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias or config.attention_dropout)
        and model.device.type == "cpu"
    )


class LlamaBody:
    """The layers of a Llama model, without its head."""

    def __init__(self, model: Any) -> None:
        self.body, self.heads = model.model, model.config.num_attention_heads

    def __call__(self, ids: Tensor, chosen: Tensor) -> Tensor:
        """Last hidden states [number chosen, width] of the positions ``chosen`` (bool) in ``ids`` [rows, length].

        What follows the last attention is computed for these positions only.
        """
        hidden = self.body.embed_tokens(ids)
        length = ids.shape[1]
        cos, sin = self.body.rotary_emb(hidden, position_ids=torch.arange(length)[None])
        half = cos.shape[-1] // 2  # the other half repeats it
        turns = torch.complex(cos, sin)[0, :, None, None, :half].contiguous()
        mask = hidden.new_full((length, length), -torch.inf).triu(1)
        last = self.body.layers[-1]
        for layer in self.body.layers:
            norm, attention = layer.input_layernorm, layer.self_attn
            projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
            weights = [norm.weight, *(projection.weight for projection in projections)]
            hidden = _attend(hidden, *weights, turns, mask, self.heads, norm.variance_epsilon)
            hidden = hidden[chosen] if layer is last else hidden
            norm, mlp = layer.post_attention_layernorm, layer.mlp
            weights = [norm.weight, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
            hidden = _feed_forward(hidden, *weights, norm.variance_epsilon)
        found: Tensor = self.body.norm(hidden)
        return found


class _Attention(torch.autograd.Function):
    """hidden + causal attention of the normalised hidden states [rows, length, width], with rotary positions.

    ``turns``: cos + i sin of the positions' angles, [length, 1, 1, head width / 2]. ``mask``: [length, length], added
    to the scores. Rotary positions turn the pairs (j, j + head width / 2) of a head; in here pairs are neighbours, so
    that a turn is one complex product. Queries and keys are reordered alike, which leaves their products as they are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        norm: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        turns: Tensor,
        mask: Tensor,
        heads: int,
        epsilon: float,
    ) -> Tensor:
        rows, length, width = hidden.shape
        inputs = hidden.reshape(-1, width)
        normed, scale = _normalise(inputs, epsilon)
        weight = torch.cat((_pair(query, heads), _pair(key, heads), value))
        projected = (normed @ (weight * norm).T).view(rows, length, 3, heads, -1)
        _turn(projected[:, :, :2], turns)
        q, k, v = _by_head(projected)
        p = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5).softmax(-1)
        mixed = _by_token(torch.bmm(p, v)[None], rows)
        ctx.save_for_backward(norm, weight, out, turns, normed, scale, q, k, v, p, mixed)
        return torch.addmm(inputs, mixed, out.T).view(rows, length, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        norm, weight, out, turns, normed, scale, q, k, v, p, mixed = ctx.saved_tensors
        rows, length, width = grads[0].shape
        heads = len(q) // rows
        shape = (rows, length, -1, heads, q.shape[-1])  # tokens by part and head
        grad = grads[0].reshape(-1, width)
        grad_out = grad.T @ mixed
        grad_mixed = _by_head((grad @ out).view(shape))[0]
        grad_p = torch.bmm(grad_mixed, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(q.shape[-1] ** -0.5)
        parts = (grad_scores @ k, grad_scores.transpose(1, 2) @ q, p.transpose(1, 2) @ grad_mixed)
        grad_projected = _by_token(torch.stack(parts), rows)
        _turn(grad_projected.view(shape)[:, :, :2], turns.conj_physical())
        grad_norm, grad_weight = _unfold(grad_projected.T @ normed, weight, norm)
        grad_query, grad_key, grad_value = grad_weight.chunk(3)
        grad_hidden = _normalise_backward(grad_projected @ (weight * norm), normed, scale).add_(grad)
        return (
            *(grad_hidden.view_as(grads[0]), grad_norm),
            *(_unpair(grad_query, heads), _unpair(grad_key, heads), grad_value, grad_out),
            *(None,) * 4,
        )


class _Mlp(torch.autograd.Function):
    """hidden + down(silu(gate(x)) · up(x)) with x the normalised hidden states [… , width]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, epsilon: float
    ) -> Tensor:
        inputs = hidden.reshape(-1, hidden.shape[-1])
        normed, scale = _normalise(inputs, epsilon)
        gated, upped = normed @ (gate * norm).T, normed @ (up * norm).T
        ctx.save_for_backward(norm, gate, up, down, normed, scale, gated, upped)
        return torch.addmm(inputs, torch.nn.functional.silu(gated).mul_(upped), down.T).view_as(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        norm, gate, up, down, normed, scale, gated, upped = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        silu = torch.nn.functional.silu(gated)
        grad_down = grad.T @ (silu * upped)
        grad_product = grad @ down
        grad_gated = torch.ops.aten.silu_backward(grad_product * upped, gated)
        grad_upped = grad_product.mul_(silu)
        norm_by_gate, grad_gate = _unfold(grad_gated.T @ normed, gate, norm)
        norm_by_up, grad_up = _unfold(grad_upped.T @ normed, up, norm)
        grad_normed = (grad_gated @ (gate * norm)).addmm_(grad_upped, up * norm)
        grad_hidden = _normalise_backward(grad_normed, normed, scale).add_(grad)
        return grad_hidden.view_as(grads[0]), norm_by_gate + norm_by_up, grad_gate, grad_up, grad_down, None


_attend: Callable[..., Tensor] = _Attention.apply
_feed_forward: Callable[..., Tensor] = _Mlp.apply


def _normalise(hidden: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """RMS norm without its weight [tokens, width], and the factor of each token [tokens, 1]."""
    norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    scale = norm.square_().div_(hidden.shape[-1]).add_(epsilon).rsqrt_()
    return hidden * scale, scale


def _normalise_backward(grad: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """(grad − normed · mean(grad · normed)) · scale, written into ``grad``."""
    mean = torch.linalg.vecdot(grad, normed)[:, None].div_(-grad.shape[-1])
    return grad.addcmul_(normed, mean).mul_(scale)


def _unfold(grad: Tensor, weight: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a norm's weight and of the projection's weight that it was folded into."""
    return (grad * weight).sum(0), grad * norm


def _turn(heads: Tensor, turns: Tensor) -> None:
    """Rotary position embedding, in place, of paired heads [rows, length, …, head width]; undone by the conjugate."""
    torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2)).mul_(turns)


def _pair(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key weight so that what is turned together is next to each other."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape_as(weight)


def _unpair(weight: Tensor, heads: int) -> Tensor:
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape_as(weight)


def _by_head(tokens: Tensor) -> Tensor:
    """[rows, length, parts, heads, head width] to [parts, rows × heads, length, head width]."""
    rows, length, parts, heads, width = tokens.shape
    return tokens.permute(2, 0, 3, 1, 4).reshape(parts, rows * heads, length, width)


def _by_token(parts: Tensor, rows: int) -> Tensor:
    """[parts, rows × heads, length, head width] to [rows × length, parts × heads × head width]."""
    count, _, length, width = parts.shape
    return parts.view(count, rows, -1, length, width).permute(1, 3, 0, 2, 4).reshape(rows * length, -1)
