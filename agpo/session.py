"""The live engine and learner of a run, kept between its tasks, and rebuilt from the journal when they must be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import polars as pl

from agpo.artifacts import ArtifactRef, Store, digest
from agpo.journal import CPU, RunStopped, Update, chain_policy, digest_step, verdicts_name
from agpo.live import Live
from agpo.progress import heartbeat
from agpo.recipe import Recipe
from agpo.rollout import cut_chunks
from agpo.rounds import Rounds
from agpo.settings import TrainRun
from agpo.stages import Cost, Result
from agpo.stored_run import StoredRun

if TYPE_CHECKING:
    from agpo.learner.batch import Batch


class Session(StoredRun):
    """One training run at its next step.

    Nothing is loaded until a step is asked for. From the first write to the policy until the step is journalled the
    session is dirty; a dirty one, or one at another step than asked for, goes back to a checkpoint and replays the
    journal from there without generating or verifying anything.
    """

    def __init__(self, run: TrainRun, store: Store, problems: ArtifactRef, base: ArtifactRef) -> None:
        super().__init__(run, store, problems, base)
        self._live: Live | None = None
        self._costs: dict[str, dict[str, float]] = {}  # of the parts of the step

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
            self._live = None
        self._release()

    def end_at(self, step: int) -> None:
        """Make this a run of ``step`` steps, all of which are done. Asked for more steps, it goes on another time."""
        self.checkpoint()
        self.run = self.run.model_copy(update={"steps": step})
        self.recipe = Recipe(self.run)

    # The three parts of a step

    def rounds(self, step: int) -> Iterator[int]:
        """The rounds that a step is sampled in; each must be verified before the next one is asked for."""
        return self._rounds.iterate(step)

    def generate(self, step: int, round: int = 0) -> tuple[ArtifactRef, bool]:
        """Rollouts of a round, journalled chunk by chunk; whether all of them were there."""
        from agpo.rollout import Sampling

        live, cost, found = self._at(step), Cost(), True
        if not round:
            self._costs, live.engine.metrics = {}, {}
            if step:
                self._stop_if_hopeless(live, self.journal.read_update(step - 1))
        rollout = self.run.rollout
        sampling = Sampling(
            rollout.tokens, rollout.temperature, self.run.seed, rollout.top_p, rollout.top_k, rollout.min_p
        )
        chosen = self._rounds.select(step, round)
        prompts: dict[str, list[int]] = {}
        frames = []
        with heartbeat(f"rollout of step {step}", chosen.height * rollout.samples, "answers") as advance:
            for chunk in cut_chunks(chosen["id"].to_list(), rollout.samples, rollout.chunk):
                rollouts = self.journal.read_chunk(step, chunk.index, round)
                if rollouts is None:
                    found = False
                    prompts = prompts or self._prompts(chosen)
                    rollouts = live.engine.generate(
                        chunk, prompts, sampling, step=step, policy=live.policy, progress=advance
                    )
                    self.journal.write_chunk(step, chunk.index, rollouts, round)
                elif rollouts["policy"][0] != live.policy and rollout.engine.kind != "saved":
                    other = rollouts["policy"][0][:12]
                    raise self._broken(step, f"chunk {chunk.index} was sampled from policy {other}…")
                frames.append(rollouts)
        self._rounds.put_rollouts(step, round, pl.concat(frames))
        self._add_cost("rollout", cost)
        return self._reference("rollouts", step, round), found

    def verify(self, step: int, round: int = 0) -> tuple[ArtifactRef, bool]:
        """Verdicts of a round's rollouts; whether they were journalled already."""
        from agpo.verify.review import read_annotations
        from agpo.verify.rollouts import verify_rollouts

        live, cost = self._at(step), Cost()
        rollouts, problems = self._rounds.read_rollouts(step, round), self._rounds.select(step, round)
        verdicts = self.journal.read_round(step, round)
        found = verdicts is not None
        if verdicts is None:
            annotations = read_annotations(self.run.verify.annotations)
            verdicts = verify_rollouts(rollouts, problems, live.tokenizer, live.pool, annotations=annotations)
            self.journal.write_verdicts(step, verdicts, round)
        self._rounds.put_verdicts(step, round, verdicts)
        known = pl.concat([self._rounds.read_verdicts(step, number) for number in range(round + 1)])
        left = known.filter(pl.col("verdict") == "unverifiable")
        share = len(left) / len(known)
        if share > self.run.verify.largest_unverifiable_share:
            reasons = left["reason"].value_counts(sort=True)
            raise RunStopped(
                f"step {step}: {share:.0%} of the rollouts are unverifiable, more than "
                f"verify.largest_unverifiable_share = {self.run.verify.largest_unverifiable_share:.0%} "
                f"(most often: {reasons['reason'][0]}); see {self.journal.files.uri}/{verdicts_name(step, round)} "
                "and remove it to verify them again"
            )
        self._add_cost("verify", cost)
        return self._reference("verdicts", step, round), found

    def update(self, step: int) -> tuple[ArtifactRef, bool]:
        """Train on the step's rollouts and verdicts and journal the outcome; whether it was a replay."""
        from agpo.learner.batch import make_batch
        from agpo.learner.diagnostics import describe_step
        from agpo.verify.rollouts import audit_rollouts

        live, cost = self._at(step), Cost()
        rollouts, verdicts = self._rounds.read_all(step)
        computed_from = digest_step(rollouts, verdicts)
        recorded = self.journal.read_update(step)
        if recorded is not None and recorded.policy != chain_policy(live.policy, computed_from, recorded.refused):
            raise self._broken(step, f"its update made policy {recorded.policy[:12]}… from other rollouts or verdicts")
        make = partial(
            make_batch,
            verdicts=verdicts,
            objective=self.run.objective,
            mask_truncated=self.run.loss.mask_truncated,
            step=step,
            comparable=not self.run.rollout.truncates,
        )
        batch = make(self._rounds.keep_teaching(step, rollouts))
        live.engine.rest()
        live.dirty, live.updated = True, False
        if recorded is None:
            outcome = live.learner.update(batch, step)
            live.updated = True
            self._add_cost("update", cost)
            sampled = make(rollouts) if self.run.rollout.refills else batch  # refills leave out what says most
            metrics = {**describe_step(rollouts, verdicts, sampled), **outcome.metrics, **self._describe_costs()}
            metrics |= live.engine.metrics
            if outcome.refused is None and outcome.skipped is None:
                metrics |= self._describe_speed(live, batch)
            if self.run.rollout.refills:
                metrics["rollout/rounds"] = len(list(self._rounds.iterate(step)))
            metrics["policy/refused"] = float(outcome.refused is not None)
            metrics["verify/seconds"] = float(verdicts["seconds"].sum())
            sample, seed = self.run.verify.audit, self.run.seed
            audit = audit_rollouts(rollouts, verdicts, self._rounds.problems(step), live.tokenizer, sample, seed)
            if audit is not None:
                self.journal.write_disagreements(step, audit.disagreements)
                metrics |= audit.metrics()
            update = self.journal.write_update(
                step, live.policy, outcome.refused, metrics, computed_from, outcome.skipped
            )
        else:
            update = recorded
            if update.refused is None and live.learner.update(batch, step, guarded=False).refused is not None:
                raise RunStopped(f"step {step} was applied when it was journalled and is refused in replay")
        live.go_on(update)
        self._stop_if_hopeless(live, update)
        if (step + 1) % self.run.checkpoint_every == 0 or step + 1 == self.run.steps:
            self.checkpoint()
        return self.policy_after(step + 1, update.policy), recorded is not None

    def checkpoint(self) -> None:
        """Keep weights and optimiser of the live policy, unless they are kept already."""
        live = self._live
        if live is not None and live.dirty and live.updated:
            journalled = self.journal.read_update(live.step)
            if journalled is not None:  # the interrupt fell between the journal and this memory
                live.go_on(journalled)
        if live is not None and not live.dirty:
            self._keep(live)

    def publish(self, producer: dict[str, str] | None = None) -> Result:
        """The policy after ``run.steps`` steps as an artifact: a Hugging Face folder."""
        found = self.find_published()
        if found is not None:
            return Result(found, True, self.store.manifest(found).summary)
        if self.run.steps:
            self._stop_if_hopeless(self._at(self.run.steps), self.journal.read_update(self.run.steps - 1))
        return self._publish_checkpoint(producer or {})

    # Restoring

    def _at(self, step: int) -> Live:
        """The live state before ``step``, rebuilt when it is dirty or elsewhere."""
        live = self._live
        if live is None or live.dirty or live.step != step:
            if live is not None:
                live.close()
                self._live = None
            live = self._live = self._restore(self._newest_checkpoint(step))
            while live.step < step:
                self.update(live.step)
        return live

    def _stop_if_hopeless(self, live: Live, last: Update | None) -> None:
        """End a run whose newest updates were refused, or that lost what it could; also when it is started again."""
        lost = live.learner.guard.check_run()
        if lost is not None:
            raise RunStopped(f"the run stops after {live.step} steps: {lost}")
        most = self.run.learner.refusals
        reasons: list[str] = []
        while last is not None and last.refused is not None and len(reasons) < most:
            reasons.append(f"step {last.step}: {last.refused}")
            last = self.journal.read_update(last.step - 1) if last.step else None
        if len(reasons) == most:
            raise RunStopped(
                f"{most} updates in a row were refused (learner.refusals):\n  " + "\n  ".join(reversed(reasons))
            )

    # Data of a step

    @cached_property
    def _rounds(self) -> Rounds:
        return Rounds(self.run, self.journal, self.store.fetch(self.problems) / "problems.parquet")

    def _prompts(self, problems: pl.DataFrame) -> dict[str, list[int]]:
        from agpo.problems import encode_prompts

        assert self._live is not None
        encoded = encode_prompts(self._live.tokenizer, problems["prompt"].to_list(), self.run.rollout.chat_template)
        return dict(zip(problems["id"], encoded, strict=True))

    def _add_cost(self, part: str, cost: Cost) -> None:
        """Of a part of the step; a step with refills has several of the same kind."""
        before = self._costs.get(part, {})
        self._costs[part] = {name: value + before.get(name, 0.0) for name, value in cost.measure().items()}

    def _describe_costs(self) -> dict[str, float]:
        seconds = {f"time/{part}": cost["seconds"] for part, cost in self._costs.items()}
        return {**seconds, CPU: sum(cost["cpu_seconds"] for cost in self._costs.values())}

    def _describe_speed(self, live: Live, batch: Batch) -> dict[str, float]:
        from agpo.learner.throughput import describe_throughput

        settings, seconds = self.run.learner, self._costs["update"]["seconds"]
        teaching = live.learner.count_teaching(batch)
        return describe_throughput(live.model, batch, teaching, settings.epochs, settings.precision, seconds)

    def _reference(self, kind: Literal["rollouts", "verdicts"], step: int, round: int) -> ArtifactRef:
        assert self._live is not None
        if kind == "rollouts":
            frame, columns = self._rounds.read_rollouts(step, round), ["id", "response_ids"]
        else:
            frame, columns = self._rounds.read_verdicts(step, round), ["id", "verdict"]
        return ArtifactRef(
            uri=f"{self.journal.files.uri}/steps/{step:08d}",
            key=digest([self._live.policy, step, round, kind]),
            sha256=digest([frame[column].to_list() for column in columns]),
            kind=kind,
            rows=len(frame),
            bytes=int(frame.estimated_size()),
        )
