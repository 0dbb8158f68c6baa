"""The data of a step, round by round: its problems, and what the journal has of their rollouts and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from agpo.journal import Journal, RunStopped
from agpo.settings import TrainRun


class Rounds:
    """A step's first round, and with `RolloutSettings.refills` those that replace problems whose groups do not teach.

    Which problems a refill takes follows from the verdicts of the rounds before: the same in every replay. Only the
    step that was asked for last is kept in memory.
    """

    def __init__(self, run: TrainRun, journal: Journal, problems: Path) -> None:
        """``problems``: the table of all problems."""
        rows = pl.read_parquet(problems)
        self.run, self.journal = run, journal
        self._training = rows.filter(pl.col("split") == "train")
        self._step = -1
        self._selected: list[pl.DataFrame] = []
        self._rollouts: dict[int, pl.DataFrame] = {}
        self._verdicts: dict[int, pl.DataFrame] = {}

    def iterate(self, step: int) -> Iterator[int]:
        """The rounds of a step; each must be verified before the next one is asked for."""
        yield 0
        for round in range(1, self.run.rollout.refills + 1):
            if self.select(step, round).is_empty():
                return
            yield round

    def select(self, step: int, round: int) -> pl.DataFrame:
        """The problems of a round; none where the rounds before have filled the step, or no problem is left."""
        from agpo.problems import select_problems, select_refill

        self._turn_to(step)
        settings, seed = self.run.rollout, self.run.seed
        while len(self._selected) <= round:
            number = len(self._selected)
            if not number:
                self._selected.append(select_problems(self._training, step, settings.problems, seed))
                continue
            missing = max(0, settings.problems - len(self._find_signal(step, range(number))))
            taken = set(pl.concat(self._selected)["id"])
            self._selected.append(select_refill(self._training, step, number, missing, seed, taken))
        return self._selected[round]

    def problems(self, step: int) -> pl.DataFrame:
        """Of all rounds."""
        return pl.concat([self.select(step, round) for round in self.iterate(step)])

    def put_rollouts(self, step: int, round: int, rollouts: pl.DataFrame) -> None:
        self._turn_to(step)
        self._rollouts[round] = rollouts

    def put_verdicts(self, step: int, round: int, verdicts: pl.DataFrame) -> None:
        self._turn_to(step)
        self._verdicts[round] = verdicts

    def read_rollouts(self, step: int, round: int) -> pl.DataFrame:
        """RunStopped where the journal lacks some."""
        self._turn_to(step)
        if round not in self._rollouts:
            rollouts = self.journal.read_rollouts(step, round)
            wanted = self.select(step, round).height * self.run.rollout.samples
            if len(rollouts) < wanted:
                raise RunStopped(f"step {step} has {len(rollouts)} of {wanted} rollouts in {self.journal.files.uri}")
            self._rollouts[round] = rollouts
        return self._rollouts[round]

    def read_verdicts(self, step: int, round: int) -> pl.DataFrame:
        """RunStopped where the journal has none."""
        self._turn_to(step)
        if round not in self._verdicts:
            verdicts = self.journal.read_round(step, round)
            if verdicts is None:
                raise RunStopped(f"step {step} has no verdicts in {self.journal.files.uri}")
            self._verdicts[round] = verdicts
        return self._verdicts[round]

    def read_all(self, step: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rollouts and verdicts of all rounds."""
        rounds = list(self.iterate(step))
        rollouts = pl.concat([self.read_rollouts(step, round) for round in rounds])
        return rollouts, pl.concat([self.read_verdicts(step, round) for round in rounds])

    def keep_teaching(self, step: int, rollouts: pl.DataFrame) -> pl.DataFrame:
        """What a batch is made of: everything, or with refills the first groups that teach, as many as a step has."""
        if not self.run.rollout.refills:
            return rollouts
        teaching = self._find_signal(step, list(self.iterate(step)))[: self.run.rollout.problems]
        return rollouts.filter(pl.col("problem_id").is_in(teaching))

    def _find_signal(self, step: int, rounds: Iterable[int]) -> list[str]:
        from agpo.learner.signal import find_signal

        parts = [(self.read_rollouts(step, round), self.read_verdicts(step, round)) for round in rounds]
        rollouts, verdicts = (pl.concat(frames) for frames in zip(*parts, strict=True))
        return find_signal(rollouts, verdicts, self.run.objective, self.run.loss.mask_truncated, step)

    def _turn_to(self, step: int) -> None:
        if step != self._step:
            self._step = step
            self._selected, self._rollouts, self._verdicts = [], {}, {}
