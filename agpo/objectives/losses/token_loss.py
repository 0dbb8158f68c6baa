"""What every policy loss has in common: a frozen config class and one pure function of token log-probs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor


class TokenLoss(BaseModel):
    """Options of a policy loss and its value for every response token.

    A subclass adds ``kind: Literal["name"] = "name"``, its options as fields, and `token_losses`. A module of this
    folder, or an entry point of the group ``agpo.objectives.losses``, is all that a further loss needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str

    @abstractmethod
    def token_losses(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> Tensor:
        """Losses [tokens] with a gradient to ``logprobs``; the normalisation sums them up.

        Args:
            logprobs: [tokens] of the policy in training, natural logarithm.
            old_logprobs: [tokens] of the policy before the step, without gradient.
            advantages: [tokens], the same for all tokens of a row.
            rows: [tokens] row numbers from 0; every row's tokens are all there.

        On-policy (``old_logprobs`` equal to ``logprobs``) the gradient is −A ∇ logprobs.
        """

    def clipped(self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Which tokens [tokens] (bool) a bound holds back, by the name of the bound. For diagnostics."""
        return {}
