"""The write-ahead log of a training run: append, read, replay.

    run.json                              what the run is
    steps/00000012/rollouts-0000.parquet  one file a chunk, written before it is used
    steps/00000012/verdicts.parquet
    steps/00000012/round-01/…             rollouts and verdicts of a refill (`RolloutSettings.refills`)
    steps/00000012/disagreements.parquet  answers that a second verifier reads differently, if any
    steps/00000012/update.json            the step's outcome; its presence ends the step
    checkpoints/00000050/…                a Hugging Face folder, or an adapter, with the optimiser's state
    checkpoints/00000050.json             written last: the checkpoint exists

A policy's key is the hash chain of its steps. Every file is whole or absent.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from agpo.artifacts import Files, digest
from agpo.artifacts.lease import Lease
from agpo.artifacts.table import read_table, write_table
from agpo.records import Disagreements, Rollouts, Verdicts

TIMES = ("time/rollout", "time/verify", "time/update")  # metrics of a step: wall seconds of its parts
CPU = "time/cpu"
_LAST = 25  # steps


class RunStopped(RuntimeError):
    """The run cannot go on; the message says why and what to change."""


class Update(BaseModel):
    """The journalled outcome of one step."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")  # null could not be read back

    step: int  # from 0
    policy_before: str
    policy: str  # after the step
    refused: str | None  # why weights and optimiser were left as they were
    skipped: str | None = None  # why there was nothing to do
    metrics: dict[str, float]
    time_ms: int  # when the step ended, Unix time


class Journal:
    """The log of one run. ``lease`` is held by the writer and checked before every append; a reader has none."""

    def __init__(self, files: Files, lease: Lease | None = None) -> None:
        self.files, self.lease = files, lease

    def describe_run(self, facts: dict[str, Any]) -> None:
        """Write once what the run is; a run that is something else under the same key is an error."""
        text = json.dumps(facts, sort_keys=True, indent=1)
        if not self.files.exists("run.json"):
            self._append("run.json", text.encode())
            return
        known, wanted = self.read_run(), json.loads(text)
        other = sorted(name for name in known | wanted if known.get(name) != wanted.get(name))
        if other:
            raise ValueError(f"{self.files.uri}/run.json describes another run; it differs in {', '.join(other)}")

    def read_run(self) -> dict[str, Any]:
        """What the run is, as it was described."""
        facts: dict[str, Any] = json.loads(self.files.read("run.json"))
        return facts

    def read_chunk(self, step: int, index: int, round: int = 0) -> pl.DataFrame | None:
        name = _chunk_name(step, round, index)
        return read_table(self.files, name, Rollouts) if self.files.exists(name) else None

    def write_chunk(self, step: int, index: int, rollouts: pl.DataFrame, round: int = 0) -> None:
        self._check_lease()
        write_table(self.files, _chunk_name(step, round, index), rollouts, Rollouts)

    def read_rollouts(self, step: int, round: int | None = None) -> pl.DataFrame:
        """All chunks of a step, or of one of its rounds, that are there, in order."""
        names = [name for name in self.files.names(_step(step)) if name.rsplit("/", 1)[-1].startswith("rollouts-")]
        if round is not None:
            names = [name for name in names if name.rsplit("/", 1)[0] == _round(step, round)]
        empty = Rollouts.create_empty()
        return pl.concat([empty, *(read_table(self.files, name, Rollouts) for name in names)])

    def read_verdicts(self, step: int) -> pl.DataFrame | None:
        """The verdicts of all rounds of a step that are verified, in order; None where no round is."""
        found: list[pl.DataFrame] = []
        while (verdicts := self.read_round(step, len(found))) is not None:
            found.append(verdicts)
        return pl.concat(found) if found else None

    def read_round(self, step: int, round: int) -> pl.DataFrame | None:
        """The verdicts of one round of a step."""
        name = verdicts_name(step, round)
        return read_table(self.files, name, Verdicts) if self.files.exists(name) else None

    def write_verdicts(self, step: int, verdicts: pl.DataFrame, round: int = 0) -> None:
        self._check_lease()
        write_table(self.files, verdicts_name(step, round), verdicts, Verdicts)

    def write_disagreements(self, step: int, disagreements: pl.DataFrame) -> None:
        """What two verifiers read differently in a step, for people to decide; nothing where they agree."""
        self._check_lease()
        if disagreements.height:
            write_table(self.files, f"{_step(step)}/disagreements.parquet", disagreements, Disagreements)

    def read_disagreements(self, step: int) -> pl.DataFrame:
        """What `write_disagreements` has kept of a step."""
        name = f"{_step(step)}/disagreements.parquet"
        return read_table(self.files, name, Disagreements) if self.files.exists(name) else Disagreements.create_empty()

    def read_update(self, step: int) -> Update | None:
        name = f"{_step(step)}/update.json"
        return Update.model_validate_json(self.files.read(name)) if self.files.exists(name) else None

    def write_update(
        self,
        step: int,
        policy_before: str,
        refused: str | None,
        metrics: dict[str, float],
        outcome: str,
        skipped: str | None = None,
    ) -> Update:
        """End a step. ``outcome``: digest of what the update was computed from (`digest_step`)."""
        update = Update(
            step=step,
            policy_before=policy_before,
            policy=chain_policy(policy_before, outcome, refused),
            refused=refused,
            skipped=skipped,
            metrics=metrics,
            time_ms=time.time_ns() // 1_000_000,
        )
        self._append(f"{_step(step)}/update.json", update.model_dump_json(indent=1).encode())
        return update

    def updates(self, first: int = 0) -> Iterator[Update]:
        """The finished steps in order from ``first`` on, up to one that is not finished."""
        step = first
        while (update := self.read_update(step)) is not None:
            yield update
            step += 1

    def save_checkpoint(self, step: int, policy: str, folder: Path) -> None:
        """Keep a folder as the state after ``step`` steps."""
        self._check_lease()
        self.files.put(folder, f"checkpoints/{step:08d}")
        self._append(f"checkpoints/{step:08d}.json", json.dumps({"step": step, "policy": policy}).encode())

    def checkpoints(self) -> list[int]:
        names = self.files.names("checkpoints")
        return [int(name[12:20]) for name in names if name.endswith(".json") and name.count("/") == 1]

    @contextmanager
    def open_checkpoint(self, step: int) -> Iterator[tuple[str, Path]]:
        """The policy's key and its folder, not to be changed; where the files are elsewhere, a copy for the block."""
        policy = json.loads(self.files.read(f"checkpoints/{step:08d}.json"))["policy"]
        if self.files.local:
            yield policy, self.files.local_path(f"checkpoints/{step:08d}")
            return
        with tempfile.TemporaryDirectory(prefix="agpo-checkpoint-") as name:
            self.files.get(f"checkpoints/{step:08d}", Path(name))
            yield policy, Path(name)

    def _append(self, name: str, data: bytes) -> None:
        self._check_lease()
        self.files.write(name, data)

    def _check_lease(self) -> None:
        if self.lease is None:
            raise PermissionError(f"{self.files.uri} is open for reading only")
        self.lease.check()


