"""What a training run holds in memory between its tasks: model, learner, engine and verifiers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agpo.journal import Update
from agpo.settings import TrainRun

OPTIMIZER = "optimizer.safetensors"  # of a checkpoint's folder


@dataclass
class Live:
    """``step``: how many steps the policy has taken."""

    model: Any
    tokenizer: Any
    learner: Any
    engine: Any
    pool: Any
    step: int
    policy: str
    dirty: bool = False  # the policy is not what the journal says
    updated: bool = False  # the learner has finished the step that made it so

    def go_on(self, update: Update) -> None:
        """The journal now says of ``update`` what this memory has done."""
        self.step, self.policy, self.dirty = update.step + 1, update.policy, False
        self.learner.guard.note(update.refused, update.metrics)

    def close(self) -> None:
        self.pool.close()
        self.engine.close()


def load_live(
    run: TrainRun,
    device: str,
    folder: Path,
    base: Path,
    *,
    step: int,
    policy: str,
    remembered: Iterable[Update],
    key: str,
    log: Path,
) -> Live:
    """The policy in a folder (the base or a checkpoint) with everything that trains it.

    ``remembered``: the updates that the guards have to know of. ``key`` of the run; ``log`` of an engine's process.
    """
    from agpo.learner.optimizer import load_optimizer
    from agpo.learner.policy import load_policy, stop_ids
    from agpo.learner.update import Learner
    from agpo.rollout.live_engine import LiveEngine
    from agpo.verify import VerifierPool

    reference = None
    if run.loss.kl > 0:
        reference, _ = load_policy(base, device)
        reference.requires_grad_(False)
    model, tokenizer = load_policy(folder, device)
    learner = Learner(model, reference, run.loss, run.learner, run.rollout.temperature, run.seed)
    if step:
        load_optimizer(model, learner.optimizer, folder / OPTIMIZER)
    for update in remembered:
        learner.guard.note(update.refused, update.metrics)
    engine = LiveEngine(run.rollout.engine, model, tokenizer, stop_ids(model, tokenizer), run=key, log=log)
    pool = VerifierPool(run.verify.workers, run.verify.timeout, run.verify.memory)
    return Live(model, tokenizer, learner, engine, pool, step, policy)


def save_live(live: Live, folder: Path) -> None:
    """Weights, tokenizer and optimiser as a checkpoint's folder."""
    from agpo.learner.optimizer import save_optimizer
    from agpo.learner.policy import save_policy

    save_policy(live.model, live.tokenizer, folder)
    save_optimizer(live.model, live.learner.optimizer, folder / OPTIMIZER)
