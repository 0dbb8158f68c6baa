"""The least that samples a Llama model: a static cache, the prompt read once per group, no ends, one loop.

What the embedded sampler is measured against; it shares no code with it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.inference_mode()
def sample_bare(model: Any, prompts: Tensor, samples: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Ids and log-probs [prompts × samples, tokens] after prompts [prompts, length] of the same length."""
    config, body = model.config, model.model
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    count, length = prompts.shape
    rows = count * samples
    cos, sin = (
        part[0]
        for part in body.rotary_emb(prompts.new_empty(0, dtype=model.dtype), torch.arange(length + tokens)[None])
    )
    shape = (rows, kv_heads, length + tokens, width)
    cache = [(torch.empty(shape, dtype=model.dtype), torch.empty(shape, dtype=model.dtype)) for _ in body.layers]

    def norm(hidden: Tensor, module: Any) -> Tensor:
        normed: Tensor = F.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)
        return normed

    def rotate(part: Tensor, start: int) -> Tensor:
        here = slice(start, start + part.shape[2])
        low, high = part.chunk(2, -1)
        turned: Tensor = part * cos[here] + torch.cat((-high, low), -1) * sin[here]
        return turned

    def forward(ids: Tensor, start: int) -> Tensor:
        hidden = F.embedding(ids, body.embed_tokens.weight)
        many, new = ids.shape
        for layer, (keys, values) in zip(body.layers, cache, strict=True):
            inner, attention = norm(hidden, layer.input_layernorm), layer.self_attn
            query, key, value = (
                projection(inner).view(many, new, -1, width).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            keys[:many, :, start : start + new] = rotate(key, start)
            values[:many, :, start : start + new] = value
            found = F.scaled_dot_product_attention(
                rotate(query, start),
                keys[:many, :, : start + new],
                values[:many, :, : start + new],
                is_causal=new > 1,
                enable_gqa=heads != kv_heads,
            )
            hidden = hidden + attention.o_proj(found.transpose(1, 2).flatten(2))
            inner, mlp = norm(hidden, layer.post_attention_layernorm), layer.mlp
            hidden = hidden + mlp.down_proj(F.silu(mlp.gate_proj(inner)) * mlp.up_proj(inner))
        logits: Tensor = model.lm_head(norm(hidden[:, -1], body.norm)).float()
        return logits

    logits = forward(prompts, 0).repeat_interleave(samples, 0)
    for part in (part for pair in cache for part in pair):
        part[:, :, :length] = part[:count, :, :length].repeat_interleave(samples, 0)
    ids, logprobs = torch.empty(rows, tokens, dtype=torch.long), torch.empty(rows, tokens)
    for place in range(tokens):
        logp = logits.log_softmax(-1)
        chosen = (logp.exp() / torch.empty_like(logp).exponential_()).argmax(-1)
        ids[:, place], logprobs[:, place] = chosen, logp.gather(1, chosen[:, None])[:, 0]
        if place + 1 < tokens:
            logits = forward(chosen[:, None], length + place)
    return ids, logprobs
