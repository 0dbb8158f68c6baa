"""vLLM worker extension: says what the engine is, and loads a Hugging Face folder into it in place."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a folder's safetensors files."""
    index = folder / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"].values() if index.exists() else ["model.safetensors"]
    for file in sorted(set(files)):
        with safe_open(folder / file, framework="pt", device="cpu") as found:
            for name in found.keys():  # noqa: SIM118  # it is no mapping
                yield name, found.get_tensor(name)


def describe_weights(folder: Path) -> tuple[dict[str, str], str]:
    """Shape of every tensor by name, and a digest of all contents that no sharding changes."""
    layout: dict[str, str] = {}
    lines = []
    for name, tensor in read_weights(folder):
        layout[name] = str(list(tensor.shape))  # vLLM casts what it loads
        kind = str(tensor.dtype).removeprefix("torch.")
        content = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        lines.append(f"{name} {kind} {layout[name]} {hashlib.sha256(content).hexdigest()}")  # type: ignore[arg-type]
    return layout, hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


class WeightSync:
    """Mixed into the worker class; ``vllm_config``, ``model_runner`` and ``reload_weights`` are the worker's own."""

    vllm_config: Any
    model_runner: Any
    reload_weights: Any
    agpo_layout: dict[str, str] | None = None

    def agpo_describe(self) -> dict[str, Any]:
        """What a client must know before it trusts this engine. Fields that vLLM does not know it would ignore."""
        vllm = sys.modules["vllm"]  # this runs inside it; it is no dependency of ours
        model, adapters = self.vllm_config.model_config, self.vllm_config.lora_config
        return {
            "version": vllm.__version__,
            "sampling_fields": list(vllm.SamplingParams.__struct_fields__),
            "logprobs_mode": str(model.logprobs_mode),
            "positions": model.max_model_len,
            "vocabulary": model.get_vocab_size(),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(self.vllm_config.device_config.device_type),
            "can_sleep": bool(model.enable_sleep_mode),
            "lora_rank": adapters.max_lora_rank if adapters is not None else 0,
        }

    def agpo_load(self, folder: str, expected: str) -> dict[str, Any]:
        """Load the weights of a folder whose digest is ``expected``; otherwise say why not and change nothing."""
        start = time.perf_counter()
        layout, digest = describe_weights(Path(folder))
        if self.agpo_layout is None:
            self.agpo_layout, _ = describe_weights(Path(self.vllm_config.model_config.model))
        if digest != expected:
            return {"error": f"holds weights {digest[:12]}…, not {expected[:12]}… as handed over"}
        for name in sorted({*layout, *self.agpo_layout}):
            if layout.get(name) != self.agpo_layout.get(name):
                found, own = layout.get(name, "missing"), self.agpo_layout.get(name, "missing")
                return {"error": f"has another model: {name} is {found}, in the engine {own}"}
        self.reload_weights(weights_iterator=read_weights(Path(folder)))
        for module in self.model_runner.get_model().modules():
            # On a CPU a tied head computes with a packed copy of the embedding, which the reload leaves as it was.
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)
        return {"error": "", "seconds": time.perf_counter() - start}
