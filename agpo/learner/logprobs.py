"""Log-probabilities of chosen tokens without a tokens × vocabulary tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 23  # logits alive at once: 32 MiB in fp32


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy (nats) of each position, both [tokens] in fp32 (fp64 for fp64 input).

    ``hidden`` [tokens, width], ``weight`` [vocabulary, width], ``targets`` [tokens]. The logits are made a chunk of
    tokens at a time, in the forward and again in the backward pass, so the peak is one chunk. Both results carry
    gradients to ``hidden``, ``weight`` and ``bias``.
    """
    logprobs, entropy = _ChunkedLogprobs.apply(hidden, weight, bias, targets, temperature)
    return logprobs, entropy


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy = [], []
        for part, chosen in zip(*_chunks(weight, hidden, targets), strict=True):
            logp = _log_softmax(part, weight, bias, temperature)
            logprobs.append(logp.gather(1, chosen[:, None])[:, 0])
            entropy.append(-(logp.exp() * logp).sum(1))
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature = temperature
        return torch.cat(logprobs), torch.cat(entropy)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        grad_logprobs, grad_entropy = gradients
        hidden, weight, bias, targets = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        start = 0
        for part, chosen, by_logprob, by_entropy in zip(
            *_chunks(weight, hidden, targets, grad_logprobs, grad_entropy), strict=True
        ):
            logp = _log_softmax(part, weight, bias, ctx.temperature)
            p = logp.exp()
            # d logp[target]/d logits = onehot − p;  d entropy/d logits = −p (logp + entropy)
            entropy = -(p * logp).sum(1, keepdim=True)
            logits_grad = -p * (by_logprob[:, None] + by_entropy[:, None] * (logp + entropy))
            logits_grad.scatter_add_(1, chosen[:, None], by_logprob[:, None].to(logits_grad.dtype))
            logits_grad = (logits_grad / ctx.temperature).to(weight.dtype)
            grad_hidden[start : start + len(part)] = logits_grad @ weight
            grad_weight += logits_grad.T @ part
            if grad_bias is not None:
                grad_bias += logits_grad.sum(0)
            start += len(part)
        return grad_hidden, grad_weight, grad_bias, None, None


def _chunks(weight: Tensor, *tensors: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    rows = max(1, _CHUNK_ELEMENTS // weight.shape[0])
    return tuple(tensor.split(rows) for tensor in tensors)


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return torch.log_softmax((logits if logits.dtype == torch.float64 else logits.float()) / temperature, dim=-1)
