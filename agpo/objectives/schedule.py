"""How a constant of a method changes during a run: a factor on it.

Long negative-dominant training degrades and can collapse (arXiv 2506.01347 App. F, arXiv 2602.05548), which asks for
withdrawing the negative term with time or when unsolved problems surge. The two rules here are our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agpo.objectives.estimator import StepContext
from agpo.objectives.group import unsolved_share

if TYPE_CHECKING:
    from torch import Tensor


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Constant(_Options):
    """Always 1."""

    kind: Literal["constant"] = "constant"

    def factor(self, groups: Tensor, correct: Tensor, context: StepContext) -> float:
        return 1.0


class LinearDecay(_Options):
    """From 1 at step 0 straight to 0 at ``decay_steps``, whatever the length of the run."""

    kind: Literal["linear"] = "linear"
    decay_steps: int = Field(ge=1, title="Decay steps", description="steps until the factor is 0")

    def factor(self, groups: Tensor, correct: Tensor, context: StepContext) -> float:
        return max(0.0, 1 - context.need_step("a linear schedule") / self.decay_steps)


class UnsolvedTrigger(_Options):
    """1 while the share of groups without a right rollout is at most ``largest_share``, else 0."""

    kind: Literal["unsolved"] = "unsolved"
    largest_share: float = Field(0.5, ge=0, lt=1, title="Largest unsolved share", description="of a step's groups")

    def factor(self, groups: Tensor, correct: Tensor, context: StepContext) -> float:
        return float(unsolved_share(correct, groups) <= self.largest_share)


Schedule = Annotated[Constant | LinearDecay | UnsolvedTrigger, Field(discriminator="kind")]
