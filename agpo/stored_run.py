"""A training run in a store: its key, its journal, its checkpoints, and the policy that it publishes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agpo.artifacts import ArtifactRef, Store, digest
from agpo.artifacts.lease import Lease
from agpo.journal import Journal, RunStopped, mean_of_last, sum_costs
from agpo.live import Live, load_live, save_live, write_published
from agpo.recipe import Recipe
from agpo.settings import TrainRun
from agpo.stages import TRAIN, Cost, Result

_LOG = logging.getLogger("agpo")


class StoredRun:
    """What is on disk of a run, and what is read from there and written to it. A `Session` is one at work."""

    def __init__(self, run: TrainRun, store: Store, problems: ArtifactRef, base: ArtifactRef) -> None:
        self.run, self.store, self.problems, self.base = run, store, problems, base
        self.recipe = Recipe(run)
        self.machine = self.recipe.machine
        self.key = self.recipe.train_key(problems.key, base.key)
        files = store.files.child(f"journal/{self.key}")
        self.lease = Lease(files, "lease")
        self.journal = Journal(files, self.lease)
        self._leased = False

    @property
    def trained_key(self) -> str:
        """Key of the policy after ``run.steps`` steps."""
        return self.recipe.trained_key(self.problems.key, self.base.key)

    def find_published(self) -> ArtifactRef | None:
        return self.store.find(TRAIN.kind, self.trained_key)

    def remaining(self) -> range:
        """The steps after the newest checkpoint that the run's length allows; journalled ones are replayed."""
        if self.find_published() is not None:
            return range(self.run.steps, self.run.steps)
        return range(self._newest_checkpoint(self.run.steps), self.run.steps)

    def claim(self) -> None:
        """Become the only writer of the run, or raise `LeaseHeld` that says who is. The first step does it too."""
        if not self._leased:
            self.lease.acquire()
            self._leased = True

    def policy_after(self, steps: int, key: str) -> ArtifactRef:
        """A policy in the journal: its bytes are there at checkpoints, elsewhere they are the replay of its steps."""
        uri = f"{self.journal.files.uri}/checkpoints/{steps:08d}"
        return ArtifactRef(uri=uri, key=key, sha256=key, kind="policy", rows=steps, bytes=0)

    def _release(self) -> None:
        if self._leased:
            self.lease.release()
            self._leased = False

    def _restore(self, step: int) -> Live:
        """The policy of a checkpoint, or the base, with everything that trains it."""
        from agpo.learner.guards import remembered_steps
        from agpo.rollout.engines import log_file

        self.claim()
        self.machine.apply()
        self.journal.describe_run(
            {
                "key": self.key,
                "settings": self.run.what_training_depends_on(),
                "problems": self.problems.key,
                "base": self.base.key,
            }
        )
        remembered = []
        for number in remembered_steps(step):
            update = self.journal.read_update(number)
            assert update is not None  # a checkpoint is written after its steps
            remembered.append(update)
        with self._open_policy(step) as (policy, folder):
            live = load_live(
                self.run,
                self.machine.device,
                folder,
                self.store.fetch(self.base),
                step=step,
                policy=policy,
                remembered=remembered,
                key=digest([self.journal.files.uri, self.key]),  # another store on this machine may have the same run
                log=log_file(self.journal.files),
            )
        _LOG.info("session of run %s: policy after %d steps", self.key[:12], step)
        return live

    def _keep(self, live: Live) -> None:
        """Make what is live a checkpoint, if it is none."""
        if live.step in self.journal.checkpoints():
            return
        with tempfile.TemporaryDirectory(prefix="agpo-checkpoint-") as name:
            save_live(live, Path(name))
            self.journal.save_checkpoint(live.step, live.policy, Path(name))

    def _publish_checkpoint(self, producer: dict[str, str]) -> Result:
        """The policy after ``run.steps`` steps, of which there is a checkpoint, as an artifact."""
        updates = [update for update in self.journal.updates() if update.step < self.run.steps]
        summary = {
            "rows": self.run.steps,
            "run": self.key,
            "metrics": mean_of_last(updates),
            "cost": {**sum_costs(updates), "peak_memory_mib": Cost().measure()["peak_memory_mib"]},
        }
        with (
            tempfile.TemporaryDirectory(prefix="agpo-train-") as name,
            self._open_policy(self.run.steps) as (_, folder),
        ):
            write_published(self.run, folder, self.store.fetch(self.base), Path(name))
            ref = self.store.publish(
                Path(name),
                kind=TRAIN.kind,
                key=self.trained_key,
                stage=TRAIN.name,
                version=TRAIN.version,
                settings={**self.run.what_training_depends_on(), "steps": self.run.steps},
                inputs={"problems": self.problems, "base": self.base},
                environment=self.machine.describe(),
                rows=self.run.steps,
                summary=summary,
                producer=producer,
            )
        return Result(ref, False, summary)

    @contextmanager
    def _open_policy(self, step: int) -> Iterator[tuple[str, Path]]:
        """Key and folder of the policy after ``step`` steps: the base, or a checkpoint."""
        if step:
            with self.journal.open_checkpoint(step) as found:
                yield found
        else:
            yield self.base.key, self.store.fetch(self.base)

    def _newest_checkpoint(self, most: int) -> int:
        return max((step for step in self.journal.checkpoints() if step <= most), default=0)

    def _broken(self, step: int, fault: str) -> RunStopped:
        return RunStopped(
            f"step {step}: the journal does not fit together: {fault}; remove {self.journal.files.uri} to train again"
        )
