"""A policy as an ordinary Hugging Face folder: made, loaded, saved, and read for log-probs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agpo.learner.activations import checkpoint_layers
from agpo.learner.folder import model_files
from agpo.learner.llama import LlamaBody, is_small_llama
from agpo.learner.logprobs import chunked_logprobs
from agpo.learner.packed import PackedRows, pack_padded
from agpo.learner.packed_attention import NotByRows, PackedModel, probe_rows, takes_rows
from agpo.settings import ModelShape, Precision


def make_model(shape: ModelShape, tokenizer: Any, positions: int, seed: int) -> Any:
    """A causal model with random weights (fp32, evaluation mode) for a tokenizer.

    ``positions``: longest prompt plus response.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        shape.architecture,
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.width // shape.heads,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation=_attention(config.hidden_size)
    )
    return model.eval()


def load_policy(folder: Path, device: str) -> tuple[Any, Any]:
    """Model (fp32, evaluation mode) and tokenizer of a local folder. Only safetensors weights are read."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with without_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation=_attention(config.hidden_size),
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model.to(device).eval(), tokenizer


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    with without_bars():
        model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def copy_policy(source: Path, target: Path) -> None:
    """Copy a model folder as it is."""
    for path in model_files(source):
        shutil.copy(path, target / path.name)


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    return _stop_ids(model.generation_config, tokenizer)


def read_stop_ids(folder: Path, tokenizer: Any) -> set[int]:
    """The tokens that end an answer of the policy in a folder, whose weights are not read."""
    from transformers import AutoConfig, GenerationConfig

    if (folder / "generation_config.json").exists():
        return _stop_ids(GenerationConfig.from_pretrained(folder, local_files_only=True), tokenizer)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return _stop_ids(GenerationConfig.from_model_config(config), tokenizer)


def _stop_ids(generation: Any, tokenizer: Any) -> set[int]:
    stops: set[int] = {tokenizer.eos_token_id}
    named = getattr(generation, "eos_token_id", None)
    stops.update(named if isinstance(named, list) else [] if named is None else [named])
    return stops - {None}


_LITTLE_PADDING = 1.05  # places a token: so many cost less than what packed attention adds (our measurement)


class LogprobReader:
    """Reads token log-probs from a causal model: chunked over the vocabulary where its head is a plain linear map.

    Rows are read without padding where that gives what the padded rows give, see `PackedModel`.

    ``precision`` bf16 makes the matrix products in bf16 (autocast); weights, sums and the results stay in fp32.
    ``checkpoint``: see `checkpoint_layers`.
    """

    def __init__(self, model: Any, precision: Precision = "fp32", checkpoint: bool = False) -> None:
        self.model, self.half = model, precision == "bf16"
        self.body = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
        self.head = model.get_output_embeddings()
        self.chunked = self._head_is_linear()
        plain = self.chunked and not self.half and not checkpoint
        self.small_llama = LlamaBody(model) if plain and is_small_llama(model) else None
        if checkpoint:
            checkpoint_layers(model)
        self.module, self.output = (self.body, "last_hidden_state") if self.chunked else (model, "logits")
        self.packed = PackedModel(self.module) if self.small_llama is None and takes_rows(self.module) else None
        if self.packed is not None and not self._packed_is_exact(self.packed):
            self.packed = None

    def read(self, ids: Tensor, chosen: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [number chosen] of the tokens ``ids[chosen]`` given what is before them.

        ``ids`` [rows, length], padded on the right: a causal model's earlier positions do not see the padding.
        ``chosen`` [rows, length] bool; the first column must be False.
        """
        return self.read_packed(pack_padded(ids, chosen), temperature)

    def read_packed(self, rows: PackedRows, temperature: float) -> tuple[Tensor, Tensor]:
        """The same of rows without padding."""
        before, targets = rows.before(), rows.targets
        with self._autocast(self.half):
            found = self._run(before)
        if self.chunked:
            hidden, weight, bias = map(self._cast, (found, self.head.weight, self.head.bias))
            return chunked_logprobs(hidden, weight, targets, temperature, bias)
        logp = torch.log_softmax((found if found.dtype == torch.float64 else found.float()) / temperature, dim=-1)
        return logp.gather(1, targets[:, None])[:, 0], -(logp.exp() * logp).sum(-1)

    def _autocast(self, half: bool) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=half)

    def _cast(self, part: Any) -> Any:
        """For the head, which is not called as a module: autocast does not reach it."""
        return part.bfloat16() if self.half and part is not None else part

    @property
    def padded(self) -> bool:
        """Whether rows are read padded to the longest of a call."""
        return self.small_llama is None and self.packed is None

    def limit_tokens(self, most: int) -> int:
        """How many of ``most`` tokens to read at a time for speed."""
        return most if self.small_llama is None else min(most, self.small_llama.tokens)

    def _run(self, rows: PackedRows) -> Tensor:
        """Last hidden states, or logits where the head is not linear, at the chosen tokens, [number chosen, …]."""
        if self.small_llama is not None:
            return self.small_llama(rows.ids, rows.lengths, rows.chosen)
        padded = len(rows.lengths) * int(rows.lengths.max())
        if self.packed is None or padded <= _LITTLE_PADDING * len(rows.ids):
            return self._run_padded(rows)
        return self.packed(rows, self.output)

    def _run_padded(self, rows: PackedRows) -> Tensor:
        ids, chosen = rows.pad()
        found: Tensor = getattr(self.module(input_ids=ids, use_cache=False), self.output)[chosen]
        return found

    @torch.inference_mode()
    def _packed_is_exact(self, packed: PackedModel) -> bool:
        """Whether short rows give the same packed and padded, also in bf16 where that is asked for.

        What a model carries over tokens other than by attention, as in convolutions, would reach the next row.
        """
        rows = probe_rows(self.module)
        for half in {False, self.half}:
            with self._autocast(half):
                try:
                    found = packed(rows, self.output)
                except (NotByRows, RuntimeError):  # the other: a kernel that this build or GPU lacks
                    return False
                expected = self._run_padded(rows)
            # Also of models in fp64: those of transformers round to fp32 within.
            rounding = torch.finfo(torch.bfloat16 if half else torch.float32).eps
            error = (found - expected).square().mean().sqrt()
            if not error <= rounding**0.5 * expected.std():
                return False
        return True

    @torch.inference_mode()
    def _head_is_linear(self) -> bool:
        """Whether the logits are the head's linear map of the body's last hidden states: no cap and no scale.

        The head's output is replaced by known large numbers, where a cap would show, and must come out unchanged.
        """
        if not isinstance(self.head, torch.nn.Linear):
            return False
        ids = torch.arange(4, device=self.model.device)[None] % len(self.head.weight)
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        taken: list[Tensor] = []

        def replace(head: torch.nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            taken.append(inputs[0])
            return torch.linspace(-100, 100, output.numel(), dtype=output.dtype, device=output.device).view_as(output)

        with self.head.register_forward_hook(replace):
            logits = self.model(input_ids=ids, use_cache=False).logits
        return torch.equal(taken[0], hidden) and torch.equal(logits, replace(self.head, (hidden,), logits))


def _attention(width: int) -> str:
    """Plain matrix products are several times faster than the fused CPU kernel on small models with short rows."""
    return "eager" if width <= 256 and not torch.cuda.is_available() else "sdpa"


@contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars from transformers while weights are read or written."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
