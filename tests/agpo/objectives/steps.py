"""Steps to give to advantage estimators: rewards, groups, verdicts and lengths, drawn or written out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from agpo.objectives import OBJECTIVES, AdvantageEstimator, StepContext


@dataclass(frozen=True)
class Step:
    rewards: Tensor
    groups: Tensor
    correct: Tensor
    context: StepContext

    def advantages(self, estimator: AdvantageEstimator) -> Tensor:
        return estimator.advantages(self.rewards, self.groups, self.correct, self.context)

    def reordered(self, order: Tensor) -> Step:
        assert self.context.lengths is not None
        context = replace(self.context, lengths=self.context.lengths[order])
        return Step(self.rewards[order], self.groups[order], self.correct[order], context)

    def by_group(self, values: Tensor | None = None) -> list[list[float]]:
        """The rewards (or other values) of each group, in order."""
        chosen = self.rewards if values is None else values
        return [chosen[self.groups == group].tolist() for group in self.groups.unique().tolist()]


def make_step(verdicts: list[list[int]], lengths: list[list[int]] | None = None, step: int = 0) -> Step:
    """Rewards ±1 in fp64 from 1 (right) or 0 (wrong) for each rollout of each group."""
    correct = torch.tensor([verdict for group in verdicts for verdict in group], dtype=torch.bool)
    groups = torch.tensor([index for index, group in enumerate(verdicts) for _ in group], dtype=torch.long)
    tokens = torch.tensor([length for group in lengths or [] for length in group] or [7] * len(groups))
    return Step(correct.double() * 2 - 1, groups, correct, StepContext(step, tokens))


@st.composite
def drawn_steps(draw: st.DrawFn, least_rows: int = 1) -> Step:
    """Up to five groups of up to six rollouts each, with lengths."""
    sizes = draw(st.lists(st.integers(least_rows, 6), min_size=1, max_size=5))
    verdicts = [draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)) for size in sizes]
    lengths = [draw(st.lists(st.integers(1, 20), min_size=size, max_size=size)) for size in sizes]
    return make_step(verdicts, lengths)


def every_estimator() -> list[AdvantageEstimator]:
    """Each kind with its defaults; small k, so that the drawn groups are large enough."""
    options = {"pass_at_k": {"k": 2}}
    return [kind_class.model_validate(options.get(kind, {})) for kind, kind_class in OBJECTIVES.items()]
