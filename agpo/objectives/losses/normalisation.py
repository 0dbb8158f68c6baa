"""How token losses add up to the loss of an optimiser step: the weight of each row's tokens.

The weights depend on all rows of the optimiser step and are fixed before its first micro-batch, so that any cut into
micro-batches, and any order or padding, gives the same gradient. Every term of the loss (policy, KL, entropy) has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TokenMean(_Options):
    """The mean over all response tokens (DAPO, arXiv 2503.14476): long responses weigh more."""

    kind: Literal["token_mean"] = "token_mean"

    def token_weights(self, lengths: Tensor) -> Tensor:
        """[rows] fp64 from the response tokens [rows] of all rows of the optimiser step: 1 / Σ lengths."""
        return lengths.new_ones(lengths.shape).double() / lengths.sum()


class SequenceMean(_Options):
    """The mean over rows of a row's mean over tokens (GRPO, arXiv 2402.03300): tokens of long responses weigh less."""

    kind: Literal["sequence_mean"] = "sequence_mean"

    def token_weights(self, lengths: Tensor) -> Tensor:
        """[rows] fp64 from the response tokens [rows] of all rows of the optimiser step: 1 / (rows · length)."""
        return 1 / (lengths.double() * lengths.numel())


class ConstantLength(_Options):
    """The sum over tokens by a constant length, averaged over rows (Dr. GRPO, arXiv 2503.20783): no length bias."""

    kind: Literal["constant"] = "constant"
    tokens: int = Field(ge=1, title="Tokens", description="the constant length; usually rollout.tokens")

    def token_weights(self, lengths: Tensor) -> Tensor:
        """[rows] fp64: 1 / (rows · tokens), whatever the response tokens [rows]."""
        return 1 / (lengths.new_full(lengths.shape, self.tokens).double() * lengths.numel())


Normalisation = Annotated[TokenMean | SequenceMean | ConstantLength, Field(discriminator="kind")]
