"""Causal models of a few thousand weights, and rollouts for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

VOCABULARY = 23

_SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "llama-grouped": {"num_key_value_heads": 1},
    "llama-biased": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"num_key_value_heads": 1},
    "qwen2_moe": {
        "sliding_window": 70,
        "use_sliding_window": True,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3": {"head_dim": 8, "tie_word_embeddings": False},
    "mistral-window": {"head_dim": 8, "num_key_value_heads": 1, "sliding_window": 4},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 5.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_oss": {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "nemotron": {},
    "cohere": {"logit_scale": 0.25},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba": {},
}


def tiny_model(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, width: int = 16) -> Any:
    """A model of two layers in evaluation mode, with weights so large that its distributions are far from uniform."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if kind == "gpt2":
        shape = {**shape, "n_inner": shape.pop("intermediate_size")}
    config = AutoConfig.for_model(kind.partition("-")[0], **{**shape, **_SHAPES[kind]})
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name or "ln_" in name:  # else zeros and ones, which hide mistakes
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model.to(dtype).eval()


def exact(model: Any) -> Any:
    """Norms and attention in the model's own precision: `transformers` rounds both to fp32."""
    model.set_attn_implementation("sdpa")
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = lambda hidden, norm=module: rms_norm(
                hidden, hidden.shape[-1:], norm.weight, norm.variance_epsilon
            )
        elif type(module).__name__ == "Gemma3RMSNorm":
            module.forward = lambda hidden, norm=module: rms_norm(hidden, hidden.shape[-1:], 1 + norm.weight, norm.eps)
    return model


def random_rows(lengths: list[tuple[int, int]], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and response mask [rows, longest] of rows with so many prompt and response tokens."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(prompt + response for prompt, response in lengths)
    ids = torch.randint(3, VOCABULARY, (len(lengths), longest), generator=generator)
    places = torch.arange(longest)
    starts, ends = (torch.tensor(column)[:, None] for column in zip(*((p, p + r) for p, r in lengths), strict=True))
    return ids, (places >= starts) & (places < ends)


def dense_logprobs(model: Any, ids: Tensor, chosen: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [number chosen], a row at a time from the model's own logits, without padding."""
    logprobs, entropies = [], []
    for row, taken in zip(ids, chosen, strict=True):
        end = int(taken.nonzero().max()) + 1
        logits = model(input_ids=row[None, :end], use_cache=False).logits[0, :-1].double()
        logp = (logits / temperature).log_softmax(-1)[taken[1:end]]
        logprobs.append(logp.gather(1, row[:end][taken[:end]][:, None])[:, 0])
        entropies.append(-(logp.exp() * logp).sum(1))
    return torch.cat(logprobs), torch.cat(entropies)
