"""How fast an update was, and what share of the device's peak that is."""

from __future__ import annotations

from typing import Any

import torch

from agpo.learner.batch import Batch
from agpo.settings import Precision

# Dense products, FLOP/s, from the makers' data sheets: bf16 with fp32 sums, and fp32 without TF32.
_PEAKS: dict[str, dict[Precision, float]] = {
    "H200": {"bf16": 989e12, "fp32": 67e12},
    "H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "H100": {"bf16": 989e12, "fp32": 67e12},
    "A100": {"bf16": 312e12, "fp32": 19.5e12},
    "L40S": {"bf16": 362e12, "fp32": 91.6e12},
    "L4": {"bf16": 121e12, "fp32": 30.3e12},
}


def describe_throughput(
    model: Any, batch: Batch, teaching: int, epochs: int, precision: Precision, seconds: float
) -> dict[str, float]:
    """``time/tokens_per_second`` of an update, and ``time/mfu`` where the device's peak is known.

    Tokens are those of prompts and responses of all rows, an epoch each. MFU counts only what must be computed, the
    ``teaching`` rows: model FLOPs over the device's peak, without what is computed twice (PaLM, arXiv 2204.02311,
    appendix B).
    """
    if not len(batch) or not seconds > 0:
        return {}
    lengths = [len(prompt) + len(response) for prompt, response in zip(batch.prompts, batch.responses, strict=True)]
    tokens = sum(lengths) * epochs
    found = {"time/tokens_per_second": tokens / seconds}
    peak = find_peak(torch.cuda.get_device_name(model.device), precision) if model.device.type == "cuda" else None
    if peak is not None:
        flops = flops_per_token(model, tokens / epochs / len(lengths)) * tokens * teaching / len(batch)
        found["time/mfu"] = flops / seconds / peak
    return found


def flops_per_token(model: Any, length: float) -> float:
    """Of forward and backward pass: 4 N + 2 · trained + 12 · layers · heads · head width · length.

    Where all N parameters are trained that is 6 N; those that are not need no gradients of their own.
    """
    parameters = sum(int(parameter.numel()) for parameter in model.parameters())
    trained = sum(int(parameter.numel()) for parameter in model.parameters() if parameter.requires_grad)
    config = model.config
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 4.0 * parameters + 2.0 * trained + 12.0 * int(config.num_hidden_layers) * heads * width * length


def find_peak(device: str, precision: Precision) -> float | None:
    """FLOP/s of a CUDA device by its name; None where it is not known."""
    return next((peaks[precision] for name, peaks in _PEAKS.items() if set(name.split()) <= set(device.split())), None)
