"""A policy in training as a low-rank adapter (LoRA, arXiv 2106.09685) on weights that stay as they are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from agpo.learner.policy import load_policy
from agpo.learner.shapes import check_shapes
from agpo.learner.sharing import share_tensors
from agpo.settings import LoraSettings

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # the files of an adapter, in peft's format
# What peft and vLLM must know; the rest of a configuration is another one with every version of peft.
_CONFIGURED = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias", "target_modules", "use_rslora")
_NAME = "default"  # of the adapter within peft's modules


class Adapter:
    """An adapter on the policy of a folder, its base.

    ``model`` is the policy with it, of which only the adapter is trained; it starts as the base, by ``seed``. ``base``
    is the policy without it. All models here share the tensors that no adapter changes, so the base costs no memory.
    """

    def __init__(self, folder: Path, device: str, settings: LoraSettings, seed: int) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise ImportError("learner.lora needs the package peft: pip install 'agpo[pipeline]'") from error
        self.folder, self.rank = folder, settings.rank
        self.model, self.tokenizer = load_policy(folder, device)
        targets = _find_targets(self.model, settings.targets)
        self.model.requires_grad_(False)
        self.base = share_tensors(self.model)
        self._merged: Any = None
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=targets,
            lora_dropout=0.0,
            bias="none",
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that will go
            torch.manual_seed(seed)
            self._peft = get_peft_model(self.model, config).eval()
        self._layers = {
            name: module for name, module in self.model.named_modules() if name.rpartition(".")[2] in targets
        }

    def load(self, folder: Path) -> None:
        """Make the adapter that of a folder; ValueError where it belongs to other settings or another model."""
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        found = load_file(folder / WEIGHTS)
        own = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        check_shapes(found, own, f"{folder} has another adapter", "policy")
        set_peft_model_state_dict(self._peft, found)

    def save(self, folder: Path) -> None:
        """Write the adapter as peft and vLLM load it. It names no base: the same adapter has the same bytes."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        weights = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        whole = self._peft.peft_config[_NAME].to_dict()
        config = {name: whole[name] for name in _CONFIGURED} | {"base_model_name_or_path": None, "inference_mode": True}
        text = json.dumps(config, indent=2, sort_keys=True, default=sorted)  # target_modules is a set
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    @torch.no_grad()
    def merge(self) -> Any:
        """The policy as it is now in a model without adapter, W + (alpha / rank) · B A; the same one at every call.

        It holds weights of its own where there are adapters. Its log-probs differ by rounding from the policy's.
        """
        if self._merged is None:
            self._merged = share_tensors(self.base)
            for name in self._layers:
                module = self._merged.get_submodule(name)
                module.weight = torch.nn.Parameter(torch.empty_like(module.weight), requires_grad=False)
        for name, layer in self._layers.items():
            weight = self._merged.get_submodule(name).weight
            torch.add(layer.base_layer.weight, layer.get_delta_weight(_NAME), out=weight)
        return self._merged


def _find_targets(model: Any, wanted: tuple[str, ...]) -> list[str]:
    """Names of the linear maps that get an adapter, by the last part; ValueError where the model lacks one."""
    head = model.get_output_embeddings()
    known = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
    )
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"learner.lora.targets: a model of type {model.config.model_type} has no linear map {', '.join(unknown)}; "
            f"accepted: {', '.join(known)}"
        )
    if not known:
        raise ValueError(f"learner.lora: a model of type {model.config.model_type} has no linear maps to adapt")
    return list(wanted) or known
