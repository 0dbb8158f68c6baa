"""Incremental decoding of a causal language model over rows that may split, move and end.

`LlamaDecoder` computes Llama- and Qwen3-type models directly on a static cache; `CacheDecoder` takes any
`transformers` causal model through its cache interface. Both read the live module's weights anew for every
chunk, so a policy that is trained in place is sampled as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agpo.learner.projections import has_plain_projections
from agpo.rollout.llama_decoder import LlamaDecoder
from agpo.rollout.rows import is_identity, pad_left


class Decoder(Protocol):
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        """Read the prompts, one row each; logits of the next token [prompts, vocabulary] in fp32.

        ``rows``: most rows there will be at a time; ``capacity``: most tokens that will be generated.
        """

    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        """Continue: new row i is row ``parents[i]`` followed by ``tokens[i]``; logits [len(parents), vocabulary]."""

    def finish(self) -> None:
        """Free the cache: the model may be trained next, in the same memory."""


def make_decoder(model: Any) -> Decoder:
    """The direct decoder where the model's type is known to be computed exactly by it, else the general one."""
    config = model.config
    plain = (
        config.model_type in ("llama", "qwen3")
        and config.hidden_act == "silu"
        and not getattr(config, "use_sliding_window", False)
        and (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        in ("default", "llama3", "linear")
        and has_plain_projections(model)
    )
    return LlamaDecoder(model) if plain else CacheDecoder(model)


class CacheDecoder:
    """Any `transformers` causal model that continues exactly from `past_key_values`, else ValueError."""

    def __init__(self, model: Any) -> None:
        self.model = model
        if not self._is_exact():
            raise ValueError(
                f"model type {model.config.model_type}: continuing from its cache gives other logits than reading the "
                "whole text, so it cannot be sampled; accepted are models with a transformers cache, without dropout"
            )

    @torch.inference_mode()
    def start(self, prompts: Sequence[Sequence[int]], rows: int, capacity: int) -> Tensor:
        from transformers import DynamicCache

        ids, self.padding = pad_left(prompts, self.model.device)
        self.cache = DynamicCache(config=self.model.config)
        self.length = 0
        return self._forward(ids)

    @torch.inference_mode()
    def step(self, parents: NDArray[np.int64], tokens: Tensor) -> Tensor:
        if not is_identity(parents, len(self.padding)):
            index = torch.from_numpy(parents).to(tokens.device)
            self.cache.reorder_cache(index)  # type: ignore[arg-type]  # any index of whole numbers does
            self.padding = self.padding[index]
        return self._forward(tokens[:, None])

    def finish(self) -> None:
        del self.cache

    @torch.inference_mode()
    def _is_exact(self) -> bool:
        """Compare a padded, split and reordered continuation with the plain model: some types ignore the cache."""
        device = self.model.device
        self.start([[1], [2, 3, 1]], rows=3, capacity=1)
        found = self.step(np.array([1, 0, 1]), torch.tensor([2, 2, 3], device=device))
        self.finish()
        texts = [torch.tensor([text], device=device) for text in ([2, 3, 1, 2], [1, 2], [2, 3, 1, 3])]
        expected = torch.cat([self.model(input_ids=text, use_cache=False).logits[:, -1].float() for text in texts])
        error = (found - expected).abs().max()
        return bool(error <= torch.finfo(self.model.dtype).eps ** 0.5 * expected.std())

    def _forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(self.length + ids.shape[1], device=ids.device)
        seen = places >= self.padding[:, None]
        positions = (places[self.length :] - self.padding[:, None]).clamp_min(0)
        self.length += ids.shape[1]
        found = self.model(
            input_ids=ids,
            attention_mask=seen.long(),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = found.logits[:, -1].float()
        return logits
