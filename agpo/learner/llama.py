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

from agpo.learner.projections import has_plain_projections

_CACHED = 1 << 19  # numbers in fp32, 2 MiB: the second-level cache of a core


def is_small_llama(model: Any) -> bool:
    """Whether `LlamaBody` computes the model exactly, and faster than the model's own layers."""
    config = model.config
    return (
        config.model_type == "llama"
        and config.hidden_size <= 256
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias or config.attention_dropout)
        and model.device.type == "cpu"
        and has_plain_projections(model)
    )


class LlamaBody:
    """The layers of a Llama model, without its head, over rows that lie one after another without padding.

    What a row begins with like the row before it is computed once, see `_Layout`.
    """

    def __init__(self, model: Any) -> None:
        self.body, config = model.model, model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        # Activations of so many tokens stay in a core's cache: more at a time took a third longer (our measurement).
        self.tokens = _CACHED // config.intermediate_size

    def __call__(self, ids: Tensor, lengths: Tensor, chosen: Tensor) -> Tensor:
        """Last hidden states [number chosen, width] of the positions ``chosen`` [tokens] (bool) in ``ids`` [tokens].

        ``lengths`` [rows]: the rows' tokens, none of them 0. What follows the last attention is computed for the
        chosen positions only.
        """
        layout = _Layout(ids, lengths, self.heads, self.kv_heads)
        hidden = self.body.embed_tokens(ids[layout.computed])
        cos, sin = self.body.rotary_emb(hidden, position_ids=torch.arange(layout.longest)[None])
        half = cos.shape[-1] // 2  # the other half repeats it
        turns = torch.complex(cos, sin)[0, :, None, :half].contiguous()[layout.places]
        mask = layout.mask(hidden)
        last = self.body.layers[-1]
        for layer in self.body.layers:
            norm, attention = layer.input_layernorm, layer.self_attn
            projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
            weights = [norm.weight, *(projection.weight for projection in projections)]
            hidden = _attend(hidden, *weights, turns, mask, layout, norm.variance_epsilon)
            # Not by indexing: with several threads its backward sums the repeats in any order.
            hidden = hidden.index_select(0, layout.number[chosen]) if layer is last else hidden
            norm, mlp = layer.post_attention_layernorm, layer.mlp
            weights = [norm.weight, mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
            hidden = _feed_forward(hidden, *weights, norm.variance_epsilon)
        found: Tensor = self.body.norm(hidden)
        return found


class _Layout:
    """Which tokens are computed, and where attention, which works on a grid, has the heads of each.

    What a row begins with like the row before it, as the prompt of a group, is computed once: later tokens change
    nothing in a causal model. Only computed tokens ask: a stretch is a part of a row's computed tokens, no longer than
    the longest rest of a row that begins like another, so that the first row of a group is cut and not the others
    padded to it. Packed, a token has its query, key and value heads one after another. In attention, queries are
    [stretches, key heads, queries of a key, widest], keys and values [stretches, key heads, longest]; what is beyond a
    row's end repeats its last token, and no gradient comes from there. ``padded`` [places] finds the packed head of
    each place, ``packed`` [computed tokens, heads] a place of each packed head.
    """

    def __init__(self, ids: Tensor, lengths: Tensor, heads: int, kv_heads: int) -> None:
        self.longest, self.heads, self.kv_heads = int(lengths.max()), heads, kv_heads
        places = torch.arange(self.longest)
        within = places < lengths[:, None]
        new = self._find_new(ids, within)
        number = (new.flatten().cumsum(0).view_as(new) - 1).masked_fill(~new, 0).cummax(0).values
        self.computed = new[within]  # [tokens] bool
        self.number = number[within]  # [tokens], of the computed token that each is
        row, self.places = new.nonzero().unbind(1)
        self.shared = len(row) < len(ids)
        counts = new.sum(1)
        known = lengths - counts
        widest = self._choose_width(counts[known > 0])
        stretches = (counts + widest - 1) // widest  # of each row
        owner = torch.arange(len(lengths)).repeat_interleave(stretches)
        first = stretches.cumsum(0) - stretches
        starts = known[owner] + (torch.arange(len(owner)) - first[owner]) * widest
        self.asking = starts[:, None] + torch.arange(widest)  # [stretches, widest], places of the queries
        self.stretches = len(owner)
        self.queries, self.keys = self.stretches * widest * heads, self.stretches * self.longest * kv_heads
        every = torch.arange(heads + 2 * kv_heads)
        parts = []
        kinds = every.split((heads, kv_heads, kv_heads))  # type: ignore[no-untyped-call]
        for asked, part in zip((self.asking, places, places), kinds, strict=True):
            tokens = number[owner[:, None], torch.minimum(asked, lengths[owner, None] - 1)]
            parts.append((tokens[:, None] * len(every) + part[:, None]).flatten())
        self.padded = torch.cat(parts)
        since = self.places - known[row]
        stretch = (first[row] + since // widest)[:, None]
        sizes = (
            (heads, 0, widest, since % widest),
            (kv_heads, self.queries, self.longest, self.places),
            (kv_heads, self.queries + self.keys, self.longest, self.places),
        )
        self.packed = torch.cat(
            [
                start + (stretch * count + torch.arange(count)) * wide + place[:, None]
                for count, start, wide, place in sizes
            ],
            dim=1,
        )
        self.mixed = self.packed[:, :heads].flatten()

    def _choose_width(self, rests: Tensor) -> int:
        """Of a stretch, from the numbers of computed tokens of the rows that begin like another."""
        # At least a quarter: a row cut finer would cost more in copies of its keys than it saves (our choice).
        return max(int(rests.max()), (self.longest + 3) // 4) if self.shared else self.longest

    def mask(self, like: Tensor) -> Tensor:
        """Added to the scores: [stretches × key heads, queries of a key × widest, longest], or one for all alike."""
        asking = self.asking if self.shared else self.asking[:1]
        hidden = torch.arange(self.longest) > asking[:, None, None, :, None]
        mask = like.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
        mask = mask.expand(-1, self.kv_heads if self.shared else 1, self.heads // self.kv_heads, -1, -1)
        return mask.reshape(-1, mask.shape[2] * mask.shape[3], self.longest)

    @staticmethod
    def _find_new(ids: Tensor, within: Tensor) -> Tensor:
        """Tokens with another past than the one above them, bool [rows, longest]."""
        grid = ids.new_full(within.shape, -1)
        grid[within] = ids
        new = within.clone()
        new[1:] &= ~(grid[1:] == grid[:-1]).cumprod(1).bool()
        return new

    def pack_gradient(self, heads: Tensor) -> Tensor:
        """Gradients of the packed heads [computed tokens × heads, head width] from those of the places."""
        if not self.shared:
            return heads.index_select(0, self.packed.flatten())
        return heads.new_zeros(self.packed.numel(), heads.shape[-1]).index_add_(0, self.padded, heads)

    def split(self, heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of queries, keys and values, [stretches × key heads, …, head width]."""
        parts = heads.split((self.queries, self.keys, self.keys))  # type: ignore[no-untyped-call]
        query, key, value = (part.view(self.stretches * self.kv_heads, -1, heads.shape[-1]) for part in parts)
        return query, key, value


class _Attention(torch.autograd.Function):
    """hidden + causal attention of the normalised hidden states [tokens, width], with rotary positions.

    ``turns``: cos + i sin of the positions' angles, [tokens, 1, head width / 2]. ``mask``: see `_Layout.mask`. Rotary
    positions turn the pairs (j, j + head width / 2) of a head; in here pairs are neighbours, so that a turn is one
    complex product. Queries and keys are reordered alike, which leaves their products as they are.
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
        layout: _Layout,
        epsilon: float,
    ) -> Tensor:
        tokens = len(hidden)
        width = len(query) // layout.heads
        normed, scale = normalise(hidden, epsilon)
        weight = torch.cat((_pair(query, layout.heads), _pair(key, layout.kv_heads), value))
        projected = normed @ (weight * norm).T
        _turn(projected.view(tokens, -1, width)[:, : -layout.kv_heads], turns)
        q, k, v = layout.split(projected.view(-1, width).index_select(0, layout.padded))
        p = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=width**-0.5).softmax(-1)
        mixed = torch.bmm(p, v).view(-1, width).index_select(0, layout.mixed).view(tokens, -1)
        ctx.save_for_backward(norm, weight, out, turns, normed, scale, q, k, v, p, mixed)
        ctx.layout = layout
        return torch.addmm(hidden, mixed, out.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        norm, weight, out, turns, normed, scale, q, k, v, p, mixed = ctx.saved_tensors
        layout: _Layout = ctx.layout
        (grad,) = grads
        tokens, width = len(grad), q.shape[-1]
        grad_out = grad.T @ mixed
        grad_heads = (grad @ out).view(-1, width)
        grad_mixed = grad.new_zeros(layout.queries, width).index_copy_(0, layout.mixed, grad_heads).view_as(q)
        grad_p = torch.bmm(grad_mixed, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_p, p, -1, p.dtype).mul_(width**-0.5)
        grad_padded = grad.new_empty(len(layout.padded), width)
        grad_q, grad_k, grad_v = layout.split(grad_padded)
        torch.bmm(grad_scores, k, out=grad_q)
        torch.bmm(grad_scores.transpose(1, 2), q, out=grad_k)
        torch.bmm(p.transpose(1, 2), grad_mixed, out=grad_v)
        grad_projected = layout.pack_gradient(grad_padded).view(tokens, -1)
        _turn(grad_projected.view(tokens, -1, width)[:, : -layout.kv_heads], turns.conj_physical())
        grad_norm, grad_weight = _unfold(grad_projected.T @ normed, weight, norm)
        sizes = [heads * width for heads in (layout.heads, layout.kv_heads, layout.kv_heads)]
        grad_query, grad_key, grad_value = grad_weight.split(sizes)  # type: ignore[no-untyped-call]
        grad_hidden = _normalise_backward(grad_projected @ (weight * norm), normed, scale).add_(grad)
        return (
            *(grad_hidden, grad_norm),
            *(_unpair(grad_query, layout.heads), _unpair(grad_key, layout.kv_heads), grad_value, grad_out),
            *(None,) * 4,
        )


class _Mlp(torch.autograd.Function):
    """hidden + down(silu(gate(x)) · up(x)) with x the normalised hidden states [tokens, width]."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, epsilon: float
    ) -> Tensor:
        normed, scale = normalise(hidden, epsilon)
        gated, upped = normed @ (gate * norm).T, normed @ (up * norm).T
        ctx.save_for_backward(norm, gate, up, down, normed, scale, gated, upped)
        return torch.addmm(hidden, torch.nn.functional.silu(gated).mul_(upped), down.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        norm, gate, up, down, normed, scale, gated, upped = ctx.saved_tensors
        (grad,) = grads
        silu = torch.nn.functional.silu(gated)
        grad_down = grad.T @ (silu * upped)
        grad_product = grad @ down
        grad_gated = torch.ops.aten.silu_backward(grad_product * upped, gated)
        grad_upped = grad_product.mul_(silu)
        norm_by_gate, grad_gate = _unfold(grad_gated.T @ normed, gate, norm)
        norm_by_up, grad_up = _unfold(grad_upped.T @ normed, up, norm)
        grad_normed = (grad_gated @ (gate * norm)).addmm_(grad_upped, up * norm)
        grad_hidden = _normalise_backward(grad_normed, normed, scale).add_(grad)
        return grad_hidden, norm_by_gate + norm_by_up, grad_gate, grad_up, grad_down, None


_attend: Callable[..., Tensor] = _Attention.apply
_feed_forward: Callable[..., Tensor] = _Mlp.apply


def normalise(hidden: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
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
    """Rotary position embedding, in place, of paired heads [tokens, heads, head width]; undone by the conjugate."""
    torch.view_as_complex(heads.view(*heads.shape[:-1], -1, 2)).mul_(turns)


def _pair(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key weight so that what is turned together is next to each other."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape_as(weight)


def _unpair(weight: Tensor, heads: int) -> Tensor:
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape_as(weight)
