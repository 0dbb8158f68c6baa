"""Log-probabilities of chosen tokens without a tokens × vocabulary tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}  # logits of a chunk: 16 MiB and 256 MiB in fp32


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy (nats) of each position, both [tokens] in fp32 (fp64 for fp64 input).

    ``hidden`` [tokens, width], ``weight`` [vocabulary, width], ``targets`` [tokens]. The logits are made a chunk of
    tokens at a time, in the forward and again in the backward pass, so the peak is a few chunks. Both results carry
    gradients to ``hidden``, ``weight`` and ``bias``.
    """
    logprobs, entropy = _ChunkedLogprobs.apply(hidden, weight, bias, targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropy


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        # Whole from the start: small results made between chunks would keep the allocator from reusing their memory.
        logprobs = hidden.new_empty(len(hidden), dtype=_precise(hidden.dtype))
        entropy = torch.empty_like(logprobs)
        for part in _chunks(hidden, weight):
            logp = _log_softmax(hidden[part], weight, bias, temperature)
            logprobs[part] = logp.gather(1, targets[part, None])[:, 0]
            entropy[part] = _entropy(logp, logp.exp())
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # None, not zeros, for a result that is not used
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_logprob: Tensor | None, by_entropy: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        hidden, weight, bias, targets = ctx.saved_tensors
        if by_logprob is None:
            by_logprob = hidden.new_zeros(len(hidden), dtype=_precise(hidden.dtype))
        grad_hidden = torch.empty_like(hidden)
        # In half precision a chunk's gradient would be lost in the sum of many.
        grad_weight = torch.zeros_like(weight, dtype=_precise(weight.dtype))
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=_precise(bias.dtype))
        for part in _chunks(hidden, weight):
            logp = _log_softmax(hidden[part], weight, bias, ctx.temperature)
            grad = logp.exp()
            # d logp[target] / d logits = onehot − p;  d entropy / d logits = −p (logp + entropy)
            if by_entropy is None:
                grad.mul_(-by_logprob[part, None])
            else:
                logp.add_(_entropy(logp, grad)[:, None]).mul_(by_entropy[part, None]).add_(by_logprob[part, None])
                grad.mul_(logp).neg_()
            grad.scatter_add_(1, targets[part, None], by_logprob[part, None])
            grad = grad.div_(ctx.temperature).to(weight.dtype)
            torch.mm(grad, weight, out=grad_hidden[part])
            if grad.dtype == grad_weight.dtype:
                grad_weight.addmm_(grad.T, hidden[part])
            else:
                grad_weight += grad.T @ hidden[part]
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        grad_bias = None if bias is None or grad_bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None


def _chunks(hidden: Tensor, weight: Tensor) -> list[slice]:
    rows = max(1, _CHUNK_ELEMENTS[hidden.device.type] // len(weight))
    return [slice(start, start + rows) for start in range(0, len(hidden), rows)]


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _log_softmax(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return torch.log_softmax(logits.to(_precise(logits.dtype)).div_(temperature), dim=-1)


def _entropy(logp: Tensor, p: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vecdot(p, logp).neg_()
    return found
