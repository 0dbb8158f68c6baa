"""The live engine and learner of a run, kept between its tasks, and rebuilt from the journal when they must be."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from agpo.artifacts import ArtifactRef, Store, digest
from agpo.artifacts.lease import Lease
from agpo.journal import CPU, Journal, Update, chain_policy, digest_step, mean_of_last, sum_costs
from agpo.recipe import Recipe
from agpo.rollout import cut_chunks
from agpo.settings import TrainRun
from agpo.stages import TRAIN, Cost, Result

_LOG = logging.getLogger("agpo")
_OPTIMIZER = "optimizer.safetensors"


class RunStopped(RuntimeError):
    """The run cannot go on; the message says why and what to change."""


@dataclass
class _Live:
    """What lives in memory. ``step``: how many steps the policy has taken."""

    model: Any
    tokenizer: Any
    learner: Any
    engine: Any
    pool: Any
    step: int
    policy: str
    dirty: bool = False  # the policy is not what the journal says
    updated: bool = False  # the learner has finished the step that made it so


class Session:
    """One training run at its next step.

    Nothing is loaded until a step is asked for. From the first write to the policy until the step is journalled the
    session is dirty; a dirty one, or one at another step than asked for, goes back to a checkpoint and replays the
    journal from there without generating or verifying anything.
    """

    def __init__(self, run: TrainRun, store: Store, problems: ArtifactRef, base: ArtifactRef) -> None:
        self.run, self.store, self.problems, self.base = run, store, problems, base
        self.recipe = Recipe(run)
        self.machine = self.recipe.machine
        self.key = self.recipe.train_key(problems.key, base.key)
        files = store.files.child(f"journal/{self.key}")
        self.lease = Lease(files, "lease")
        self.journal = Journal(files, self.lease)
        self._leased = False
        self._live: _Live | None = None
        self._rollouts: tuple[int, pl.DataFrame] | None = None
        self._verdicts: tuple[int, pl.DataFrame] | None = None
        self._costs: dict[str, dict[str, float]] = {}  # of the parts of the step

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.pool.close()
            self._live = None
        if self._leased:
            self.lease.release()
            self._leased = False

    # What there is to do

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

    def end_at(self, step: int) -> None:
        """Make this a run of ``step`` steps, all of which are done. Asked for more steps, it goes on another time."""
        self.checkpoint()
        self.run = self.run.model_copy(update={"steps": step})
        self.recipe = Recipe(self.run)

    def claim(self) -> None:
        """Become the only writer of the run, or raise `LeaseHeld` that says who is. The first step does it too."""
        if not self._leased:
            self.lease.acquire()
            self._leased = True

    # The three parts of a step

    def generate(self, step: int) -> tuple[ArtifactRef, bool]:
        """Rollouts of a step, journalled chunk by chunk; whether all of them were there."""
        from agpo.rollout import Sampling

        live, cost, found = self._at(step), Cost(), True
        if step:
            self._stop_after_refusals(self.journal.read_update(step - 1))
        rollout = self.run.rollout
        sampling = Sampling(
            rollout.tokens, rollout.temperature, self.run.seed, rollout.top_p, rollout.top_k, rollout.min_p
        )
        chosen = self._select(step)
        prompts: dict[str, list[int]] = {}
        frames = []
        for chunk in cut_chunks(chosen["id"].to_list(), rollout.samples, rollout.chunk):
            rollouts = self.journal.read_chunk(step, chunk.index)
            if rollouts is None:
                found = False
                prompts = prompts or self._prompts(chosen)
                rollouts = live.engine.generate(chunk, prompts, sampling, step=step, policy=live.policy)
                self.journal.write_chunk(step, chunk.index, rollouts)
            elif rollouts["policy"][0] != live.policy:
                raise self._broken(step, f"chunk {chunk.index} was sampled from policy {rollouts['policy'][0][:12]}…")
            frames.append(rollouts)
        self._rollouts = step, pl.concat(frames)
        self._costs["rollout"] = cost.measure()
        return self._reference("rollouts", step, self._rollouts[1]), found

    def verify(self, step: int) -> tuple[ArtifactRef, bool]:
        """Verdicts of the step's rollouts; whether they were journalled already."""
        from agpo.verify.review import read_annotations
        from agpo.verify.rollouts import verify_rollouts

        live, cost = self._at(step), Cost()
        rollouts = self._read_rollouts(step)
        verdicts = self.journal.read_verdicts(step)
        found = verdicts is not None
        if verdicts is None:
            annotations = read_annotations(self.run.verify.annotations)
            verdicts = verify_rollouts(rollouts, self._select(step), live.tokenizer, live.pool, annotations=annotations)
            self.journal.write_verdicts(step, verdicts)
        share = float((verdicts["verdict"] == "unverifiable").mean())  # type: ignore[arg-type]
        if share > self.run.verify.largest_unverifiable_share:
            reasons = verdicts.filter(pl.col("verdict") == "unverifiable")["reason"].value_counts(sort=True)
            raise RunStopped(
                f"step {step}: {share:.0%} of the rollouts are unverifiable, more than "
                f"verify.largest_unverifiable_share = {self.run.verify.largest_unverifiable_share:.0%} "
                f"(most often: {reasons['reason'][0]}); see {self.journal.files.uri}/steps/{step:08d}/verdicts.parquet "
                "and remove it to verify them again"
            )
        self._verdicts = step, verdicts
        self._costs["verify"] = cost.measure()
        return self._reference("verdicts", step, verdicts), found

    def update(self, step: int) -> tuple[ArtifactRef, bool]:
        """Train on the step's rollouts and verdicts and journal the outcome; whether it was a replay."""
        from agpo.learner.batch import make_batch
        from agpo.learner.diagnostics import describe_step
        from agpo.verify.rollouts import audit_rollouts

        live, cost = self._at(step), Cost()
        rollouts, verdicts = self._read_rollouts(step), self._read_verdicts(step)
        computed_from = digest_step(rollouts, verdicts)
        recorded = self.journal.read_update(step)
        if recorded is not None and recorded.policy != chain_policy(live.policy, computed_from, recorded.refused):
            raise self._broken(step, f"its update made policy {recorded.policy[:12]}… from other rollouts or verdicts")
        batch = make_batch(rollouts, verdicts, self.run.objective, self.run.loss.mask_truncated, step)
        live.dirty, live.updated = True, False
        if recorded is None:
            outcome = live.learner.update(batch, step)
            live.updated = True
            self._costs["update"] = cost.measure()
            metrics = {**describe_step(rollouts, verdicts, batch), **outcome.metrics, **self._describe_costs()}
            metrics["policy/refused"] = float(outcome.refused is not None)
            metrics["verify/seconds"] = float(verdicts["seconds"].sum())
            sample, seed = self.run.verify.audit, self.run.seed
            audit = audit_rollouts(rollouts, verdicts, self._select(step), live.tokenizer, sample, seed)
            if audit is not None:
                self.journal.write_disagreements(step, audit.disagreements)
                metrics |= audit.metrics()
            update = self.journal.write_update(step, live.policy, outcome.refused, metrics, computed_from)
        else:
            update = recorded
            if update.refused is None and live.learner.update(batch, step, guarded=False).refused is not None:
                raise RunStopped(f"step {step} was applied when it was journalled and is refused in replay")
        self._go_on(live, update)
        self._stop_after_refusals(update)
        if (step + 1) % self.run.checkpoint_every == 0 or step + 1 == self.run.steps:
            self.checkpoint()
        return self.policy_after(step + 1, update.policy), recorded is not None

    def checkpoint(self) -> None:
        """Keep weights and optimiser of the live policy, unless they are kept already."""
        live = self._live
        if live is not None and live.dirty and live.updated:
            journalled = self.journal.read_update(live.step)
            if journalled is not None:  # the interrupt fell between the journal and this memory
                self._go_on(live, journalled)
        if live is None or live.dirty or live.step in self.journal.checkpoints():
            return
        from agpo.learner.optimizer import save_optimizer
        from agpo.learner.policy import save_policy

        with tempfile.TemporaryDirectory(prefix="agpo-checkpoint-") as name:
            save_policy(live.model, live.tokenizer, Path(name))
            save_optimizer(live.model, live.learner.optimizer, Path(name) / _OPTIMIZER)
            self.journal.save_checkpoint(live.step, live.policy, Path(name))

    def _go_on(self, live: _Live, update: Update) -> None:
        live.step, live.policy, live.dirty = update.step + 1, update.policy, False
        live.learner.guard.note(update.refused, update.metrics)

    def publish(self, producer: dict[str, str] | None = None) -> Result:
        """The policy after ``run.steps`` steps as an artifact: a Hugging Face folder."""
        found = self.find_published()
        if found is not None:
            return Result(found, True, self.store.manifest(found).summary)
        if self.run.steps and self.run.steps not in self.journal.checkpoints():
            self._at(self.run.steps)
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
            for file in folder.iterdir():
                if file.name != _OPTIMIZER:
                    shutil.copy(file, Path(name) / file.name)
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
                producer=producer or {},
            )
        return Result(ref, False, summary)

    # Restoring

    def _at(self, step: int) -> _Live:
        """The live state before ``step``, rebuilt when it is dirty or elsewhere."""
        live = self._live
        if live is None or live.dirty or live.step != step:
            if live is not None:
                live.pool.close()
                self._live = None
            live = self._live = self._restore(self._newest_checkpoint(step))
            while live.step < step:
                self.update(live.step)
        return live

    def _restore(self, step: int) -> _Live:
        from agpo.learner.guards import remembered_steps
        from agpo.learner.optimizer import load_optimizer
        from agpo.learner.policy import load_policy, stop_ids
        from agpo.learner.update import Learner
        from agpo.rollout import LocalEngine
        from agpo.verify import VerifierPool

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
        reference = None
        if self.run.loss.kl > 0:
            reference, _ = load_policy(self.store.fetch(self.base), self.machine.device)
            reference.requires_grad_(False)
        with self._open_policy(step) as (policy, folder):
            model, tokenizer = load_policy(folder, self.machine.device)
            learner = Learner(
                model, reference, self.run.loss, self.run.learner, self.run.rollout.temperature, self.run.seed
            )
            if step:
                load_optimizer(model, learner.optimizer, folder / _OPTIMIZER)
        for update in map(self.journal.read_update, remembered_steps(step)):
            assert update is not None  # a checkpoint is written after its steps
            learner.guard.note(update.refused, update.metrics)
        verify = self.run.verify
        pool = VerifierPool(verify.workers, verify.timeout, verify.memory)
        _LOG.info("session of run %s: policy after %d steps", self.key[:12], step)
        return _Live(model, tokenizer, learner, LocalEngine(model, stop_ids(model, tokenizer)), pool, step, policy)

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

    def _stop_after_refusals(self, last: Update | None) -> None:
        """End a run whose newest updates were refused; when it is started again it must not go on either."""
        most = self.run.learner.refusals
        reasons: list[str] = []
        while last is not None and last.refused is not None and len(reasons) < most:
            reasons.append(f"step {last.step}: {last.refused}")
            last = self.journal.read_update(last.step - 1) if last.step else None
        if len(reasons) == most:
            raise RunStopped(
                f"{most} updates in a row were refused (learner.refusals):\n  " + "\n  ".join(reversed(reasons))
            )

    def _broken(self, step: int, fault: str) -> RunStopped:
        return RunStopped(
            f"step {step}: the journal does not fit together: {fault}; remove {self.journal.files.uri} to train again"
        )

    # Data of a step

    @cached_property
    def _training_problems(self) -> pl.DataFrame:
        rows = pl.read_parquet(self.store.fetch(self.problems) / "problems.parquet")
        return rows.filter(pl.col("split") == "train")

    def _select(self, step: int) -> pl.DataFrame:
        from agpo.problems import select_problems

        return select_problems(self._training_problems, step, self.run.rollout.problems, self.run.seed)

    def _prompts(self, problems: pl.DataFrame) -> dict[str, list[int]]:
        from agpo.problems import encode_prompts

        assert self._live is not None
        encoded = encode_prompts(self._live.tokenizer, problems["prompt"].to_list(), self.run.rollout.chat_template)
        return dict(zip(problems["id"], encoded, strict=True))

    def _read_rollouts(self, step: int) -> pl.DataFrame:
        if self._rollouts is None or self._rollouts[0] != step:
            rollouts = self.journal.read_rollouts(step)
            wanted = self.run.rollout.problems * self.run.rollout.samples
            if len(rollouts) < wanted:
                raise RunStopped(f"step {step} has {len(rollouts)} of {wanted} rollouts in {self.journal.files.uri}")
            self._rollouts = step, rollouts
        return self._rollouts[1]

    def _read_verdicts(self, step: int) -> pl.DataFrame:
        if self._verdicts is None or self._verdicts[0] != step:
            verdicts = self.journal.read_verdicts(step)
            if verdicts is None:
                raise RunStopped(f"step {step} has no verdicts in {self.journal.files.uri}")
            self._verdicts = step, verdicts
        return self._verdicts[1]

    def _describe_costs(self) -> dict[str, float]:
        seconds = {f"time/{part}": cost["seconds"] for part, cost in self._costs.items()}
        return {**seconds, CPU: sum(cost["cpu_seconds"] for cost in self._costs.values())}

    def policy_after(self, steps: int, key: str) -> ArtifactRef:
        """A policy in the journal: its bytes are there at checkpoints, elsewhere they are the replay of its steps."""
        uri = f"{self.journal.files.uri}/checkpoints/{steps:08d}"
        return ArtifactRef(uri=uri, key=key, sha256=key, kind="policy", rows=steps, bytes=0)

    def _reference(self, kind: str, step: int, frame: pl.DataFrame) -> ArtifactRef:
        assert self._live is not None
        columns = ["id", "response_ids"] if kind == "rollouts" else ["id", "verdict"]
        return ArtifactRef(
            uri=f"{self.journal.files.uri}/steps/{step:08d}",
            key=digest([self._live.policy, step, kind]),
            sha256=digest([frame[column].to_list() for column in columns]),
            kind=kind,
            rows=len(frame),
            bytes=int(frame.estimated_size()),
        )
