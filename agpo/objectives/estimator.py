"""What every advantage estimator has in common: a frozen config class with one pure function."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepContext:
    """What some estimators need beside rewards, groups and verdicts."""

    step: int | None = None  # of the run, from 0
    lengths: Tensor | None = None  # [B] response tokens of each row

    def need_step(self, kind: str) -> int:
        if self.step is None:
            raise ValueError(f"{kind} depends on the step of the run: give StepContext(step=…)")
        return self.step

    def need_lengths(self, kind: str) -> Tensor:
        if self.lengths is None:
            raise ValueError(f"{kind} depends on the response lengths: give StepContext(lengths=…), [B] tokens")
        return self.lengths


NO_CONTEXT: Final = StepContext()


class AdvantageEstimator(BaseModel):
    """Options of a method and the advantages that it gives to the rollouts of a step.

    A subclass adds ``kind: Literal["name"] = "name"``, its options as fields, and `advantages`. A module of this
    folder, or an entry point of the group ``agpo.objectives``, is all that a further method needs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str

    @property
    def least_group(self) -> int:
        """Fewest rollouts of a problem that can give a signal."""
        return 1

    @property
    def by_group(self) -> bool:
        """Whether a group's own rollouts alone decide if its advantages are 0; their size may depend on others."""
        return True

    @abstractmethod
    def advantages(self, rewards: Tensor, groups: Tensor, correct: Tensor, context: StepContext = NO_CONTEXT) -> Tensor:
        """Advantages [B], which every token of a row's response gets; at least fp32, no rows give no advantages.

        Args:
            rewards: [B], ±1 unless shaped.
            groups: [B] ids in 0..P−1; the rows of one problem have the same.
            correct: [B] bool, the verdict. What depends on right or wrong follows it, not the sign of a reward that
                may have been shaped.
            context: the step and response lengths; ValueError from a method that needs what is not given.

        Rows are verified rollouts only: an unverifiable one must not enter a group's statistics.
        """
