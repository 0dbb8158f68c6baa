"""DAPO: Decoupled Clip and Dynamic Sampling Policy Optimization (arXiv 2503.14476)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agpo.objectives.estimator import NO_CONTEXT, AdvantageEstimator, StepContext
from agpo.objectives.group import full_precision
from agpo.objectives.grpo import Grpo

if TYPE_CHECKING:
    from torch import Tensor


class Overlong(BaseModel):
    """Soft overlong punishment: a penalty that grows over the last tokens before the length limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    longest: int = Field(ge=1, title="Longest", description="L_max, tokens; usually rollout.tokens (paper: 20480)")
    buffer: int = Field(ge=1, title="Buffer", description="L_buf, tokens before it that are punished (paper: 4096)")
    penalty: float = Field(1.0, ge=0, title="Penalty", description="f, the most that is taken off at L_max")

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.buffer > self.longest:
            raise ValueError(f"buffer {self.buffer} exceeds longest {self.longest}, the limit that it is a part of")
        return self

    def rewards(self, lengths: Tensor) -> Tensor:
        """What is added to the rewards [B] of responses of ``lengths`` [B] tokens: between −f and 0."""
        return -self.penalty * ((lengths - (self.longest - self.buffer)) / self.buffer).clamp(0, 1)


class Dapo(AdvantageEstimator):
    """GRPO's advantage of a reward with a soft punishment of overlong responses.

        A_i = (r_i + o_i − μ) / (σ + ε)        o_i = −f · clip((L_i − (L_max − L_buf)) / L_buf, 0, 1)

    μ and σ are the group's, of r + o. Beyond L_max o stays at −f (Eq. 13, as TRL 1.16; in verl 0.9.1 it goes on
    falling). The method's other parts are settings of the loss: ``loss.policy.clip_high = 0.28`` (clip-higher) and the
    token mean, which is the default. Its dynamic sampling, which draws further problems in place of groups that are
    all right or all wrong, is not part of an advantage: such groups give 0 here, unless their lengths are punished
    differently. No punishment by default is our choice, because L_max is the run's.
    """

    kind: Literal["dapo"] = "dapo"
    overlong: Overlong | None = Field(None, title="Overlong punishment", description="none: rewards as they are")
    ddof: Literal[0, 1] = Field(1, title="ddof", description="0: population variance; 1: sample variance")
    epsilon: float = Field(1e-6, gt=0, title="Epsilon", description="added to the standard deviation")

    @property
    def least_group(self) -> int:
        return 2

    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B]; ``correct`` is not used, ``context.lengths`` only by the overlong punishment."""
        rewards = full_precision(rewards)
        if self.overlong is not None:
            rewards = rewards + self.overlong.rewards(context.need_lengths("objective dapo").to(rewards.dtype))
        return Grpo(ddof=self.ddof, epsilon=self.epsilon).advantages(rewards, groups, correct)
