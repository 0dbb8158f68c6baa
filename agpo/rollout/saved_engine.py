"""Rollouts of another run in the place of sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from agpo.artifacts import Files
from agpo.journal import Journal
from agpo.records import rollout_id
from agpo.rollout.chunk import Chunk
from agpo.rollout.engine import Sampling


class SavedEngine:
    """Gives what a training run has journalled for the same step, problems and samples. It has no policy.

    The rows name the policy that they were sampled from, which after the first updates is another one than is trained:
    their log-probs are its, so that the learner's importance correction and mismatch figures mean what they say.
    """

    def __init__(self, journal: str) -> None:
        self.journal = Journal(Files(journal))
        if not self.journal.files.exists("run.json"):
            raise ValueError(
                f"rollout.engine.journal: there is no run.json in {journal}; accepted: folder journal/KEY of a store"
            )

    def generate(
        self, chunk: Chunk, prompts: Mapping[str, Sequence[int]], sampling: Sampling, *, step: int
    ) -> pl.DataFrame:
        """The chunk's rollouts (`records.Rollouts`), in its order.

        ValueError names the first rollout that was not journalled, or whose prompt was another, and what was sampled
        otherwise: log-probs of another distribution compare with none of the learner's.
        """
        self._check(sampling)
        ids = [rollout_id(step, *pair) for pair in zip(chunk.problem_ids, chunk.samples, strict=True)]
        wanted = pl.DataFrame({"id": ids}, schema={"id": pl.String})
        rows = wanted.join(self.journal.read_rollouts(step), on="id", how="left", maintain_order="left")
        where = f"{self.journal.files.uri} (rollout.engine.journal)"
        for name, problem, asked in rows.select("id", "problem_id", "prompt_ids").iter_rows():
            if problem is None:
                raise ValueError(
                    f"{where} has no rollout {name}: the run was shorter, or had other problems, seed or samples"
                )
            if asked != list(prompts[problem]):
                raise ValueError(
                    f"{where} has another prompt for problem {problem}; accepted: the same problems and base"
                )
        return rows

    def _check(self, sampling: Sampling) -> None:
        saved = self.journal.read_run()["settings"]["rollout"]
        for name in ("temperature", "top_p", "top_k", "min_p"):
            if saved[name] != getattr(sampling, name):
                raise ValueError(
                    f"rollout.{name} = {getattr(sampling, name):g}, but the rollouts in {self.journal.files.uri} were "
                    f"sampled with {saved[name]:g}; accepted: the same"
                )
