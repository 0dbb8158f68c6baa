"""Which groups teach: those with an advantage that is not zero. What dynamic sampling fills a batch with."""

from __future__ import annotations

import polars as pl

from agpo.learner.batch import make_batch
from agpo.objectives import Objective


def find_signal(
    rollouts: pl.DataFrame, verdicts: pl.DataFrame, objective: Objective, mask_truncated: bool, step: int
) -> list[str]:
    """Problems that have a rollout with an advantage, in the order of the rollouts.

    DAPO (arXiv 2503.14476, Eq. 11) samples on until no group is all right or all wrong, whose advantage is 0 by its
    objective. The advantage itself is asked here: AGPO keeps all-wrong groups, from which it learns.
    """
    batch = make_batch(rollouts, verdicts, objective, mask_truncated, step)
    teaching = [name for name, value in zip(batch.ids, batch.advantages.tolist(), strict=True) if value]
    rows = rollouts.filter(pl.col("id").is_in(teaching))
    return rows["problem_id"].unique(maintain_order=True).to_list()