def chain_policy(before: str, outcome: str, refused: str | None) -> str:
    """The key of a policy one step on: the chain of what its updates were computed from (`digest_step`)."""
    return digest([before, outcome, "refused" if refused else "applied"])


def digest_step(rollouts: pl.DataFrame, verdicts: pl.DataFrame) -> str:
    """What an update is computed from: the sampled tokens and their verdicts, no times."""
    return digest(
        [
            rollouts["id"].to_list(),
            rollouts["response_ids"].to_list(),
            rollouts["truncated"].to_list(),
            verdicts["verdict"].to_list(),
        ]
    )


def mean_of_last(updates: list[Update]) -> dict[str, float]:
    """Mean of each metric over the last steps that have it: what a single noisy step does not show."""
    values: dict[str, list[float]] = {}
    for update in updates[-_LAST:]:
        for name, value in update.metrics.items():
            if math.isfinite(value) and not name.startswith("time/"):
                values.setdefault(f"mean_of_last_{_LAST}/{name}", []).append(value)
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}


def sum_costs(updates: list[Update]) -> dict[str, float]:
    """Wall and CPU seconds of all steps, each as it was run first."""
    spent = {name: sum(update.metrics.get(name, 0.0) for update in updates) for name in (*TIMES, CPU)}
    return {"seconds": round(sum(spent[name] for name in TIMES), 3), "cpu_seconds": round(spent[CPU], 3)}


def _step(step: int) -> str:
    return f"steps/{step:08d}"


def _round(step: int, round: int) -> str:
    return f"{_step(step)}/round-{round:02d}" if round else _step(step)


def _chunk_name(step: int, round: int, index: int) -> str:
    return f"{_round(step, round)}/rollouts-{index:04d}.parquet"


def verdicts_name(step: int, round: int) -> str:
    """The file of a round's verdicts."""
    return f"{_round(step, round)}/verdicts.parquet"
