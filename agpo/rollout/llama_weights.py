"""What sampling computes of a Llama- or Qwen3-type model around its attention."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from agpo.rollout.llama_copy import LlamaCopy
from agpo.rollout.llama_modules import LlamaModules
from agpo.rollout.memory import LARGEST_COPY


class LlamaWeights(Protocol):
    """All of a model's weights, as they are now: read again for every chunk, since training changes them in place."""

    layers: int

    def turn(self, start: int, count: int = 1) -> tuple[Tensor, ...]:
        """What `project` needs of the rotary positions from ``start``."""

    def embed(self, ids: Tensor) -> Tensor:
        """Hidden states [tokens, width] of ids [tokens]."""

    def project(self, layer: int, hidden: Tensor, turn: tuple[Tensor, ...]) -> Tensor:
        """Query, key and value heads of the hidden states, in this order, [tokens, all of them, head width].

        Queries and keys are turned to their positions: those of ``turn``, which are repeated over the tokens. Queries
        are multiplied by head width^-½. The numbers of a query and a key may lie in another order than in the model's.
        """

    def complete(self, layer: int, hidden: Tensor, mixed: Tensor) -> Tensor:
        """Hidden states after a layer, from those before it and attention's result [tokens, query heads × width]."""

    def read_head(self, hidden: Tensor) -> Tensor:
        """Logits [tokens, vocabulary] in fp32."""


def read_weights(model: Any, positions: int) -> LlamaWeights:
    """For sequences of at most ``positions`` tokens.

    A copy of a large model costs more than it gains in an answer of some ten tokens (our measurement).
    """
    copied = model.device.type == "cpu" and 4 * model.num_parameters() <= LARGEST_COPY
    return LlamaCopy(model, positions) if copied else LlamaModules(model, positions)
